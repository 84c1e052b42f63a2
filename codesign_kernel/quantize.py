"""Post-training quantisation of a subnet to int8, as the accelerator computes it.

Weights have a scale for each filter, feature maps one for all channels. BN is folded into the
weights. The arithmetic itself is in `integer.py`; this module only chooses the numbers.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .datasets import Split
from .integer import IntegerLayer, IntegerNetwork
from .rtl.shape import FRACTION, MULTIPLIER_BITS, SHIFT_BITS
from .supernet import Block, Subnet
from .train import chunks

CLIPS = np.linspace(0.3, 1.0, 15)  # of the largest value seen, where a feature map may be cut off
SEEN = 1 << 16  # values of a feature map that its scale is chosen on
HALVES = 7  # at most: the engine halves a residual so often


@dataclass(frozen=True)
class Quantized:
    """An int8 network, and how images become its input: (image - `mean`) / `std` / `scale`. A step
    of its logits is `logit_scale` of the float network's."""

    network: IntegerNetwork
    mean: np.ndarray
    std: np.ndarray
    scale: float
    logit_scale: float

    def input(self, images: Tensor | np.ndarray) -> np.ndarray:
        """Return images (N, C, H, W) float32 in [0, 1] as the network's input, int8."""
        normal = (np.asarray(images) - self.mean) / self.std
        return np.asarray(np.clip(np.rint(normal / self.scale), -127, 127), np.int8)

    def logits(self, images: Tensor | np.ndarray) -> np.ndarray:
        """Return the int8 logits of images, (N, classes)."""
        return self.network(self.input(images)).reshape(len(images), -1)


def accuracy(quantized: Quantized, split: Split) -> float:
    """Return the top-1 accuracy in % of the int8 network over all images of the split."""
    right = 0
    parts: Iterable[tuple[Tensor, Tensor]] = chunks(split)
    for images, labels in tqdm(parts, desc="int8", unit="part", leave=False):
        answers = quantized.logits(images).argmax(axis=1)
        right += int((answers == labels.numpy()).sum())
    return 100.0 * right / len(split)


def folded(block: Block) -> tuple[np.ndarray, np.ndarray]:
    """Return weight (F, C, K, K) and bias (F,), float64, of a block with its BN folded in (Jacob et
    al., CVPR 2018, section 3.2)."""
    norm = block.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = block.convolution.weight.detach().double() * factor[:, None, None, None]
    bias = norm.bias.detach().double() - norm.running_mean.double() * factor
    return weight.numpy(), bias.numpy()


@torch.no_grad()
def quantize(subnet: Subnet, calibration: Tensor) -> Quantized:
    """Return the int8 network of a subnet whose BN statistics are set.

    `calibration`: training images (N, C, H, W) in [0, 1]; the scale of each feature map is the one
    that disturbs them least in the mean square.
    """
    torch.set_num_threads(1)
    mean, std = subnet.mean.numpy(), subnet.std.numpy()
    # Pixels are in [0, 1], so the range of the input is known.
    scale_in = scale = float((np.maximum(abs(mean), abs(1 - mean)) / std).max()) / 127
    x = (calibration - subnet.mean) / subnet.std
    layers = []
    for block in subnet.layers():
        x = block(x)
        weight, bias = folded(block)
        wanted = max(best_scale(x.numpy()), least_scale(weight, scale))
        halve = 0
        if block.residual:  # the residual is only shifted, so the scales differ by a power of two
            halve = int(np.clip(np.rint(np.log2(wanted / scale)), 0, HALVES))
            while scale * 2**halve < least_scale(weight, scale):
                halve += 1
            wanted = scale * 2**halve
        stride = block.convolution.stride[0]
        layers.append(integer_layer(weight, bias, scale, wanted, stride=stride,
                                    residual=block.residual, halve=halve))  # fmt: skip
        scale = wanted
    logits = subnet.classifier(x.mean(dim=(2, 3))).numpy()
    pixels = x.shape[2] * x.shape[3]
    weight = subnet.classifier.weight.detach().double().numpy()[:, :, None, None] / pixels
    bias = subnet.classifier.bias.detach().double().numpy()
    wanted = max(float(abs(logits).max()) / 127, least_scale(weight, scale))
    layers.append(integer_layer(weight, bias, scale, wanted, relu=False, pooled=True))
    height, width, channels = subnet.space.input
    return Quantized(IntegerNetwork(layers, (channels, height, width)), mean, std, scale_in, wanted)


def best_scale(values: np.ndarray) -> float:
    """Return the scale at which int8 disturbs values of 0 and more least, in the mean square."""
    values = values.ravel()[:: max(1, values.size // SEEN)]
    top = float(values.max())
    if top <= 0:
        return 1.0
    scales = top * CLIPS / 127
    seen = [scale * np.minimum(np.rint(values / scale), 127) for scale in scales]
    return float(scales[np.argmin([np.square(each - values).mean() for each in seen])])


def weight_scales(weight: np.ndarray) -> np.ndarray:
    """Return a scale for each filter, (F,): its largest weight becomes 127."""
    return np.asarray(abs(weight).max(axis=(1, 2, 3)) / 127)


def least_scale(weight: np.ndarray, scale: float) -> float:
    """Return the least scale of the output that the multiplier allows, given the input's: its
    factor must stay below 2 ** (MULTIPLIER_BITS - FRACTION)."""
    limit = ((1 << MULTIPLIER_BITS) - 1) / 2**FRACTION
    return float(weight_scales(weight).max() * scale / limit)


def integer_layer(
    weight: np.ndarray, bias: np.ndarray, scale_in: float, scale_out: float, **settings: object
) -> IntegerLayer:
    """Return the int8 layer of a float one, given the scales of its input and its output map.

    A filter's factor, input scale x weight scale / output scale, is multiplier / 2 ** (FRACTION +
    shift), with the largest shift that the multiplier's bits allow.
    """
    scales = np.maximum(weight_scales(weight), scale_out / scale_in * 2.0**-20)
    factor = scales * scale_in / scale_out
    top = np.log2(((1 << MULTIPLIER_BITS) - 1) / 2**FRACTION)
    shift = np.clip(np.floor(top - np.log2(factor)), 0, (1 << SHIFT_BITS) - 1).astype(np.int64)
    bits = np.rint(bias / (scale_in * scales))
    return IntegerLayer(
        np.rint(weight / scales[:, None, None, None]).astype(np.int8),
        np.clip(bits, -(1 << 31), (1 << 31) - 1).astype(np.int64),
        np.rint(factor * 2.0 ** (FRACTION + shift)).astype(np.int64),
        shift,
        **settings,  # type: ignore[arg-type]
    )
