"""The closed form against engines that were placed and routed, and against sums by hand."""

from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from strategies import accelerators, spaces

from codesign_kernel import cost
from codesign_kernel.accelerator import Accelerator, Accelerators, Device, devices, load_device
from codesign_kernel.cycles import Port, cycles, traffic
from codesign_kernel.errors import InputError
from codesign_kernel.rtl.shape import SLOTS, Shape
from codesign_kernel.space import Architecture, SearchSpace, load_space
from codesign_kernel.workload import Layers, layers_of

SEEDS = st.integers(0, 2**32 - 1)
DEVICES = st.sampled_from([load_device(name) for name in devices()])
ECP5, ARRIA = load_device("ecp5-85f"), load_device("arria10-gx1150")
DATA = Path(__file__).parents[1] / "data"
ONE = Accelerator(8, 8, 1, 32, 32)


@pytest.fixture(scope="module")
def routed() -> pd.DataFrame:
    """Engines after place and route, with the closed form's figures in columns that begin with
    c_."""
    table = pd.read_csv(DATA / "implementations.csv")
    parts = []
    for name, rows in table.groupby("device"):
        device = load_device(str(name))
        acc = Accelerators.of([Accelerator.parse(text) for text in rows["accelerator"]])
        need = cost.resources(acc, device)
        found = {f"c_{key.name}": getattr(need, key.name) for key in fields(need)}
        parts.append(rows.assign(**found, c_clock_mhz=cost.clock_mhz(acc, device)))
    return pd.concat(parts)


def test_dsp_and_block_ram_are_exact(routed: pd.DataFrame) -> None:
    assert routed["accelerator"].nunique() >= 20
    assert (routed["c_dsp"] == routed["dsp"]).all()
    assert (routed["c_bram"] == routed["bram"]).all()


def test_luts_flip_flops_and_clock_are_near_those_measured(routed: pd.DataFrame) -> None:
    error = {
        key: (routed[f"c_{key}"] / routed[key] - 1).abs() for key in ("lut", "ff", "clock_mhz")
    }
    assert error["lut"].median() < 0.03
    assert error["lut"].max() < 0.12
    assert error["ff"].median() < 0.03
    assert error["ff"].max() < 0.12
    within = np.exp(np.abs(np.log(routed["c_clock_mhz"] / routed["clock_mhz"])))
    assert error["clock_mhz"].median() < 0.06
    assert (within <= ECP5.clock_within).mean() >= 0.85


def test_the_parameters_of_as_many_groups_are_kept_as_the_engine_has_room_for() -> None:
    assert cost.SLOTS == SLOTS


def test_resources_worked_out_by_hand() -> None:
    need = cost.resources(ONE, ECP5)
    # 64 products, and a quarter of 8 results requantised at once.
    assert need.dsp == 64 + 2
    # Weights: 8 banks of 64 bits, 2 blocks wide, 512 words. Maps: one bank of 2 x 2048 words.
    # Parameters of 32 groups of 8 filters, two at once: 128 words of 64 bits, twice.
    assert need.bram == 8 * 2 * 1 + 2 * 8 + 2 * 2
    assert need.lut == np.rint(3213.7 + 22.9 * 64 + 105.2 * 8 + 548.9 + 208.7 * 2)
    assert need.ff == np.rint(2498.4 + 27.1 * 64 + 52.0 * 8 + 60.4 * 8 + 433.5 * 2)


def test_clock_falls_beyond_sixteen_products_and_stays_below() -> None:
    shapes = [(1, 1, 1), (4, 2, 1), (4, 4, 1), (8, 4, 1), (8, 8, 1), (16, 8, 1)]
    clocks = [float(cost.clock_mhz(Accelerator(*shape, 4, 4), ECP5)) for shape in shapes]
    top, slope = ECP5.clock_mhz, ECP5.clock_slope_mhz
    assert clocks == [top, top, top, top - slope, top - 2 * slope, top - 3 * slope]
    steep = replace(ECP5, clock_slope_mhz=50.0)
    assert cost.clock_mhz(Accelerator(64, 64, 64, 4, 4), steep) == 1.0


def test_the_published_engine_fits_the_arria_10_and_runs_at_200_mhz() -> None:
    acc = Accelerators.of([Accelerator(64, 64, 1, 512, 512)])
    assert cost.fits(acc, ARRIA).tolist() == [True]
    assert cost.clock_mhz(acc, ARRIA).tolist() == [200.0]
    assert cost.resources(acc, ARRIA).dsp.tolist() == [4096 // 4 + 8]


GROWING = {"dsp": ("pf", "pc", "pv"), "lut": ("pf", "pc", "pv")}


@given(accelerators(), DEVICES, st.sampled_from(sorted(GROWING)), st.integers(1, 64))
def test_more_lanes_never_need_less(acc: Accelerator, device: Device, kind: str, more: int) -> None:
    less = getattr(cost.resources(acc, device), kind)
    for part in GROWING[kind]:
        larger = replace(acc, **{part: getattr(acc, part) + more})
        assert getattr(cost.resources(larger, device), kind) >= less


POWERS = st.sampled_from((1, 2, 4, 8, 16, 32, 64))


@given(
    st.lists(st.builds(Accelerator, POWERS, POWERS, POWERS, POWERS, POWERS), min_size=1), DEVICES
)
def test_fits_is_what_can_be_built_within_each_budget(
    rows: list[Accelerator], device: Device
) -> None:
    found = cost.fits(Accelerators.of(rows), device).tolist()
    for row, fit in zip(rows, found, strict=True):
        need = cost.resources(row, device)
        held = all(getattr(need, kind) <= getattr(device, kind) for kind in ("dsp", "bram", "lut"))
        assert fit == (held and can_be_built(row, device))


def can_be_built(acc: Accelerator, device: Device) -> bool:
    try:
        Shape(acc, device.port_bits)
    except InputError:
        return False
    return True


def test_fits_at_the_very_budget_and_not_one_below() -> None:
    acc = Accelerators.of([ONE])
    need = cost.resources(acc, ECP5)
    exact: dict[str, Any] = {kind: int(getattr(need, kind)[0]) for kind in ("dsp", "bram", "lut")}
    assert cost.fits(acc, replace(ECP5, **exact)).all()
    for kind, value in exact.items():
        assert not cost.fits(acc, replace(ECP5, **exact | {kind: value - 1})).any()


@pytest.mark.parametrize("name", devices())
def test_most_of_each_grid_fits(name: str) -> None:
    device = load_device(name)
    assert cost.fits(device.grid(), device).mean() > 0.6


def networks(space: SearchSpace, seed: int, n: int = 4) -> Layers:
    return layers_of(space, space.sample(n, np.random.default_rng(seed)))


@given(spaces(), st.lists(accelerators(), min_size=4, max_size=4), DEVICES, SEEDS)
def test_many_designs_are_as_each_alone(
    space: SearchSpace, rows: list[Accelerator], device: Device, seed: int
) -> None:
    genomes = space.sample(4, np.random.default_rng(seed))
    together = cost.figures(layers_of(space, genomes), Accelerators.of(rows), device)
    need = cost.resources(Accelerators.of(rows), device)
    for i, row in enumerate(rows):
        layers = layers_of(space, genomes[i : i + 1])
        alone = cost.figures(layers, Accelerators.of([row]), device)
        for field in fields(alone):
            assert getattr(together, field.name)[i] == pytest.approx(
                getattr(alone, field.name).item(), rel=1e-12
            )
        assert cost.clock_mhz(row, device) == together.clock_mhz[i]
        assert list(map(int, astuple(cost.resources(row, device)))) == [
            getattr(need, field.name)[i] for field in fields(need)
        ]


@given(spaces(), st.lists(accelerators(), min_size=4, max_size=4), DEVICES, SEEDS)
def test_figures_are_those_of_the_cycles_and_no_faster_than_the_multipliers(
    space: SearchSpace, rows: list[Accelerator], device: Device, seed: int
) -> None:
    layers, acc = networks(space, seed), Accelerators.of(rows)
    found = cost.figures(layers, acc, device)
    spent = cycles(layers, cost.column(acc), Port.of(device))
    np.testing.assert_allclose(found.cycles, spent.total.sum(axis=1))
    np.testing.assert_allclose(found.latency_ms, found.cycles / found.clock_mhz / 1e3)
    np.testing.assert_allclose(found.energy_mj, found.power_w * found.latency_ms)
    assert (found.cycles * acc.pf * acc.pc * acc.pv > layers.macs.sum(axis=1)).all()
    for known in (cost.figures(layers, acc, device, spent),):
        np.testing.assert_array_equal(known.power_w, found.power_w)


def test_the_roofline_worked_out_by_hand() -> None:
    acc, device = Accelerators.of([ONE]), replace(ECP5, port_bits=32, port_efficiency=0.7)
    side = np.array([[14]])
    values = (np.array([[16]]), np.array([[8]]), side, side, side, side)
    layer = Layers(("layer",), *values, *(np.array([[n]]) for n in (3, 1, 0)))
    clock = float(cost.clock_mhz(ONE, device))
    # 16 x 8 x 9 x 196 MACs at 64 a cycle beat 5,856 bytes at 2.8.
    found = cost.roofline_ms(layer, acc, device)
    assert found.tolist() == pytest.approx([16 * 8 * 9 * 196 / 64 / clock / 1e3])
    found = cost.roofline_ms(layer, Accelerators.of([Accelerator(64, 64, 1, 4, 4)]), device)
    moved = 16 * 8 * 9 + (16 + 8) * 196
    slow = float(cost.clock_mhz(Accelerator(64, 64, 1, 4, 4), device))
    assert found.tolist() == pytest.approx([moved / 2.8 / slow / 1e3])


def test_power_worked_out_by_hand() -> None:
    active = cost.Activity(*(np.array([n]) for n in (500.0, 60.0, 18.0, 16.0)))
    parts = cost.power_parts(np.array([6000]), np.array([100.0]), active, ECP5)
    pj = [6000 * 0.015, 500 * 0.64, 60 * 1.0, 18 * 7.5, 16 * 29.0]
    assert parts[0].tolist() == pytest.approx([0.298, *(each * 1e-4 for each in pj)])
    # Static power is known within a factor 1.5, and it is most of it.
    share = parts[0] / parts[0].sum()
    spread = np.log([1.5, 2, 2, 2.5, 2, 1.5])
    expected = np.exp(np.sqrt(((share * spread) ** 2).sum()))
    assert cost.power_within(parts, ECP5).tolist() == pytest.approx([expected])


@pytest.mark.parametrize("device", [ECP5, ARRIA], ids=lambda device: device.name)
def test_power_is_within_its_factor_in_nine_of_ten_cases(device: Device) -> None:
    space = load_space("fashion")
    layers = layers_of(space, np.stack(space.extremes()))
    acc = Accelerators.of([Accelerator(8, 8, 1, 32, 32), Accelerator(16, 8, 1, 64, 64)])
    spent, need = cycles(layers, acc[:, None], Port.of(device)), cost.resources(acc, device)
    clock = cost.clock_mhz(acc, device)
    active = cost.activity(acc, device, spent, need)
    parts = cost.power_parts(need.ff, clock, active, device)
    spread = np.log([each.within for each in cost.coefficients(device)]) / 1.645
    drawn = np.exp(np.random.default_rng(0).normal(0, spread, (20_000, len(spread))))
    true, within = drawn @ parts.T, cost.power_within(parts, device)
    ratio = true / parts.sum(axis=1)
    held = ((ratio < within) & (ratio > 1 / within)).mean(axis=0)
    assert (np.abs(held - 0.9) < 0.04).all(), held


def test_activity_is_near_that_of_the_simulation() -> None:
    table = pd.read_csv(DATA / "activity.csv")
    assert len(table) >= 100
    space = load_space(table["space"][0])
    error = []
    for row in table.itertuples():
        genome = space.encode(Architecture.parse(str(row.architecture)))[None]
        layers = layers_of(space, genome)
        acc = Accelerators.of([Accelerator.parse(str(row.accelerator))])
        spent, need = cycles(layers, acc[:, None], Port.of(ECP5)), cost.resources(acc, ECP5)
        active = cost.activity(acc, ECP5, spent, need)
        error.append(active.flips.item() / (row.flips / row.flip_flops * need.ff.item()) - 1)
        assert active.bits.item() == pytest.approx(64 * row.beats / row.cycles, rel=0.2)
        lanes = acc.pf * acc.pc * acc.pv
        assert active.products.item() == pytest.approx(
            (row.compute / row.cycles * lanes).item(), rel=0.15
        )
    assert np.median(np.abs(error)) < 0.15
    assert np.abs(error).max() < 0.5


def test_traffic_is_that_of_the_simulation() -> None:
    table = pd.read_csv(DATA / "network_cycles.csv")
    table = table[table["memory"] == "ideal"]
    error = []
    for row in table.itertuples():
        space = load_space(str(row.space))
        layers = layers_of(space, space.encode(Architecture.parse(str(row.architecture)))[None])
        parts = traffic(layers, Accelerator.parse(str(row.accelerator)), Port(8, 0, 0))
        error.append(sum(part.sum() for part in parts) / 8 / (row.read + row.written) - 1)
    assert np.median(np.abs(error)) < 0.01
    assert np.abs(error).max() < 0.05


def test_figures_are_of_a_plausible_size() -> None:
    space = load_space("fashion")
    layers = layers_of(space, np.stack(space.extremes()))
    found = cost.figures(layers, Accelerators.of([ONE] * 2), ECP5)
    # 9 M MACs at 64 products a cycle and 120 MHz take at least 1.1 ms.
    assert 0.02 < found.latency_ms[0] < 0.5
    assert 1.1 < found.latency_ms[1] < 1.6
    assert ((found.power_w > 0.3) & (found.power_w < 1)).all()
    assert ((found.power_within > 1.1) & (found.power_within < 1.6)).all()


def test_the_prior_of_power_is_static_and_multipliers() -> None:
    clock = float(cost.clock_mhz(ONE, ECP5))
    expected = [0.298 + 64 * 1e-12 * clock * 1e6]
    assert cost.simple_w(Accelerators.of([ONE]), ECP5).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lut_parts": (-5e5, 1.0, 1.0, 1.0, 1.0)}, "lut_parts of device ecp5-85f gives engine "),
        ({"ff_parts": (2e3, -1e3, 0.0, 0.0, 0.0)}, "ff_parts of device ecp5-85f gives engine "),
        ({"clock_slope_mhz": 70.0}, "clock_slope_mhz of device ecp5-85f gives engine "),
    ],
)
def test_coefficients_that_no_engine_can_have_are_named(change: dict[str, Any], words: str) -> None:
    device = replace(ECP5, **change)
    with pytest.raises(InputError, match=rf"^{words}.* -.*, but must give every engine") as caught:
        cost.fits(device.grid(), device)
    tiny.assert_one_sentence(str(caught.value))
