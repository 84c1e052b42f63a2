"""The weight-sharing supernet, and the plain network of one subnet taken out of it.

Each convolution keeps one weight of its largest width and kernel; a narrower subnet uses the first
filters and channels, a smaller kernel the centre (Cai et al., Once-for-All, ICLR 2020, section 3).
Shapes: images are (N, C, H, W) float32 in [0, 1], normalised inside; logits are (N, classes).
"""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .space import Architecture, SearchSpace


class Unit(nn.Module):
    """A convolution that can be cut to fewer filters, channels and a smaller kernel, then BN, ReLU.

    Each kernel size has its own BN scale and shift: what a 1 x 1 and a 5 x 5 sum up differ too much
    in size to share them. BN normalises by the batch at hand.
    """

    def __init__(self, filters: int, channels: int, kernels: Sequence[int], stride: int) -> None:
        super().__init__()
        largest = max(kernels)
        self.stride = stride
        self.kernels = tuple(kernels)
        self.weight = nn.Parameter(torch.empty(filters, channels, largest, largest))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.scale = nn.Parameter(torch.ones(len(kernels), filters))
        self.shift = nn.Parameter(torch.zeros(len(kernels), filters))

    def cut(self, filters: int, channels: int, kernel: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return weight (filters, channels, kernel, kernel), BN scale and shift (filters,)."""
        edge = (self.weight.shape[-1] - kernel) // 2
        inner = slice(edge, edge + kernel)
        row = self.kernels.index(kernel)
        weight = self.weight[:filters, :channels, inner, inner]
        return weight, self.scale[row, :filters], self.shift[row, :filters]

    def forward(self, x: Tensor, filters: int, kernel: int, residual: bool) -> Tensor:
        weight, scale, shift = self.cut(filters, x.shape[1], kernel)
        y = F.conv2d(x, weight, stride=self.stride, padding=kernel // 2)
        y = F.batch_norm(y, None, None, scale, shift, training=True)
        return F.relu(y + x if residual else y)


class Supernet(nn.Module):
    """All architectures of `space` in one set of weights.

    `mean` and `std` are of the training pixels, one number a channel, in units of [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, space: SearchSpace, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.space = space
        for name, values in (("mean", mean), ("std", std)):
            value = torch.tensor(values, dtype=torch.float32).reshape(1, space.input[2], 1, 1)
            self.register_buffer(name, value)
        units = [Unit(space.stem_width, space.input[2], [space.stem_kernel], space.stem_stride)]
        width = space.stem_width
        for stage in space.stages:
            for block in range(stage.blocks):
                stride = stage.stride if block == 0 else 1
                units.append(Unit(stage.widths[-1], width, stage.kernels, stride))
                width = stage.widths[-1]
        self.units = nn.ModuleList(units)
        self.classifier = nn.Linear(width, space.classes)

    def path(self, architecture: Architecture) -> list[tuple[Unit, int, int, bool]]:
        """Return the units that the architecture uses, with filters, kernel and residual of each.

        A shallow stage skips its last units.
        """
        units = [unit for unit in self.units if isinstance(unit, Unit)]
        steps = [(units[0], self.space.stem_width, self.space.stem_kernel, False)]
        first = 1
        for s, stage in enumerate(self.space.stages):
            for block, kernel in enumerate(architecture.kernels[s]):
                steps.append((units[first + block], architecture.widths[s], kernel, block > 0))
            first += stage.blocks
        return steps

    def forward(self, images: Tensor, architecture: Architecture) -> Tensor:
        x = (images - self.mean) / self.std
        for unit, filters, kernel, residual in self.path(architecture):
            x = unit(x, filters, kernel, residual)
        x = x.mean(dim=(2, 3))
        return F.linear(x, self.classifier.weight[:, : x.shape[1]], self.classifier.bias)


class Block(nn.Module):
    """A convolution, BN with statistics of its own, the block's input if residual, and ReLU."""

    def __init__(
        self, filters: int, channels: int, kernel: int, stride: int, residual: bool
    ) -> None:
        super().__init__()
        pad = kernel // 2
        self.convolution = nn.Conv2d(channels, filters, kernel, stride, padding=pad, bias=False)
        nn.init.kaiming_normal_(self.convolution.weight, mode="fan_out", nonlinearity="relu")
        self.norm = nn.BatchNorm2d(filters, momentum=None)  # None: the plain average of batches
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.convolution(x))
        return F.relu(y + x if self.residual else y)


class Plain(nn.Module):
    """A plain network: blocks one after another, the mean of each of `width` maps, a classifier.

    Its blocks are any modules from maps to maps, for images and classes as `space` has them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, space: SearchSpace, blocks: Sequence[nn.Module], width: int) -> None:
        super().__init__()
        self.space = space
        self.register_buffer("mean", torch.zeros(1, space.input[2], 1, 1))
        self.register_buffer("std", torch.ones(1, space.input[2], 1, 1))
        self.blocks = nn.ModuleList(blocks)
        self.classifier = nn.Linear(width, space.classes)

    def forward(self, images: Tensor) -> Tensor:
        x = (images - self.mean) / self.std
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits


class Subnet(Plain):
    """The plain network of one architecture, to be evaluated, trained alone or exported."""

    def __init__(self, space: SearchSpace, architecture: Architecture) -> None:
        space.encode(architecture)  # raises InputError if the space does not hold it
        width, channels = space.stem_width, space.input[2]
        blocks = [Block(width, channels, space.stem_kernel, space.stem_stride, False)]
        choices = zip(space.stages, architecture.widths, architecture.kernels, strict=True)
        for stage, filters, kernels in choices:
            for i, kernel in enumerate(kernels):
                blocks.append(Block(filters, width, kernel, 1 if i else stage.stride, i > 0))
                width = filters
        super().__init__(space, blocks, width)
        self.architecture = architecture

    def layers(self) -> list[Block]:
        """Return the blocks in order, the stem first."""
        return [block for block in self.blocks if isinstance(block, Block)]


Network = TypeVar("Network", bound=Plain)


@torch.no_grad()
def extract(supernet: Supernet, architecture: Architecture) -> Subnet:
    """Return the subnet with a copy of its share of the weights; BN statistics are not set yet."""
    subnet = Subnet(supernet.space, architecture)
    subnet.mean.copy_(supernet.mean)
    subnet.std.copy_(supernet.std)
    steps = supernet.path(architecture)
    for (unit, filters, kernel, _), block in zip(steps, subnet.layers(), strict=True):
        weight, scale, shift = unit.cut(filters, block.convolution.in_channels, kernel)
        block.convolution.weight.copy_(weight)
        block.norm.weight.copy_(scale)
        block.norm.bias.copy_(shift)
    classifier = subnet.classifier
    classifier.weight.copy_(supernet.classifier.weight[:, : classifier.in_features])
    classifier.bias.copy_(supernet.classifier.bias)
    return subnet


@torch.no_grad()
def recalibrate(network: Network, images: Tensor) -> Network:
    """Set the BN statistics to the plain averages over `images`, in even batches of up to 256.

    Shared weights see other statistics in each subnet; without this accuracy collapses (Yu and
    Huang, Universally Slimmable Networks, ICCV 2019, section 3.3).
    """
    place = network.mean.device
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
    network.train()
    for some in torch.tensor_split(images, -(-len(images) // 256)):
        network(some.to(place))
    return network.eval()
