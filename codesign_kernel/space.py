"""Architecture spaces: regular residual convolutions that keep the accelerator's lanes full.

A network is a fixed stem, then stages of blocks, then global average pooling and a classifier.
A block is one K x K convolution, batch normalisation and ReLU; from a stage's second block on, the
block's input is added before the ReLU. Per stage the space leaves open its width (filters of all
its convolutions), its depth (number of blocks) and each block's kernel size; at least one kernel
of a stage is 3 or larger. There are no depthwise convolutions and all widths are multiples of 8,
so that no lane of the engine idles (Fan et al., ASP-DAC 2022, section 3).

Many architectures at once are rows of an integer array, their genomes: for each stage an index
into its widths, one into its depths, then one into its kernels for each possible block. Genes of
absent blocks are 0, so that equal architectures have equal genomes.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from itertools import accumulate, pairwise, product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError, choice, integer, name, shown, table, text
from .files import read_toml

Genomes = np.ndarray  # (n, genes) int64
KERNELS, STRIDES = (1, 3, 5, 7), (1, 2)
MAX_SIZE = (
    1 << 12
)  # no width or side of a map beyond this: the MACs of 16 x 16 layers stay in int64
_STAGE_TEXT = re.compile(r"w(0|[1-9][0-9]{0,3})k([0-9]{1,16})")


@dataclass(frozen=True)
class Stage:
    """What one stage may be: its `widths` (filters), `depths` (blocks), `kernels`; its stride."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    stride: int

    @property
    def blocks(self) -> int:
        """The largest number of blocks."""
        return self.depths[-1]

    @property
    def size(self) -> int:
        """How many different stages these choices allow."""
        small = sum(kernel < 3 for kernel in self.kernels)
        rows: int = sum(len(self.kernels) ** depth - small**depth for depth in self.depths)
        return len(self.widths) * rows

    def present(self, genes: np.ndarray) -> np.ndarray:
        """Which blocks are there, boolean (n, blocks); `genes` are the stage's, (n, 2 + blocks)."""
        return np.asarray(np.arange(self.blocks) < np.array(self.depths)[genes[:, 1], None])


@dataclass(frozen=True)
class Architecture:
    """One point of a space: for each stage its width and the kernel size of each of its blocks.

    The text form of a stage of width 16 with a 3 x 3 and a 5 x 5 block is `w16k35`; stages are
    joined by `-`. Raises InputError if the two do not have one entry a stage each.
    """

    widths: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.kernels):
            raise InputError(
                f"architecture has widths of {len(self.widths)} and kernels of "
                f"{len(self.kernels)} stages, but must have both of each stage."
            )

    def __str__(self) -> str:
        stages = zip(self.widths, self.kernels, strict=True)
        return "-".join(f"w{width}k{''.join(map(str, kernels))}" for width, kernels in stages)

    @classmethod
    def parse(cls, text: str) -> "Architecture":
        """Read the text form. Raises InputError if `text` is not of that form."""
        matches = [_STAGE_TEXT.fullmatch(part) for part in text.split("-")]
        if None in matches:
            raise InputError(
                f"architecture is {shown(text)}, but must look like w16k35-w32k3: for each stage "
                "its width and the kernel size of each block."
            )
        stages = [match.groups() for match in matches if match]
        return cls(
            tuple(int(width) for width, _ in stages),
            tuple(tuple(int(digit) for digit in kernels) for _, kernels in stages),
        )


@dataclass(frozen=True)
class SearchSpace:
    """An architecture space. `input` is (height, width, channels) of an image."""

    name: str
    dataset: str
    input: tuple[int, int, int]
    classes: int
    stem_width: int
    stem_kernel: int
    stem_stride: int
    stages: tuple[Stage, ...]

    @property
    def size(self) -> int:
        """How many architectures the space holds."""
        return prod(stage.size for stage in self.stages)

    @cached_property
    def radix(self) -> np.ndarray:
        """Number of values of each gene, (genes,) int64."""
        rows = [[len(s.widths), len(s.depths), *[len(s.kernels)] * s.blocks] for s in self.stages]
        return np.concatenate(rows)

    @cached_property
    def slices(self) -> list[slice]:
        """The genes of each stage."""
        ends = accumulate((2 + stage.blocks for stage in self.stages), initial=0)
        return [slice(*pair) for pair in pairwise(ends)]

    def sample(self, n: int, rng: np.random.Generator) -> Genomes:
        """Draw `n` genomes; widths, depths and kernels are uniform but for the k >= 3 rule."""
        return self.repair(rng.integers(0, self.radix, size=(n, len(self.radix))), rng)

    def mutate(self, genomes: Genomes, rng: np.random.Generator, rate: float) -> Genomes:
        """Redraw each gene with probability `rate`."""
        drawn = rng.integers(0, self.radix, size=genomes.shape)
        return self.repair(np.where(rng.random(genomes.shape) < rate, drawn, genomes), rng)

    def cross(self, one: Genomes, two: Genomes, rng: np.random.Generator) -> Genomes:
        """Take each gene from either parent, row by row, with even chances."""
        return self.repair(np.where(rng.random(one.shape) < 0.5, one, two), rng)

    def repair(self, genomes: Genomes, rng: np.random.Generator) -> Genomes:
        """Return the genomes with absent blocks zeroed and a k >= 3 block in each stage."""
        genomes = genomes.copy()
        for stage, genes in zip(self.stages, self.slices, strict=True):
            part = genomes[:, genes]  # a view
            sizes, present = np.array(stage.kernels), stage.present(part)
            part[:, 2:] *= present  # where the smallest kernel is 3, no block can be too small
            small = (sizes[part[:, 2:]] < 3).all(axis=1)
            block = (rng.random(len(part)) * present.sum(axis=1)).astype(np.int64)
            fitting = rng.choice(np.flatnonzero(sizes >= 3), size=int(small.sum()))
            part[small, 2 + block[small]] = fitting
        return genomes

    def enumerate(self, limit: int = 1_000_000) -> Genomes:
        """Return all genomes, in order. Raises InputError if there are more than `limit`."""
        if self.size > limit:
            raise InputError(
                f"space {self.name} holds {self.size:.3g} architectures, but at most {limit:g} "
                "can be enumerated."
            )
        parts = []
        for stage in self.stages:
            rows = []
            for width, (d, depth) in product(range(len(stage.widths)), enumerate(stage.depths)):
                for kernels in product(range(len(stage.kernels)), repeat=depth):
                    if any(stage.kernels[k] >= 3 for k in kernels):
                        rows.append([width, d, *kernels, *[0] * (stage.blocks - depth)])
            parts.append(np.array(rows))
        grids = np.meshgrid(*[np.arange(len(part)) for part in parts], indexing="ij")
        picked = [part[grid.ravel()] for part, grid in zip(parts, grids, strict=True)]
        return np.concatenate(picked, axis=1)

    def decode(self, genome: np.ndarray) -> Architecture:
        """Return the architecture of one genome, (genes,)."""
        widths, kernels = [], []
        for stage, genes in zip(self.stages, self.slices, strict=True):
            width, depth, *ks = (int(gene) for gene in genome[genes])
            widths.append(stage.widths[width])
            kernels.append(tuple(stage.kernels[k] for k in ks[: stage.depths[depth]]))
        return Architecture(tuple(widths), tuple(kernels))

    def genomes(self, texts: Iterable[str]) -> Genomes:
        """Return the genomes, (n, genes), of n architectures by their text. Raises InputError."""
        return np.stack([self.encode(Architecture.parse(text)) for text in texts])

    def encode(self, architecture: Architecture) -> np.ndarray:
        """Return the genome, (genes,). Raises InputError if the space does not hold it."""
        if len(architecture.widths) != len(self.stages):
            raise InputError(
                f"architecture {architecture} has {len(architecture.widths)} stages, but space "
                f"{self.name} has {len(self.stages)}."
            )
        genome: list[int] = []
        chosen = zip(self.stages, architecture.widths, architecture.kernels, strict=True)
        for i, (stage, width, kernels) in enumerate(chosen, start=1):
            where = f"of stage {i} of {architecture}"
            choice(f"width {where}", width, stage.widths)
            choice(f"depth {where}", len(kernels), stage.depths)
            for kernel in kernels:
                choice(f"kernel {where}", kernel, stage.kernels)
            if max(kernels) < 3:
                raise InputError(f"all kernels {where} are 1, but one must be 3 or larger.")
            genome += [stage.widths.index(width), stage.depths.index(len(kernels))]
            genome += [stage.kernels.index(kernel) for kernel in kernels]
            genome += [0] * (stage.blocks - len(kernels))
        return np.array(genome)

    def extremes(self) -> tuple[np.ndarray, np.ndarray]:
        """Genomes of the least and of the greatest widths, depths and kernels, (genes,) each.

        The least has in each stage one large kernel, in the first block. Where widths rise from
        stage to stage these are the architectures of the fewest and of the most MACs.
        """
        small, large = [], []
        for stage in self.stages:
            first = min(kernel for kernel in stage.kernels if kernel >= 3)
            small.append((stage.widths[0], (first, *stage.kernels[:1] * (stage.depths[0] - 1))))
            large.append((stage.widths[-1], (stage.kernels[-1],) * stage.blocks))
        least, most = (Architecture(*zip(*stages, strict=True)) for stages in (small, large))
        return self.encode(least), self.encode(most)

    def features(self, genomes: Genomes) -> tuple[np.ndarray, list[str]]:
        """Return numbers that describe each architecture, (n, f) float64, and the names of the f.

        Per stage its width, its depth and the kernel size of each block, 0 where it is absent.
        """
        columns, names = [], []
        for i, (stage, genes) in enumerate(zip(self.stages, self.slices, strict=True), start=1):
            part = genomes[:, genes]
            depth = np.array(stage.depths)[part[:, 1]]
            kernels = np.array(stage.kernels)[part[:, 2:]] * stage.present(part)
            columns += [np.array(stage.widths)[part[:, 0]], depth, *kernels.T]
            names += [f"s{i}_width", f"s{i}_depth"]
            names += [f"s{i}_k{block}" for block in range(1, stage.blocks + 1)]
        return np.stack(columns, axis=1).astype(np.float64), names


def presets() -> tuple[str, ...]:
    """Names of the spaces that come with the program."""
    files = resources.files(__package__).joinpath("spaces").iterdir()
    return tuple(sorted(file.name[:-5] for file in files if file.name.endswith(".toml")))


def load_space(which: str) -> SearchSpace:
    """Return a preset by name, or read the TOML file at that path. Raises InputError."""
    if which.endswith(".toml"):
        return space_of(read_toml(Path(which)), which)
    choice("space", which, (*presets(), "a path that ends in .toml"))
    file = resources.files(__package__).joinpath("spaces", f"{which}.toml")
    with resources.as_file(file) as path:
        return space_of(read_toml(path), which)


def space_of(data: object, where: str = "space") -> SearchSpace:
    """Build a space from plain data, the content of its TOML file. Raises InputError."""
    data = table(where, data, ("name", "dataset", "input", "classes", "stem", "stages"))
    stem = table(f"stem of {where}", data["stem"], ("width", "kernel", "stride"))
    shape, stages = data["input"], data["stages"]
    if not isinstance(shape, list) or len(shape) != 3:
        raise InputError(
            f"input of {where} is {shown(shape)}, but must be [height, width, channels]."
        )
    height, width, channels = (integer(f"input of {where}", n, 1, MAX_SIZE) for n in shape)
    if not isinstance(stages, list) or not 1 <= len(stages) <= 16:
        raise InputError(
            f"stages of {where} is {shown(stages)}, but must be 1 to 16 tables [[stages]]."
        )
    return SearchSpace(
        name=name(f"name of {where}", data["name"]),
        dataset=text(f"dataset of {where}", data["dataset"]),
        input=(height, width, channels),
        classes=integer(f"classes of {where}", data["classes"], 2, 1 << 16),
        stem_width=_width(f"stem width of {where}", stem["width"]),
        stem_kernel=choice(f"stem kernel of {where}", stem["kernel"], KERNELS),
        stem_stride=choice(f"stem stride of {where}", stem["stride"], STRIDES),
        stages=tuple(_stage(f"stage {i} of {where}", stage) for i, stage in enumerate(stages, 1)),
    )


def to_table(space: SearchSpace) -> dict[str, Any]:
    """Return the space as plain data; `space_of` reads it back."""
    stages = [
        {"widths": [*s.widths], "depths": [*s.depths], "kernels": [*s.kernels], "stride": s.stride}
        for s in space.stages
    ]
    return {
        "name": space.name,
        "dataset": space.dataset,
        "input": [*space.input],
        "classes": space.classes,
        "stem": {key: getattr(space, f"stem_{key}") for key in ("width", "kernel", "stride")},
        "stages": stages,
    }


def _stage(where: str, data: object) -> Stage:
    data = table(where, data, ("widths", "depths", "kernels", "stride"))
    kernels = _rising(f"kernels of {where}", data["kernels"], lambda f, k: choice(f, k, KERNELS))
    if kernels == (1,):
        raise InputError(f"kernels of {where} is [1], but one must be 3 or larger.")
    return Stage(
        widths=_rising(f"widths of {where}", data["widths"], _width),
        depths=_rising(f"depths of {where}", data["depths"], lambda f, d: integer(f, d, 1, 16)),
        kernels=kernels,
        stride=choice(f"stride of {where}", data["stride"], STRIDES),
    )


def _width(field: str, value: object) -> int:
    width = integer(field, value, 8, MAX_SIZE)
    if width % 8:
        raise InputError(f"{field} is {width}, but must be a multiple of 8.")
    return width


def _rising(field: str, value: object, check: Callable[[str, object], int]) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{field} is {shown(value)}, but must be a list of whole numbers.")
    numbers = tuple(check(field, each) for each in value)
    if list(numbers) != sorted(set(numbers)):
        raise InputError(f"{field} is {shown(value)}, but must rise from number to number.")
    return numbers
