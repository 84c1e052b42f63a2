"""Evolution: ask for designs to consider, tell how good they are, in the manner of NSGA-II.

Deb et al., IEEE TEC 2002, vectorised over whole populations: designs that break constraints rank by
how much they do, behind all that break none; those rank by front and then by crowding. Each child
architecture is asked for on several engines: what an architecture costs to predict is then paid
once, and which engine suits it is found sooner.
"""

from typing import NamedTuple

import numpy as np

from . import pareto
from .accelerator import Accelerators
from .space import Genomes, SearchSpace

POPULATION = 1000
CHILDREN = 1000  # architectures asked for at a time
CROSSED = 0.5  # of the children have two parents
PRESSURE = 3  # parents are drawn from the first u^3 of the population, u uniform in [0, 1]
MUTATED = 1.5  # genes of a child, in the mean


class Asked(NamedTuple):
    """Designs not considered before: `genomes` (a, genes), and `which` of them and which `engine`
    each of the `n` designs is, (n,)."""

    genomes: Genomes
    which: np.ndarray
    engine: np.ndarray

    def part(self, index: np.ndarray) -> "Asked":
        """Return some of the designs."""
        return Asked(self.genomes, self.which[index], self.engine[index])

    @property
    def rows(self) -> Genomes:
        """The genome of each design, (n, genes)."""
        return np.asarray(self.genomes[self.which])


class Evolution:
    """A population of designs, an architecture of the `space` and one of the `engines` each."""

    def __init__(
        self, space: SearchSpace, engines: Accelerators, seed: int | list[int] = 0,
        population: int = POPULATION, children: int = CHILDREN,
    ) -> None:  # fmt: skip
        self.space, self.size, self.children = space, population, children
        self._engines, self._near = len(engines), neighbours(engines)
        self._rng = np.random.default_rng(seed)
        self._seen = np.zeros(0, np.uint64)  # hashes of designs, sorted
        genes = len(space.radix)
        # Odd factors of a hash: in a search of a million designs, one is lost with 10^-7.
        self._hash = self._rng.integers(0, 2**63, genes + 1, dtype=np.uint64) * np.uint64(2) + 1
        self.genomes, self.engine = np.zeros((0, genes), np.int64), np.zeros(0, np.int64)
        self.points, self.broken = np.zeros((0, 3)), np.zeros(0)

    def ask(self) -> Asked:
        """Return what to consider next: at first the extremes and random architectures."""
        if len(self.genomes) == 0:
            drawn = self.space.sample(max(self.size - 2, 0), self._rng)
            genomes = np.concatenate([np.stack(self.space.extremes()), drawn])
            return self._new(genomes, self._rng.integers(0, self._engines, (len(genomes), 1)))
        # The population is in order: the best, and the ends of its front, are first.
        drawn = self._rng.random((3, self.children)) ** PRESSURE
        one, two, other = (len(self.genomes) * drawn).astype(np.int64)
        genomes, pair = self.genomes[one], self._rng.random(self.children) < CROSSED
        genomes[pair] = self.space.cross(genomes[pair], self.genomes[two[pair]], self._rng)
        genomes = self.space.mutate(genomes, self._rng, MUTATED / genomes.shape[1])
        near = self._near[self.engine[one], self._rng.integers(0, self._near.shape[1], len(one))]
        some = self._rng.integers(0, len(self.genomes), len(one))
        engines = np.column_stack([self.engine[one], near, self.engine[other], self.engine[some]])
        drawn = self._rng.integers(0, self._engines, engines.shape)
        mutated = self._rng.random(engines.shape) < 0.1
        return self._new(genomes, np.where(mutated, drawn, engines))

    def tell(self, asked: Asked, points: np.ndarray, broken: np.ndarray) -> None:
        """Take in the objectives of what was asked for, (n, 3), to be minimised, and by how much
        each design breaks the constraints, (n,); those that survive are the next parents."""
        genomes = np.concatenate([self.genomes, asked.rows])
        engine = np.concatenate([self.engine, asked.engine])
        points, broken = (np.concatenate(pair) for pair in
                          ((self.points, points), (self.broken, broken)))  # fmt: skip
        kept = survivors(points, broken, self.size)
        self.genomes, self.engine, self.points, self.broken = (
            side[kept] for side in (genomes, engine, points, broken)
        )

    def _new(self, genomes: Genomes, engines: np.ndarray) -> Asked:
        """Return the designs, engines (a, k) of genomes, that were not asked for yet, once each."""
        numbers = genomes.astype(np.uint64) @ self._hash[:-1]
        keys = (numbers[:, None] + engines.astype(np.uint64) * self._hash[-1]).ravel()
        keys, index = np.unique(keys, return_index=True)
        place = np.searchsorted(self._seen, keys)
        new = np.append(self._seen, keys[-1:])[place] != keys
        new |= place == len(self._seen)
        self._seen = np.insert(self._seen, place[new], keys[new])
        index = np.sort(index[new])
        return Asked(genomes, index // engines.shape[1], engines.ravel()[index])


def neighbours(engines: Accelerators) -> np.ndarray:
    """Return the engines next to each, (n, 10): one parameter half or twice as large, or the engine
    itself where there is none."""
    grid = np.rint(engines.features()[0]).astype(np.int64) + 1
    table = np.full(grid.max(axis=0) + 2, -1)
    table[tuple(grid.T)] = np.arange(len(grid))
    columns = []
    for step in np.concatenate(
        [np.eye(grid.shape[1], dtype=np.int64), -np.eye(grid.shape[1], dtype=np.int64)]
    ):
        found = table[tuple((grid + step).T)]
        columns.append(np.where(found < 0, np.arange(len(grid)), found))
    return np.column_stack(columns)


def survivors(points: np.ndarray, broken: np.ndarray, size: int) -> np.ndarray:
    """Return the indices of the `size` best designs, the best first."""
    rank = np.full(len(points), np.iinfo(np.int64).max)
    feasible = np.flatnonzero(broken == 0)
    rank[feasible] = pareto.ranks(points[feasible])
    # Most designs are of ranks that do not survive: they need not be told apart.
    last = min(size, len(rank)) - 1
    near = np.flatnonzero(rank <= np.partition(rank, last)[last])
    apart = crowding(points[near], rank[near], np.ptp(points, axis=0))
    order = np.lexsort((-apart, broken[near], rank[near]))
    return np.asarray(near[order[:size]])


def crowding(points: np.ndarray, rank: np.ndarray, span: np.ndarray | None = None) -> np.ndarray:
    """Distance between each point's neighbours of the same rank, in units of `span` (d,), the range
    of the points if not given, summed over objectives, (n,)."""
    total = np.zeros(len(points))
    span = np.ptp(points, axis=0) if span is None else span
    for value, unit in zip(points.T, np.maximum(span, 1e-12), strict=True):
        order = np.lexsort((value, rank))
        gap = np.full(len(points), np.inf)
        inner = (rank[order][2:] == rank[order][1:-1]) & (rank[order][1:-1] == rank[order][:-2])
        width = (value[order][2:] - value[order][:-2]) / unit
        gap[1:-1] = np.where(inner, width, np.inf)
        total[order] += gap
    return total
