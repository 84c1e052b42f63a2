"""Exploration: beside enumerating all designs, under constraints, and where none can be met."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from codesign_kernel import cost, explore, pareto
from codesign_kernel.accelerator import Accelerator, Accelerators, load_device
from codesign_kernel.constraints import Constraints
from codesign_kernel.design import Design
from codesign_kernel.errors import InputError
from codesign_kernel.explore import SIGNS, Designs, Exploration
from codesign_kernel.predict import Predictors, hardware_features, hardware_surrogate
from codesign_kernel.quantities import QUANTITIES, TOLD
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.verbs import front_text
from codesign_kernel.workload import layers_of

GENERATIONS = 10
SMALL, LARGE = tiny.DEVICES
# The bounds of Constraints and the columns of a front that they bound.
BOUNDS = {
    "max_latency_ms": "latency_ms",
    "max_power_w": "power_w",
    "min_accuracy": "accuracy",
    "max_energy_mj": "energy_mj",
    "max_dsp": "dsp",
    "max_bram": "bram",
}


CASES: list[dict[str, Any]] = [
    {},
    {"max_latency_ms": 0.1},
    {"max_power_w": 0.2},
    {"min_accuracy": 88.0},
    {"max_energy_mj": 0.02},
    {"max_dsp": 17},
    {"max_bram": 12},
    {"max_latency_ms": 0.3, "max_power_w": 0.2, "min_accuracy": 85, "max_dsp": 18, "max_bram": 20},
]


@pytest.fixture(scope="module")
def predictors() -> Predictors:
    return tiny.predictors()


@pytest.fixture(scope="module")
def searched(predictors: Predictors) -> list[Exploration]:
    """What the search finds in each of CASES."""
    return [search(predictors, generations=20, **bounds) for bounds in CASES]


@pytest.fixture(scope="module")
def everything(predictors: Predictors) -> Designs:
    """Every design of the small device: all architectures on all accelerators."""
    genomes, grid = tiny.SPACE.enumerate(), tiny.engines(predictors.devices[SMALL])
    row, column = (index.ravel() for index in np.indices((len(genomes), len(grid))))
    runs = predictors.runs(genomes[row], grid[column], SMALL)
    row, column = row[runs], column[runs]
    means = [
        predictors.means(genomes[rows], grid[columns], SMALL)
        for rows, columns in zip(np.array_split(row, 20), np.array_split(column, 20), strict=True)
    ]
    return Designs(SMALL, genomes[row], grid[column], np.concatenate(means))


def search(
    predictors: Predictors,
    devices: Sequence[str] = (SMALL,),
    generations: int = GENERATIONS,
    seed: int = 0,
    confidence: float = 0.5,
    **bounds: float,
) -> Exploration:
    return explore.explore(
        predictors, devices, Constraints(**bounds, confidence=confidence),
        generations=generations, seed=seed,
    )  # fmt: skip


def need(designs: Designs) -> cost.Resources:
    return cost.resources(designs.accelerators, load_device(designs.device))


def keeps(designs: Designs, **bounds: float) -> np.ndarray:
    """Which designs keep to the bounds, (n,); written out anew."""
    accuracy, latency, power = designs.means.T
    used = need(designs)
    return np.asarray(
        (latency <= bounds.get("max_latency_ms", math.inf))
        & (power <= bounds.get("max_power_w", math.inf))
        & (accuracy >= bounds.get("min_accuracy", -math.inf))
        & (latency * power <= bounds.get("max_energy_mj", math.inf))
        & (used.dsp <= bounds.get("max_dsp", math.inf))
        & (used.bram <= bounds.get("max_bram", math.inf))
    )


def best_of(points: np.ndarray) -> np.ndarray:
    """The different points (n, d) that no other dominates, one after the other."""
    front = []
    left = np.unique(points, axis=0)  # sorted, so that nothing dominates the first of what is left
    while len(left):
        front.append(left[0])
        left = left[~(left[0] <= left).all(axis=1)]
    return np.array(front)


def points(front: pd.DataFrame) -> np.ndarray:
    return np.asarray(front[["accuracy", "latency_ms", "power_w"]] * SIGNS)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_front_is_all_but_that_of_all_designs(
    searched: list[Exploration], everything: Designs, case: int
) -> None:
    bounds, found = CASES[case], searched[case]
    allowed = everything.means[keeps(everything, **bounds)] * SIGNS
    true = best_of(allowed)
    assert found.considered < len(everything) / 2
    ours = points(found.front)
    low, high = true.min(axis=0), true.max(axis=0)
    reference = np.full(3, 1.1)
    share = [pareto.hypervolume((some - low) / (high - low), reference) for some in (ours, true)]
    assert share[0] > 0.99 * share[1]
    assert len(true) > 20
    # No design at all, found or not, may lie below the true front.
    assert share[0] <= share[1] * (1 + 1e-9)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_nothing_considered_betters_the_front_and_all_is_counted(
    searched: list[Exploration], case: int
) -> None:
    bounds, found = CASES[case], searched[case]
    (designs,) = found.designs
    genomes = map(tuple, designs.genomes.tolist())
    different = set(zip(genomes, map(str, designs.accelerators), strict=True))
    assert found.considered == len(designs) == len(different)
    allowed = keeps(designs, **bounds)
    assert found.feasible == allowed.sum() > 0
    # The search itself goes by single precision.
    for point in best_of(designs.means[allowed] * SIGNS):
        assert (points(found.front) <= point + 1e-4 * np.abs(point)).all(axis=1).any()
    for name, column in BOUNDS.items():
        if name in bounds:
            sign = -1 if name.startswith("min") else 1
            assert (sign * found.front[column] <= sign * bounds[name]).all()


def test_a_space_that_can_be_exhausted_is(predictors: Predictors, everything: Designs) -> None:
    bounds: dict[str, Any] = {"max_dsp": 9.0, "max_bram": 8.0}
    inside = keeps(everything, **bounds)
    assert 0 < inside.sum() < 2000
    found = search(predictors, generations=300, **bounds)
    assert found.considered == found.feasible == inside.sum()
    # Not point by point: rounding parts designs that are predicted alike in one batch.
    true = best_of(everything.means[inside] * SIGNS)
    volumes = [
        pareto.hypervolume(some, true.max(axis=0) + 1) for some in (points(found.front), true)
    ]
    assert volumes[0] == pytest.approx(volumes[1], rel=1e-6)


def test_several_devices_have_one_front(predictors: Predictors) -> None:
    apart = [search(predictors, [name]) for name in tiny.DEVICES]
    found = search(predictors, [*tiny.DEVICES, SMALL])  # naming one twice changes nothing
    assert found.considered == sum(each.considered for each in apart)
    assert found.feasible == sum(each.feasible for each in apart)
    union = pd.concat([each.front for each in apart])
    expected = best_of(points(union))
    np.testing.assert_array_equal(np.unique(points(found.front), axis=0), expected)
    assert set(found.front["device"]) == set(tiny.DEVICES)


def test_a_device_without_a_design_on_the_front_has_no_rows() -> None:
    predictors, chip = tiny.predictors(), load_device(LARGE)
    genomes, acc = tiny.pairs(tiny.SPACE, chip, 40, 0)
    layers = layers_of(tiny.SPACE, genomes)
    figures = cost.figures(layers, acc, chip)
    X, _ = hardware_features(layers, acc, chip, ())
    for name in QUANTITIES[1:]:  # the other device betters all that this one has
        model = hardware_surrogate().fit(X[name], 1e3 * getattr(figures, name))
        predictors.hardware[name, LARGE] = model
    found = search(predictors, tiny.DEVICES)
    assert set(found.front["device"]) == {SMALL}
    assert f"No design of {LARGE} is on the front." in front_text(found, Constraints(), False, "")


def test_what_keeps_to_a_bound_only_when_rounded_is_told(
    predictors: Predictors, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beyond(_: object, designs: Designs, __: object) -> Designs:
        return designs[np.zeros(len(designs), dtype=bool)]

    monkeypatch.setattr(explore, "_precise", beyond)
    with pytest.raises(InputError, match="relax those that bind by a millionth") as raised:
        search(predictors, tiny.DEVICES, generations=2)
    tiny.assert_one_sentence(str(raised.value))


def test_only_the_engines_that_are_given_are_searched(predictors: Predictors) -> None:
    grid = tiny.engines(predictors.devices[SMALL])
    some = grid[np.array([3, len(grid) // 2])]
    names = {str(acc) for acc in some}
    found = explore.explore(
        predictors, [SMALL], Constraints(), generations=GENERATIONS, engines={SMALL: some}
    )
    assert {*found.front["accelerator"]} <= names
    assert {str(acc) for acc in found.designs[0].accelerators} == names
    both = explore.explore(
        predictors, [SMALL, LARGE], Constraints(), generations=1, engines={SMALL: some}
    )
    small, large = both.designs
    assert {str(acc) for acc in small.accelerators} <= names
    assert len({*large.accelerators}) > 100
    # What is named as the nearest bound is of these engines, too.
    least = cost.resources(some, predictors.devices[SMALL]).dsp.min()
    bounds = Constraints(max_dsp=float(least) - 1, confidence=0.5)
    with pytest.raises(InputError, match=rf"the nearest feasible value is {least:g} blocks\."):
        explore.explore(predictors, [SMALL], bounds, generations=1, engines={SMALL: some})


@pytest.mark.parametrize(
    ("devices", "engines", "words"),
    [
        (SMALL, {}, "devices is 'ecp5-25f', but must be a list of one or more names."),
        ([], {}, "devices is [], but must be a list of one or more names."),
        (["ecp5-99f"], {}, "device is 'ecp5-99f', but must be one of: ecp5-25f, ecp5-85f."),
        ([SMALL], {"ecp5-99f": "4x4x1w16f16"}, "device is 'ecp5-99f', but must be one of: "),
        ([SMALL], {SMALL: ""}, "the number of engines of ecp5-25f is 0, but must be at least 1."),
        ([SMALL], {SMALL: "16x8x1w16f16"}, "too small for any engine that is given for it."),
    ],
)
def test_what_cannot_be_searched_is_named(
    predictors: Predictors, devices: Any, engines: dict[str, str], words: str
) -> None:
    given = {
        name: Accelerators.of([Accelerator.parse(each) for each in text.split()])
        for name, text in engines.items()
    }
    with pytest.raises(InputError) as raised:
        explore.explore(predictors, devices, Constraints(), generations=1, engines=given)
    assert words in str(raised.value)
    tiny.assert_one_sentence(str(raised.value))


def test_rows_of_a_front_say_all_of_a_design(predictors: Predictors) -> None:
    front = search(predictors, tiny.DEVICES).front
    assert front["accuracy"].is_monotonic_decreasing
    assert front["id"].is_unique
    for quantity in ("accuracy", "latency_ms", "power_w", "energy_mj"):
        assert (front[f"{quantity}_low"] <= front[quantity]).all()
        assert (front[quantity] <= front[f"{quantity}_high"]).all()
    np.testing.assert_allclose(front["energy_mj"], front["latency_ms"] * front["power_w"])
    for end in ("_low", "_high"):  # as of two factors that err independently
        off = {name: np.log(front[name + end] / front[name]) for name in TOLD if name != "accuracy"}
        expected = off["latency_ms"] ** 2 + off["power_w"] ** 2
        np.testing.assert_allclose(off["energy_mj"] ** 2, expected)
    for _, row in front.iloc[:: len(front) // 20].iterrows():
        design = Design.parse(f"{row.architecture}@{row.accelerator}@{row.device}")
        assert design.id == row.id
        used = cost.resources(design.accelerator, predictors.devices[row.device])
        assert (row.dsp, row.bram, row.lut) == (used.dsp, used.bram, used.lut)
        genome = tiny.SPACE.encode(design.architecture)[None]
        one = type(tiny.engines(predictors.devices[row.device])).of([design.accelerator])
        means = predictors.means(genome, one, row.device)[0]
        np.testing.assert_allclose(means, [row.accuracy, row.latency_ms, row.power_w])


def test_a_seed_fixes_the_search(predictors: Predictors) -> None:
    first, again, other = (search(predictors, generations=3, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first.front, again.front)
    np.testing.assert_array_equal(first.designs[0].genomes, again.designs[0].genomes)
    assert (first.designs[0].means[:100] != other.designs[0].means[:100]).any()


# Each alone out of reach of every design, then several at once, then ones that clash.
OUT_OF_REACH: list[dict[str, Any]] = [
    {"max_latency_ms": 1e-6},
    {"max_latency_ms": 0.0},
    {"max_power_w": 0.01},
    {"min_accuracy": 99.9},
    {"max_dsp": 3},
    {"max_dsp": 0},
    {"max_bram": 1.5},
    {"max_energy_mj": 1e-6},
    {"max_latency_ms": 1e-6, "max_power_w": 0.01},
    {"max_dsp": 3, "max_bram": 2},
    {"max_dsp": 3, "min_accuracy": 99.9},
    {"max_bram": 2, "max_power_w": 0.01, "max_latency_ms": 1e-6, "min_accuracy": 100, "max_dsp": 1},
    {"min_accuracy": 93.0, "max_latency_ms": 0.05},
    {"max_power_w": 0.155, "max_latency_ms": 0.02},
    {"max_power_w": 0.16, "max_latency_ms": 0.05, "min_accuracy": 92, "max_bram": 14},
]


def advised(sentence: str, bounds: dict[str, Any]) -> dict[str, Any]:
    """The bounds with the values that the sentence names in place of those that bind."""
    match = re.fullmatch(
        r"no design keeps to all constraints(?: with a probability of [0-9.]+ %)?: "
        r"(.*) (?:binds|bind); "
        r"the nearest feasible (?:value is|values are) (.*)\.",
        sentence,
    )
    assert match, sentence
    names = [part.split()[0] for part in match[1].split(" and ")]
    values = [float(part.split()[0]) for part in match[2].split(" and ")]
    options = {"--" + name.replace("_", "-"): name for name in bounds}
    return bounds | {options[n]: value for n, value in zip(names, values, strict=True)}


@pytest.mark.parametrize("devices", [(SMALL,), (LARGE,), tiny.DEVICES], ids="+".join)
@pytest.mark.parametrize("bounds", OUT_OF_REACH, ids="+".join)
def test_what_is_out_of_reach_is_named_with_a_value_that_works(
    predictors: Predictors, bounds: dict[str, Any], devices: tuple[str, ...]
) -> None:
    with pytest.raises(InputError) as raised:
        search(predictors, devices, generations=4, **bounds)
    nearest = advised(str(raised.value), bounds)
    assert nearest != bounds
    found = search(predictors, devices, generations=4, **nearest)
    assert found.feasible > 0
    for name in bounds:  # what is not named stays as it was asked for, what is, is relaxed
        relaxed = (
            bounds[name] - nearest[name] if name == "min_accuracy" else nearest[name] - bounds[name]
        )
        assert relaxed >= 0


@pytest.mark.parametrize("name", ["max_latency_ms", "max_power_w", "min_accuracy"])
def test_the_value_named_is_all_but_the_best_there_is(
    predictors: Predictors, everything: Designs, name: str
) -> None:
    out = {"max_latency_ms": 1e-6, "max_power_w": 0.01, "min_accuracy": 99.9}[name]
    column = ["min_accuracy", "max_latency_ms", "max_power_w"].index(name)
    values = everything.means[:, column]
    best = values.max() if name == "min_accuracy" else values.min()
    with pytest.raises(InputError) as raised:
        search(predictors, (SMALL,), GENERATIONS, 0, **{name: out})
    assert advised(str(raised.value), {name: out})[name] == pytest.approx(best, rel=0.002)


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.99])
def test_bounds_hold_with_the_probability_that_is_asked(
    predictors: Predictors, confidence: float
) -> None:
    """The ends of intervals of 60, 80 and 98 % are passed with 20, 10 and 1 %."""
    bounds = {"max_latency_ms": 0.2, "max_power_w": 0.4, "min_accuracy": 80.0}
    found = search(predictors, confidence=confidence, **bounds)
    front = found.front
    designs = [Design.parse(f"{a}@{e}@{SMALL}") for a, e in
               zip(front["architecture"], front["accelerator"], strict=True)]  # fmt: skip
    genomes = np.stack([tiny.SPACE.encode(design.architecture) for design in designs])
    acc = Accelerators.of([design.accelerator for design in designs])
    low, high = predictors.intervals(genomes, acc, SMALL, 2 * confidence - 1)
    # Nearly: from one probability to another the search goes by the normal distribution.
    assert (high[:, 1] <= 0.2 * 1.03).all()
    assert (high[:, 2] <= 0.4 * 1.03).all()
    assert (low[:, 0] >= 80.0 - 0.5).all()
    plain = search(predictors, **bounds)
    assert len(front) > 3
    assert front["latency_ms"].max() < plain.front["latency_ms"].max()
    allowed = (found.designs[0].worst(confidence)[:, :3] * SIGNS <= [-80.0, 0.2, 0.4]).all(axis=1)
    assert found.feasible == allowed.sum()


def test_what_a_design_keeps_to_moves_from_the_mean_to_the_interval() -> None:
    device = load_device(SMALL)
    genomes, acc = tiny.pairs(tiny.SPACE, device, 2, 0)
    means = np.array([[80.0, 1.0, 2.0], [90.0, 4.0, 1.0]])
    ends = np.array([[78.0, 0.5, 1.0], [88.0, 3.0, 0.9]]), np.array([[81, 2, 4], [93, 5, 2]])
    designs = Designs(SMALL, genomes, acc, means, *ends)
    energies = means[:, 1] * means[:, 2]
    np.testing.assert_allclose(designs.worst(0.5), np.column_stack([means, energies]))
    # Twice the latency, and twice the power, both of them independently: 2 ** sqrt(2) the energy.
    worst = [[78, 2, 4, 2 * 2 ** np.sqrt(2)], [88, 5, 2, 4 * np.exp(np.hypot(*np.log([1.25, 2])))]]
    np.testing.assert_allclose(designs.worst(0.95), worst)
    beyond = norm.ppf(0.99) / norm.ppf(0.95)
    expected = [80 - 2 * beyond, 2**beyond, 2 * 2**beyond, 2 * 2 ** (np.sqrt(2) * beyond)]
    np.testing.assert_allclose(designs.worst(0.99)[0], expected)
    unknown = replace(designs, low=None, high=None).worst(0.99)
    np.testing.assert_array_equal(unknown, np.column_stack([means, energies]))


@pytest.mark.parametrize("kind", ["dsp", "bram"])
def test_the_least_resources_named_are_those_of_the_smallest_engine(
    predictors: Predictors, kind: str
) -> None:
    least = min(
        getattr(
            cost.resources(tiny.engines(predictors.devices[name]), predictors.devices[name]), kind
        ).min()
        for name in tiny.DEVICES
    )
    with pytest.raises(InputError, match=rf"--max-{kind} 1 binds; .* value is {least} blocks\.$"):
        search(predictors, tiny.DEVICES, **{f"max_{kind}": 1})


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, "3", True, 10**400])
def test_a_bound_that_is_none_is_refused(name: str, value: Any) -> None:
    option = "--" + name.replace("_", "-")
    with pytest.raises(InputError, match=rf"^{option} is .*, but must be .*\.$"):
        Constraints(**{name: value})


@pytest.mark.parametrize("value", [0.4, 1.0, math.nan, "0.9"])
def test_a_confidence_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"^--confidence is .*, but must be .*\.$"):
        Constraints(confidence=value)


def test_accuracy_of_over_100_percent_is_refused() -> None:
    with pytest.raises(InputError, match=r"--min-accuracy is 100.5, but must be from 0 to 100"):
        Constraints(min_accuracy=100.5)


def test_a_device_without_room_is_named() -> None:
    narrow = replace(load_device(SMALL), name="narrow", dsp=3)
    with pytest.raises(InputError, match="device narrow is too small for any engine"):
        explore.usable(narrow, Constraints())


@settings(max_examples=30)
@given(max_dsp=st.none() | st.floats(0, 200), max_bram=st.none() | st.floats(0, 300))
def test_usable_engines_are_those_of_the_grid_that_fit(
    max_dsp: float | None, max_bram: float | None
) -> None:
    device = load_device(LARGE)
    found = {
        str(a) for a in explore.usable(device, Constraints(max_dsp=max_dsp, max_bram=max_bram))
    }
    bounds = [
        least if asked is None else min(least, asked)
        for least, asked in ((device.dsp, max_dsp), (device.bram, max_bram))
    ]
    expected = {
        name
        for name, dsp, bram, lut in grid_of(LARGE)
        if dsp <= bounds[0] and bram <= bounds[1] and lut <= device.lut
    }
    assert found == expected


@cache
def grid_of(name: str) -> list[tuple[str, int, int, int]]:
    device = load_device(name)
    rows = []
    for accelerator in device.grid():
        used = cost.resources(accelerator, device)
        try:
            Shape(accelerator, device.port_bits)
        except InputError:
            continue
        rows.append((str(accelerator), int(used.dsp), int(used.bram), int(used.lut)))
    return rows


FIGURES = st.floats(0.01, 1000)


@given(
    means=arrays(np.float64, (6, 4), elements=FIGURES),
    used=arrays(np.int64, (6, 2), elements=st.integers(1, 300)),
    bounds=st.fixed_dictionaries({}, optional={n: st.floats(0, 100) for n in BOUNDS}),
)
def test_excess_is_the_fraction_beyond_each_bound(
    means: np.ndarray, used: np.ndarray, bounds: dict[str, Any]
) -> None:
    found = Constraints(**bounds).excess(means, used[:, 0], used[:, 1])
    columns = {
        "accuracy": means[:, 0], "latency_ms": means[:, 1], "power_w": means[:, 2],
        "energy_mj": means[:, 3], "dsp": used[:, 0], "bram": used[:, 1],
    }  # fmt: skip
    for i, (name, column) in enumerate(BOUNDS.items()):
        for row, value in zip(found, columns[column], strict=True):
            if name not in bounds:
                expected = 0.0
            elif name == "min_accuracy":
                expected = max(bounds[name] - value, 0) / max(bounds[name], 1e-9)
            else:
                expected = max(value - bounds[name], 0) / max(bounds[name], 1e-9)
            assert row[i] == pytest.approx(expected)
