"""The engine, simulated, against the int8 reference: every map of every layer, bit for bit."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign_kernel import program
from codesign_kernel.accelerator import Accelerator
from codesign_kernel.cycles import Port, cycles, traffic
from codesign_kernel.errors import InputError
from codesign_kernel.integer import IntegerLayer, IntegerNetwork, of_layers
from codesign_kernel.program import compile_network
from codesign_kernel.protocol import READ_LATENCY
from codesign_kernel.rtl.engine import to_rtlil
from codesign_kernel.rtl.shape import Shape, pack
from codesign_kernel.simulate import CAUSES, IDEAL, MemoryModel, count_cycles, simulate
from codesign_kernel.space import load_space
from codesign_kernel.tools import compiler, yosys
from codesign_kernel.workload import Layers, layers_of

SLOW = MemoryModel(latency=100, gap=20, refresh_every=300, refresh_cycles=40)


def layer(
    rng: np.random.Generator, filters: int, channels: int, kernel: int, pixels: int = 1,
    **rest: object,
) -> IntegerLayer:  # fmt: skip
    """A layer of random weights whose output has a spread of about 40."""
    factor = 40 / (74 * 74 * (channels * kernel * kernel * pixels) ** 0.5)
    shift = max(0, int(np.floor(-5 - np.log2(factor))))
    most = min((1 << 17) - 1, int(factor * 2 ** (22 + shift)))
    return IntegerLayer(
        rng.integers(-127, 128, (filters, channels, kernel, kernel)).astype(np.int8),
        rng.integers(-3000, 3000, filters),
        rng.integers(most // 2, most + 1, filters),
        np.full(filters, shift),
        **rest,
    )


KINDS = st.lists(
    st.tuples(
        st.integers(1, 26), st.sampled_from([1, 3, 5, 7]), st.integers(1, 2), st.booleans(),
        st.integers(0, 2), st.booleans(),
    ),
    min_size=2, max_size=4,
)  # fmt: skip
INPUTS = st.tuples(st.integers(1, 19), st.integers(1, 14), st.integers(1, 14))


def network(seed: int, kinds: list[tuple[int, int, int, bool, int, bool]],
            input: tuple[int, int, int]) -> IntegerNetwork:  # fmt: skip
    """Layers of (filters, kernel, stride, residual, halve, relu), and a classifier at the end."""
    rng = np.random.default_rng(seed)
    c, *sides = input
    layers: list[IntegerLayer] = []
    for filters, kernel, stride, residual, halve, relu in kinds:
        f, step = (c, 1) if residual else (filters, stride)
        layers.append(
            layer(rng, f, c, kernel, stride=step, residual=residual, halve=halve, relu=relu)
        )
        sides, c = list(layers[-1].output(*sides)), f
    layers.append(layer(rng, 10, c, 1, sides[0] * sides[1], pooled=True, relu=False))
    return IntegerNetwork(layers, input)


ENGINES = [  # with the bits of the memory port; on each run 8 networks of 3 to 5 layers
    ("8x8x1w16f16", 64), ("4x2x2w32f32", 32), ("4x8x4w32f64", 64), ("2x2x1w16f16", 32),
    ("4x4x1w16f16", 64), ("8x4x2w16f32", 64), ("16x4x1w32f16", 64), ("2x8x2w32f32", 128),
    ("8x2x1w32f32", 32), ("4x16x1w32f32", 64),
]  # fmt: skip


@pytest.mark.parametrize(("accelerator", "port"), ENGINES)
@settings(max_examples=8, deadline=None)
@given(KINDS, INPUTS, st.sampled_from([MemoryModel(), IDEAL, SLOW]), st.integers(0, 99))
def test_engine_computes_what_the_reference_does(
    accelerator: str, port: int, kinds: list[tuple[int, int, int, bool, int, bool]],
    input: tuple[int, int, int], memory: MemoryModel, seed: int,
) -> None:  # fmt: skip
    made = network(seed, kinds, input)
    program = compile_network(made, Shape(Accelerator.parse(accelerator), port))
    x = np.random.default_rng(seed).integers(-128, 128, input).astype(np.int8)
    run = simulate(program, x, memory, limit=3_000_000)
    expected = x[None]
    for i, each in enumerate(made.layers):
        expected = each(expected)
        np.testing.assert_array_equal(program.read_map(run.memory, i + 1), expected[0])
    assert run.layers.shape == (len(made.layers), len(CAUSES))
    assert run.layers.to_numpy().sum() == run.cycles


@pytest.mark.parametrize("memory", [IDEAL, MemoryModel()])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 1), (2, 1), (1, 17), (16, 1)])
def test_planes_of_one_pixel_follow_each_other_at_once(
    height: int, width: int, memory: MemoryModel
) -> None:
    # Behind a burst of weights, commands of one beat would be served cycle after cycle.
    rng = np.random.default_rng(5)
    layers = [layer(rng, 8, 20, 1), layer(rng, 16, 8, 5), layer(rng, 8, 16, 3), layer(rng, 4, 8, 1)]
    net = IntegerNetwork(layers, (20, height, width))
    program = compile_network(net, Shape(Accelerator.parse("2x2x1w16f16"), 32))
    x = rng.integers(-128, 128, net.input).astype(np.int8)
    run = simulate(program, x, memory, limit=300_000)
    np.testing.assert_array_equal(program.read_map(run.memory), net(x[None])[0])


def test_constants_of_the_engine_are_named_once(tmp_path: Path) -> None:
    """With other sizes of commands and of the store for parameters it computes the same."""
    package = Path(program.__file__).parent
    shutil.copytree(package, tmp_path / package.name)
    constants = tmp_path / package.name / "rtl" / "shape.py"
    text = constants.read_text(encoding="utf-8")
    for usual, other in (("\nBURST = 16 ", "\nBURST = 32 "), ("\nSLOTS = 32 ", "\nSLOTS = 64 ")):
        assert usual in text
        text = text.replace(usual, other)
    constants.write_text(text, encoding="utf-8")
    code = (
        "import numpy as np, test_simulate as t\n"
        "made = t.network(7, [(90, 1, 1, False, 0, True), (12, 5, 2, False, 0, True)], (5, 9, 9))\n"
        "program = t.compile_network(made, t.Shape(t.Accelerator.parse('2x2x1w16f16'), 32))\n"
        "x = np.random.default_rng(7).integers(-128, 128, made.input).astype(np.int8)\n"
        "found = program.read_map(t.simulate(program, x, limit=3_000_000).memory)\n"
        "np.testing.assert_array_equal(found, made(x[None])[0])\n"
        "print(t.program.__file__)\n"
    )
    places = {"PYTHONPATH": str(Path(__file__).parent), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | places, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.startswith(str(tmp_path))) == (0, True), done.stderr


def test_maps_that_do_not_fit_are_cut_into_tiles() -> None:
    rng = np.random.default_rng(3)
    net = IntegerNetwork([layer(rng, 8, 8, 3), layer(rng, 8, 8, 5, stride=2)], (8, 24, 24))
    shape = Shape(Accelerator.parse("8x8x1w16f4"))
    program = compile_network(net, shape)
    assert len(program.layer_of_task) > len(net.layers)
    x = rng.integers(-128, 128, net.input).astype(np.int8)
    run = simulate(program, x, limit=3_000_000)
    np.testing.assert_array_equal(program.read_map(run.memory), net(x[None])[0])


@pytest.mark.parametrize(
    ("filters", "channels", "side", "kernel", "stride"),
    [(8, 64, 14, 1, 1), (16, 24, 15, 3, 1), (8, 16, 20, 5, 2), (40, 16, 26, 1, 1)],
)
def test_the_closed_form_knows_uneven_tiles(
    filters: int, channels: int, side: int, kernel: int, stride: int
) -> None:
    rng, shape = np.random.default_rng(6), Shape(Accelerator.parse("8x8x1w16f4"))
    net = IntegerNetwork(
        [layer(rng, filters, channels, kernel, stride=stride)], (channels, side, side)
    )
    program = compile_network(net, shape)
    assert len(program.layer_of_task) > 1
    run = simulate(program, np.zeros(net.input, np.int8), IDEAL, limit=3_000_000)
    out = -(-side // stride)
    bounds = (filters, channels, side, side, out, out, kernel, stride, 0)
    layers = Layers(("layer",), *(np.array([bound]) for bound in bounds))
    port = Port.of_memory(64, IDEAL)
    found = cycles(layers, shape.accelerator, port)
    assert found.compute[0] == run.layers["compute"].iloc[0]
    assert found.total[0] == pytest.approx(run.cycles, rel=0.1)
    assert sum(traffic(layers, shape.accelerator, port))[0] == 8 * (run.read + run.written)


def test_an_engine_that_waits_for_ever_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_beat(values: dict[str, int], port_bytes: int) -> bytes:
        return pack(values | {"i_rest": 1}, port_bytes)  # which the compiler never asks for

    net = IntegerNetwork([layer(np.random.default_rng(4), 8, 20, 1)], (20, 1, 1))
    monkeypatch.setattr(program, "pack", one_beat)
    made = compile_network(net, Shape(Accelerator.parse("2x2x1w16f16"), 32))
    with pytest.raises(InputError, match="the engine waits for what never comes"):
        simulate(made, np.zeros(net.input, np.int8), IDEAL)


def test_a_run_without_end_and_a_layer_without_room_are_told() -> None:
    rng = np.random.default_rng(4)
    shape = Shape(Accelerator.parse("8x8x1w16f16"))
    net = IntegerNetwork([layer(rng, 8, 8, 3)], (8, 8, 8))
    program = compile_network(net, shape)
    x = np.zeros(net.input, np.int8)
    with pytest.raises(InputError, match="limit of cycles is reached"):
        simulate(program, x, limit=100)
    with pytest.raises(InputError, match="words of weights in a filter group"):
        compile_network(IntegerNetwork([layer(rng, 8, 512, 7)], (512, 8, 8)), shape)
    with pytest.raises(InputError, match="half the feature buffer"):
        compile_network(IntegerNetwork([layer(rng, 8, 8, 7)], (8, 300, 300)), shape)


def test_cycles_of_layers_are_counted_by_cause() -> None:
    space = load_space("digits")
    layers = layers_of(space, space.extremes()[0][None])
    shape = Shape(Accelerator.parse("8x8x1w16f16"))
    table = count_cycles(layers, shape, IDEAL)
    present = layers.filters[0] > 0
    assert table["layer"].tolist() == [n for n, p in zip(layers.names, present, strict=True) if p]
    network = of_layers(layers, seed=1)  # other weights, the same cycles
    image = np.full(network.input, 7, np.int8)
    run = simulate(compile_network(network, shape), image, IDEAL)
    assert table["cycles"].sum() == run.cycles
    np.testing.assert_array_equal(table[list(CAUSES)], run.layers[list(CAUSES)])


def test_memory_model_says_what_it_allows() -> None:
    assert MemoryModel().efficiency == pytest.approx(0.709, abs=1e-3)
    with pytest.raises(InputError, match="latency of the memory model is 2"):
        MemoryModel(latency=2)
    with pytest.raises(InputError, match=r"refresh_cycles of the memory model is 100, but must be"):
        MemoryModel(refresh_every=100, refresh_cycles=100)
    assert MemoryModel(refresh_every=0, refresh_cycles=100).efficiency == pytest.approx(16 / 22)


def test_a_read_s_first_beat_may_come_three_cycles_after_its_command_and_no_sooner() -> None:
    net = IntegerNetwork([layer(np.random.default_rng(5), 8, 8, 3)], (8, 6, 6))
    made = compile_network(net, Shape(Accelerator.parse("2x4x1w4f4")))
    x = np.random.default_rng(6).integers(-128, 128, net.input).astype(np.int8)
    memory = MemoryModel()
    object.__setattr__(memory, "latency", READ_LATENCY)  # the model itself begins at 4
    np.testing.assert_array_equal(made.read_map(simulate(made, x, memory).memory), net(x[None])[0])
    object.__setattr__(memory, "latency", READ_LATENCY - 1)
    with pytest.raises(InputError, match="the engine waits for what never comes"):
        simulate(made, x, memory)


def test_flips_are_of_flip_flops_and_follow_the_data() -> None:
    space = load_space("digits")
    network = of_layers(layers_of(space, space.extremes()[0][None]))
    program = compile_network(network, Shape(Accelerator.parse("8x8x1w16f16")))
    rng = np.random.default_rng(5)
    images = [np.zeros(network.input, np.int8), rng.integers(-128, 128, network.input, np.int8)]
    quiet, busy = (simulate(program, image, IDEAL) for image in images)
    assert quiet.cycles == busy.cycles
    assert 4000 < busy.flip_flops == quiet.flip_flops < 10_000
    assert 20 < quiet.flips < busy.flips < busy.flip_flops / 4
    assert simulate(program, images[1], IDEAL).flips == busy.flips


@pytest.mark.verilator
def test_verilator_counts_the_same_cycles_and_computes_the_same(tmp_path: Path) -> None:
    shape = Shape(Accelerator.parse("4x4x1w16f16"))
    made = network(7, [(12, 3, 1, False, 0, True), (12, 5, 2, False, 0, True)], (5, 9, 9))
    program = compile_network(made, shape)
    x = np.random.default_rng(7).integers(-128, 128, made.input).astype(np.int8)
    (tmp_path / "engine.il").write_text(to_rtlil(shape))
    write = f"write_verilog -noattr {tmp_path}/engine.v"
    yosys([f"read_rtlil {tmp_path}/engine.il", "hierarchy -top engine", "proc", write])
    driver = Path(simulate.__code__.co_filename).parent / "rtl" / "driver.cpp"
    options = ["--cc", "--exe", "--build", "--top-module", "engine", "-Wno-fatal", "-Wno-lint",
               "-Wno-style", "--Mdir", str(tmp_path / "made"), "-CFLAGS", "-std=c++17 -DVERILATOR",
               "-MAKEFLAGS", f"CXX={compiler()[0]}"]  # fmt: skip
    command = ["verilator", *options, str(tmp_path / "engine.v"), str(driver)]
    subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "in").write_bytes(program.with_input(x))
    for memory in (MemoryModel(), IDEAL, SLOW):
        numbers = [memory.latency, memory.gap, memory.refresh_every, memory.refresh_cycles]
        paths = [str(tmp_path / name) for name in ("made/Vengine", "in", "out")]
        words = [*paths, "1000000", *map(str, numbers)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        head, *rows = done.stdout.splitlines()
        run = simulate(program, x, memory)
        assert head.startswith(f"cycles {run.cycles} beats {run.read} {run.written} ")
        assert (tmp_path / "out").read_bytes() == run.memory
        counted = np.array([row.split()[1:] for row in rows], int).sum(axis=0)
        assert counted.sum() == run.cycles
        assert counted[1] == run.layers["compute"].sum()
