"""The front that is proposed: beside every design asked one by one, and on real predictions."""

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign_kernel.explore import SIGNS, Designs
from codesign_kernel.growth import expected
from codesign_kernel.hopes import HOPES, hoped, hoped_designs
from codesign_kernel.improve import Box, Known
from codesign_kernel.predict import Predictors

BOX = Box((-95.0, 0.0, np.log(0.1)), (-80.0, np.log(8.0), np.log(0.8)))


def plain(points: np.ndarray) -> set[int]:
    """The indices of designs that no other is better than or as good, but for its equals."""
    return {
        i for i, point in enumerate(points)
        if not ((points <= point).all(axis=1) & (points < point).any(axis=1)).any()
    }  # fmt: skip


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_what_is_hoped_is_on_a_front_at_one_of_the_accuracies(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    accuracy, std = rng.uniform(75, 99, 6), rng.choice([0.0, 0.5, 4.0], 6)
    which, hardware = rng.integers(0, 6, n), np.exp(rng.uniform(-3, 3, (n, 2)))
    found, wanted = hoped(accuracy, std, which, hardware, BOX), set[int]()
    for hope in HOPES:
        figures = np.column_stack([np.minimum(accuracy + hope * std, 100)[which], hardware])
        inside = np.flatnonzero((BOX.points(figures) < 1).all(axis=1))
        wanted |= {int(inside[i]) for i in plain(figures[inside] * SIGNS)}
    points = np.column_stack([accuracy[which], std[which], hardware])
    # Of equal designs one is enough.
    assert {*found.tolist()} <= wanted
    assert {*map(tuple, points[found])} == {tuple(points[i]) for i in wanted}
    assert found.tolist() == sorted(found.tolist())


def test_what_may_be_better_is_proposed_and_what_is_known_to_be_worse_is_not() -> None:
    accuracy, hardware = np.array([90.0, 89.0, 89.0]), np.array([[1.0, 0.2]] * 3)
    hardware[1:] = 2.0, 0.3
    for std, wanted in ((0.0, [0]), (0.4, [0]), (0.6, [0, 1]), (1.2, [0, 1])):
        found = hoped(accuracy, np.array([0.0, std, 0.0]), np.arange(3), hardware, BOX)
        assert found.tolist() == wanted
    assert hoped(accuracy - 20, np.zeros(3), np.arange(3), hardware, BOX).tolist() == []


@pytest.fixture(scope="module")
def predictors() -> Predictors:
    return tiny.predictors()


def test_designs_are_proposed_device_by_device(predictors: Predictors) -> None:
    candidates = []
    for seed, name in enumerate(tiny.DEVICES):
        genomes, acc = tiny.pairs(tiny.SPACE, predictors.devices[name], 60, seed)
        runs = predictors.runs(genomes, acc, name)
        genomes, acc = genomes[runs], acc[runs]
        candidates.append(Designs(name, genomes, acc, predictors.means(genomes, acc, name)))
    means = np.concatenate([designs.means for designs in candidates])
    box = Box.of(means)
    found = hoped_designs(predictors, candidates, Known(), box)
    assert [designs.device for designs in found] == [*tiny.DEVICES]
    rows = np.concatenate([designs.means for designs in found])
    best = means[[*plain(means * SIGNS)]]
    assert {*map(tuple, best)} <= {*map(tuple, rows)}
    # A network that is known to be bad is proposed no more.
    genome = found[0].genomes[0]
    known = Known({str(tiny.SPACE.decode(genome)): float(means[:, 0].min()) - 50})
    again = hoped_designs(predictors, candidates, known, box)
    assert not any((designs.genomes == genome).all(axis=1).any() for designs in again)


def test_what_is_known_has_no_deviation(predictors: Predictors) -> None:
    X = predictors.accuracy_inputs(tiny.SPACE.enumerate()[:3])
    mean, std = expected(predictors.accuracy, X, np.array([np.nan, 88.0, np.nan]))
    predicted = predictors.accuracy.predict(X)
    assert (mean[1], std[1]) == (88.0, 0.0)
    np.testing.assert_allclose(mean[[0, 2]], predicted[[0, 2]])
    assert (std[[0, 2]] > 0).all()
