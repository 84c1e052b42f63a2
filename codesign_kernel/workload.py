"""The layers of networks: loop bounds, multiply-accumulates (MACs) and tensor sizes.

Many networks at once: each field of `Layers` is an integer array whose last axis runs over layers
and whose other axes run over networks. All figures follow from the loop bounds: exact, no source.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from .space import Genomes, SearchSpace


@dataclass(frozen=True)
class Layers:
    """Loop bounds of convolutions, arrays of one shape (..., layers); absent layers have 0 filters.

    `height` and `width` are of the output, `in_height` and `in_width` of the input. `kernel` and
    `stride` count rows; a kernel is as wide as high unless `kernel_width` says otherwise.
    `residual` is 1 where the layer's own input is added to its output. The classifier is a 1 x 1
    convolution of a 1 x 1 map, behind global average pooling: a layer of one pixel after a larger
    map is taken for one, unless `pools` is 0 there. `irregular` is 1 where taps lie apart, or a map
    is padded by other than K // 2 before its first row and column, whatever its sizes.

    A convolution of G groups is G separate ones of the same bounds, each of its own filters and
    channels: the bounds are those of one, and `repeat` is G. The properties are of all of them.
    """

    names: tuple[str, ...]
    filters: np.ndarray
    channels: np.ndarray
    in_height: np.ndarray
    in_width: np.ndarray
    height: np.ndarray
    width: np.ndarray
    kernel: np.ndarray
    stride: np.ndarray
    residual: np.ndarray
    kernel_width: np.ndarray | None = None
    pools: np.ndarray | None = None
    irregular: np.ndarray | None = None
    repeat: np.ndarray | int = 1

    def __getitem__(self, index: np.ndarray | slice | None) -> "Layers":
        """Return some of the networks, or with None the one network as a row."""
        sides = {field.name: getattr(self, field.name) for field in fields(self)[1:]}
        return replace(self, **{k: v[index] for k, v in sides.items() if np.ndim(v)})

    @property
    def once(self) -> "Layers":
        """One convolution of each group, in place of all."""
        return replace(self, repeat=1)

    @property
    def taps(self) -> np.ndarray:
        """Places of the kernel, (..., layers)."""
        wide = self.kernel if self.kernel_width is None else self.kernel_width
        return np.asarray(self.kernel * wide)

    @property
    def macs(self) -> np.ndarray:
        """Multiply-accumulates, (..., layers)."""
        return np.asarray(self.weights * self.height * self.width)

    @property
    def weights(self) -> np.ndarray:
        """Convolution weights, (..., layers): bytes at 8 bits each."""
        return np.asarray(self.filters * self.channels * self.taps * self.repeat)

    @property
    def inputs(self) -> np.ndarray:
        """Elements of the input feature map, (..., layers): bytes at 8 bits each."""
        return np.asarray(self.channels * self.in_height * self.in_width * self.repeat)

    @property
    def outputs(self) -> np.ndarray:
        """Elements of the output feature map, (..., layers): bytes at 8 bits each."""
        return np.asarray(self.filters * self.height * self.width * self.repeat)

    @property
    def parameters(self) -> np.ndarray:
        """Weights and one bias a filter (batch normalisation folded in), (..., layers)."""
        return np.asarray(self.weights + self.filters * self.repeat)


def layers_of(space: SearchSpace, genomes: Genomes) -> Layers:
    """Return the layers of `n` networks, fields (n, layers): stem, all blocks, classifier.

    Blocks that a network lacks are there with 0 filters and channels. Maps are padded by K // 2,
    so that an output side is the input side over the stride, rounded up, whatever the kernel.
    """
    one = np.ones(len(genomes), dtype=np.int64)
    height, width, channels = space.input
    in_channels = channels * one
    names: list[str] = []
    rows: list[tuple[np.ndarray, ...]] = []  # a layer's fields, (n,) each, in the order of Layers

    def add(name: str, filters: np.ndarray, kernel: np.ndarray, stride: int, residual: int) -> None:
        nonlocal height, width
        there = filters > 0
        sides = (height, width, -(-height // stride), -(-width // stride))
        numbers = (*(side * one for side in sides), kernel, stride * one, residual * there)
        rows.append((filters, in_channels * there, *numbers))
        names.append(name)
        height, width = sides[2:]

    add("stem", space.stem_width * one, space.stem_kernel * one, space.stem_stride, 0)
    in_channels = space.stem_width * one
    for s, (stage, genes) in enumerate(zip(space.stages, space.slices, strict=True), start=1):
        part = genomes[:, genes]
        filters, present = np.array(stage.widths)[part[:, 0]], stage.present(part)
        kernels = np.array(stage.kernels)[part[:, 2:]]
        for block in range(stage.blocks):
            stride = stage.stride if block == 0 else 1
            there = filters * present[:, block]
            add(f"s{s}b{block + 1}", there, kernels[:, block], stride, int(block > 0))
            in_channels = filters
    height = width = 1
    add("classifier", space.classes * one, one, 1, 0)
    return Layers(tuple(names), *(np.stack(row, axis=1) for row in zip(*rows, strict=True)))


def totals(space: SearchSpace, genomes: Genomes) -> tuple[np.ndarray, np.ndarray]:
    """Return the MACs and the parameters of each network, (n,) int64 each."""
    layers = layers_of(space, genomes)
    return layers.macs.sum(axis=1), layers.parameters.sum(axis=1)
