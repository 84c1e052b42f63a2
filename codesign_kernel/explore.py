"""Phase 3: search architecture x accelerator for the Pareto set, on predictions, under constraints.

An evolutionary search in the manner of NSGA-II (Deb et al., IEEE TEC 2002), vectorised over whole
populations: designs that break constraints rank by how much they do, behind all that break none;
those rank by front and then by crowding. Objectives: accuracy up, latency and power down. DSP,
block RAM and LUT are known for an accelerator, so accelerators beyond them never enter, and neither
do networks that an accelerator's buffers cannot run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

import numpy as np
import pandas as pd
from tqdm.auto import trange

from . import cost, pareto
from .accelerator import Accelerators, Device
from .design import Design
from .errors import InputError, number
from .predict import QUANTITIES, Predictors
from .space import Genomes, SearchSpace

POPULATION = 1000
SIGNS = np.array([-1.0, 1.0, 1.0])  # accuracy is maximised, latency and power are minimised


@dataclass(frozen=True)
class Constraints:
    """What a design must keep to; None where nothing is asked. Latency in ms, power in W, accuracy
    in %, DSP and block RAM in blocks."""

    max_latency_ms: float | None = None
    max_power_w: float | None = None
    min_accuracy: float | None = None
    max_dsp: float | None = None
    max_bram: float | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None:
                high = 100.0 if item.name == "min_accuracy" else np.inf
                number("--" + item.name.replace("_", "-"), value, 0.0, high)

    def excess(self, means: np.ndarray, dsp: np.ndarray, bram: np.ndarray) -> np.ndarray:
        """By what fraction each design breaks each constraint, (n, 5), 0 where it keeps to it.

        Columns are in the order of the fields; `means` are accuracy, latency and power (n, 3).
        """
        values = [means[:, 1], means[:, 2], -means[:, 0], dsp, bram]
        columns = []
        for item, value in zip(fields(self), values, strict=True):
            bound = getattr(self, item.name)
            if bound is None:
                columns.append(np.zeros(len(means)))
            else:
                limit = -bound if item.name == "min_accuracy" else bound
                columns.append(np.maximum(value - limit, 0.0) / max(abs(bound), 1e-9))
        return np.column_stack(columns)


@dataclass(frozen=True)
class Designs:
    """`n` designs on one device, with their predicted (n, 3) accuracy, latency and power; `low` and
    `high` are the ends of the 90 % intervals, (n, 3) each, where they are known."""

    device: str
    genomes: Genomes
    accelerators: Accelerators
    means: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.genomes)

    def __getitem__(self, index: np.ndarray) -> "Designs":
        low = None if self.low is None else self.low[index]
        high = None if self.high is None else self.high[index]
        return Designs(
            self.device, self.genomes[index], self.accelerators[index], self.means[index], low, high
        )


@dataclass(frozen=True)
class Exploration:
    """What a search over one or more devices found: how many different designs it considered, how
    many of them keep to the constraints, the front's table (see `table`), and all considered."""

    considered: int
    feasible: int
    front: pd.DataFrame
    designs: list[Designs]


def knee(means: np.ndarray) -> int:
    """Return the index of the knee of a front's accuracies, latencies and powers, (n, 3).

    Latency and power enter by their logarithms: they span decades.
    """
    return pareto.knee(np.column_stack([-means[:, 0], np.log(means[:, 1:])]))


def usable(device: Device, constraints: Constraints) -> Accelerators:
    """Return the accelerators, maybe none, that keep to the constraints on DSP and block RAM.

    Raises InputError if the device cannot hold a single engine, whatever the constraints.
    """
    grid = device.grid()
    grid = grid[cost.fits(grid, device)]
    if len(grid) == 0:
        raise InputError(f"device {device.name} is too small for any engine of the grid.")
    need = cost.resources(grid, device)
    max_dsp, max_bram = (
        np.inf if bound is None else bound for bound in (constraints.max_dsp, constraints.max_bram)
    )
    return grid[(need.dsp <= max_dsp) & (need.bram <= max_bram)]


def explore(
    predictors: Predictors,
    devices: Sequence[str],
    constraints: Constraints,
    *,
    generations: int = 60,
    seed: int = 0,
) -> Exploration:
    """Search each device for its front and return the front of them all.

    Raises InputError if no design that is found keeps to the constraints: it names those that bind
    and the nearest values of them, at which the same search does find one.
    """
    names = list(dict.fromkeys(devices))
    held = _holdable([predictors.devices[name] for name in names], constraints)
    while True:
        found = [
            _search(predictors, name, grid, held, generations, seed)
            for name in names
            if len(grid := usable(predictors.devices[name], held))
        ]
        allowed = [designs[_feasible(predictors, designs, held)] for designs in found]
        feasible = sum(map(len, allowed))
        if feasible:
            break
        held = _relaxed(predictors, found, held)
    if held != constraints:
        raise InputError(_advice(constraints, held))
    kept = [designs[pareto.front(designs.means * SIGNS)] for designs in allowed if len(designs)]
    everyone = pareto.front(np.concatenate([designs.means for designs in kept]) * SIGNS)
    parts = np.split(everyone, np.cumsum([len(designs) for designs in kept])[:-1])
    tables = [table(predictors, designs[part]) for designs, part in zip(kept, parts, strict=True)]
    front = pd.concat(tables).sort_values("accuracy", ascending=False, ignore_index=True)
    return Exploration(sum(map(len, found)), feasible, front, found)


def _search(predictors: Predictors, name: str, grid: Accelerators, constraints: Constraints,
            generations: int, seed: int) -> Designs:  # fmt: skip
    rng = np.random.default_rng([seed, 3])
    space = predictors.space
    seen: set[bytes] = set()
    genomes = np.concatenate([space.sample(POPULATION - 2, rng), np.stack(space.extremes())])
    drawn = rng.integers(0, len(grid), POPULATION)
    population = _unseen(np.column_stack([genomes, drawn]), seen)
    population = population[predictors.runs(population[:, :-1], grid[population[:, -1]], name)]
    means = predictors.means(population[:, :-1], grid[population[:, -1]], name)
    considered = [population], [means]
    for _ in trange(generations, desc=f"explore {name}", unit="generation"):
        parents = population[rng.integers(0, len(population), (2, POPULATION))]
        children = _unseen(_children(space, parents, len(grid), rng), seen)
        children = children[predictors.runs(children[:, :-1], grid[children[:, -1]], name)]
        if len(children) == 0:  # a small space is soon exhausted
            continue
        fresh = predictors.means(children[:, :-1], grid[children[:, -1]], name)
        considered[0].append(children)
        considered[1].append(fresh)
        population, means = np.concatenate([population, children]), np.concatenate([means, fresh])
        kept = _survivors(predictors, name, population, means, grid, constraints)
        population, means = population[kept], means[kept]
    population, means = (np.concatenate(parts) for parts in considered)
    return Designs(name, population[:, :-1], grid[population[:, -1]], means)


def _unseen(population: np.ndarray, seen: set[bytes]) -> np.ndarray:
    """Return the rows that were not seen yet, each once, and note them as seen."""
    new = []
    for i, row in enumerate(population.astype(np.int16)):
        key = row.tobytes()
        if key not in seen:
            seen.add(key)
            new.append(i)
    return population[new]


def _children(
    space: SearchSpace, parents: np.ndarray, accelerators: int, rng: np.random.Generator
) -> np.ndarray:
    one, two = parents
    genomes = space.mutate(space.cross(one[:, :-1], two[:, :-1], rng), rng, 1.5 / one.shape[1])
    either = np.where(rng.random(len(one)) < 0.5, one[:, -1], two[:, -1])
    drawn = rng.integers(0, accelerators, len(one))
    return np.column_stack([genomes, np.where(rng.random(len(one)) < 0.2, drawn, either)])


def _survivors(predictors: Predictors, name: str, population: np.ndarray, means: np.ndarray,
               grid: Accelerators, constraints: Constraints) -> np.ndarray:  # fmt: skip
    need = cost.resources(grid[population[:, -1]], predictors.devices[name])
    broken = constraints.excess(means, need.dsp, need.bram).sum(axis=1)
    points = means * SIGNS
    rank = np.full(len(means), np.iinfo(np.int64).max)
    feasible = np.flatnonzero(broken == 0)
    rank[feasible] = pareto.ranks(points[feasible])
    order = np.lexsort((-_crowding(points, rank), broken, rank))
    return order[:POPULATION]


def _crowding(points: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Distance between each point's neighbours of the same rank, summed over objectives, (n,)."""
    total = np.zeros(len(points))
    for value in points.T:
        order = np.lexsort((value, rank))
        span = max(np.ptp(value), 1e-12)
        gap = np.full(len(points), np.inf)
        inner = (rank[order][2:] == rank[order][1:-1]) & (rank[order][1:-1] == rank[order][:-2])
        width = (value[order][2:] - value[order][:-2]) / span
        gap[1:-1] = np.where(inner, width, np.inf)
        total[order] += gap
    return total


def _excess(predictors: Predictors, designs: Designs, constraints: Constraints) -> np.ndarray:
    need = cost.resources(designs.accelerators, predictors.devices[designs.device])
    return constraints.excess(designs.means, need.dsp, need.bram)


def _feasible(predictors: Predictors, designs: Designs, constraints: Constraints) -> np.ndarray:
    return np.asarray((_excess(predictors, designs, constraints) == 0).all(axis=1))


def _holdable(devices: Sequence[Device], constraints: Constraints) -> Constraints:
    """Return the constraints with DSP and block RAM relaxed so far that a device has an engine."""
    if any(len(usable(device, constraints)) for device in devices):
        return constraints
    grids = [usable(device, Constraints()) for device in devices]
    needs = [cost.resources(grid, device) for grid, device in zip(grids, devices, strict=True)]
    dsp, bram = (np.concatenate([getattr(n, kind) for n in needs]) for kind in ("dsp", "bram"))
    excess = constraints.excess(np.zeros((len(dsp), 3)), dsp, bram)[:, 3:]
    best = _least(excess)
    need = {"max_dsp": float(dsp[best]), "max_bram": float(bram[best])}
    broken = [name for name, e in zip(need, excess[best], strict=True) if e > 0]
    return replace(constraints, **{name: need[name] for name in broken})


def _relaxed(predictors: Predictors, found: list[Designs], constraints: Constraints) -> Constraints:
    """Return the constraints relaxed so far that the nearest design found keeps to them.

    Values are rounded to four digits, to the side that lets the design in.
    """
    excess = np.concatenate([_excess(predictors, designs, constraints) for designs in found])
    means = np.concatenate([designs.means for designs in found])
    best = _least(excess)
    accuracy, latency, power = means[best]
    up, down = Context(4, ROUND_CEILING), Context(4, ROUND_FLOOR)
    reached = {
        "max_latency_ms": float(up.create_decimal(latency)),
        "max_power_w": float(up.create_decimal(power)),
        "min_accuracy": float(down.create_decimal(accuracy)),
    }
    broken = [item.name for item, e in zip(fields(constraints), excess[best], strict=True) if e > 0]
    return replace(constraints, **{name: reached[name] for name in broken})


def _least(excess: np.ndarray) -> int:
    """Return the row of least excess (n, k), one that breaks a single constraint if any does."""
    several = (excess > 0).sum(axis=1) > 1
    return int(np.lexsort((excess.sum(axis=1), several))[0])


def _advice(asked: Constraints, held: Constraints) -> str:
    """Say which constraints bind, and at which values of them the search found a design."""
    names = [
        item.name for item in fields(asked) if getattr(asked, item.name) != getattr(held, item.name)
    ]
    bind = " and ".join(f"--{name.replace('_', '-')} {getattr(asked, name):g}" for name in names)
    values = " and ".join(f"{getattr(held, name):.10g}" for name in names)
    verbs = ("binds", "value is") if len(names) == 1 else ("bind", "values are")
    return (
        f"no design keeps to all constraints: {bind} {verbs[0]}; the nearest feasible {verbs[1]} "
        f"{values}."
    )


def table(predictors: Predictors, designs: Designs) -> pd.DataFrame:
    """Return the designs as rows: id, architecture, accelerator, device, predictions with their
    90 % intervals (`_low`, `_high`), energy in mJ, and the closed form's dsp, bram and lut."""
    low, high = predictors.intervals(designs.genomes, designs.accelerators, designs.device)
    known = replace(designs, low=low, high=high)
    return tabulate(predictors.space, predictors.devices[designs.device], known)


def tabulate(space: SearchSpace, device: Device, designs: Designs) -> pd.DataFrame:
    """Return designs whose intervals are known as rows: see `table`."""
    low, high = designs.low, designs.high
    assert low is not None
    assert high is not None
    rows = [
        Design(space.decode(genome), accelerator, designs.device)
        for genome, accelerator in zip(designs.genomes, designs.accelerators, strict=True)
    ]
    frame = pd.DataFrame(
        {
            "id": [design.id for design in rows],
            "architecture": [str(design.architecture) for design in rows],
            "accelerator": [str(design.accelerator) for design in rows],
            "device": designs.device,
        }
    )
    for i, quantity in enumerate(QUANTITIES):
        frame[quantity] = designs.means[:, i]
        # The interval is calibrated, the mean is not: it may fall outside by a rounding error.
        frame[f"{quantity}_low"] = np.minimum(low[:, i], designs.means[:, i])
        frame[f"{quantity}_high"] = np.maximum(high[:, i], designs.means[:, i])
    for end in ("", "_low", "_high"):
        frame[f"energy_mj{end}"] = frame[f"latency_ms{end}"] * frame[f"power_w{end}"]
    need = cost.resources(designs.accelerators, device)
    return frame.assign(dsp=need.dsp, bram=need.bram, lut=need.lut)
