"""The closed form against loops that count: cycles one by one, bytes tile by tile."""

from dataclasses import astuple, fields, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import accelerators, spaces

from codesign_kernel import cost
from codesign_kernel.accelerator import Accelerator, Accelerators, Device, devices, load_device
from codesign_kernel.space import SearchSpace, load_space
from codesign_kernel.workload import Layers, layers_of

SEEDS = st.integers(0, 2**32 - 1)
DEVICES = st.sampled_from([load_device(name) for name in devices()])
ECP5, ARRIA = load_device("ecp5-85f"), load_device("arria10-gx1150")


def layer(filters: int, channels: int, sides: tuple[int, int], kernel: int, stride: int = 1,
          residual: int = 0) -> Layers:  # fmt: skip
    """One layer, fields (1, 1)."""
    height, width = (-(-side // stride) for side in sides)
    values = (filters, channels, *sides, height, width, kernel, stride, residual)
    return Layers(("layer",), *(np.array([[value]]) for value in values))


def small_layers(largest: int = 9) -> st.SearchStrategy[Layers]:
    sides = st.tuples(st.integers(1, 5), st.integers(1, 5))
    widths = st.integers(1, largest)
    return st.builds(
        layer, widths, widths, sides, st.sampled_from((1, 3, 5)), st.integers(1, 2),
        st.integers(0, 1),
    )  # fmt: skip


def networks(space: SearchSpace, seed: int, n: int = 4) -> Layers:
    return layers_of(space, space.sample(n, np.random.default_rng(seed)))


def counted_cycles(one: Layers, acc: Accelerator) -> int:
    """Cycles of a loop nest that issues a group of products each, and checks that none is left."""
    filters, channels, kernel = (int(x[0, 0]) for x in (one.filters, one.channels, one.kernel))
    pixels = list(product(range(int(one.height[0, 0])), range(int(one.width[0, 0]))))
    cycles = products = 0
    for f in range(0, filters, acc.pf):
        for c in range(0, channels, acc.pc):
            for p in range(0, len(pixels), acc.pv):
                for _ in product(range(kernel), range(kernel)):
                    cycles += 1
                    lanes = (range(filters)[f : f + acc.pf], range(channels)[c : c + acc.pc])
                    products += len(lanes[0]) * len(lanes[1]) * len(pixels[p : p + acc.pv])
    assert products == one.macs[0, 0]
    return cycles


@given(small_layers(), accelerators())
def test_compute_cycles_are_those_of_the_loop_nest(one: Layers, acc: Accelerator) -> None:
    assert cost.compute_cycles(one, acc).tolist() == [[counted_cycles(one, acc)]]


def counted_bytes(stays: int, again: int, half: int) -> tuple[int, int]:
    """Bytes of either tensor if `stays` is held tile by tile, and `again` read for each tile."""
    held = read = 0
    left = stays
    while left > 0:
        tile = min(left, half)
        held += tile
        read += again
        left -= tile
    return held, read


@given(small_layers(40), accelerators())
def test_traffic_is_that_of_the_better_of_two_orders(one: Layers, acc: Accelerator) -> None:
    weights = int(one.weights[0, 0] + 8 * one.filters[0, 0])  # a bias and a factor, 4 bytes each
    inputs, outputs = int(one.inputs[0, 0]), int(one.outputs[0, 0])
    weights_stay = counted_bytes(weights, inputs, acc.weight_kib * 1024 // 2)
    inputs_stay = counted_bytes(inputs, weights, acc.feature_kib * 1024 // 2)[::-1]
    moved_weights, moved_features = cost.traffic_bytes(one, acc)
    written = outputs * (2 if one.residual[0, 0] else 1)
    found = (int(moved_weights[0, 0]), int(moved_features[0, 0]) - written)
    assert found in (weights_stay, inputs_stay)
    assert sum(found) == min(sum(weights_stay), sum(inputs_stay))


def test_a_layer_worked_out_by_hand() -> None:
    acc = Accelerator(8, 8, 1, 16, 16)
    spent = cost.cycles(layer(16, 8, (14, 14), 3), acc, ECP5)
    # 2 x 1 groups, 196 pixels, 9 places of the kernel.
    assert spent.compute.item() == 2 * 1 * 196 * 9
    # 32 bits of port, 70 % of cycles: 2.8 bytes a cycle. Everything fits, so moves once.
    assert spent.weights.item() == pytest.approx((16 * 8 * 9 + 16 * 8) / 2.8)
    assert spent.features.item() == pytest.approx((8 * 196 + 16 * 196) / 2.8)
    # Nothing overlaps the weights of 8 filters, three rows of 14 pixels, and 24 cycles.
    assert spent.start.item() == pytest.approx((8 * 8 * 9 + 8 * 14 * 3) / 2.8 + 24)
    assert spent.total.item() == pytest.approx(3528 + spent.start.item())


def test_a_memory_bound_layer_worked_out_by_hand() -> None:
    # A classifier: 4096 weights a cycle could be used, 2.8 bytes a cycle arrive.
    spent = cost.cycles(layer(10, 512, (1, 1), 1), Accelerator(16, 8, 1, 4, 4), ECP5)
    assert spent.compute.item() == 64
    moved = 10 * 512 + 10 * 8 + 512 + 10
    assert spent.total.item() == pytest.approx(
        moved / 2.8 + (10 * 512 + 512) / 2.8 + 24  # all of the weights are one group's
    )


def test_the_first_rows_are_no_more_than_there_are() -> None:
    low = cost.cycles(layer(8, 8, (4, 6), 7), Accelerator(8, 8, 1, 16, 16), ECP5)
    assert low.start.item() == pytest.approx((8 * 8 * 49 + 8 * 6 * 4) / 2.8 + 24)


@given(spaces(), st.lists(accelerators(), min_size=4, max_size=4), DEVICES, SEEDS)
def test_the_longer_of_compute_and_memory_bounds_the_total(
    space: SearchSpace, rows: list[Accelerator], device: Device, seed: int
) -> None:
    layers, acc = networks(space, seed), Accelerators.of(rows)
    spent = cost.cycles(layers, cost.column(acc), device)
    assert (spent.total >= np.maximum(spent.compute, spent.weights + spent.features)).all()
    assert not spent.total[layers.filters == 0].any()
    assert (spent.start[layers.filters > 0] >= 24).all()


@given(spaces(), st.lists(accelerators(), min_size=4, max_size=4), DEVICES, SEEDS)
def test_no_design_is_faster_than_its_roofline(
    space: SearchSpace, rows: list[Accelerator], device: Device, seed: int
) -> None:
    layers, acc = networks(space, seed), Accelerators.of(rows)
    assert (
        cost.figures(layers, acc, device).latency_ms > cost.roofline_ms(layers, acc, device)
    ).all()


def test_the_roofline_worked_out_by_hand() -> None:
    acc = Accelerators.of([Accelerator(8, 8, 1, 16, 16)])
    # 97.5 MHz at 64 products. 16 x 8 x 9 x 196 MACs at 64 a cycle beat 5,856 bytes at 2.8.
    found = cost.roofline_ms(layer(16, 8, (14, 14), 3), acc, ECP5)
    assert found.tolist() == pytest.approx([16 * 8 * 9 * 196 / 64 / 97.5e3])
    found = cost.roofline_ms(layer(10, 512, (1, 1), 1), acc, ECP5)
    assert found.tolist() == pytest.approx([(5120 + 512 + 10) / 2.8 / 97.5e3])


@given(spaces(), accelerators(), SEEDS, st.sampled_from(("pf", "pc", "pv")), st.integers(1, 64))
def test_more_lanes_never_take_more_compute_cycles(
    space: SearchSpace, acc: Accelerator, seed: int, lane: str, more: int
) -> None:
    layers = networks(space, seed)
    wider = replace(acc, **{lane: getattr(acc, lane) + more})
    assert (cost.compute_cycles(layers, wider) <= cost.compute_cycles(layers, acc)).all()


@given(
    spaces(), accelerators(), SEEDS, st.sampled_from(("weight_kib", "feature_kib")),
    st.integers(1, 64),
)  # fmt: skip
def test_larger_buffers_never_move_more_bytes(
    space: SearchSpace, acc: Accelerator, seed: int, buffer: str, more: int
) -> None:
    layers = networks(space, seed)
    larger = replace(acc, **{buffer: getattr(acc, buffer) + more})
    moved, before = (np.add(*cost.traffic_bytes(layers, one)) for one in (larger, acc))
    assert (moved <= before).all()


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
        # A single accelerator takes no arrays at all.
        assert cost.cycles(layers, row, device).total.sum() == pytest.approx(together.cycles[i])
        assert cost.clock_mhz(row, device) == together.clock_mhz[i]
        assert list(map(int, astuple(cost.resources(row, device)))) == [
            need.dsp[i], need.bram[i], need.lut[i],
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("lanes", "dsp", "low", "high"),
    [((4, 4, 1), 18, 103, 112), ((8, 8, 1), 66, 93, 104), ((16, 8, 1), 130, 91.5, 92.5)],
)
@pytest.mark.parametrize("name", ["ecp5-25f", "ecp5-45f", "ecp5-85f"])
def test_dsp_and_clock_are_those_measured_after_place_and_route(
    name: str, lanes: tuple[int, int, int], dsp: int, low: float, high: float
) -> None:
    acc, device = Accelerator(*lanes, 16, 16), load_device(name)
    assert cost.resources(acc, device).dsp == dsp
    assert low <= cost.clock_mhz(acc, device) <= high


def test_clock_falls_beyond_sixteen_products_and_stays_below() -> None:
    shapes = [(1, 1, 1), (4, 2, 1), (4, 4, 1), (8, 4, 1), (8, 8, 1), (16, 8, 1), (128, 128, 128)]
    clocks = [float(cost.clock_mhz(Accelerator(*shape, 4, 4), ECP5)) for shape in shapes]
    assert clocks == [107.5, 107.5, 107.5, 102.5, 97.5, 92.5, 22.5]
    steep = replace(ECP5, clock_slope_mhz=50.0)
    assert cost.clock_mhz(Accelerator(64, 64, 64, 4, 4), steep) == 1.0


def test_the_published_engine_fits_the_arria_10_and_runs_at_200_mhz() -> None:
    acc = Accelerators.of([Accelerator(64, 64, 1, 512, 512)])
    assert cost.fits(acc, ARRIA).tolist() == [True]
    assert cost.clock_mhz(acc, ARRIA).tolist() == [200.0]
    assert cost.resources(acc, ARRIA).dsp.tolist() == [4096 // 4 + 2]


def stacked_blocks(kib: int, wide: int, device: Device) -> int:
    """Block RAMs of a buffer that are laid side by side and stacked one by one."""
    bits = 8 * wide
    columns = 1
    while columns * device.bram_bits_wide < bits:
        columns += 1
    in_a_row = 1
    while (in_a_row + 1) * bits <= device.bram_bits_wide // 8 * 8:
        in_a_row += 1
    rows = int(device.bram_kbit * 1024 // device.bram_bits_wide)
    stack = 1
    while stack * rows * in_a_row * wide < kib * 1024:
        stack += 1
    return columns * stack


@given(accelerators(), DEVICES)
def test_block_rams_are_counted_one_by_one(acc: Accelerator, device: Device) -> None:
    expected = stacked_blocks(acc.weight_kib, acc.pf * acc.pc, device)
    expected += stacked_blocks(acc.feature_kib, acc.pc * acc.pv, device)
    assert cost.resources(acc, device).bram == expected + 2


def test_resources_worked_out_by_hand() -> None:
    need = cost.resources(Accelerator(8, 8, 1, 16, 16), ECP5)
    # Weights: 64 bytes wide, 15 blocks of 36 bits, 256 words deep. Features: 8 bytes, 2 blocks
    # wide, 2048 words or 4 blocks deep. Two for the port.
    assert need.bram == 15 * 1 + 2 * 4 + 2
    assert need.lut == 2500 + 32 * 64 + 150 * 8
    # One byte wide: 4 words in a row of 32 of 36 bits, 2048 in a block.
    assert cost.resources(Accelerator(1, 1, 1, 16, 2), ECP5).bram == 8 + 1 + 2


GROWING = {
    "dsp": ("pf", "pc", "pv"),
    "lut": ("pf", "pc", "pv"),
    "bram": ("weight_kib", "feature_kib"),  # wider rows can fill blocks better
}


@given(accelerators(), DEVICES, st.sampled_from(sorted(GROWING)), st.integers(1, 64))
def test_more_of_anything_never_needs_less(
    acc: Accelerator, device: Device, kind: str, more: int
) -> None:
    less = getattr(cost.resources(acc, device), kind)
    for part in GROWING[kind]:
        larger = replace(acc, **{part: getattr(acc, part) + more})
        assert getattr(cost.resources(larger, device), kind) >= less


@given(st.lists(accelerators(), min_size=1, max_size=8), DEVICES)
def test_fits_is_within_each_budget(rows: list[Accelerator], device: Device) -> None:
    found = cost.fits(Accelerators.of(rows), device).tolist()
    for row, fit in zip(rows, found, strict=True):
        need = cost.resources(row, device)
        assert fit == all(getattr(need, kind) <= getattr(device, kind) for kind in GROWING)


def test_fits_at_the_very_budget_and_not_one_below() -> None:
    acc = Accelerators.of([Accelerator(8, 8, 1, 16, 16)])
    need = cost.resources(acc, ECP5)
    exact: dict[str, Any] = {kind: int(getattr(need, kind)[0]) for kind in GROWING}
    assert cost.fits(acc, replace(ECP5, **exact)).all()
    for kind in GROWING:
        short = replace(ECP5, **exact | {kind: exact[kind] - 1})
        assert not cost.fits(acc, short).any()


@pytest.mark.parametrize("name", devices())
def test_most_of_each_grid_fits(name: str) -> None:
    device = load_device(name)
    assert cost.fits(device.grid(), device).mean() > 0.9


@given(spaces(), st.lists(accelerators(), min_size=4, max_size=4), DEVICES, SEEDS)
def test_power_is_between_static_and_all_parts_busy(
    space: SearchSpace, rows: list[Accelerator], device: Device, seed: int
) -> None:
    layers, acc = networks(space, seed), Accelerators.of(rows)
    found = cost.figures(layers, acc, device)
    need = cost.resources(acc, device)
    # pJ a cycle: every multiplier, both buffers, the port, and the clocked logic.
    most = acc.pf * acc.pc * acc.pv * device.mac_pj
    most = most + (acc.pf * acc.pc + acc.pc * acc.pv) * device.sram_pj_byte
    most = most + device.port_bits * device.port_efficiency * device.memory_pj_bit
    most = most + need.lut * device.lut_pj_cycle + need.bram * device.bram_pj_cycle
    watts = device.static_w + most * found.clock_mhz * 1e6 * 1e-12
    assert (found.power_w > device.static_w).all()
    assert (found.power_w <= watts * (1 + 1e-12)).all()


@given(spaces(), st.lists(accelerators(), min_size=4, max_size=4), DEVICES, SEEDS)
def test_energy_is_that_of_all_that_happens(
    space: SearchSpace, rows: list[Accelerator], device: Device, seed: int
) -> None:
    layers, acc = networks(space, seed), Accelerators.of(rows)
    found = cost.figures(layers, acc, device)
    np.testing.assert_allclose(found.energy_mj, found.power_w * found.latency_ms)
    np.testing.assert_allclose(found.latency_ms, found.cycles / found.clock_mhz / 1e3)
    weights, features = cost.traffic_bytes(layers, cost.column(acc))
    issued = cost.compute_cycles(layers, cost.column(acc)).sum(axis=1)
    need = cost.resources(acc, device)
    joules = device.static_w * found.latency_ms / 1e3
    for count, picojoules in (
        (layers.macs.sum(axis=1), device.mac_pj),
        ((weights + features).sum(axis=1) * 8, device.memory_pj_bit),
        (issued * acc.pc * (acc.pf + acc.pv), device.sram_pj_byte),
        (found.cycles * need.lut, device.lut_pj_cycle),
        (found.cycles * need.bram, device.bram_pj_cycle),
    ):
        joules = joules + count * picojoules * 1e-12
    np.testing.assert_allclose(found.energy_mj, joules * 1e3)


def test_figures_are_of_a_plausible_size() -> None:
    space = load_space("fashion")
    layers = layers_of(space, np.stack(space.extremes()))
    found = cost.figures(layers, Accelerators.of([Accelerator(8, 8, 1, 32, 64)] * 2), ECP5)
    # 9 M MACs at 64 products a cycle and 97.5 MHz take at least 1.4 ms.
    assert 0.05 < found.latency_ms[0] < 0.5
    assert 1.4 < found.latency_ms[1] < 4
    assert ((found.power_w > 0.3) & (found.power_w < 1.5)).all()


def test_the_prior_of_power_is_static_and_multipliers() -> None:
    acc = Accelerators.of([Accelerator(8, 8, 1, 16, 16)])
    assert cost.simple_w(acc, ECP5).tolist() == pytest.approx([0.298 + 64 * 5e-12 * 97.5e6])


@settings(max_examples=50)
@given(accelerators(), DEVICES)
def test_the_largest_layers_do_not_overflow(acc: Accelerator, device: Device) -> None:
    side = 4096
    one = layer(side, side, (side, side), 7)
    exact = -(-side // acc.pf) * -(-side // acc.pc) * -(-(side**2) // acc.pv) * 49
    assert int(cost.compute_cycles(one, acc)[0, 0]) == exact
    weights, features = cost.traffic_bytes(one, acc)
    w, i = side**2 * 49 + 8 * side, side**3
    tiles = -(-w // (acc.weight_kib * 512)), -(-i // (acc.feature_kib * 512))
    assert int((weights + features)[0, 0]) == min(w + i * tiles[0], w * tiles[1] + i) + side**3
    assert cost.figures(one, Accelerators.of([acc]), device).latency_ms[0] > 0


@given(small_layers(20), accelerators(), DEVICES, st.integers(1, 40))
def test_a_grouped_layer_costs_what_its_groups_cost_one_by_one(
    one: Layers, acc: Accelerator, device: Device, groups: int
) -> None:
    grouped = replace(one, repeat=np.array([[groups]]))
    values = [getattr(one, field.name) for field in fields(one)]
    apart = [np.repeat(value, groups, axis=1) for value in values if isinstance(value, np.ndarray)]
    separate = Layers(one.names * groups, *apart)
    spent, expected = (cost.cycles(each, acc, device) for each in (grouped, separate))
    for field in fields(spent):
        found = getattr(spent, field.name).item()
        assert found == pytest.approx(getattr(expected, field.name).sum(), rel=1e-12)
    for found, parts in zip(*(cost.traffic_bytes(each, acc) for each in (grouped, separate)),
                            strict=True):  # fmt: skip
        assert found.item() == parts.sum()
    designs = Accelerators.of([acc])
    for figures in (cost.figures, cost.roofline_ms):
        for found, parts in zip(*(_plain(figures(each, designs, device))
                                  for each in (grouped, separate)), strict=True):  # fmt: skip
            assert found == pytest.approx(parts, rel=1e-12)


def _plain(figures: cost.Figures | np.ndarray) -> list[float]:
    return figures.tolist() if isinstance(figures, np.ndarray) else [
        float(value[0]) for value in astuple(figures)
    ]  # fmt: skip


def test_a_depthwise_layer_worked_out_by_hand() -> None:
    one = replace(layer(1, 1, (14, 14), 3), repeat=np.array([[32]]))
    spent = cost.cycles(one, Accelerator(8, 8, 1, 16, 16), ECP5)
    # One filter and one channel a run: 63 of 64 multipliers idle, and a start each time.
    assert spent.compute.item() == 32 * 196 * 9
    assert spent.weights.item() == pytest.approx(32 * (9 + 8) / 2.8)
    assert spent.features.item() == pytest.approx(32 * 2 * 196 / 2.8)
    assert spent.start.item() == pytest.approx(32 * ((9 + 3 * 14) / 2.8 + 24))
    assert one.macs.item() == 32 * 196 * 9


def test_a_kernel_that_is_wider_than_high_worked_out_by_hand() -> None:
    one = replace(layer(16, 8, (14, 14), 1), kernel_width=np.array([[7]]))
    spent = cost.cycles(one, Accelerator(8, 8, 1, 16, 16), ECP5)
    assert spent.compute.item() == 2 * 196 * 7
    # Seven places of the kernel in one row of the map.
    assert spent.start.item() == pytest.approx((8 * 8 * 7 + 8 * 14) / 2.8 + 24)
