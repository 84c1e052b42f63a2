"""Which designs to measure next: those by which the front of measurements is expected to grow most.

The expected hypervolume improvement of a design weighs how good it is predicted to be by how
uncertain that is (Emmerich et al., CEC 2011). For independent normal predictions it is exact: the
region that no measured design dominates is cut into boxes, and over each box the expectation is a
product of one factor an objective (Yang et al., J. Global Optimization 75, 2019). Designs of a
round are chosen one by one, and each is believed to turn out as predicted before the next is
chosen, so that they do not crowd ("kriging believer": Ginsbourger et al., 2010, section 3.2).

Accuracy belongs to the architecture: once measured, it is known on every engine. Engines that were
placed and routed have a known clock, so that latency is known as well on one that no network ran on
yet. Of power, the process takes itself to be surer there than it is: `codesign fit` tells how much.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist

import numpy as np
from scipy.special import ndtr
from tqdm.auto import trange

from . import pareto
from .constraints import Constraints
from .evolve import survivors
from .explore import SIGNS, Designs
from .predict import COVERAGE, Predictors
from .quantities import QUANTITIES
from .store import Key
from .workload import layers_of

POOL = 4000  # designs of each device that are weighed
FEW = 1000  # of all these, the ones with most to gain, from which a round is chosen
MARGIN = 0.1  # of the front's range, by which the box reaches beyond its worst
NONE = Constraints()
_ROWS = 256  # designs weighed at a time, to stay in the processor's cache


@dataclass(frozen=True)
class Box:
    """The box in which hypervolume is measured: between a front's best and worst accuracy, latency
    and power, `low` and `high` (3,) each, the latter two by their logarithms. What takes more
    `energy` than so many mJ lies outside."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    energy: float | None = None

    @classmethod
    def of(cls, figures: np.ndarray, bounds: Constraints = NONE) -> "Box":
        """Return the box around a front's accuracies (%), latencies (ms) and powers (W), (n, 3),
        which reaches beyond its worst by `MARGIN` of its range, but not beyond the bounds."""
        goals = _goals(figures)
        low, high = goals.min(axis=0), goals.max(axis=0)
        least, slowest, most = bounds.min_accuracy, bounds.max_latency_ms, bounds.max_power_w
        ends = [
            np.inf if least is None else -least,
            *(np.inf if end is None else np.log(max(end, 1e-300)) for end in (slowest, most)),
        ]
        high = np.minimum(high + MARGIN * np.where(high > low, high - low, 1.0), ends)
        high = np.maximum(high, low + 1e-9)
        return cls(tuple(map(float, low)), tuple(map(float, high)), bounds.max_energy_mj)

    @property
    def span(self) -> np.ndarray:
        """The box's sides, (3,)."""
        return np.subtract(self.high, self.low)

    def points(self, figures: np.ndarray) -> np.ndarray:
        """Return figures (n, 3) as points to be minimised, (n, 3): 0 to 1 inside the box."""
        points = np.asarray((_goals(figures) - self.low) / self.span)
        if self.energy is None:
            return points
        over = figures[:, 1:].prod(axis=1) / max(self.energy, 1e-300)
        return np.asarray(np.where(over[:, None] > 1, np.maximum(points, over[:, None]), points))

    def hypervolume(self, figures: np.ndarray) -> float:
        """Return what figures (n, 3) dominate, in % of the box; more than 100 where they are better
        than its best corner."""
        return 100 * pareto.hypervolume(self.points(figures), np.ones(3))


def _goals(figures: np.ndarray) -> np.ndarray:
    return np.column_stack([-figures[:, 0], np.log(figures[:, 1:])])


@dataclass
class Known:
    """What was measured: accuracy (%) by architecture; latency (ms) and power (W) by design."""

    accuracy: dict[str, float] = field(default_factory=dict)
    hardware: dict[Key, tuple[float, float]] = field(default_factory=dict)

    def whole(self, key: Key) -> bool:
        """Whether all of a design is known."""
        return key in self.hardware and key[0] in self.accuracy

    def figures(self) -> np.ndarray:
        """Accuracy, latency and power, (n, 3), of the designs all of which is known."""
        rows = [(self.accuracy[k[0]], *v) for k, v in self.hardware.items() if self.whole(k)]
        return np.array(rows, dtype=np.float64).reshape(-1, 3)


def keys_of(predictors: Predictors, designs: Designs) -> list[Key]:
    """Return the designs as the store names them."""
    texts = [str(predictors.space.decode(genome)) for genome in designs.genomes]
    return [
        (text, str(acc), designs.device)
        for text, acc in zip(texts, designs.accelerators, strict=True)
    ]


def choose(
    predictors: Predictors, candidates: Sequence[Designs], known: Known, box: Box, n: int
) -> list[Key]:
    """Return `n` designs to measure, fewer if there are no more candidates, the first chosen first.

    `candidates` are predicted designs, those of a device together; what is known in whole is left
    out. Follows from its arguments: nothing is drawn.
    """
    pools: list[Designs] = []
    keys: list[Key] = []
    for designs in candidates:
        best = promising(designs, box)
        names = keys_of(predictors, best)
        new = np.array([not known.whole(name) for name in names], dtype=bool)
        pools += [best[new]] if new.any() else []
        keys += [name for name, each in zip(names, new, strict=True) if each]
    measured = box.points(known.figures())
    accuracy = np.array([known.accuracy.get(key[0], np.nan) for key in keys])
    accuracy = (-accuracy - box.low[0]) / box.span[0]
    left, chosen = np.ones(len(keys), dtype=bool), list[Key]()
    for _ in trange(min(n, len(keys)), desc="choose", unit="design", leave=False):
        points, std = weighed(predictors, pools, box)
        points[:, 0] = np.where(np.isnan(accuracy), points[:, 0], accuracy)
        std[:, 0] = np.where(np.isnan(accuracy), std[:, 0], 0.0)
        gain = np.where(left, expected_improvement(points, std, measured), -1.0)
        first = int(np.lexsort((std.sum(axis=1), gain))[-1])  # of equals the least certain
        chosen.append(keys[first])
        left[first] = False
        measured = np.concatenate([measured, points[[first]]])
        accuracy[[key[0] == chosen[-1][0] for key in keys]] = points[first, 0]
        predictors = believed(predictors, pools, first)
        if len(chosen) == 1:  # believing in others, a design gains no more than it does now
            few = np.sort(np.argsort(gain, kind="stable")[-max(FEW, n) :])
            pools, keys = part(pools, few), [keys[i] for i in few]
            left, accuracy = left[few], accuracy[few]
    return chosen


def promising(designs: Designs, box: Box) -> Designs:
    """Return the `POOL` best predicted designs, those inside the box before all others."""
    outside = np.maximum(box.points(designs.means) - 1, 0).sum(axis=1)
    return designs[survivors(designs.means * SIGNS, outside, POOL)]


def part(pools: Sequence[Designs], index: np.ndarray) -> list[Designs]:
    """Return the designs of an index into all of them, in rising order; no device's are empty."""
    ends = np.cumsum([0, *map(len, pools)])
    parts = [
        designs[index[(index >= start) & (index < end)] - start]
        for designs, start, end in zip(pools, ends[:-1], ends[1:], strict=True)
    ]
    return [part for part in parts if len(part)]


def weighed(
    predictors: Predictors, pools: Sequence[Designs], box: Box
) -> tuple[np.ndarray, np.ndarray]:
    """Return the predictions of designs as points in the box and their standard deviations,
    (n, 3) each, calibrated as the intervals are."""
    points, stds = [], []
    for designs in pools:
        asked = designs.genomes, designs.accelerators, designs.device
        means, low, high = predictors.figures(*asked, coverage=COVERAGE, own=True)
        half = np.column_stack([high[:, 0] - low[:, 0], np.log(high[:, 1:] / low[:, 1:])]) / 2
        points.append(box.points(means))
        stds.append(half / NormalDist().inv_cdf((1 + COVERAGE) / 2) / box.span)
    return np.concatenate(points), np.concatenate(stds)


def believed(predictors: Predictors, pools: Sequence[Designs], index: int) -> Predictors:
    """Return predictors that have seen a design turn out as they predict it."""
    (designs,) = part(pools, np.array([index]))
    name = designs.device
    layers = layers_of(predictors.space, designs.genomes)
    X = predictors.accuracy_inputs(designs.genomes, layers)
    inputs = predictors.inputs(layers, designs.accelerators, name)
    more = {(q, name): predictors.hardware[q, name].believing(inputs[q]) for q in QUANTITIES[1:]}
    accuracy = predictors.accuracy.believing(X)
    return replace(predictors, accuracy=accuracy, hardware=predictors.hardware | more)


def expected_improvement(points: np.ndarray, std: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return by how much each of n designs is expected to raise the hypervolume, (n,), of measured
    points (m, 3) up to the corner (1, 1, 1), all objectives minimised; `points` (n, 3) are means of
    independent normal distributions, `std` (n, 3) their standard deviations."""
    lower, upper = boxes(measured, np.ones(3))
    gain = np.empty(len(points))
    for i in range(0, len(points), _ROWS):
        rows = slice(i, i + _ROWS)
        total = np.ones((len(points[rows]), len(lower)))
        for j in range(3):
            edges, place = np.unique(np.concatenate([lower[:, j], upper[:, j]]),
                                     return_inverse=True)  # fmt: skip
            below = shortfall(points[rows, j, None], std[rows, j, None], edges)
            total *= below[:, place[len(lower) :]] - below[:, place[: len(lower)]]
        gain[rows] = total.sum(axis=1)
    return gain


def shortfall(mean: np.ndarray, std: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the expectation of max(edge - y, 0), (n, k), of normal y, means and stds (n, 1)."""
    std = np.maximum(std, 1e-9)
    found = np.zeros((len(mean), len(edges)))
    finite = np.isfinite(edges)
    t = (edges[finite] - mean) / std
    found[:, finite] = std * (t * ndtr(t) + np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi))
    return found


def boxes(points: np.ndarray, corner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the region below a corner (3,) that points (m, 3) do not dominate, all objectives
    minimised, as boxes that do not overlap: their lower and upper ends, (b, 3) each.

    Between the third values of two successive points, the region is below the staircase of those
    before them in the other two.
    """
    points = points[(points < corner).all(axis=1)]
    points = points[pareto.front(points)]
    points = points[np.argsort(points[:, 2])]
    heights = [-np.inf, *points[:, 2], corner[2]]
    lower: list[np.ndarray] = []
    upper: list[np.ndarray] = []
    for i in range(len(points) + 1):
        stairs = points[:i, :2]
        stairs = stairs[pareto.front(stairs)]
        stairs = stairs[np.argsort(stairs[:, 0])]
        x = np.array([-np.inf, *stairs[:, 0], corner[0]])
        y = np.array([corner[1], *stairs[:, 1]])
        ends = np.full((len(y), 2), [heights[i], heights[i + 1]])
        lower.append(np.column_stack([x[:-1], np.full(len(y), -np.inf), ends[:, 0]]))
        upper.append(np.column_stack([x[1:], y, ends[:, 1]]))
    return np.concatenate(lower), np.concatenate(upper)
