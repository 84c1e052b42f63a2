"""Closed-form resources, clock, latency and power of designs: one formula a function.

All figures of this module are `modelled`; cycles are those of `cycles.py`. Everything is
vectorised: the fields of `Layers` are (..., layers), those of the accelerator broadcast against
them. How far off this is of engines that were simulated, placed and routed: see the tests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .accelerator import Accelerator, Accelerators, Coefficient, Device
from .cycles import PARAM_BYTES, Cycles, Lanes, Port, cycles, runs
from .errors import InputError
from .rtl.shape import Shape
from .workload import Layers

SLOTS = 32  # filter groups whose parameters are kept (as in rtl/shape.py)
BROAD = 4  # bytes: a wider output buffer of more than one plane is put into block RAM
# Flip-flops that change in a cycle: the fraction that always does, and for each product and beat.
# Fitted to data/activity.csv by benchmarks/activity.py.
FLIPS = (0.0323, 5.68, 397.0)


@dataclass(frozen=True)
class Resources:
    """DSP blocks, block RAMs, LUTs (ALMs) and flip-flops of accelerators, int64 (...)."""

    dsp: np.ndarray
    bram: np.ndarray
    lut: np.ndarray
    ff: np.ndarray


class Activity(NamedTuple):
    """What happens in a mean clock cycle, (...): flip-flops that change, products, accesses of
    block RAMs, bits over the memory port."""

    flips: np.ndarray
    products: np.ndarray
    accesses: np.ndarray
    bits: np.ndarray


@dataclass(frozen=True)
class Figures:
    """Figures of `n` whole designs, (n,): `cycles`, `clock_mhz`, `latency_ms` of one image, mean
    `power_w` while it computes, and the factor `power_within` which the true power is with 90 %."""

    cycles: np.ndarray
    clock_mhz: np.ndarray
    latency_ms: np.ndarray
    power_w: np.ndarray
    power_within: np.ndarray

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


def resources(acc: Accelerator | Accelerators, device: Device) -> Resources:
    """DSP, block RAM, LUT and flip-flops of the engine.

    DSP: one for `products_per_dsp` products, and one for each result requantised at once. Block
    RAM: each bank of weights and of maps is as wide as the memory port, and as deep as needed; the
    parameters of filters that share a requantisation have one each, and a broad output buffer has
    one. LUT and flip-flops are counted by part: the engine, its products, its accumulators (PF x
    PV), its pixels and the results that are requantised at once.
    """
    port = Port.of(device)
    lanes = Lanes.of(acc, port)
    products, sums = np.asarray(acc.pf * acc.pc * acc.pv), np.asarray(acc.pf * acc.pv)
    at_once = lanes.at_once
    wide = -(-8 * port.bytes // device.bram_bits_wide)
    deep = int(device.bram_kbit * 1024) // device.bram_bits_wide
    bram = lanes.word_beats * _ceil(lanes.ring, deep) * wide
    bram = bram + acc.pv * lanes.banks * _ceil(2 * lanes.strip, deep) * wide
    parameters = _ceil(SLOTS * np.asarray(acc.pf), at_once * deep)
    parameters = parameters * -(-8 * PARAM_BYTES // device.bram_bits_wide)
    bram = bram + np.where(at_once < acc.pf, at_once * parameters, 0)
    out_bytes = np.minimum(acc.pf, port.bytes)
    bram = bram + np.where((lanes.streams > 1) & (out_bytes > BROAD), wide, 0)
    one = np.ones_like(products)
    lut = np.stack([one, products, sums, acc.pv * one, at_once], axis=-1) @ device.lut_parts
    ff = np.stack([one, products, sums, acc.pc * acc.pv * one, at_once], axis=-1) @ device.ff_parts
    dsp = _ceil(products, device.products_per_dsp) + at_once
    return Resources(*(np.asarray(np.rint(np.round(n, 6)), np.int64) for n in (dsp, bram, lut, ff)))


def fits(acc: Accelerators, device: Device) -> np.ndarray:
    """Whether the engine can be built so, and the device holds it, boolean (n,). Raises InputError
    if the device's coefficients are impossible for one that it holds."""
    need, port = resources(acc, device), Port.of(device)
    lanes = Lanes.of(acc, port)
    built = (acc.pf * acc.pc >= port.bytes) & (lanes.ring >= 16) & (lanes.strip >= 64)
    for side in (acc.pf, acc.pc, acc.pv, acc.weight_kib, acc.feature_kib):
        built &= side & (side - 1) == 0  # a power of two
    held = (need.dsp <= device.dsp) & (need.bram <= device.bram) & (need.lut <= device.lut)
    found = np.asarray(built & held)
    for field, unit, figure in (
        ("lut_parts", "LUTs", need.lut), ("ff_parts", "flip-flops", need.ff),
        ("clock_slope_mhz", "MHz", _unbounded_mhz(acc, device)),
    ):  # fmt: skip
        if (wrong := np.flatnonzero(found & (figure <= 0))).size:
            raise InputError(
                f"{field} of device {device.name} gives engine {next(iter(acc[wrong[:1]]))} "
                f"{figure[wrong[0]]:g} {unit}, but must give every engine that it holds more "
                "than 0."
            )
    return found


def shares(need: Mapping[str, float], device: Device) -> dict[str, tuple[int, int]]:
    """Return by name of the resource how many an engine takes, of its `dsp`, `bram` and `lut`, and
    how many the device has."""
    names = {"dsp": "DSP", "bram": "block RAM", "lut": "LUT"}
    return {name: (int(need[key]), getattr(device, key)) for key, name in names.items()}


def short_of(acc: Accelerator, device: Device) -> str:
    """Say why an engine that does not fit the device does not."""
    try:
        Shape(acc, device.port_bits)
    except InputError as error:
        return str(error).rstrip(".")
    return "it takes " + " and ".join(
        f"{used:,} of {most:,} {name}"
        for name, (used, most) in shares(vars(resources(acc, device)), device).items()
        if used > most
    )


def check(
    acc: Accelerator, device: Device, layers: Layers | None = None, network: str = ""
) -> None:
    """Raise InputError unless the device holds the engine, and, if layers (..., layers) are given,
    that can run all of them: of `network`."""
    if not fits(Accelerators.of([acc]), device)[0]:
        raise InputError(f"accelerator {acc} does not fit {device.label}: {short_of(acc, device)}.")
    if layers is not None and not (able := runs(layers, acc, Port.of(device))).all():
        first = layers.names[np.argwhere(~able)[0, -1]]
        raise InputError(
            f"accelerator {acc} cannot run {network}: its buffers are too small for layer {first}, "
            "or it has no mode for that."
        )


def clock_mhz(acc: Accelerator | Accelerators, device: Device) -> np.ndarray:
    """Clock in MHz: it falls with each doubling of the products, as the engine spreads out.

    Below 16 products it stays: the slowest path is then in the control, not in the multipliers.
    """
    return np.asarray(np.maximum(_unbounded_mhz(acc, device), 1.0))


def _unbounded_mhz(acc: Accelerator | Accelerators, device: Device) -> np.ndarray:
    doublings = np.log2(np.maximum(acc.pf * acc.pc * acc.pv, 16) / 16)
    return np.asarray(device.clock_mhz - device.clock_slope_mhz * doublings)


def activity(acc: Accelerators, device: Device, spent: Cycles, need: Resources) -> Activity:
    """What happens in a mean cycle of a network, (n,), given what its layers take.

    A multiplier at work takes a product each cycle, and a word from each bank of weights and maps;
    what crosses the memory port is written to or read from one of those.
    """
    port = Port.of(device)
    lanes = Lanes.of(acc, port)
    total = spent.total.sum(axis=-1)
    busy = spent.compute.sum(axis=-1) / total
    moved = spent.moved.sum(axis=-1) / total
    wide = -(-8 * port.bytes // device.bram_bits_wide)
    accesses = wide * (busy * (lanes.word_beats + acc.pv * lanes.banks) + moved / port.bytes)
    products = busy * acc.pf * acc.pc * acc.pv
    flips = FLIPS[0] * need.ff + FLIPS[1] * products + FLIPS[2] * moved / port.bytes
    return Activity(flips, products, accesses, 8 * moved)


def coefficients(device: Device) -> Sequence[Coefficient]:
    """The coefficients of `power_parts`, in its order."""
    return (device.static_w, device.clock_pj, device.flip_pj, device.mac_pj, device.bram_pj,
            device.memory_pj_bit)  # fmt: skip


def power_parts(
    flip_flops: np.ndarray, clock: np.ndarray, active: Activity, device: Device
) -> np.ndarray:
    """Mean power in W, (n, 6): static, clocks, flip-flops that change with what they drive,
    products, block RAMs, memory. `clock` is in MHz; pJ times MHz are 1e-6 W."""
    counts = np.stack([flip_flops * np.ones_like(clock), *active], axis=-1)
    energies = np.array([each.value for each in coefficients(device)[1:]])
    dynamic = counts * energies * np.asarray(clock)[..., None] * 1e-6
    static = np.full((*dynamic.shape[:-1], 1), device.static_w.value)
    return np.concatenate([static, dynamic], axis=-1)


def power_within(parts: np.ndarray, device: Device) -> np.ndarray:
    """The factor within which the true power is with 90 %, (n,), of the parts (n, 6).

    Each coefficient is taken as log-normal and independent of the others; to first order the
    variance of the sum's logarithm is that of its parts, weighted by the squares of their shares.
    """
    spread = np.log([each.within for each in coefficients(device)])
    share = parts / parts.sum(axis=-1, keepdims=True)
    return np.asarray(np.exp(np.sqrt(((share * spread) ** 2).sum(axis=-1))))


def figures(
    layers: Layers, acc: Accelerators, device: Device, spent: Cycles | None = None,
    clock: np.ndarray | None = None,
) -> Figures:  # fmt: skip
    """Figures of `n` designs: row i of the layers, (n, layers), on accelerator i; `spent` if the
    cycles are known already, `clock` in MHz, (n,), if that is known better than by `clock_mhz`."""
    spent = spent or cycles(layers, column(acc), Port.of(device))
    clock = clock_mhz(acc, device) if clock is None else clock
    total, need = spent.total.sum(axis=-1), resources(acc, device)
    parts = power_parts(need.ff, clock, activity(acc, device, spent, need), device)
    within = power_within(parts, device)
    return Figures(total, clock, total / clock * 1e-3, parts.sum(axis=-1), within)


def roofline_ms(
    layers: Layers, acc: Accelerators, device: Device, which: np.ndarray | slice = slice(None)
) -> np.ndarray:
    """Least latency in ms, (n,): all multipliers always busy, or each byte moved once (Williams et
    al., CACM 2009). A prior mean for latency that knows nothing of the engine's details. `which` of
    the networks runs on each accelerator."""
    compute = layers.macs.sum(axis=-1)[which] / (acc.pf * acc.pc * acc.pv)
    moved = (layers.weights + layers.inputs + layers.outputs).sum(axis=-1)
    traffic = moved[which] / port_rate(device)
    return np.asarray(np.maximum(compute, traffic) / clock_mhz(acc, device) / 1e3)


def simple_w(acc: Accelerators, device: Device) -> np.ndarray:
    """Power in W if all multipliers were always busy, (n,): a prior mean for power."""
    products = acc.pf * acc.pc * acc.pv
    pj_cycle = products * device.mac_pj.value
    return np.asarray(device.static_w.value + pj_cycle * clock_mhz(acc, device) * 1e-6)


def _ceil(value: np.ndarray, by: np.ndarray | int) -> np.ndarray:
    return np.asarray(-(-value // by))
