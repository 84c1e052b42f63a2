"""Closed-form cycles, resources, clock and power of designs: one formula a function.

All figures of this module are `modelled`. Everything is vectorised: the fields of `Layers` are
(..., layers), those of the accelerator broadcast against them, and NumPy does the rest. The
formulas follow the engine of `accelerator.py`; bytes are of int8 weights and activations.
"""

from dataclasses import dataclass

import numpy as np

from .accelerator import Accelerator, Accelerators, Device
from .workload import Layers

PIPELINE_CYCLES = 24  # from the first operands of a layer to its first result, and the hand-over
FILTER_BYTES = 8  # a filter's bias and requantisation factor, 32 bits each


@dataclass(frozen=True)
class Cycles:
    """Where the cycles of layers go, float64 (..., layers). `total` is of compute and traffic the
    longer, since double buffering overlaps them, and the start that nothing overlaps."""

    compute: np.ndarray
    weights: np.ndarray
    features: np.ndarray
    start: np.ndarray
    total: np.ndarray


@dataclass(frozen=True)
class Resources:
    """DSP blocks, block RAMs and LUTs (ALMs) of accelerators, int64 (...)."""

    dsp: np.ndarray
    bram: np.ndarray
    lut: np.ndarray


@dataclass(frozen=True)
class Figures:
    """Figures of `n` whole designs, (n,): `cycles`, `clock_mhz`, `latency_ms` of one image, and
    mean `power_w` while it computes."""

    cycles: np.ndarray
    clock_mhz: np.ndarray
    latency_ms: np.ndarray
    power_w: np.ndarray

    @property
    def energy_mj(self) -> np.ndarray:
        """Energy of one image in mJ: power times latency."""
        return np.asarray(self.power_w * self.latency_ms)


def column(accelerators: Accelerators) -> Accelerators:
    """Shape the accelerators of `n` designs (n, 1), to meet layers of shape (n, layers)."""
    return accelerators[:, None]


def port_rate(device: Device) -> float:
    """Bytes that the memory port moves a cycle."""
    return device.port_bits / 8 * device.port_efficiency


def compute_cycles(layers: Layers, acc: Accelerator | Accelerators) -> np.ndarray:
    """Cycles of the multipliers: each takes one (filter, channel, pixel) of a group a cycle.

    A last group that is not full costs as much as a full one (Fan et al., ASP-DAC 2022, eq. 1).
    """
    groups = _ceil(layers.filters, acc.pf) * _ceil(layers.channels, acc.pc) * layers.repeat
    return np.asarray(groups * _ceil(layers.height * layers.width, acc.pv) * layers.taps)


def traffic_bytes(layers: Layers, acc: Accelerator | Accelerators) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of weights and of feature maps that a layer moves over the memory port.

    One half of a buffer holds the tile being used. Either weights stay and the input is read once
    for each tile of weights, or the input stays and weights are read once for each tile of the
    input; the cheaper order is taken. (The two reuse orders of Zhang et al., FPGA 2015, section 4.)
    """
    one = layers.once
    weights, inputs = one.weights + FILTER_BYTES * one.filters, one.inputs
    weight_tiles = _ceil(weights, acc.weight_kib * 512)
    input_tiles = _ceil(inputs, acc.feature_kib * 512)
    stay = weights + inputs * weight_tiles <= weights * input_tiles + inputs
    moved_weights = np.where(stay, weights, weights * input_tiles)
    moved_inputs = np.where(stay, inputs * weight_tiles, inputs)
    moved_outputs = one.outputs * (1 + one.residual)  # the sum reads a map once more
    return moved_weights * layers.repeat, (moved_inputs + moved_outputs) * layers.repeat


def cycles(layers: Layers, acc: Accelerator | Accelerators, device: Device) -> Cycles:
    """Cycles of each layer by cause; absent layers cost none.

    The engine has no mode for grouped convolutions: each group is run as one of its own, with a
    start of its own.
    """
    rate = port_rate(device)
    weights, features = traffic_bytes(layers, acc)
    compute = compute_cycles(layers, acc).astype(np.float64)
    # Nothing overlaps the very first tile: one group of filters and the rows under one kernel.
    first_weights = np.minimum(layers.filters, acc.pf) * layers.channels * layers.taps
    first_rows = layers.channels * layers.in_width * np.minimum(layers.kernel, layers.in_height)
    start = (layers.filters > 0) * ((first_weights + first_rows) / rate + PIPELINE_CYCLES)
    start = start * layers.repeat
    total = np.maximum(compute, (weights + features) / rate) + start
    return Cycles(compute, weights / rate, features / rate, start, total)


def resources(acc: Accelerator | Accelerators, device: Device) -> Resources:
    """DSP, block RAM and LUT of the engine.

    DSP: one for `products_per_dsp` products, and two for the 32-bit requantisation product. Block
    RAM: a buffer is as wide as one cycle reads, so many blocks side by side, each as deep as
    needed; a narrow one packs several words in a block's row; two blocks for the port's queues.
    LUT: control, adders a product, accumulators a lane.
    """
    products = np.asarray(acc.pf * acc.pc * acc.pv)
    dsp = _ceil(products, device.products_per_dsp) + 2
    bram = (
        _blocks(acc.weight_kib, acc.pf * acc.pc, device)
        + _blocks(acc.feature_kib, acc.pc * acc.pv, device)
        + 2
    )
    lanes = acc.pf * acc.pv
    lut = device.lut_base + device.lut_per_product * products + device.lut_per_lane * lanes
    return Resources(dsp, np.asarray(bram), np.asarray(np.ceil(lut), np.int64))


def fits(acc: Accelerators, device: Device) -> np.ndarray:
    """Whether the device holds each accelerator, boolean (n,)."""
    need = resources(acc, device)
    return np.asarray(
        (need.dsp <= device.dsp) & (need.bram <= device.bram) & (need.lut <= device.lut)
    )


def clock_mhz(acc: Accelerator | Accelerators, device: Device) -> np.ndarray:
    """Clock in MHz: it falls with each doubling of the products, as the engine spreads out.

    Below 16 products it stays: the slowest path is then in the control, not in the multipliers.
    """
    doublings = np.log2(np.maximum(acc.pf * acc.pc * acc.pv, 16) / 16)
    return np.maximum(device.clock_mhz - device.clock_slope_mhz * doublings, 1.0)


def roofline_ms(layers: Layers, acc: Accelerators, device: Device) -> np.ndarray:
    """Least latency in ms, (n,): all multipliers always busy, or each byte moved once (Williams et
    al., CACM 2009). A prior mean for latency that knows nothing of the engine's details."""
    compute = layers.macs.sum(axis=-1) / (acc.pf * acc.pc * acc.pv)
    moved = (layers.weights + layers.inputs + layers.outputs).sum(axis=-1)
    traffic = moved / port_rate(device)
    return np.asarray(np.maximum(compute, traffic) / clock_mhz(acc, device) / 1e3)


def simple_w(acc: Accelerators, device: Device) -> np.ndarray:
    """Power in W if all multipliers were always busy, (n,): a prior mean for power."""
    products = acc.pf * acc.pc * acc.pv
    return np.asarray(device.static_w + products * device.mac_pj * clock_mhz(acc, device) * 1e-6)


def power_w(layers: Layers, acc: Accelerators, device: Device, spent: Cycles) -> np.ndarray:
    """Mean power in W of one image after another, (n,), given the cycles that they take.

    Static power; energy of the operations that this network makes, over its latency; and power of
    clocked logic and block RAM. Buffers are read PF x PC + PC x PV bytes a compute cycle.
    """
    bits = (spent.weights + spent.features).sum(axis=-1) * port_rate(device) * 8
    reads = spent.compute.sum(axis=-1) * (acc.pf * acc.pc + acc.pc * acc.pv)
    energy = bits * device.memory_pj_bit + reads * device.sram_pj_byte
    energy += layers.macs.sum(axis=-1) * device.mac_pj
    need = resources(acc, device)
    clocked = need.lut * device.lut_pj_cycle + need.bram * device.bram_pj_cycle
    pj_cycle = energy / spent.total.sum(axis=-1) + clocked
    return np.asarray(device.static_w + pj_cycle * clock_mhz(acc, device) * 1e-6)


def figures(layers: Layers, acc: Accelerators, device: Device) -> Figures:
    """Figures of `n` designs: row i of the layers, (n, layers), on accelerator i."""
    spent = cycles(layers, column(acc), device)
    total, clock = spent.total.sum(axis=-1), clock_mhz(acc, device)
    return Figures(total, clock, total / clock * 1e-3, power_w(layers, acc, device, spent))


def _ceil(value: np.ndarray, by: np.ndarray | int) -> np.ndarray:
    return np.asarray(-(-value // by))


def _blocks(kib: np.ndarray | int, bytes_wide: np.ndarray | int, device: Device) -> np.ndarray:
    packed = np.maximum(device.bram_bits_wide // 8 // np.asarray(bytes_wide), 1)  # words in a row
    deep = int(device.bram_kbit * 1024) // device.bram_bits_wide * packed
    words = _ceil(np.asarray(kib) * 1024, bytes_wide)
    wide = _ceil(np.asarray(bytes_wide) * 8, device.bram_bits_wide)
    return np.asarray(wide * _ceil(words, deep))
