"""Whole networks from their layers: the closed form, and intervals against measured networks."""

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
from codesign_kernel.parts import Parts, place
from codesign_kernel.simulate import MemoryModel
from codesign_kernel.space import load_space
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


def chains() -> pd.DataFrame:
    """The measured random chains, on the default memory."""
    return pd.read_csv(DATA / "chain_cycles.csv").query("memory == 'default'")


def of_rows(rows: pd.DataFrame) -> Layers:
    """The layers of a chain, fields (layers,)."""
    bounds = (rows[name].to_numpy() for name in BOUNDS)
    return Layers(tuple(rows["layer"].astype(str)), *bounds, pools=rows["pools"].to_numpy())


def test_cycles_are_those_of_the_closed_form_and_places_say_what_is_near() -> None:
    port, one = Port.of(DEVICE), network()
    spent = cycles(one, ENGINE, port)
    assert parts.load().cycles(one, ENGINE, port).mean == pytest.approx(spent.total.sum())
    share, streams = place(spent, ENGINE, port)
    assert share == pytest.approx(spent.compute.sum() / spent.total.sum())
    assert streams == 0
    wide = Accelerator.parse("16x4x2w32f32")  # two lanes of two planes
    assert place(cycles(one, wide, port), wide, port)[1] == pytest.approx(2 * parts.DOUBLING)


def test_an_interval_is_a_quantile_of_the_nearest_measured_networks() -> None:
    rng = np.random.default_rng(1)
    off = np.stack([rng.normal(0, 0.01, 300), rng.normal(0, 0.1, 300)])
    places = np.stack([rng.uniform(0, 1, (2, 300)), 0.1 * rng.integers(0, 3, (2, 300))], axis=2)
    off[places[..., 0] > 0.5] /= 100
    made = Parts(np.array([2.0, 3.0]), places, off)
    for burst, row in ((1.0, 0), (3.5, 1)):  # the memory nearest to it
        away = np.abs(places[row] - (0.2, 0.1)).sum(axis=1)
        scores = np.sort(np.abs(off[row][np.argsort(away)[: parts.NEAR]]))
        # Of 60, 54.9 are within: conformal prediction counts the one that is asked for, too.
        expected = scores[53] + 0.9 * (scores[54] - scores[53])
        assert made.half((0.2, 0.1), burst) == pytest.approx(expected)
    assert made.half((0.9, 0.1), 2.0) < made.half((0.2, 0.1), 2.0) / 10
    assert made.half((0.2, 0.1), 2.0, 0.5) < made.half((0.2, 0.1), 2.0)


def test_measured_networks_lie_in_the_intervals_of_what_is_shipped() -> None:
    """How well intervals hold of networks left out is in benchmarks/parts.md."""
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


def test_measured_chains_lie_in_the_intervals_of_what_is_shipped() -> None:
    """Also those of 1 x 1 convolutions on engines that compute several pixels at once."""
    found, port = parts.load(), Port.of_memory(64, MemoryModel())
    rows = []
    for key, part in chains().groupby(["kind", "accelerator", "network"]):
        acc, measured = Accelerator.parse(key[1]), part["cycles"].sum()
        mean, low, high = found.cycles(of_rows(part), acc, port)
        rows.append((key[0], acc.pv > 1, low <= measured <= high, abs(mean / measured - 1)))
    tests = pd.DataFrame(rows, columns=["kind", "several", "inside", "error"])
    assert len(tests) == 480
    assert tests["inside"].mean() >= 0.85
    assert tests.groupby("several")["inside"].mean().min() >= 0.8
    assert tests.groupby("kind")["inside"].mean().min() >= 0.6
    assert tests["error"].median() < 0.01


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
        {"off": np.zeros((3, 0))}, {"bursts": np.zeros(1)}, {"places": arrays["off"]},
        {"off": arrays["off"] * np.nan},
    ):  # fmt: skip
        with pytest.raises(InputError, match="damaged"):
            Parts.from_arrays(arrays | broken, about)


def test_what_is_shipped_is_what_the_tables_say() -> None:
    """If not, benchmarks/parts.py is to be run again."""
    found, port = parts.load(), Port.of_memory(64, MemoryModel())
    key, rows = next(iter(chains().groupby(["kind", "accelerator", "network"])))
    acc, layers = Accelerator.parse(key[1]), of_rows(rows)
    spent = cycles(layers, acc, port)
    memory = int(np.argmin(np.abs(found.bursts - port.burst)))
    away = np.abs(found.places[memory] - place(spent, acc, port)).sum(axis=1)
    off = np.log(rows["cycles"].sum() / spent.total.sum())
    same = np.isclose(away, 0, atol=1e-6)
    assert np.isclose(found.off[memory][same], off, atol=1e-6).any()
