"""Networks of int8 layers: the exact arithmetic that the accelerator performs, in NumPy.

A layer sums int8 products in 32 bits and makes int8 of the sum in one rounding; see `requantise`.
Feature maps are (N, C, H, W). This is the reference for the engine in `rtl/`, bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import InputError, choice
from .rtl.shape import FRACTION, MULTIPLIER_BITS, SHIFT_BITS
from .workload import Layers


@dataclass(frozen=True)
class IntegerLayer:
    """One convolution: `weight` int8 (F, C, K, K), `bias` int32 (F,), and for each filter the
    `multiplier` and `shift` that turn its sum into int8.

    `pooled`: the sum runs over all pixels of the map with the same 1 x 1 weights: global average
    pooling and a classifier in one. `residual`: the input pixel, halved `halve` times, is added.
    """

    weight: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    stride: int = 1
    relu: bool = True
    residual: bool = False
    halve: int = 0
    pooled: bool = False

    def __post_init__(self) -> None:
        filters, channels, kernel, wide = self.weight.shape
        if kernel != wide or kernel % 2 == 0 or kernel > 7:
            raise InputError(
                f"the kernel of a layer is {kernel} x {wide}, but must be 1 x 1, 3 x 3, 5 x 5 or "
                "7 x 7."
            )
        choice("stride of a layer", self.stride, (1, 2))
        if self.residual and (self.stride != 1 or filters != channels or self.pooled):
            raise InputError(
                f"a residual layer of stride {self.stride} has {channels} channels and {filters} "
                "filters, but must have stride 1 and as many of both."
            )
        if self.pooled and kernel != 1:
            raise InputError(f"the kernel of a pooled layer is {kernel}, but must be 1.")
        ranges = {
            "weight": (-128, 127),
            "bias": (-(1 << 31), (1 << 31) - 1),
            "multiplier": (0, (1 << MULTIPLIER_BITS) - 1),
            "shift": (0, (1 << SHIFT_BITS) - 1),
        }
        for name, (low, high) in ranges.items():
            values = getattr(self, name)
            if values.size and not (low <= values.min() and values.max() <= high):
                raise InputError(f"{name} of a layer must be from {low} to {high}.")

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the output map."""
        if self.pooled:
            return 1, 1
        return -(-height // self.stride), -(-width // self.stride)

    def sums(self, x: np.ndarray) -> np.ndarray:
        """Return the sums of products without the bias, (N, F, H', W') int64."""
        kernel, stride = self.weight.shape[-1], self.stride
        if self.pooled:
            x = x.sum(axis=(2, 3), keepdims=True, dtype=np.int64)
            kernel = stride = 1
        pad = kernel // 2
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
        windows = windows[:, :, ::stride, ::stride]
        # Sums of integers below 2 ** 53 are exact in float64, and BLAS is fast.
        found = np.einsum(
            "nchwij,fcij->nfhw",
            windows.astype(np.float64), self.weight.astype(np.float64), optimize=True,
        )  # fmt: skip
        return np.asarray(found, np.int64)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the output map of the int8 input map (N, C, H, W), int8 (N, F, H', W')."""
        wide = (slice(None), None, None)
        sums = self.sums(x) + self.bias[wide].astype(np.int64)
        extra = (x.astype(np.int64) << FRACTION) >> self.halve if self.residual else 0
        y = requantise(sums, self.multiplier[wide], self.shift[wide], extra)
        return np.maximum(y, 0).astype(np.int8) if self.relu else y.astype(np.int8)


def requantise(
    sums: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, extra: np.ndarray | int = 0
) -> np.ndarray:
    """Return sums scaled by multiplier / 2 ** (FRACTION - shift), plus extra / 2 ** FRACTION.

    The sum is shifted first and cut to 18 bits, so that one 18 x 18 multiplier does; the result is
    rounded to the nearest integer, halves up, and saturated to int8.
    """
    wrapped = ((sums + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
    short = np.clip(wrapped >> shift.astype(np.int64), -(1 << 17), (1 << 17) - 1)
    whole = short * multiplier.astype(np.int64) + extra + (1 << (FRACTION - 1)) >> FRACTION
    return np.asarray(np.clip(whole, -128, 127))


@dataclass(frozen=True)
class IntegerNetwork:
    """Layers one after another. `input` is (channels, height, width)."""

    layers: Sequence[IntegerLayer]
    input: tuple[int, int, int]

    def __post_init__(self) -> None:
        channels = self.input[0]
        for i, layer in enumerate(self.layers):
            if layer.weight.shape[1] != channels:
                raise InputError(
                    f"layer {i} reads {layer.weight.shape[1]} channels, but there are {channels}."
                )
            channels = layer.weight.shape[0]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the last layer's output for int8 images (N, C, H, W)."""
        for layer in self.layers:
            x = layer(x)
        return x


def of_layers(layers: Layers, seed: int = 0) -> IntegerNetwork:
    """Return a network of the layers of one network, fields (1, layers), with random weights.

    For cycle counts, which no weight or image changes. Raises InputError for layers that are no
    chain of square, ungrouped convolutions with a classifier at its end.
    """
    if np.any(np.asarray(layers.repeat) > 1) or layers.kernel_width is not None:
        raise InputError("the engine runs square, ungrouped convolutions only.")
    rng = np.random.default_rng(seed)
    names = ("filters", "channels", "kernel", "stride", "residual", "in_height", "in_width")
    rows = np.stack([getattr(layers, name)[0] for name in names], axis=1)
    rows = rows[rows[:, 0] > 0]
    made = []
    for i, row in enumerate(rows.tolist()):
        filters, channels, kernel, stride, residual, _, _ = row
        last = i == len(rows) - 1
        made.append(
            IntegerLayer(
                rng.integers(-127, 128, (filters, channels, kernel, kernel)).astype(np.int8),
                np.zeros(filters, np.int64), np.full(filters, 1 << 12), np.full(filters, 4),
                stride, relu=not last, residual=bool(residual), halve=1, pooled=last,
            )
        )  # fmt: skip
    return IntegerNetwork(made, (int(rows[0, 1]), int(rows[0, 5]), int(rows[0, 6])))
