"""From parts to wholes: cycles of any network as the sum of its layers', latency, and energy.

What the closed form of `cycles.py` leaves out of a layer is learnt from layers that were simulated:

    cycles of layer i = closed form_i exp(e_i),    e a Gaussian process over layers and engines

Layers of one network on one engine err alike, so the variance of their sum takes their covariance
S. To first order (the delta method), with m_i the predicted cycles of layer i and w_i its share,

    log sum_i cycles_i  has mean  log sum_i m_i  and variance  w' S w.

The interval is that standard deviation and a constant, times a quantile of how far off whole
networks were when no layer of theirs was trained on: cross-conformal prediction (Vovk, AMAI 2015),
normalised as in Papadopoulos, Vovk and Gammerman (JAIR 2011). Latency is cycles over clock; energy
has a part that each cycle takes, and a static part that each second does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import cost, routed
from .accelerator import Accelerator, Accelerators, Device
from .cycles import Port, cycles
from .errors import InputError, number
from .files import read_arrays
from .loops import refused
from .workload import Layers

if TYPE_CHECKING:
    from .surrogate import Surrogate

COVERAGE = 0.9
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


def layer_features(layers: Layers, acc: Accelerator, port: Port) -> tuple[np.ndarray, list[str]]:
    """Return what the cycles of each layer of a network are predicted from, (layers, f), and names.

    Fields of the layers are (layers,), in the order in which they run. Column 0 is the closed form.
    """
    spent = cycles(layers, acc, port)
    total, place = spent.total, np.arange(len(spent.total))
    columns: dict[str, Any] = {"closed_form": total}
    for cause in ("control", "compute", "input", "weights", "output"):
        columns[f"{cause}_share"] = getattr(spent, cause) / total
    columns |= {
        "moved_share": spent.moved / total, "macs": layers.macs,
        "pixels": layers.height * layers.width,
        "first": place == 0, "last": place == len(place) - 1,
        "pf": acc.pf, "pc": acc.pc, "pv": acc.pv, "weight_kib": acc.weight_kib,
        "feature_kib": acc.feature_kib, "latency": port.extra_latency, "burst": port.burst,
    }  # fmt: skip
    sides = [
        np.broadcast_to(np.asarray(side, np.float64), total.shape) for side in columns.values()
    ]
    return np.stack(sides, axis=1), list(columns)


@dataclass(frozen=True)
class Parts:
    """The fitted Gaussian process of layers. And of whole networks it never saw, `scores` (m, n):
    how far the logarithm of their cycles is off, in standard deviations to which the `least` (m,)
    is added, sorted, on each of `m` memories with `bursts` (m,) of so many cycles."""

    layers: "Surrogate"
    bursts: np.ndarray
    least: np.ndarray
    scores: np.ndarray

    def cycles(
        self, layers: Layers, acc: Accelerator, port: Port, coverage: float = COVERAGE
    ) -> Interval:
        """Return the cycles of a network, fields (layers,), on an accelerator.

        Raises InputError if none can be predicted: layers are grouped, or cannot run, and none such
        was measured; or unless 0.01 <= coverage <= 0.999.
        """
        wide = layers.kernel if layers.kernel_width is None else layers.kernel_width
        if (np.asarray(layers.repeat) > 1).any() or (wide != layers.kernel).any():
            raise InputError("it has grouped or oblong convolutions, and none such was measured.")
        for off, why in zip(refused(layers, acc, port), REFUSED, strict=True):
            if off.any():
                raise InputError(why.format(layers.names[int(off.argmax())]))
        return self.total(layer_features(layers, acc, port)[0], coverage)

    def total(self, inputs: np.ndarray, coverage: float = COVERAGE) -> Interval:
        """Return the cycles of a network, of `layer_features` (layers, f). What is calibrated is so
        at the memory whose bursts take most nearly as long."""
        rank = number("coverage", coverage, 0.01, 0.999) * (self.scores.shape[1] + 1)
        nearest = np.argmin(np.abs(self.bursts - inputs[0, -1]))
        scores = np.append(0, self.scores[nearest])
        mean, spread = summed(self.layers, inputs)
        half = (spread + self.least[nearest]) * np.interp(rank, np.arange(len(scores)), scores)
        return Interval.of(mean, float(half))

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays and a JSON-able description from which `from_arrays` restores self."""
        arrays, about = self.layers.to_arrays()
        own = {"bursts": self.bursts, "least": self.least, "scores": self.scores}
        return arrays | own, about

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> "Parts":
        """Return what `to_arrays` described. Raises InputError if it is damaged."""
        from .surrogate import Surrogate

        model = Surrogate.from_arrays(arrays, about)
        names = ("bursts", "least", "scores")
        bursts, least, scores = (np.asarray(arrays.get(name, ())) for name in names)
        if not (scores.ndim == 2 and scores.size and bursts.shape == least.shape == scores.shape[:1]
                and (np.diff(scores) >= 0).all() and (least >= 0).all()):  # fmt: skip
            raise InputError("The stored parts are damaged: scores must be in order, by memory.")
        return cls(model, bursts, least, scores)


def summed(model: "Surrogate", inputs: np.ndarray) -> tuple[float, float]:
    """Return the cycles of a network, of `layer_features` (layers, f), and the standard deviation
    of their logarithm, not calibrated: by the delta method, above."""
    logs, covariance = model.joint(inputs)
    means = np.exp(logs)
    share = means / means.sum()
    return float(means.sum()), float(np.sqrt(share @ covariance @ share))


def calibrated(
    model: "Surrogate", bursts: np.ndarray, measured: np.ndarray, found: np.ndarray
) -> Parts:
    """Return the parts of a model with the scores of `n` networks on memories with such bursts,
    (n,), as many on each: cycles as `measured`, (n,), and as `summed` from a model that was trained
    on no layer of that network, (n, 2)."""
    means, spreads = found.T
    off, of_each = np.abs(np.log(measured / means)), [bursts == each for each in np.unique(bursts)]
    least = np.array([np.median(spreads[each]) for each in of_each])
    scores = [off[each] / (spreads[each] + some) for each, some in zip(of_each, least, strict=True)]
    return Parts(model, np.unique(bursts), least, np.sort(scores))


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
