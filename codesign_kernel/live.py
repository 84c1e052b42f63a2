"""The page's Pareto picture: the browser filters up to 5,000 points as a slider moves, while Python
counts over all that is stored.

Latency, power and accuracy are objectives: a bound on them cuts the front but brings nothing to it.
DSP and block RAM are not, and neither is what a design keeps to with the probability that bounds
must hold with. All that any bounds can leave on the front is on the front in all of these together,
the candidates: they come first among the points, and Python says which of them are on the front.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from . import cost, pareto
from .accelerator import Device
from .charts import alt, power_scale, tip
from .constraints import CONFIDENCE, Constraints
from .explore import SIGNS, Designs, knee
from .quantities import QUANTITIES, TITLES

MAX_POINTS = 5000  # a canvas redraws as many within the time of a few frames
FREE = 1e9  # a bound that asks for nothing
_MARK = [f"{name}{end}" for name in ("accuracy", "latency_ms") for end in ("", "_low", "_high")]
KEPT = {
    "max_latency_ms": "a latency of {:g} ms",
    "max_power_w": "a power of {:g} W",
    "min_accuracy": "an accuracy of {:g} %",
    "max_energy_mj": "an energy of {:g} mJ",
    "max_dsp": "{:g} DSP blocks",
    "max_bram": "{:g} block RAMs",
}


@dataclass(frozen=True)
class Cloud:
    """The stored designs of one device; `values` are what bounds are on."""

    designs: Designs
    device: Device

    @cached_property
    def values(self) -> pd.DataFrame:
        """Accuracy (%), latency_ms, power_w and energy_mj that each design keeps to with a
        probability of CONFIDENCE, and its dsp and bram."""
        need = cost.resources(self.designs.accelerators, self.device)
        worst = pd.DataFrame(self.designs.worst(CONFIDENCE), columns=[*QUANTITIES, "energy_mj"])
        return worst.assign(dsp=need.dsp, bram=need.bram)

    @cached_property
    def candidates(self) -> np.ndarray:
        """Which designs are on the front in the predictions and all these values."""
        columns = self.values.to_numpy() * [*SIGNS, 1, 1, 1]
        return np.flatnonzero(pareto.front(np.column_stack([self.designs.means * SIGNS, columns])))

    @cached_property
    def points(self) -> np.ndarray:
        """Which designs the picture holds: the candidates first, then others at random."""
        others = np.setdiff1d(np.arange(len(self.designs)), self.candidates)
        others = np.random.default_rng(0).permutation(others)
        return np.concatenate([self.candidates, others])[:MAX_POINTS]

    def broken(self, constraints: Constraints) -> np.ndarray:
        """By what fraction each design breaks each bound, (n, 6)."""
        worst, dsp, bram = np.split(self.values.to_numpy(), [4, 5], axis=1)
        return constraints.excess(worst, dsp[:, 0], bram[:, 0])

    def front(self, allowed: np.ndarray) -> np.ndarray:
        """Return the indices of the front of those designs that `allowed`, boolean (n,), leaves."""
        inside = self.candidates[allowed[self.candidates]]
        best: np.ndarray = inside[pareto.front(self.designs.means[inside] * SIGNS)]
        return best

    def knee(self, front: np.ndarray) -> int:
        """Return which design of the front is its knee."""
        return int(front[knee(self.designs.means[front])])

    def flags(self, front: np.ndarray) -> str:
        """Return the picture's param `front`: "1" for each point on the front, or else "0"."""
        on = np.isin(self.points, front)
        return "".join(np.where(on, "1", "0"))

    def nearest(self, constraints: Constraints) -> tuple[int, str]:
        """Return the stored design that breaks the bounds least, and say what it keeps to of
        those."""
        broken = self.broken(constraints)
        best = int(broken.sum(axis=1).argmin())
        accuracy, latency, power, energy, dsp, bram = self.values.iloc[best]
        # Rounded to the side that lets the design in.
        values = {"max_latency_ms": np.ceil(latency * 1e4) / 1e4,
                  "max_power_w": np.ceil(power * 1e4) / 1e4,
                  "min_accuracy": np.floor(accuracy * 100) / 100,
                  "max_energy_mj": np.ceil(energy * 1e4) / 1e4,
                  "max_dsp": dsp, "max_bram": bram}  # fmt: skip
        kept = [KEPT[name].format(values[name]) for name in np.array([*KEPT])[broken[best] > 0]]
        text = f"No stored design keeps to all limits. The nearest keeps to {' and '.join(kept)}."
        return best, text


def params(constraints: Constraints) -> dict[str, float]:
    """Return the picture's params for the bounds."""
    free = dict.fromkeys(constraints.bounds, FREE) | {"min_accuracy": 0.0}
    return {name: free[name] if bound is None else bound
            for name, bound in constraints.bounds.items()}  # fmt: skip


def mark(row: pd.Series) -> dict[str, float]:
    """Return the picture's param `chosen`: where a design lies, and the ends of its intervals."""
    return {name: float(row[name]) for name in _MARK}


def chart(cloud: Cloud, power_from: str) -> alt.LayerChart:
    """Return the picture; `power_from` says what power is predicted from.

    Its params: a bound each, under the names of `Constraints`; `front`, see `Cloud.flags`;
    `chosen`, see `mark`. A point's datum has its number, `n`, in `Cloud.points`.
    """
    bounded = (*QUANTITIES, "energy_mj")
    rows = cloud.values.iloc[cloud.points].rename(
        columns={name: f"{name}_worst" for name in bounded}
    )
    rows = rows.assign(n=np.arange(len(cloud.points)))
    shown = cloud.designs[cloud.points]
    rows[[*bounded]] = np.column_stack([shown.means, shown.energy_mj])
    for name, digits in {"accuracy": 4, "latency_ms": 7, "power_w": 6, "energy_mj": 7}.items():
        rows[[name, f"{name}_worst"]] = rows[[name, f"{name}_worst"]].round(digits)
    x = alt.X("latency_ms:Q", title=f"{TITLES['latency_ms']}, predicted",
              scale=_padded(rows["latency_ms"], log=True))  # fmt: skip
    y = alt.Y("accuracy:Q", title=f"{TITLES['accuracy']}, predicted",
              scale=_padded(rows["accuracy"]))  # fmt: skip
    legend = alt.Legend(orient="top", gradientLength=200, gradientThickness=10, titleLimit=320,
                        format=".3~r", tickCount=3)  # fmt: skip
    ends = [float(rows["power_w"].min()), float(rows["power_w"].max())]
    power = alt.Color("power_w:Q", title=f"{TITLES['power_w']}, predicted from {power_from} power",
                      scale=power_scale(ends), legend=legend)  # fmt: skip
    on_front = "front[datum.n] === '1'"
    blocks = (alt.Tooltip("dsp:Q", title="DSP (blocks)"),
              alt.Tooltip("bram:Q", title="Block RAM (blocks)"))  # fmt: skip
    points = (
        alt.Chart(rows.iloc[::-1])  # what is drawn last is on top: the candidates
        .transform_filter(
            "datum.latency_ms_worst <= max_latency_ms && datum.power_w_worst <= max_power_w && "
            "datum.accuracy_worst >= min_accuracy && datum.energy_mj_worst <= max_energy_mj && "
            "datum.dsp <= max_dsp && datum.bram <= max_bram"
        )
        .mark_point(filled=True, shape="circle", strokeWidth=0.8)
        .encode(
            x,
            y,
            power,
            size=alt.condition(on_front, alt.value(70), alt.value(14)),
            opacity=alt.condition(on_front, alt.value(1.0), alt.value(0.35)),
            stroke=alt.condition(on_front, alt.value("#222222"), alt.value("transparent")),
            tooltip=[*map(tip, bounded), *blocks],
        )
    )  # fmt: skip
    one = alt.Chart(alt.InlineData(values=[{}]))
    dash, red = [5, 4], "#D55E00"
    lines = one.mark_rule(strokeDash=dash, color="#555555", clip=True)
    one = one.transform_calculate(**{name: f"chosen.{name}" for name in _MARK})
    bars = one.mark_rule(color=red, strokeWidth=2, clip=True)
    ring = one.mark_point(size=230, color=red, strokeWidth=3, clip=True)
    layers = [
        points,
        lines.transform_calculate(latency_ms="max_latency_ms").encode(x),
        lines.transform_calculate(accuracy="min_accuracy").encode(y),
        bars.encode(y, alt.X("latency_ms_low:Q"), alt.X2("latency_ms_high:Q")),
        bars.encode(x, alt.Y("accuracy_low:Q"), alt.Y2("accuracy_high:Q")),
        ring.encode(x, y),
    ]
    about = "Accuracy against latency of the designs that keep to the limits, with power as colour"
    start = {**params(Constraints()), "front": "", "chosen": {}}
    set_from_python = [alt.param(name, value=value) for name, value in start.items()]
    whole = alt.LayerChart(layer=layers, width="container", height=380, description=about)
    return whole.add_params(*set_from_python)


def _padded(values: pd.Series, log: bool = False) -> alt.Scale:
    """A scale that stays as it is while points come and go, with a margin of 4 %."""
    ends = np.array([values.min(), values.max()])
    ends = np.log(ends) if log else ends
    margin = 0.04 * max(float(ends[1] - ends[0]), 1e-3)
    low, high = ends[0] - margin, ends[1] + margin
    domain = [float(end) for end in (np.exp([low, high]) if log else (low, high))]
    return alt.Scale(type="log" if log else "linear", domain=domain, nice=False)
