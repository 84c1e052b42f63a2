"""Networks weighed on all engines: beside the hypervolume itself, and draws."""

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign_kernel import pareto
from codesign_kernel.accelerator import Accelerators
from codesign_kernel.growth import COLUMNS, choose_networks, expected_growth, stairs
from codesign_kernel.improve import Box, Known
from codesign_kernel.predict import Predictors
from codesign_kernel.space import Architecture

LARGE = tiny.DEVICES[1]


def volume(accuracy: np.ndarray, places: np.ndarray) -> float:
    """The hypervolume of networks (n,) on engines, (n, e, 2), up to the corner (1, 1, 1)."""
    each = np.broadcast_to(accuracy[:, None, None], (*places.shape[:2], 1))
    points = np.concatenate([each, places], axis=2).reshape(-1, 3)
    return pareto.hypervolume(points[np.isfinite(points).all(axis=1)], np.ones(3))


def drawn(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies, some alike, and places of n networks on 4 engines, in whole columns: exact."""
    places = rng.integers(0, COLUMNS + 20, (n, 4, 2)) / COLUMNS
    places[rng.random((n, 4)) < 0.2] = np.nan
    return rng.integers(0, 12, n) / 10, places


def test_stairs_fall_and_leave_out_what_is_outside() -> None:
    (found,) = stairs(np.array([[[0.5, 0.4], [0.25, 0.8], [1.2, 0.1], [0.1, np.nan], [0.6, 0.9]]]))
    edge = np.arange(COLUMNS) / COLUMNS
    np.testing.assert_allclose(found, np.select([edge >= 0.5, edge >= 0.25], [0.4, 0.8], 1.0))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_a_certain_network_gains_its_hypervolume(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    (known, there), (asked, places) = drawn(rng, k), drawn(rng, 5)
    before = volume(known, there)
    steps = stairs(places), known, stairs(there)
    found = expected_growth(asked, np.zeros(5), *steps)
    for i, gain in enumerate(found):
        both = np.append(known, asked[i]), np.concatenate([there, places[[i]]])
        assert gain == pytest.approx(volume(*both) - before, abs=1e-6)


def test_the_expectation_is_the_mean_over_draws() -> None:
    rng = np.random.default_rng(1)
    (known, there), places = drawn(rng, 3), np.full((1, 4, 2), 0.2)
    before, draws = volume(known, there), rng.normal(0.4, 0.2, 5000)
    gains = [volume(np.append(known, y), np.concatenate([there, places])) - before for y in draws]
    (found,) = expected_growth(
        np.array([0.4]), np.array([0.2]), stairs(places), known, stairs(there)
    )
    assert found > 0.001
    held = [volume(np.append(known, max(y, 0.05)), np.concatenate([there, places])) for y in draws]
    (less,) = expected_growth(
        np.array([0.4]), np.array([0.2]), stairs(places), known, stairs(there), 0.05
    )
    assert 0 < less < 0.99 * found
    assert less == pytest.approx(np.mean(held) - before, abs=4 * np.std(held) / np.sqrt(5000))
    assert found == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / np.sqrt(len(draws)))


@pytest.fixture(scope="module")
def predictors() -> Predictors:
    return tiny.predictors()


def test_networks_are_chosen_to_be_measured_on_every_engine(predictors: Predictors) -> None:
    genomes = tiny.SPACE.enumerate()
    grid = tiny.engines(predictors.devices[LARGE])
    some = {LARGE: grid[np.array([0, len(grid) // 2, len(grid) - 1])]}
    which, engine = np.repeat(np.arange(len(genomes)), 3), np.tile(np.arange(3), len(genomes))
    acc: Accelerators = some[LARGE][engine]
    means = predictors.means(genomes[which], acc, LARGE)
    runs = predictors.runs(genomes[which], acc, LARGE)
    box, known = Box.of(means[runs]), Known()
    keys = choose_networks(predictors, genomes, some, known, box, 3)
    assert len({key[0] for key in keys}) == 3
    for name in {key[0] for key in keys}:
        (i,) = np.flatnonzero((genomes == tiny.SPACE.encode(Architecture.parse(name))).all(axis=1))
        engines = {str(each) for each in acc[(which == i) & runs]}
        assert {key[1] for key in keys if key[0] == name} == engines
    # The first is the one with most to gain, each with its own interval.
    scaled = box.points(means)
    scaled[~runs] = np.nan
    gains = [volume(row[:1, 0], row[None, :, 1:]) for row in scaled.reshape(-1, 3, 3)]
    (first,) = np.flatnonzero(
        (genomes == tiny.SPACE.encode(Architecture.parse(keys[0][0]))).all(axis=1)
    )
    assert gains[first] > 0.95 * np.nanmax(gains)
    # What is measured in whole is not chosen again, and of a part of it only what is missing.
    for key in keys[1:]:
        known.accuracy[key[0]], known.hardware[key] = 90.0, (1.0, 0.5)
    again = choose_networks(predictors, genomes, some, known, box, len(genomes))
    assert not {*again} & {*keys[1:]}
    assert keys[0] in again or keys[0][0] not in known.accuracy
    assert len({key[0] for key in again}) == len(genomes) - 2
    everything = Known({key[0]: 90.0 for key in again}, dict.fromkeys(again, (1.0, 0.5)))
    everything.accuracy |= known.accuracy
    everything.hardware |= known.hardware
    assert choose_networks(predictors, genomes, some, everything, box, 3) == []
