"""What a design must keep to, with what probability, and what to say where no design does."""

from dataclasses import dataclass, fields, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

import numpy as np

from .errors import number

CONFIDENCE = 0.9
UNITS = {"max_latency_ms": "ms", "max_power_w": "W", "min_accuracy": "%", "max_energy_mj": "mJ",
         "max_dsp": "blocks", "max_bram": "blocks"}  # fmt: skip


@dataclass(frozen=True)
class Constraints:
    """What a design must keep to; None where nothing is asked. Latency in ms, power in W, accuracy
    in %, energy of one image in mJ, DSP and block RAM in blocks. Each bound on what is predicted
    must hold, by itself, with a probability of `confidence`, from 0.5, where the prediction itself
    counts, to 0.999."""

    max_latency_ms: float | None = None
    max_power_w: float | None = None
    min_accuracy: float | None = None
    max_energy_mj: float | None = None
    max_dsp: float | None = None
    max_bram: float | None = None
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        for name, value in self.bounds.items():
            if value is not None:
                high = 100.0 if name == "min_accuracy" else np.inf
                number("--" + name.replace("_", "-"), value, 0.0, high)
        number("--confidence", self.confidence, 0.5, 0.999)

    @property
    def bounds(self) -> dict[str, float | None]:
        """The bounds by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)[:-1]}

    @property
    def uncertain(self) -> bool:
        """Whether a bound is on what is predicted."""
        return any(bound is not None for bound in list(self.bounds.values())[:4])

    def excess(self, worst: np.ndarray, dsp: np.ndarray, bram: np.ndarray) -> np.ndarray:
        """By what fraction each design breaks each constraint, (n, 6), 0 where it keeps to it.

        Columns are in the order of the bounds; `worst` are accuracy, latency, power and energy
        (n, 4), see `Designs.worst`.
        """
        values = [worst[:, 1], worst[:, 2], -worst[:, 0], worst[:, 3], dsp, bram]
        columns = []
        for (name, bound), value in zip(self.bounds.items(), values, strict=True):
            if bound is None:
                columns.append(np.zeros(len(worst)))
            else:
                limit = -bound if name == "min_accuracy" else bound
                columns.append(np.maximum(value - limit, 0.0) / max(abs(bound), 1e-9))
        return np.column_stack(columns)


def relaxed(constraints: Constraints, excess: np.ndarray, worst: np.ndarray) -> Constraints:
    """Return the constraints relaxed so far that the nearest of n designs keeps to them.

    `excess` (n, 6) and `worst` (n, 4) are those of `Constraints.excess`. Values are rounded to four
    digits, to the side that lets the design in.
    """
    best = least(excess)
    accuracy, latency, power, energy = worst[best]
    up, down = Context(4, ROUND_CEILING), Context(4, ROUND_FLOOR)
    reached = {
        "max_latency_ms": float(up.create_decimal(latency)),
        "max_power_w": float(up.create_decimal(power)),
        "min_accuracy": float(down.create_decimal(accuracy)),
        "max_energy_mj": float(up.create_decimal(energy)),
    }
    broken = [name for name, e in zip(constraints.bounds, excess[best], strict=True) if e > 0]
    return replace(constraints, **{name: reached[name] for name in broken})


def least(excess: np.ndarray) -> int:
    """Return the row of least excess (n, k), one that breaks a single constraint if any does."""
    several = (excess > 0).sum(axis=1) > 1
    return int(np.lexsort((excess.sum(axis=1), several))[0])


def advice(asked: Constraints, held: Constraints) -> str:
    """Say which constraints bind, and at which values of them the search found a design."""
    names = [name for name, bound in asked.bounds.items() if bound != held.bounds[name]]
    bind = " and ".join(f"--{name.replace('_', '-')} {getattr(asked, name):g}" for name in names)
    values = " and ".join(f"{getattr(held, name):.10g} {UNITS[name]}" for name in names)
    verbs = ("binds", "value is") if len(names) == 1 else ("bind", "values are")
    sure = f" with a probability of {100 * asked.confidence:g} %" if asked.uncertain else ""
    return (
        f"no design keeps to all constraints{sure}: {bind} {verbs[0]}; the nearest feasible "
        f"{verbs[1]} {values}."
    )
