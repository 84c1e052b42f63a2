"""The closed form of cycles against the simulated engine, as measured in data/layer_cycles.csv."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import accelerators, spaces

from codesign_kernel import program
from codesign_kernel.accelerator import Accelerator, Accelerators, devices, load_device
from codesign_kernel.cycles import BURST, Cycles, Lanes, Port, cycles, work
from codesign_kernel.errors import InputError
from codesign_kernel.integer import IntegerLayer, of_layers
from codesign_kernel.loops import refused, runs
from codesign_kernel.program import compile_network
from codesign_kernel.rtl import shape as rtl
from codesign_kernel.simulate import CAUSES, IDEAL, MemoryModel
from codesign_kernel.space import SearchSpace
from codesign_kernel.workload import Layers, layers_of

DATA = Path(__file__).parents[1] / "data"
MEMORIES = {  # as benchmarks/cycles.py has them
    "ideal": Port(8, 0, 0),
    "default": Port(8, 26, 6, 1 - 20 / 780),
    "slow": Port(8, 96, 20, 1 - 40 / 300),
}
BOUNDS = ("filters", "channels", "in_height", "in_width", "height", "width", "kernel", "stride",
          "residual")  # fmt: skip
ENGINES = ("8x8x1w16f16", "4x2x2w32f32", "4x8x4w32f64", "16x4x1w32f16", "2x8x2w32f32",
           "4x16x1w32f32", "32x2x1w32f16", "16x8x1w64f32")  # fmt: skip

LARGE = ("8x8x1w16f16", "2x16x4w8f64", "64x2x1w64f4", "1x64x4w1024f512", "128x1x2w256f1024",
         "4x4x4w512f2048", "2x16x32w512f2048", "8x8x1w1024f4096")  # fmt: skip


def closed(rows: pd.DataFrame, text: str, port: Port) -> Cycles:
    """The closed form of the network whose layers are the rows of a table."""
    names = tuple(rows["layer"].astype(str))
    layers = Layers(names, *(rows[name].to_numpy()[None] for name in BOUNDS))
    return cycles(layers, Accelerator.parse(text), port)


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    """The table of measured layers, with the closed form's cycles in columns that begin with p_."""
    parts = []
    table = pd.read_csv(DATA / "layer_cycles.csv")
    for key, rows in table.groupby(["space", "architecture", "accelerator", "memory"], sort=False):
        found = closed(rows, key[2], MEMORIES[key[3]])
        columns = {f"p_{cause}": getattr(found, cause)[0] for cause in CAUSES}
        parts.append(rows.assign(p_cycles=found.total[0], **columns))
    return pd.concat(parts)


def test_there_are_as_many_measured_cycle_counts_as_promised(measured: pd.DataFrame) -> None:
    networks = pd.read_csv(DATA / "network_cycles.csv")
    assert len(measured) >= 1000
    assert len(networks) >= 300
    assert networks["memory"].nunique() >= 3
    assert (networks[list(CAUSES)].sum(axis=1) == networks["cycles"]).all()
    key = ["space", "architecture", "accelerator", "memory"]
    sums = measured.groupby(key)["cycles"].sum()
    totals = networks.set_index(key)["cycles"]
    assert (totals == sums.reindex(totals.index)).all()


def test_compute_and_control_are_exact(measured: pd.DataFrame) -> None:
    assert (measured["p_compute"] == measured["compute"]).all()
    inner = measured[measured["layer"] != "stem"]
    assert (inner["p_control"] - inner["control"]).abs().max() <= 1


def test_layers_and_networks_with_an_ideal_memory(measured: pd.DataFrame) -> None:
    ideal = measured[measured["memory"] == "ideal"]
    error = (ideal["p_cycles"] / ideal["cycles"] - 1).abs()
    assert error.median() < 0.001
    assert error.quantile(0.98) < 0.03
    assert (error > 0.05).sum() <= 1
    assert error.max() < 0.06
    sums = ideal.groupby(["architecture", "accelerator"])[["cycles", "p_cycles"]].sum()
    error = (sums["p_cycles"] / sums["cycles"] - 1).abs()
    assert error.median() < 0.0015
    assert (error > 0.01).sum() <= 2
    assert error.max() < 0.02


def test_layers_that_the_closed_form_was_not_made_on() -> None:
    table = pd.read_csv(DATA / "unseen_cycles.csv")
    keys = ["memory", "kind", "accelerator", "port_bits", "network"]
    models = {"ideal": IDEAL, "default": MemoryModel()}
    parts = []
    for key, rows in table.groupby(keys, sort=False):
        found = closed(rows, key[2], Port.of_memory(key[3], models[key[0]]))
        parts.append(rows.assign(now=found.total[0]))
    table = pd.concat(parts)
    # If not, benchmarks/unseen.py is to be run again.
    assert (table["now"] - table["closed_form"]).abs().max() < 0.1
    error = (table["now"] / table["cycles"] - 1).abs()
    for memory, kind, least, median, most, share in (
        ("ideal", "published", 150, 0.001, 0.08, 0.01),
        ("ideal", "subnet", 1000, 0.001, 0.08, 0.005),
        ("ideal", "random", 400, 0.001, 0.3, 0.03),
        ("ideal", "alone", 400, 0.0005, 0.16, 0.02),
        ("default", "published", 150, 0.005, 0.12, 0.07),
        ("default", "subnet", 1000, 0.005, 0.16, 0.06),
        ("default", "random", 400, 0.006, 0.37, 0.08),
        ("default", "alone", 400, 0.004, 0.06, 0.02),
    ):
        some = error[(table["memory"] == memory) & (table["kind"] == kind)]
        assert len(some) >= least
        assert some.median() < median
        assert some.max() < most
        assert (some > 0.05).mean() < share


def test_networks_with_other_memories(measured: pd.DataFrame) -> None:
    sums = measured.groupby(["memory", "architecture", "accelerator"])[["cycles", "p_cycles"]].sum()
    error = (sums["p_cycles"] / sums["cycles"] - 1).abs()
    assert error["default"].median() < 0.003
    assert error["default"].max() < 0.025
    assert error["slow"].median() < 0.02
    assert error["slow"].max() < 0.12


@pytest.mark.parametrize("text", ENGINES)
@pytest.mark.parametrize("bits", [32, 64])
def test_sizes_are_those_of_the_engine(text: str, bits: int) -> None:
    acc = Accelerator.parse(text)
    shape, found = rtl.Shape(acc, bits), Lanes.of(acc, Port(bits // 8, 0, 0))
    expected = (
        shape.po, shape.drain, shape.latency, shape.streams, shape.pf // shape.out_bytes,
        shape.word_beats, shape.pf * shape.param_beats, shape.weight_words, shape.strip,
        shape.banks, shape.most_channels, shape.most_filters,
    )  # fmt: skip
    assert tuple(float(value) for value in found) == expected
    assert rtl.BURST == BURST


@given(spaces(), st.sampled_from(ENGINES), st.integers(0, 2**32 - 1))
def test_tiles_are_those_of_the_compiler(space: SearchSpace, text: str, seed: int) -> None:
    layers = layers_of(space, space.sample(1, np.random.default_rng(seed)))
    acc = Accelerator.parse(text)
    try:
        program = compile_network(of_layers(layers), rtl.Shape(acc))
    except InputError:
        return  # the engine cannot run it
    counts = np.bincount(program.layer_of_task)
    loops = work(layers, acc, Port(8, 0, 0))
    np.testing.assert_array_equal(loops.tiles[layers.filters > 0], counts)


def chance(rng: np.random.Generator) -> tuple[Layers, IntegerLayer, tuple[int, int]]:
    """A layer of any size, as the closed form has it and as the compiler has it, and its map."""
    kernel, stride = int(rng.choice([1, 3, 5, 7])), int(rng.choice([1, 2]))
    many, few, height, width = (int(2 ** rng.uniform(0, most)) for most in (14, 4, 10.2, 10.2))
    filters, channels = (many, few) if rng.random() < 0.5 else (few, many)
    out = -(-height // stride), -(-width // stride)
    rows = (filters, channels, height, width, *out, kernel, stride, 0)
    none = np.broadcast_to(np.int8(0), (filters, channels, kernel, kernel))
    numbers = (np.zeros(filters, np.int64) for _ in range(3))
    made = IntegerLayer(none, *numbers, stride)
    return Layers(("layer",), *(np.array([row]) for row in rows)), made, (height, width)


@pytest.mark.parametrize("text", LARGE)
@pytest.mark.parametrize("bits", [32, 64, 128])
def test_what_runs_is_what_the_compiler_takes(text: str, bits: int) -> None:
    """Also where a task has no room for a number, and where that cuts a map into smaller tiles."""
    acc, shape = Accelerator.parse(text), rtl.Shape(Accelerator.parse(text), bits)
    rng, port = np.random.default_rng(bits), Port(bits // 8, 0, 0)
    found, causes = [], np.zeros(3, int)
    for _ in range(200):
        layers, made, sides = chance(rng)
        says = runs(layers, acc, port)[0]
        causes += np.concatenate(refused(layers, acc, port))
        try:
            tiles = program._tiles("layer", made, *sides, shape)
        except InputError:
            assert not says, (text, layers)
            continue
        assert says, (text, layers)
        assert work(layers, acc, port).tiles[0] == len(tiles)
        source, target = program.Map(0, 1, *sides), program.Map(0, 1, *made.output(*sides))
        for tile in tiles:  # raises InputError if a value has no room
            task = program._task(made, source, target, 0, tile, shape)
            rtl.pack(task | {"last": 0, "wait": 0}, shape.port_bytes)
        found.append(len(tiles))
    assert max(found) > 1
    assert causes[0] == 0
    assert causes[1] > 0


def test_the_engine_says_why_it_cannot_run_a_layer() -> None:
    rows = [  # filters, channels, side, kernel
        (8, 8, 16, 9), (8, 8, 1024, 1), (8, 8200, 4, 1), (8200, 8, 4, 1), (8, 512, 16, 3),
        (8, 8, 16, 3),
    ]  # fmt: skip
    sides = np.array([(f, c, s, s, s, s, k, 1, 0) for f, c, s, k in rows]).T
    layers = Layers(tuple("abcdef"), *sides)
    modes, counters, buffers = refused(layers, Accelerator.parse("8x8x1w32f32"), Port(8, 0, 0))
    assert modes.tolist() == [True, *[False] * 5]
    assert counters.tolist() == [False, True, True, True, False, False]
    assert buffers.tolist() == [False, False, False, False, True, False]


@given(spaces(), st.lists(accelerators(), min_size=4, max_size=4),
       st.sampled_from(devices()), st.integers(0, 2**32 - 1))  # fmt: skip
def test_designs_at_once_are_those_one_by_one(
    space: SearchSpace, rows: list[Accelerator], name: str, seed: int
) -> None:
    layers = layers_of(space, space.sample(4, np.random.default_rng(seed)))
    port = Port.of(load_device(name))
    found = cycles(layers, Accelerators.of(rows)[:, None], port)
    for i, acc in enumerate(rows):
        alone = Layers(layers.names, *(getattr(layers, key)[i : i + 1] for key in BOUNDS))
        one = cycles(alone, acc, port)
        # Single precision: what one cause takes is a difference of what layers take in all.
        near = 1e-3 + 1e-5 * np.maximum(one.total, one.moved)[0]
        for field in fields(Cycles):
            apart = np.abs(getattr(found, field.name)[i] - getattr(one, field.name)[0])
            assert (apart <= near).all()
    absent = layers.filters == 0
    assert not found.total[absent].any()
    assert (found.total[~absent] > 0).all()
    assert all((getattr(found, field.name) >= 0).all() for field in fields(Cycles))


def test_a_port_loses_what_its_device_says() -> None:
    device = load_device("ecp5-85f")
    port = Port.of(device)
    assert port.transfer(np.array(16.0), np.array(1)) == pytest.approx(16 / device.port_efficiency)
    model = MemoryModel()
    ours = MEMORIES["default"]
    assert ours.transfer(np.array(16.0), np.array(1)) == pytest.approx(16 / model.efficiency)
    assert Port.of_memory(64, model) == ours
    assert Port.of_memory(64, IDEAL) == MEMORIES["ideal"]


def test_groups_cost_as_often_as_they_are_repeated() -> None:
    sides = ([[8]], [[8]], [[14]], [[14]], [[14]], [[14]], [[3]], [[1]], [[0]])
    one = Layers(("layer",), *(np.array(side) for side in sides))
    many = Layers(("layer",), *(np.array(side) for side in sides), repeat=np.array([[5]]))
    acc = Accelerator(8, 8, 1, 16, 16)
    assert cycles(many, acc, MEMORIES["ideal"]).total == pytest.approx(
        5 * cycles(one, acc, MEMORIES["ideal"]).total
    )
