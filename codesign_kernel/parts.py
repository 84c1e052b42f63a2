"""From parts to wholes: cycles of any network as the sum of its layers', latency, and energy.

Cycles are those of the closed form of `cycles.py`. How far that is off of a whole network, measured
ones say: subnets and random chains of layers on many engines. It is hardly off where the
multipliers work all the time, and most where they wait for a broad writer. So the interval is a
quantile of how far it was off of the measured networks NEAR to this one: those in which the
multipliers work for about the same share of the cycles, on engines that write about as many streams
of results side by side (conformal prediction: Vovk, Gammerman and Shafer, Algorithmic Learning in a
Random World, 2005; local as in Lei and Wasserman, JRSS B 2014). Latency is cycles over clock;
energy has a part that each cycle takes, and a static part that each second does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from . import cost, routed
from .accelerator import Accelerator, Accelerators, Device
from .cycles import Cycles, Port, cycles
from .errors import InputError, number
from .files import read_arrays
from .loops import Lanes, refused
from .workload import Layers

COVERAGE = 0.9
NEAR = 60  # measured networks that an interval is made of
DOUBLING = 0.1  # of the streams lies as far off as that share of the cycles
REFUSED = (  # as `loops.refused` tells them apart
    "the engine has no mode for {}: kernels are 1, 3, 5 or 7 wide and not dilated, strides 1 or 2, "
    "and maps are padded by K // 2 on each side.",
    "the engine's counters are too short for {}.",
    "the engine's buffers are too small for some of its layers.",
)
PLACES = (
    Path(__file__).parents[1] / "data" / "parts.safetensors",
    Path(__file__).with_name("parts.safetensors"),
)


class Interval(NamedTuple):
    """A predicted figure, and the ends of its interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, mean: float, half: float) -> "Interval":
        """Return the interval whose ends are the factor exp(`half`) away."""
        return cls(mean, mean * float(np.exp(-half)), mean * float(np.exp(half)))


class Whole(NamedTuple):
    """A network on an accelerator: clock cycles, clock in MHz, latency in ms and energy in mJ of
    one image; whether the clock was `routed`, i.e. is measured."""

    cycles: Interval
    clock_mhz: Interval
    latency_ms: Interval
    energy_mj: Interval
    routed: bool


def place(spent: Cycles, acc: Accelerator, port: Port) -> tuple[float, float]:
    """Return what tells which networks are near to one, whose cycles' fields are (layers,): the
    share of cycles in which the multipliers work, and DOUBLING times log2 of the streams."""
    streams = float(Lanes.of(acc, port).streams)
    return float(spent.compute.sum() / spent.total.sum()), DOUBLING * float(np.log2(streams))


@dataclass(frozen=True)
class Parts:
    """How far the closed form was off of `n` measured networks on each of `m` memories, `bursts`
    (m,) cycles of theirs: the logarithm of measured over modelled cycles, `off` (m, n), and their
    `places` (m, n, 2)."""

    bursts: np.ndarray
    places: np.ndarray
    off: np.ndarray

    def cycles(
        self, layers: Layers, acc: Accelerator, port: Port, coverage: float = COVERAGE
    ) -> Interval:
        """Return the cycles of a network, fields (layers,), on an accelerator.

        Raises InputError if none can be predicted: layers are grouped, or cannot run, and none such
        was measured; or unless 0.01 <= coverage <= 0.98.
        """
        wide = layers.kernel if layers.kernel_width is None else layers.kernel_width
        if (np.asarray(layers.repeat) > 1).any() or (wide != layers.kernel).any():
            raise InputError("it has grouped or oblong convolutions, and none such was measured.")
        for off, why in zip(refused(layers, acc, port), REFUSED, strict=True):
            if off.any():
                raise InputError(why.format(layers.names[int(off.argmax())]))
        spent = cycles(layers, acc, port)
        half = self.half(place(spent, acc, port), port.burst, coverage)
        return Interval.of(float(spent.total.sum()), half)

    def half(self, at: tuple[float, float], burst: float, coverage: float = COVERAGE) -> float:
        """Return how far the logarithm of the cycles of a network at that place may be off: of the
        measured memories, that whose bursts take most nearly as long counts."""
        coverage = number("coverage", coverage, 0.01, 0.98)
        nearest = np.argmin(np.abs(self.bursts - burst))
        away = np.abs(self.places[nearest] - at).sum(axis=1)
        near = np.argsort(away, kind="stable")[:NEAR]
        scores = np.append(0, np.sort(np.abs(self.off[nearest][near])))
        return float(np.interp(coverage * len(scores), np.arange(len(scores)), scores))

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays and a JSON-able description from which `from_arrays` restores self."""
        return {"bursts": self.bursts, "places": self.places, "off": self.off}, {}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> "Parts":
        """Return what `to_arrays` described. Raises InputError if it is damaged."""
        names = ("bursts", "places", "off")
        bursts, places, off = (np.asarray(arrays.get(name, ())) for name in names)
        if not (off.ndim == 2 and off.size and (*off.shape, 2) == places.shape
                and bursts.shape == off.shape[:1]
                and all(np.isfinite(part).all() for part in (bursts, places, off))):  # fmt: skip
            raise InputError("The stored parts are damaged: they must be finite, and by memory.")
        return cls(bursts, places, off)


@cache
def load() -> Parts:
    """Return what comes with the program: see data/README.md. Raises InputError."""
    for path in PLACES:
        if path.exists():
            return Parts.from_arrays(*read_arrays(path))
    raise InputError(f"{PLACES[0]} does not exist: install the program from a whole clone.")


def whole(
    parts: Parts, layers: Layers, acc: Accelerator, device: Device, coverage: float = COVERAGE
) -> Whole:
    """Predict a network, fields (layers,), on an accelerator of a device.

    The clock is that which the engine reached, if it was placed and routed, else modelled, and how
    far off that may be is in the interval. Of energy E = C (s / f + d), C cycles at the clock f, s
    static and d the rest: the clock moves log E by its static share. How far the coefficients of
    power are known is independent of all that. Raises InputError as `Parts.cycles` does.
    """
    port, one = Port.of(device), Accelerators.of([acc])
    found = parts.cycles(layers, acc, port, coverage)
    wide = NormalDist().inv_cdf((1 + coverage) / 2) / NormalDist().inv_cdf(0.95)
    (reached,) = routed.clocks(one, device)
    there = bool(np.isfinite(reached))
    clock = reached if there else float(cost.clock_mhz(acc, device))
    unsure = 0.0 if there else wide * np.log(device.clock_within)
    spent = cycles(layers[None], cost.column(one), port)
    need = cost.resources(one, device)
    active = cost.activity(one, device, spent, need)
    power = cost.power_parts(need.ff, np.array([clock]), active, device)
    static = float(power[0, 0] / power.sum())
    within = wide * float(np.log(cost.power_within(power, device)[0]))
    half = np.log(found.high / found.mean)
    latency = found.mean / clock / 1e3
    energy = latency * float(power.sum())
    return Whole(
        found,
        Interval.of(clock, unsure),
        Interval.of(latency, float(np.hypot(half, unsure))),
        Interval.of(energy, float(np.linalg.norm([half, static * unsure, within]))),
        there,
    )
