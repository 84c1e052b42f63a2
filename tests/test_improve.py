"""What to measure next: the expectation beside other ways to work it out, and what is chosen."""

from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from codesign_kernel import pareto
from codesign_kernel.accelerator import Accelerators
from codesign_kernel.constraints import Constraints
from codesign_kernel.explore import SIGNS, Designs
from codesign_kernel.improve import (
    Box,
    Known,
    believed,
    boxes,
    choose,
    expected_improvement,
    keys_of,
    promising,
    weighed,
)  # fmt: skip
from codesign_kernel.predict import Predictors

SMALL, LARGE = tiny.DEVICES
ONE = np.ones(3)
# Few different values, so that points share coordinates; some beyond the corner.
COORDINATES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 1.5]) | st.floats(-0.5, 1.25, width=16)


def sets(least: int = 0, most: int = 12) -> st.SearchStrategy[np.ndarray]:
    shapes = st.integers(least, most).map(lambda n: (n, 3))
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=COORDINATES))


@pytest.fixture(scope="module")
def predictors() -> Predictors:
    return tiny.predictors()


@pytest.fixture(scope="module")
def designs(predictors: Predictors) -> Designs:
    """All architectures of the tiny space on three engines of the larger device."""
    genomes = tiny.SPACE.enumerate()
    grid = tiny.engines(predictors.devices[LARGE])
    some = grid[np.array([0, len(grid) // 2, len(grid) - 1])]
    engine, which = np.repeat(np.arange(3), len(genomes)), np.tile(np.arange(len(genomes)), 3)
    means = predictors.means(genomes[which], some[engine], LARGE)
    return Designs(LARGE, genomes[which], some[engine], means)


def some_known(predictors: Predictors, designs: Designs, n: int = 6) -> Known:
    """As if `n` designs, spread over all, had turned out as predicted."""
    index = np.linspace(0, len(designs) - 1, n).astype(int)
    known = Known()
    keys = keys_of(predictors, designs[index])
    for key, (accuracy, latency, power) in zip(keys, designs[index].means, strict=True):
        known.accuracy[key[0]], known.hardware[key] = accuracy, (latency, power)
    return known


# Expected hypervolume improvement


@given(sets(), arrays(np.float64, (30, 3), elements=st.floats(-0.6, 0.99)))
def test_boxes_hold_what_is_not_dominated_once(points: np.ndarray, trial: np.ndarray) -> None:
    lower, upper = boxes(points, ONE)
    inside = ((lower <= trial[:, None]) & (trial[:, None] < upper)).all(axis=2).sum(axis=1)
    points = points[(points < 1).all(axis=1)]
    dominated = (points <= trial[:, None]).all(axis=2).any(axis=1)
    np.testing.assert_array_equal(inside, ~dominated)
    # What is dominated and what is not fill the cube between them.
    floor = np.full(3, -1.0)
    volume = np.prod(np.clip(upper - np.maximum(lower, floor), 0, None), axis=1).sum()
    assert volume + pareto.hypervolume(points, ONE) == pytest.approx(8)


@given(sets(), sets(1, 5))
def test_a_certain_design_gains_its_hypervolume(measured: np.ndarray, points: np.ndarray) -> None:
    before = pareto.hypervolume(measured, ONE)
    found = expected_improvement(points, np.zeros_like(points), measured)
    for point, gain in zip(points, found, strict=True):
        after = pareto.hypervolume(np.vstack([measured, point]), ONE)
        assert gain == pytest.approx(after - before, abs=1e-6)


@settings(max_examples=30)
@given(sets(), st.integers(0, 2**32 - 1), st.integers(0, 2))
def test_the_expectation_is_the_integral_over_an_objective(
    measured: np.ndarray, seed: int, axis: int
) -> None:
    rng = np.random.default_rng(seed)
    point, width = rng.random(3), rng.uniform(0.05, 0.5)
    steps = np.linspace(-7, 7, 1401)
    drawn = np.repeat(point[None], len(steps), axis=0)
    drawn[:, axis] += width * steps
    before = pareto.hypervolume(measured, ONE)
    gains = np.array([pareto.hypervolume(np.vstack([measured, d]), ONE) - before for d in drawn])
    std = np.where(np.arange(3) == axis, width, 0.0)
    (found,) = expected_improvement(point[None], std[None], measured)
    assert found == pytest.approx(np.trapezoid(gains * norm.pdf(steps), steps), abs=1e-4)


def test_the_expectation_is_the_mean_over_draws_of_all_objectives() -> None:
    rng = np.random.default_rng(0)
    measured, std = rng.random((8, 3)), np.array([0.1, 0.2, 0.3])
    draws = 0.4 + std * rng.standard_normal((20_000, 3))
    before = pareto.hypervolume(measured, ONE)
    gains = np.array([pareto.hypervolume(np.vstack([measured, d]), ONE) - before for d in draws])
    (found,) = expected_improvement(np.full((1, 3), 0.4), std[None], measured)
    assert found > 0.01
    assert found == pytest.approx(gains.mean(), abs=4 * gains.std() / np.sqrt(len(draws)))


def test_what_is_uncertain_gains_more() -> None:
    measured = np.array([[0.5, 0.5, 0.5]])
    same, worse = [0.5, 0.5, 0.5], [0.6, 0.6, 0.6]
    points, stds = np.array([same, same, worse, worse]), np.array([[0.0], [0.1], [0.0], [0.1]])
    gain = expected_improvement(points, np.repeat(stds, 3, axis=1), measured)
    assert gain[0] == pytest.approx(0, abs=1e-9)
    assert gain[2] == pytest.approx(0, abs=1e-9)
    assert gain[1] > gain[3] > 0


def test_with_nothing_measured_the_whole_box_is_to_gain() -> None:
    (gain,) = expected_improvement(np.full((1, 3), 0.5), np.zeros((1, 3)), np.zeros((0, 3)))
    assert gain == pytest.approx(0.125)


# The box


def test_the_box_is_a_tenth_wider_than_the_front() -> None:
    figures = np.array([[90.0, 1.0, 0.5], [80.0, 0.1, 0.5]])
    box = Box.of(figures)
    assert box.low == pytest.approx((-90, np.log(0.1), np.log(0.5)))
    assert box.high == pytest.approx((-79, np.log(1) + 0.1 * np.log(10), np.log(0.5) + 0.1))
    np.testing.assert_allclose(box.points(figures)[:, 0], [0, 10 / 11])
    # The second design is best in latency and power, and lacks ten of eleven points of accuracy.
    assert box.hypervolume(figures[1:]) == pytest.approx(100 / 11)
    assert box.hypervolume(np.zeros((0, 3))) == 0


def test_the_box_ends_at_the_bounds() -> None:
    figures = np.array([[90.0, 1.0, 0.5], [80.0, 0.1, 0.4]])
    box = Box.of(figures, Constraints(max_latency_ms=1.05, max_power_w=0.5, min_accuracy=80))
    np.testing.assert_allclose(box.high, (-80, np.log(1.05), np.log(0.5)))
    assert box.hypervolume(np.array([[80.0, 0.1, 0.1]])) == 0  # at the bound, not inside
    single = Box.of(figures[:1], Constraints(max_latency_ms=1, max_power_w=0.5, min_accuracy=90))
    assert (single.span > 0).all()


def test_what_takes_more_energy_than_the_bound_lies_outside_the_box() -> None:
    figures = np.array([[90.0, 1.0, 0.5], [80.0, 0.1, 0.4]])
    free, box = Box.of(figures), Box.of(figures, Constraints(max_energy_mj=0.45))
    assert (free.low, free.high) == (box.low, box.high)
    assert (box.points(figures[:1]) >= 1).all()  # 0.5 mJ
    np.testing.assert_array_equal(box.points(figures[1:]), free.points(figures[1:]))
    assert box.hypervolume(figures) == pytest.approx(free.hypervolume(figures[1:]))


# Choosing


def test_the_first_choice_has_most_to_gain(predictors: Predictors, designs: Designs) -> None:
    known, box = some_known(predictors, designs), Box.of(designs.means)
    (key,) = choose(predictors, [designs], known, box, 1)
    keys = keys_of(predictors, designs)
    points, std = weighed(predictors, [designs], box)
    for i, each in enumerate(keys):
        if each[0] in known.accuracy:
            points[i, 0], std[i, 0] = (-known.accuracy[each[0]] - box.low[0]) / box.span[0], 0.0
    gain = expected_improvement(points, std, box.points(known.figures()))
    gain[[known.whole(each) for each in keys]] = -1
    assert key == keys[int(gain.argmax())]


def test_choices_differ_are_new_and_do_not_depend_on_chance(
    predictors: Predictors, designs: Designs
) -> None:
    known, box = some_known(predictors, designs), Box.of(designs.means)
    chosen = choose(predictors, [designs], known, box, 12)
    assert len({*chosen}) == len(chosen) == 12
    assert not any(known.whole(key) for key in chosen)
    assert {key[2] for key in chosen} == {LARGE}
    # The first of many are those of few: each is believed before the next is chosen.
    assert choose(predictors, [designs], known, box, 5) == chosen[:5]
    # They are not one design's neighbours: they spread over engines and architectures.
    assert len({key[0] for key in chosen}) > 6


def test_no_more_is_chosen_than_there_is(predictors: Predictors, designs: Designs) -> None:
    known, box = some_known(predictors, designs), Box.of(designs.means)
    few = designs[np.linspace(0, len(designs) - 1, 6).astype(int)]
    assert choose(predictors, [few], known, box, 5) == []
    few = designs[np.arange(4)]
    new = {key for key in keys_of(predictors, few) if not known.whole(key)}
    assert {*choose(predictors, [few], known, box, 100)} == new
    assert choose(predictors, [], known, box, 3) == []


def test_designs_of_all_devices_are_weighed_together(
    predictors: Predictors, designs: Designs
) -> None:
    genomes = tiny.SPACE.enumerate()
    acc = Accelerators.of([tiny.engines(predictors.devices[SMALL])[0]] * len(genomes))
    other = Designs(SMALL, genomes, acc, predictors.means(genomes, acc, SMALL))
    both = Box.of(np.concatenate([designs.means, other.means]))
    chosen = choose(predictors, [designs, other], Known(), both, 8)
    assert {key[2] for key in chosen} == {SMALL, LARGE}
    assert choose(predictors, [other, designs], Known(), both, 8)[0] == chosen[0]


def test_what_is_believed_is_certain_afterwards(predictors: Predictors, designs: Designs) -> None:
    one, box = designs[np.array([7])], Box.of(designs.means)
    mean, before = weighed(predictors, [one], box)
    after = believed(predictors, [designs], 7)
    same, std = weighed(after, [one], box)
    assert (std < before).all()
    np.testing.assert_allclose(same, mean, atol=0.02)
    assert after.hardware["latency_ms", SMALL] is predictors.hardware["latency_ms", SMALL]


def test_what_is_inside_the_box_is_weighed_first(
    designs: Designs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codesign_kernel.improve.POOL", 20)
    slow = float(np.quantile(designs.means[:, 1], 0.2))
    best = designs[pareto.front(designs.means * SIGNS)]
    box = Box.of(best.means, Constraints(max_latency_ms=slow))
    kept = promising(designs, box)
    assert len(kept) == 20
    assert (kept.means[:, 1] <= slow).all()


def test_what_is_known_in_part_is_not_known_in_whole() -> None:
    key: Any = ("a", "b", "c")
    known = Known({"a": 90.0}, {("x", "b", "c"): (1.0, 2.0)})
    assert not known.whole(key)
    assert known.figures().shape == (0, 3)
    known.hardware[key] = (3.0, 4.0)
    assert known.whole(key)
    assert known.figures().tolist() == [[90.0, 3.0, 4.0]]
