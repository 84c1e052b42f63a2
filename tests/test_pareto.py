"""Fronts, ranks and hypervolume against brute force; the knee of literal fronts."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign_kernel.pareto import front, hypervolume, knee, ranks

SIDE = 5


@st.composite
def grids(draw: st.DrawFn, most: int = 14) -> np.ndarray:
    """Few different whole numbers, so that points tie and repeat, (n, d)."""
    d = draw(st.integers(1, 4))
    point = st.tuples(*[st.integers(0, SIDE - 1)] * d)
    rows = draw(st.lists(point, min_size=1, max_size=most))
    return np.array(rows, dtype=np.float64).reshape(-1, d)


def dominates(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((one <= other).all() and (one < other).any())


@given(grids())
def test_front_is_what_nothing_dominates(points: np.ndarray) -> None:
    expected = [
        not any(dominates(other, point) for other in points)
        and not any((other == point).all() for other in points[:i])
        for i, point in enumerate(points)
    ]
    assert front(points).tolist() == expected


@given(grids())
def test_ranks_peel_front_after_front(points: np.ndarray) -> None:
    expected = np.full(len(points), -1)
    rank = 0
    while (expected < 0).any():
        left = np.flatnonzero(expected < 0)
        best = [i for i in left if not any(dominates(points[j], points[i]) for j in left)]
        expected[best] = rank
        rank += 1
    assert ranks(points).tolist() == expected.tolist()


@given(grids(6))
def test_hypervolume_counts_unit_cells(points: np.ndarray) -> None:
    d = points.shape[1]
    cells = [
        any((point <= np.array(cell)).all() for point in points)
        for cell in product(range(SIDE), repeat=d)
    ]
    assert hypervolume(points, np.full(d, SIDE)) == pytest.approx(sum(cells))


def test_hypervolume_of_reals_is_that_of_a_million_random_points() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((8, 3))
    darts = rng.random((1_000_000, 3))
    inside = np.zeros(len(darts), dtype=bool)
    for point in points:
        inside |= (darts >= point).all(axis=1)
    # Five standard errors of the count.
    assert hypervolume(points, np.ones(3)) == pytest.approx(inside.mean(), abs=0.0025)


def test_hypervolume_of_literal_fronts() -> None:
    assert hypervolume(np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([3, 3])) == 3.0
    assert hypervolume(np.array([[1.0, 1.0, 1.0]]), np.array([3, 4, 5])) == 24.0


@given(grids(), st.integers(0, 3))
def test_points_that_do_not_better_the_reference_add_nothing(points: np.ndarray, at: int) -> None:
    reference = np.full(points.shape[1], float(at))
    inside = points[(points < at).all(axis=1)]
    assert hypervolume(points, reference) == pytest.approx(hypervolume(inside, reference))
    if not len(inside):
        assert hypervolume(points, reference) == 0.0


def test_no_points_have_no_front() -> None:
    none = np.zeros((0, 3))
    assert front(none).tolist() == ranks(none).tolist() == []
    assert hypervolume(none, np.ones(3)) == 0.0


def test_equal_points_are_once_on_the_front_and_of_one_rank() -> None:
    points = np.array([[2.0, 2.0], [1.0, 1.0], [1.0, 1.0], [0.0, 3.0]])
    assert front(points).tolist() == [False, True, False, True]
    assert ranks(points).tolist() == [1, 0, 0, 0]


def test_whole_numbers_and_slices_are_taken_as_they_are() -> None:
    points = np.array([[1, 9, 2], [2, 9, 1], [3, 9, 3]])
    assert front(points[:, ::2]).tolist() == [True, True, False]
    assert ranks(points[:, ::2]).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("points", "index"),
    [
        ([[0, 10], [2, 2], [10, 0]], 1),
        ([[10, 0], [0, 10], [1, 8]], 2),
        # Scaled, not as they are: 300 is as far along its axis as 0.3.
        ([[0, 1000], [0.3, 300], [1, 0]], 1),
        ([[5, 5]], 0),
        ([[3, 1], [3, 0.5], [3, 2]], 1),  # all equal in one objective
        ([[0, 1], [1, 0]], 0),  # of equally good ones the first
    ],
)
def test_the_knee_is_nearest_to_the_ideal(points: list[list[float]], index: int) -> None:
    assert knee(np.array(points, dtype=np.float64)) == index


@given(grids(), st.lists(st.floats(0.1, 1000), min_size=4, max_size=4))
def test_the_knee_does_not_depend_on_units(points: np.ndarray, units: list[float]) -> None:
    d = points.shape[1]
    scaled = (points - points.min(axis=0)) / np.maximum(np.ptp(points, axis=0), 1)
    distance = np.linalg.norm(scaled, axis=1)
    found = knee(points * np.array(units[:d]) + np.array(units[:d]))
    assert distance[found] == pytest.approx(distance.min(), abs=1e-9)
