"""Whole networks from their layers: sums against sampling, intervals against measured networks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from codesign_kernel import cost, parts, routed
from codesign_kernel.accelerator import Accelerator, Accelerators, load_device
from codesign_kernel.cycles import Port, cycles
from codesign_kernel.errors import InputError
from codesign_kernel.files import read_arrays
from codesign_kernel.networks import load_network
from codesign_kernel.parts import Interval, Parts, calibrated, layer_features, summed
from codesign_kernel.simulate import MemoryModel
from codesign_kernel.space import load_space
from codesign_kernel.surrogate import Surrogate
from codesign_kernel.workload import Layers, layers_of

DATA = Path(__file__).parents[1] / "data"
DEVICE = load_device("ecp5-45f")
ENGINE = Accelerator.parse("8x8x1w32f32")
BOUNDS = ("filters", "channels", "in_height", "in_width", "height", "width", "kernel", "stride",
          "residual")  # fmt: skip


def network(seed: int = 0) -> Layers:
    """A random subnet of the space `fashion`, fields (layers,)."""
    space = load_space("fashion")
    layers = layers_of(space, space.sample(1, np.random.default_rng(seed)))
    there = layers.filters[0] > 0
    return Layers(
        tuple(name for name, each in zip(layers.names, there, strict=True) if each),
        *(getattr(layers, name)[0][there] for name in BOUNDS),
    )


def test_features_begin_with_the_closed_form_and_end_with_the_burst() -> None:
    port, one = Port.of(DEVICE), network()
    found, names = layer_features(one, ENGINE, port)
    spent = cycles(one, ENGINE, port)
    assert found.shape == (len(one.filters), len(names))
    np.testing.assert_array_equal(found[:, 0], spent.total)
    shares = [name for name in names if name.endswith("_share") and name != "moved_share"]
    np.testing.assert_allclose(found[:, [names.index(name) for name in shares]].sum(axis=1), 1)
    assert (found[:, -1] == port.burst).all()
    assert found[:, names.index("first")].tolist() == [1, *[0] * (len(found) - 1)]


def test_the_sum_of_layers_is_that_of_samples() -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(1, 9, (30, 2))
    model = Surrogate(prior=0, log=True).fit(X, X[:, 0] * np.exp(0.1 * np.sin(X[:, 1])))
    inputs = rng.uniform(1, 9, (6, 2))
    mean, spread = summed(model, inputs)
    logs, covariance = model.joint(inputs)
    sums = np.exp(rng.multivariate_normal(logs, covariance, 20_000)).sum(axis=1)
    assert np.log(sums).mean() == pytest.approx(np.log(mean), abs=0.1 * spread)
    assert np.log(sums).std() == pytest.approx(spread, rel=0.05)
    # Equal layers err by the same amount: the sum of four is hardly better known than one.
    _, four = summed(model, np.full((4, 2), 20.0))
    _, one = summed(model, np.full((1, 2), 20.0))
    assert 0.9 * one < four < one


def test_intervals_are_as_wide_as_whole_networks_were_off() -> None:
    rng = np.random.default_rng(1)
    X = rng.uniform(1, 9, (30, 2))
    model = Surrogate(prior=0, log=True).fit(X, X[:, 0])
    bursts = np.repeat([2.0, 3.0], 9)
    many = [np.column_stack([rng.uniform(1, 9, 4), np.full(4, b)]) for b in bursts]
    means, spreads = np.array([summed(model, inputs) for inputs in many]).T
    least = np.repeat([np.median(spreads[:9]), np.median(spreads[9:])], 9)
    off = np.tile(np.arange(1, 10), 2) * np.repeat([1, 2], 9)
    measured = means * np.exp(off * (spreads + least))
    found = calibrated(model, bursts, measured, np.column_stack([means, spreads]))
    assert found.bursts.tolist() == [2, 3]
    np.testing.assert_allclose(found.least, least[[0, 9]])
    np.testing.assert_allclose(found.scores, [np.arange(1, 10), 2 * np.arange(1, 10)])
    for burst, times, some in ((1.9, 1, least[0]), (3.5, 2, least[9])):  # the memory nearest to it
        inputs = np.column_stack([[5.0, 6.0], [burst, burst]])
        mean, spread = summed(model, inputs)
        # Nine of ten lie within the ninth of nine.
        expected = Interval.of(mean, 9 * times * (spread + some))
        assert found.total(inputs, 0.9) == pytest.approx(expected)
        half = found.total(inputs, 0.5)
        assert np.log(half.high / half.mean) == pytest.approx(5 * times * (spread + some))


def test_measured_networks_lie_in_the_intervals_of_what_is_shipped() -> None:
    """Trained on some of their layers, it is surer of them than of others; how well its intervals
    hold of networks left out is in benchmarks/parts.md."""
    table = pd.read_csv(DATA / "layer_cycles.csv").query("memory == 'default'")
    found, port = parts.load(), Port.of_memory(64, MemoryModel())
    inside, errors = [], []
    for key, rows in table.groupby(["architecture", "accelerator"]):
        layers = Layers(tuple(rows["layer"]), *(rows[name].to_numpy() for name in BOUNDS))
        mean, low, high = found.cycles(layers, Accelerator.parse(key[1]), port)
        inside.append(low <= rows["cycles"].sum() <= high)
        errors.append(abs(mean / rows["cycles"].sum() - 1))
    assert len(inside) == 120
    assert np.mean(inside) >= 0.8
    assert np.median(errors) < 0.005


@pytest.mark.parametrize("text", ["8x8x1w32f32", "8x8x1w32f256"])
def test_a_whole_is_cycles_over_the_clock(text: str) -> None:
    acc, one = Accelerator.parse(text), network(1)
    found = parts.whole(parts.load(), one, acc, DEVICE)
    there = acc in routed.engines(DEVICE)
    assert found.routed == there
    clock = (
        routed.figures(acc, DEVICE)["clock_mhz"] if there else float(cost.clock_mhz(acc, DEVICE))
    )
    assert found.clock_mhz.mean == pytest.approx(clock)
    assert found.latency_ms.mean == pytest.approx(found.cycles.mean / clock / 1e3)
    width = {name: np.log(getattr(found, name).high / getattr(found, name).mean)
             for name in ("cycles", "clock_mhz", "latency_ms", "energy_mj")}  # fmt: skip
    assert width["clock_mhz"] == pytest.approx(0 if there else np.log(DEVICE.clock_within))
    assert width["latency_ms"] == pytest.approx(np.hypot(width["cycles"], width["clock_mhz"]))
    figures = cost.figures(one[None], Accelerators.of([acc]), DEVICE)
    assert found.energy_mj.mean == pytest.approx(
        found.latency_ms.mean * figures.power_w[0], rel=0.05  # of the clock by the closed form
    )  # fmt: skip
    # The clock moves the static part of the energy only.
    least = np.hypot(width["cycles"], np.log(figures.power_within[0]))
    assert 0.95 * least < width["energy_mj"] < np.hypot(1.05 * least, width["clock_mhz"])


@pytest.mark.parametrize(
    ("name", "engine", "words"),
    [
        ("mobilenetv2", "8x8x1w64f32", "grouped or oblong convolutions"),
        ("resnet101", "8x8x1w4f4", "buffers are too small"),
    ],
)
def test_what_was_never_measured_is_not_predicted(name: str, engine: str, words: str) -> None:
    layers = load_network(name).layers
    with pytest.raises(InputError, match=words):
        parts.whole(parts.load(), layers, Accelerator.parse(engine), DEVICE)


@pytest.mark.parametrize(
    ("kernel", "stride", "side", "out"),
    [(9, 1, 16, 16), (2, 1, 16, 16), (3, 3, 16, 6), (3, 1, 16, 14), (3, 2, 15, 7), (3, 2, 16, 16)],
)
def test_layers_that_the_engine_has_no_mode_for_get_no_interval(
    kernel: int, stride: int, side: int, out: int
) -> None:
    bounds = (16, 3, side, side, out, out, kernel, stride, 0)
    layers = Layers(("conv",), *(np.array([bound]) for bound in bounds))
    with pytest.raises(InputError, match="the engine has no mode for conv: kernels are 1, 3, 5"):
        parts.load().cycles(layers, ENGINE, Port.of(DEVICE))


@pytest.mark.parametrize("coverage", [0.0, 1.0, np.nan])
def test_coverage_is_a_probability(coverage: float) -> None:
    with pytest.raises(InputError, match="coverage is"):
        parts.load().cycles(network(), ENGINE, Port.of(DEVICE), coverage)


def test_what_is_stored_comes_back_or_is_refused() -> None:
    found = parts.load()
    arrays, about = found.to_arrays()
    again = Parts.from_arrays(arrays, about)
    assert again.cycles(network(2), ENGINE, Port.of(DEVICE)) == found.cycles(
        network(2), ENGINE, Port.of(DEVICE)
    )
    stored, _ = read_arrays(DATA / "parts.safetensors")
    assert set(stored) == set(arrays)
    for broken in (
        {"scores": arrays["scores"][:, ::-1]}, {"scores": np.zeros((3, 0))},
        {"bursts": np.zeros(1)}, {"least": -arrays["least"]}, {"theta": np.zeros(2)},
    ):  # fmt: skip
        with pytest.raises(InputError, match="damaged"):
            Parts.from_arrays(arrays | broken, about)
