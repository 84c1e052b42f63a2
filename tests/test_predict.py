"""Prediction: what goes into it, that it is right on designs it never saw, and its limits."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from codesign_kernel import cost, routed
from codesign_kernel.accelerator import Accelerator, Accelerators, load_device
from codesign_kernel.errors import InputError
from codesign_kernel.integer import of_layers
from codesign_kernel.margins import ImageSurrogate, encode
from codesign_kernel.predict import (
    COVERAGE,
    SIMULATED,
    Predictors,
    accuracy_features,
    accuracy_surrogate,
    hardware_features,
    image_features,
)
from codesign_kernel.program import compile_network
from codesign_kernel.quantities import QUANTITIES
from codesign_kernel.rtl.shape import Shape
from codesign_kernel.space import Architecture, load_space
from codesign_kernel.surrogate import Surrogate
from codesign_kernel.workload import layers_of

DIGITS = load_space("digits")
DEVICE = load_device("ecp5-85f")
SPACE_GENOMES = tiny.SPACE.enumerate()
# By hand: stem 8x1x3x3 on 8x8, one 8x8x3x3 on 8x8, one 16x8x3x3 on 4x4, classifier 10x16.
SMALL = DIGITS.encode(Architecture.parse("w8k3-w16k3"))[None]
MACS, WEIGHTS, BIASES = 4608 + 36864 + 18432 + 160, 72 + 576 + 1152 + 160, 8 + 8 + 16 + 10
INPUTS, OUTPUTS = 64 + 512 + 512 + 16, 512 + 512 + 256 + 10


@pytest.fixture(scope="module")
def predictors() -> Predictors:
    return tiny.predictors()


def test_accuracy_is_predicted_from_choices_and_sizes() -> None:
    columns, names = accuracy_features(DIGITS, SMALL)
    found = dict(zip(names, columns[0], strict=True))
    assert found == pytest.approx(
        {
            "s1_width": 8, "s1_depth": 1, "s1_reach1": 2 / 3, "s1_reach2": 0, "s1_reach3": 0,
            "s2_width": 16, "s2_depth": 1, "s2_reach1": 2 / 3, "s2_reach2": 0, "s2_reach3": 0,
            "log2_macs": np.log2(MACS), "log2_parameters": np.log2(WEIGHTS + BIASES),
        }
    )  # fmt: skip


def test_margins_are_predicted_also_from_each_choice_alone() -> None:
    columns = image_features(DIGITS, np.concatenate([SMALL, DIGITS.extremes()[1][None]]))
    plain = accuracy_features(DIGITS, SMALL)[0]
    assert columns.shape == (2, plain.shape[1] + DIGITS.radix.sum())
    np.testing.assert_array_equal(columns[0, : plain.shape[1]], plain[0])
    chosen = columns[:, plain.shape[1] :]
    assert (chosen.sum(axis=1) == len(DIGITS.radix)).all()  # one value of each gene
    places = np.flatnonzero(chosen[0]) - np.cumsum([0, *DIGITS.radix[:-1]])
    np.testing.assert_array_equal(places, SMALL[0])


def by_images(predictors: Predictors) -> Predictors:
    """The same, but accuracy is learnt from margins on 50 images."""
    genomes, rng = tiny.SPACE.sample(40, np.random.default_rng(0)), np.random.default_rng(1)
    score = tiny.score(tiny.SPACE, genomes)
    margins = (score - score.mean())[:, None] / score.std() + 2 * rng.normal(size=50)
    images = ImageSurrogate().fit(image_features(tiny.SPACE, genomes), encode(margins, margins > 0))
    return replace(predictors, accuracy=images)


def test_predictions_from_images_are_stored_and_searched_with(predictors: Predictors) -> None:
    found = by_images(predictors)
    arrays, about = found.to_arrays()
    again = Predictors.from_arrays(tiny.SPACE, found.devices, arrays, json.loads(json.dumps(about)))
    genomes, acc = tiny.pairs(tiny.SPACE, DEVICE, 300, seed=2)
    sides = found.figures(genomes, acc, DEVICE.name, coverage=0.9)
    for mine, theirs in zip(
        sides, again.figures(genomes, acc, DEVICE.name, coverage=0.9), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    expected = found.accuracy.estimate(image_features(tiny.SPACE, genomes), 0.9)
    for side, values in zip(sides, expected, strict=True):
        np.testing.assert_allclose(side[:, 0], np.clip(values, 0, 100), rtol=1e-12)
    which = np.zeros(300, np.int64)
    shared = found.figures(genomes[:1], acc, DEVICE.name, which)[0]
    np.testing.assert_allclose(shared[:, 0], sides[0][0, 0], rtol=1e-12)


@pytest.mark.parametrize("quantity", QUANTITIES[1:])
def test_hardware_is_predicted_from_engine_and_totals(quantity: str) -> None:
    acc = Accelerators.of([Accelerator(4, 8, 2, 16, 32)])
    layers = layers_of(DIGITS, SMALL)
    columns, names = hardware_features(layers, acc, DEVICE, ())
    found = dict(zip(names[quantity], columns[quantity][0], strict=True))
    # Cycles by hand: groups of filters x groups of channels x groups of pixels x kernel area.
    # (The classifier runs over all 16 pixels: pooling and product in one.)
    issued = (2 * 1 * 32 * 9 + 2 * 1 * 32 * 9 + 4 * 1 * 8 * 9 + 3 * 2 * 16) * 64
    clock = DEVICE.clock_mhz - 2 * DEVICE.clock_slope_mhz  # 64 products: two doublings of 16
    bytes_a_cycle = DEVICE.port_bits / 8 * DEVICE.port_efficiency
    prior = {
        "latency_ms": max(MACS / 64, (WEIGHTS + INPUTS + OUTPUTS) / bytes_a_cycle) / clock / 1e3,
        "power_w": DEVICE.static_w.value + 64 * DEVICE.mac_pj.value * clock * 1e-6,
    }[quantity]
    assert found == pytest.approx(
        {
            "prior": prior, "pf": 2, "pc": 3, "pv": 1, "weight_kib": 4, "feature_kib": 5,
            "log2_macs": np.log2(MACS), "log2_weights": np.log2(WEIGHTS),
            "log2_maps": np.log2(INPUTS + OUTPUTS), "log2_waste": np.log2(issued / MACS),
            "layers": 4,
        }
    )  # fmt: skip


@given(st.integers(0, 2**32 - 1))
def test_an_engine_of_one_product_wastes_nothing_and_others_never_less(seed: int) -> None:
    genomes, acc = tiny.pairs(tiny.SPACE, DEVICE, 20, seed)
    layers = layers_of(tiny.SPACE, genomes)
    columns, names = hardware_features(layers, acc, DEVICE, ())
    waste = columns["latency_ms"][:, names["latency_ms"].index("log2_waste")]
    assert (waste >= 0).all()
    one = Accelerators.of([Accelerator(1, 1, 1, 4, 4)] * 20)
    columns, names = hardware_features(layers, one, DEVICE, ())
    # But for the classifier, which runs over all pixels of the last map.
    assert (columns["latency_ms"][:, names["latency_ms"].index("log2_waste")] < waste + 0.2).all()
    assert (columns["latency_ms"][:, names["latency_ms"].index("log2_waste")] < 0.2).all()


def test_where_figures_are_measured_the_closed_form_is_the_prior() -> None:
    genomes, acc = tiny.pairs(tiny.SPACE, DEVICE, 20, 3)
    there = routed.engines(DEVICE)[0]
    acc = Accelerators.of([*acc[:-1], there])
    layers = layers_of(tiny.SPACE, genomes)
    columns, there_names = hardware_features(layers, acc, DEVICE, QUANTITIES)
    rooflines, names = hardware_features(layers, acc, DEVICE, ())
    clock = cost.clock_mhz(acc, DEVICE)
    clock[-1] = routed.figures(there, DEVICE)["clock_mhz"]  # is known: it was placed and routed
    figures = cost.figures(layers, acc, DEVICE, clock=clock)
    for quantity in QUANTITIES[1:]:
        np.testing.assert_array_equal(columns[quantity][:, 0], getattr(figures, quantity))
        # Of power, the closed form has the buffers' blocks: they are no features beside it.
        rest = [names[quantity].index(name) for name in there_names[quantity][1:]]
        np.testing.assert_array_equal(columns[quantity][:, 1:], rooflines[quantity][:, rest])
    assert there_names["latency_ms"] == names["latency_ms"]
    assert {*names["power_w"]} - {*there_names["power_w"]} == {"weight_kib", "feature_kib"}


def test_what_is_not_known_of_a_clock_is_in_the_interval_unless_it_was_routed(
    predictors: Predictors,
) -> None:
    genome, engine = tiny.SPACE.extremes()[0][None], routed.engines(DEVICE)[0]
    known = replace(predictors, basis={("latency_ms", DEVICE.name): SIMULATED})
    for acc, more in ((engine, 1.0), (replace(engine, weight_kib=256), DEVICE.clock_within)):
        rows = Accelerators.of([acc])
        columns, _ = hardware_features(layers_of(tiny.SPACE, genome), rows, DEVICE, QUANTITIES[1:2])
        model = known.hardware["latency_ms", DEVICE.name]
        (inner_low,), (inner_high,) = model.interval(columns["latency_ms"], 0.9)
        low, high = (side[0, 1] for side in known.intervals(genome, rows, DEVICE.name))
        spread = np.hypot(np.log(inner_high / inner_low) / 2, np.log(more))
        assert np.log(high / low) / 2 == pytest.approx(spread)


@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_intervals_hold_what_clock_and_coefficients_leave_open(
    predictors: Predictors, coverage: float
) -> None:
    genomes, acc = tiny.pairs(tiny.SPACE, DEVICE, 50, 8)
    layers = layers_of(tiny.SPACE, genomes)
    low, high = predictors.intervals(genomes, acc, DEVICE.name, coverage)
    columns, _ = hardware_features(layers, acc, DEVICE, ())
    known = [DEVICE.clock_within, cost.figures(layers, acc, DEVICE).power_within]
    part = norm.ppf((1 + coverage) / 2) / norm.ppf(0.95)
    for i, (quantity, factor) in enumerate(zip(QUANTITIES[1:], known, strict=True), start=1):
        inner = predictors.hardware[quantity, DEVICE.name].interval(columns[quantity], coverage)
        spread = (np.log(inner[1] / inner[0]) / 2) ** 2 + (part * np.log(factor)) ** 2
        np.testing.assert_allclose(np.log(high[:, i] / low[:, i]) / 2, np.sqrt(spread))
        np.testing.assert_allclose(low[:, i] * high[:, i], inner[0] * inner[1])


def test_runs_is_what_the_engines_compiler_takes() -> None:
    rng = np.random.default_rng(5)
    space = load_space("fashion")
    genomes = space.sample(40, rng)
    engines = [Accelerator(pf, 8, 1, w, f) for pf in (8, 16) for w in (8, 16) for f in (2, 16)]
    acc = Accelerators.of([engines[i] for i in rng.integers(0, len(engines), 40)])
    found = Predictors(space, {DEVICE.name: DEVICE}, accuracy_surrogate()).runs(
        genomes, acc, DEVICE.name
    )
    expected = []
    for genome, each in zip(genomes, acc, strict=True):
        try:
            compile_network(of_layers(layers_of(space, genome[None])), Shape(each))
            expected.append(True)
        except InputError:
            expected.append(False)
    assert found.tolist() == expected
    assert 5 < sum(expected) < 35


@pytest.mark.parametrize("name", tiny.DEVICES)
def test_new_designs_are_predicted_better_than_by_the_prior(
    predictors: Predictors, name: str
) -> None:
    device = predictors.devices[name]
    genomes, acc = tiny.pairs(tiny.SPACE, device, 300, seed=9)
    layers = layers_of(tiny.SPACE, genomes)
    figures = cost.figures(layers, acc, device)
    truth = np.column_stack([tiny.score(tiny.SPACE, genomes), figures.latency_ms, figures.power_w])
    means = predictors.means(genomes, acc, name)
    assert np.abs(means[:, 0] - truth[:, 0]).mean() < 0.25
    priors = cost.roofline_ms(layers, acc, device), cost.simple_w(acc, device)
    for i, prior in enumerate(priors, start=1):
        miss = np.log(truth[:, i] / prior)
        best_prior = np.abs(miss - np.median(miss)).mean()
        assert np.abs(np.log(truth[:, i] / means[:, i])).mean() < 0.7 * best_prior
    low, high = predictors.intervals(genomes, acc, name)
    held = ((low <= truth) & (truth <= high)).mean(axis=0)
    assert (held > COVERAGE - 0.2).all(), held


@pytest.mark.parametrize("name", tiny.DEVICES)
def test_intervals_hold_the_means_and_are_possible_figures(
    predictors: Predictors, name: str
) -> None:
    genomes, acc = tiny.pairs(tiny.SPACE, predictors.devices[name], 300, seed=4)
    means = predictors.means(genomes, acc, name)
    low, high = predictors.intervals(genomes, acc, name)
    assert means.shape == low.shape == high.shape == (300, 3)
    assert (low <= means * (1 + 1e-12)).all()
    assert (means <= high * (1 + 1e-12)).all()
    assert (low > 0).all()
    assert (high[:, 0] <= 100).all()
    narrow_low, narrow_high = predictors.intervals(genomes, acc, name, 0.5)
    assert (low <= narrow_low).all()
    assert (narrow_high <= high).all()


def test_own_intervals_are_those_of_the_processes(predictors: Predictors) -> None:
    genomes, acc = tiny.pairs(tiny.SPACE, DEVICE, 40, seed=6)
    layers = layers_of(tiny.SPACE, genomes)
    X, _ = hardware_features(layers, acc, DEVICE, ())
    low, high = predictors.intervals(genomes, acc, DEVICE.name)
    _, *own = predictors.figures(genomes, acc, DEVICE.name, coverage=0.9, own=True)
    for i, quantity in enumerate(QUANTITIES[1:], start=1):
        ends = predictors.hardware[quantity, DEVICE.name].interval(X[quantity])
        for mine, end in zip(own, ends, strict=True):
            np.testing.assert_allclose(mine[:, i], end, rtol=1e-9)
    assert (own[0][:, 1:] > low[:, 1:]).all()
    assert (own[1][:, 1:] < high[:, 1:]).all()
    assert (own[0][:, 0] == low[:, 0]).all()


def test_a_design_is_predicted_alike_alone_and_among_others(predictors: Predictors) -> None:
    genomes, acc = tiny.pairs(tiny.SPACE, predictors.devices["ecp5-85f"], 150, seed=5)
    together = predictors.means(genomes, acc, "ecp5-85f")
    ends = predictors.intervals(genomes, acc, "ecp5-85f")
    for i in range(0, 150, 29):
        one = slice(i, i + 1)
        alone = predictors.means(genomes[one], acc[one], "ecp5-85f")
        np.testing.assert_allclose(alone, together[one], rtol=1e-9)
        for end, side in zip(
            predictors.intervals(genomes[one], acc[one], "ecp5-85f"), ends, strict=True
        ):
            np.testing.assert_allclose(end, side[one], rtol=1e-5)


def test_networks_on_several_engines_are_predicted_as_one_by_one(predictors: Predictors) -> None:
    genomes, _ = tiny.pairs(tiny.SPACE, DEVICE, 30, seed=7)
    which = np.random.default_rng(0).integers(0, 30, 200)
    acc = tiny.pairs(tiny.SPACE, DEVICE, 200, seed=8)[1]
    found = predictors.figures(genomes, acc, DEVICE.name, which, coverage=0.8)
    ends = predictors.intervals(genomes[which], acc, DEVICE.name, 0.8)
    expected = predictors.means(genomes[which], acc, DEVICE.name), *ends
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    single = predictors.figures(genomes, acc, DEVICE.name, which, single=True)
    np.testing.assert_allclose(single[0], expected[0], rtol=1e-4)
    assert all((side == single[0]).all() for side in single)


def test_predictors_come_back_and_those_of_other_features_do_not(predictors: Predictors) -> None:
    arrays, about = predictors.to_arrays()
    again = Predictors.from_arrays(tiny.SPACE, predictors.devices, arrays, about)
    genomes, acc = tiny.pairs(tiny.SPACE, DEVICE, 20, seed=7)
    one, other = (each.means(genomes, acc, DEVICE.name) for each in (again, predictors))
    np.testing.assert_array_equal(one, other)
    about["features"] = [name.replace("reach", "k") for name in about["features"]]
    with pytest.raises(ValueError, match="other features"):
        Predictors.from_arrays(tiny.SPACE, predictors.devices, arrays, about)


def test_accuracy_does_not_depend_on_the_engine_or_device(predictors: Predictors) -> None:
    genomes = np.repeat(SPACE_GENOMES[:1], 10, axis=0)
    found = [
        predictors.means(genomes, tiny.pairs(tiny.SPACE, device, 10, 3)[1], name)[:, 0]
        for name, device in predictors.devices.items()
    ]
    assert np.ptp(found) < 1e-9


def test_no_accuracy_beyond_100_percent_is_predicted(predictors: Predictors) -> None:
    macs = accuracy_features(tiny.SPACE, SPACE_GENOMES)[0][:, -2]
    few = macs < np.quantile(macs, 0.3)
    rising = 90 + 10 * (macs - macs.min()) / np.ptp(macs[few])
    X = accuracy_features(tiny.SPACE, SPACE_GENOMES)[0]
    steep = accuracy_surrogate().fit(X[few], rising[few])
    assert steep.predict(X).max() > 101
    found = Predictors(tiny.SPACE, predictors.devices, steep, predictors.hardware)
    acc = Accelerators.of([Accelerator(8, 8, 1, 16, 16)] * len(SPACE_GENOMES))
    means = found.means(SPACE_GENOMES, acc, "ecp5-85f")
    low, high = found.intervals(SPACE_GENOMES, acc, "ecp5-85f")
    for values in (means, low, high):
        assert values[:, 0].min() >= 0
        assert values[:, 0].max() <= 100
    assert means[:, 0].max() == 100


def test_predictors_without_finite_figures_are_refused(predictors: Predictors) -> None:
    arrays, about = predictors.hardware["latency_ms", "ecp5-85f"].to_arrays()
    ends = np.where(np.arange(len(arrays["y"])) % 2, 1e-300, 1e300)
    hardware = dict(predictors.hardware)
    hardware["latency_ms", "ecp5-85f"] = Surrogate.from_arrays(arrays | {"y": ends}, about)
    damaged = Predictors(tiny.SPACE, predictors.devices, predictors.accuracy, hardware)
    genomes, acc = tiny.pairs(tiny.SPACE, DEVICE, 2000, seed=6)
    with np.errstate(over="ignore"), pytest.raises(InputError, match="run `codesign fit` again"):
        damaged.means(genomes, acc, "ecp5-85f")
