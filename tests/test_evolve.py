"""Evolution: what it asks for, what survives, and crowding beside a plain computation."""

import math

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from codesign_kernel import evolve
from codesign_kernel.accelerator import Accelerator, Accelerators, load_device
from codesign_kernel.evolve import Evolution, neighbours, survivors
from codesign_kernel.space import SearchSpace, Stage

ENGINES = tiny.engines(load_device("ecp5-25f"))
# 2 x (3 kernels, one of them too small alone) architectures.
FEW = SearchSpace("few", "digits", (8, 8, 1), 10, 8, 3, 1, (Stage((8, 16), (1,), (1, 3, 5), 1),))


def keys(asked: evolve.Asked) -> list[tuple[int, ...]]:
    return list(map(tuple, np.column_stack([asked.rows, asked.engine]).tolist()))


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_asked_for_twice(seed: int) -> None:
    search = Evolution(tiny.SPACE, ENGINES, seed, population=100, children=50)
    seen = set()
    for _ in range(20):
        asked = search.ask()
        new = keys(asked)
        assert len(new) == len(set(new))
        assert not seen & set(new)
        seen |= set(new)
        assert asked.engine.max() < len(ENGINES)
        valid = tiny.SPACE.repair(asked.genomes, np.random.default_rng(0))
        np.testing.assert_array_equal(valid, asked.genomes)
        search.tell(asked, np.random.default_rng(1).random((len(new), 3)), np.zeros(len(new)))
    assert len(seen) > 1000


def test_a_small_space_is_exhausted() -> None:
    some = ENGINES[:7]
    search, seen = Evolution(FEW, some, 0, population=20, children=20), set()
    for _ in range(60):
        asked = search.ask()
        seen |= set(keys(asked))
        n = len(asked.engine)
        search.tell(asked, np.arange(3.0 * n).reshape(n, 3), np.zeros(n))
    assert len(seen) == FEW.size * len(some) == 28


def test_the_extremes_are_asked_for_first() -> None:
    asked = Evolution(tiny.SPACE, ENGINES, 0).ask()
    np.testing.assert_array_equal(asked.genomes[:2], np.stack(tiny.SPACE.extremes()))


def test_a_search_comes_near_a_known_best() -> None:
    """Of engines 0 to 63 the best is 40, of architectures that of the largest genes."""
    grid = Accelerators.of([Accelerator(2**a, 2**b, 1, 4, 2**c) for a in range(4) for b in range(4)
                            for c in range(2, 6)])  # fmt: skip
    search = Evolution(tiny.SPACE, grid, 0, population=50, children=25)
    best = tiny.SPACE.extremes()[1]
    for _ in range(15):
        asked = search.ask()
        off = np.abs(asked.rows - best).sum(axis=1) + np.abs(asked.engine - 40)
        search.tell(asked, np.column_stack([off] * 3).astype(float), np.zeros(len(off)))
    assert search.points[0, 0] == 0


def test_what_breaks_nothing_survives_before_what_breaks_little() -> None:
    points = np.array([[3.0, 3, 3], [1, 1, 1], [2, 2, 2], [0, 0, 0], [0, 0, 0]])
    broken = np.array([0.0, 0, 0, 2, 1])
    assert survivors(points, broken, 5).tolist() == [1, 2, 0, 4, 3]
    assert survivors(points, broken, 2).tolist() == [1, 2]


def test_neighbours_differ_by_a_factor_of_two_in_one_parameter() -> None:
    found = neighbours(ENGINES)
    assert found.shape == (len(ENGINES), 10)
    logs = ENGINES.features()[0]
    steps = np.abs(logs[found] - logs[:, None])
    assert set(steps.sum(axis=2).ravel().tolist()) == {0.0, 1.0}
    two = Accelerators.of([Accelerator(8, 8, 1, 16, 16), Accelerator(8, 16, 1, 16, 16)])
    assert neighbours(two).tolist() == [[0, 1, *[0] * 8], [1, 1, 1, 1, 1, 1, 0, 1, 1, 1]]


@given(
    points=arrays(np.float64, (12, 3), elements=st.integers(0, 5).map(float)),
    rank=arrays(np.int64, 12, elements=st.integers(0, 2)),
)
def test_crowding_is_that_of_nsga_ii(points: np.ndarray, rank: np.ndarray) -> None:
    found = evolve.crowding(points, rank)
    for r in np.unique(rank):
        group = np.flatnonzero(rank == r)
        # Ties in an objective leave the order open, so only distinct values can be compared.
        if all(len(np.unique(points[group, d])) == len(group) for d in range(3)):
            for i in group.tolist():
                assert found[i] == pytest.approx(_distance(points, group, i))


def _distance(points: np.ndarray, group: np.ndarray, i: int) -> float:
    """Crowding distance of a point as in Deb et al., section III B, each objective by its span."""
    total = 0.0
    for d in range(points.shape[1]):
        below = [points[j, d] for j in group if points[j, d] < points[i, d]]
        above = [points[j, d] for j in group if points[j, d] > points[i, d]]
        if not below or not above:
            return math.inf
        total += (min(above) - max(below)) / np.ptp(points[:, d])
    return total
