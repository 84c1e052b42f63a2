"""Phase 3: search architecture x accelerator for the Pareto set, on predictions, under constraints.

Objectives: accuracy up, latency and power down. Bounds on these hold with a stated probability.
DSP, block RAM and LUT are known for an accelerator, so accelerators beyond them never enter, and
neither do networks that an accelerator's buffers cannot run. How designs are chosen: `evolve.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from tqdm.auto import trange

from . import cost, pareto
from .accelerator import Accelerators, Device
from .constraints import Constraints, advice, least, relaxed
from .cycles import Port
from .design import Design
from .errors import InputError, choice, integer, shown
from .evolve import Evolution
from .loops import outline
from .predict import COVERAGE, Predictors
from .quantities import QUANTITIES
from .space import Genomes, SearchSpace
from .workload import layers_of

SIGNS = np.array([-1.0, 1.0, 1.0])  # accuracy is maximised, latency and power are minimised


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

    @property
    def energy_mj(self) -> np.ndarray:
        """The predicted energy of one image in mJ, (n,): latency times power."""
        return np.asarray(self.means[:, 1:].prod(axis=1))

    def worst(self, confidence: float) -> np.ndarray:
        """Accuracy, latency, power and energy in mJ, (n, 4), that each design keeps to with a
        probability of `confidence`: those of the means where no intervals are known.

        A 90 % interval is left on either side with a probability of 5 %. For other probabilities
        its ends move as the quantiles of a normal distribution do, of latency and power in
        logarithms. What is not known of these two is taken as independent.
        """
        energy = self.energy_mj
        if self.low is None or self.high is None:
            return np.column_stack([self.means, energy])
        share = NormalDist().inv_cdf(confidence) / NormalDist().inv_cdf((1 + COVERAGE) / 2)
        lost = share * np.maximum(self.means[:, 0] - self.low[:, 0], 0.0)
        more = share * np.log(np.maximum(self.high[:, 1:] / self.means[:, 1:], 1.0))
        hardware = self.means[:, 1:] * np.exp(more)
        energy = energy * np.exp(np.sign(share) * np.hypot(*more.T))
        return np.column_stack([self.means[:, 0] - lost, hardware, energy])


@dataclass(frozen=True)
class Exploration:
    """What a search over one or more devices found: how many different designs it considered, how
    many of them keep to the constraints, the front's table (see `table`), and all considered."""

    considered: int
    feasible: int
    front: pd.DataFrame
    designs: list[Designs]


def knee(means: ArrayLike) -> int:
    """Return the index of the knee of a front's accuracies, latencies and powers, (n, 3), or of the
    first two, (n, 2). Latency and power enter by their logarithms: they span decades."""
    values = np.asarray(means)
    return pareto.knee(np.column_stack([-values[:, 0], np.log(values[:, 1:])]))


def usable(
    device: Device, constraints: Constraints, among: Accelerators | None = None
) -> Accelerators:
    """Return the accelerators, maybe none, that keep to the constraints on DSP and block RAM:
    `among` those given, or else those of the device's grid.

    Raises InputError if the device cannot hold a single engine, whatever the constraints.
    """
    grid = device.grid() if among is None else among
    grid = grid[cost.fits(grid, device)]
    if len(grid) == 0:
        whose = "of the grid" if among is None else "that is given for it"
        raise InputError(f"device {device.name} is too small for any engine {whose}.")
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
    engines: Mapping[str, Accelerators] = MappingProxyType({}),
) -> Exploration:
    """Search each device for its front and return the front of them all.

    `engines` are those to search on a device; where none are given, its whole grid is. Raises
    InputError if no design that is found keeps to the constraints: it names those that bind and the
    nearest values of them, at which the same search does find one.
    """
    if isinstance(devices, str) or not devices:
        raise InputError(f"devices is {shown(devices)}, but must be a list of one or more names.")
    for name in (*devices, *engines):
        choice("device", name, list(predictors.devices))
    for name, some in engines.items():
        integer(f"the number of engines of {name}", len(some), 1)
    chips = {name: predictors.devices[name] for name in devices}
    held = _holdable(chips, constraints, engines)
    while True:
        found = [
            _search(predictors, name, grid, held, generations, seed)
            for name, chip in chips.items()
            if len(grid := usable(chip, held, engines.get(name)))
        ]
        allowed = [designs[_feasible(predictors, designs, held)] for designs in found]
        feasible = sum(map(len, allowed))
        if feasible:
            break
        excess = np.concatenate([_excess(predictors, designs, held) for designs in found])
        worst = np.concatenate([designs.worst(held.confidence) for designs in found])
        held = relaxed(held, excess, worst)
    if held != constraints:
        raise InputError(advice(constraints, held))
    kept = [_precise(predictors, designs, held) for designs in allowed if len(designs)]
    if not any(map(len, kept)):
        raise InputError(
            "designs keep to the constraints only within what a search rounds off: relax those "
            "that bind by a millionth."
        )
    everyone = pareto.front(np.concatenate([designs.means for designs in kept]) * SIGNS)
    parts = np.split(everyone, np.cumsum([len(designs) for designs in kept])[:-1])
    # A device of which no design is on the front of them all has no table.
    best = [designs[part] for designs, part in zip(kept, parts, strict=True) if part.any()]
    tables = [table(predictors, designs) for designs in best]
    front = pd.concat(tables).sort_values("accuracy", ascending=False, ignore_index=True)
    return Exploration(sum(map(len, found)), feasible, front, found)


def _search(predictors: Predictors, name: str, grid: Accelerators, constraints: Constraints,
            generations: int, seed: int) -> Designs:  # fmt: skip
    device = predictors.devices[name]
    search = Evolution(predictors.space, grid, [seed, 3])
    coverage = COVERAGE if constraints.uncertain else None
    found: list[tuple[np.ndarray, ...]] = []
    for _ in trange(generations + 1, desc=f"explore {name}", unit="generation"):
        asked = search.ask()
        layers = layers_of(predictors.space, asked.genomes)
        busy, runs = outline(layers, grid[asked.engine], Port.of(device), asked.which)
        asked, busy = asked.part(runs), busy[runs]
        if not runs.any():  # a small space is soon exhausted
            continue
        acc = grid[asked.engine]
        figures = predictors.figures(
            asked.genomes, acc, name, asked.which, busy, coverage, True, layers=layers
        )
        designs = Designs(name, asked.rows, acc, *figures)
        known = np.zeros(len(designs))  # DSP and block RAM of the whole grid keep to the bounds
        broken = constraints.excess(designs.worst(constraints.confidence), known, known)
        search.tell(asked, designs.means * SIGNS, broken.sum(axis=1))
        found.append((designs.genomes, asked.engine, *figures))
    if not found:
        raise InputError(f"no engine of {name} that was tried can run a network of the space.")
    genomes, engine, means, *ends = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Designs(name, genomes, grid[engine], means, *(ends if constraints.uncertain else ()))


def _precise(predictors: Predictors, designs: Designs, constraints: Constraints) -> Designs:
    """Return the front of designs, predicted anew in full precision."""
    best = designs[pareto.front(designs.means * SIGNS)]
    asked = best.genomes, best.accelerators, best.device
    if constraints.uncertain:
        means, low, high = predictors.figures(*asked, coverage=COVERAGE)
        best = replace(best, means=means, low=low, high=high)
    else:
        best = replace(best, means=predictors.means(*asked))
    kept = best[_feasible(predictors, best, constraints)]
    return kept[pareto.front(kept.means * SIGNS)]


def _excess(predictors: Predictors, designs: Designs, constraints: Constraints) -> np.ndarray:
    need = cost.resources(designs.accelerators, predictors.devices[designs.device])
    worst = designs.worst(constraints.confidence)
    return constraints.excess(worst, need.dsp, need.bram)


def _feasible(predictors: Predictors, designs: Designs, constraints: Constraints) -> np.ndarray:
    return np.asarray((_excess(predictors, designs, constraints) == 0).all(axis=1))


def _holdable(
    chips: Mapping[str, Device], constraints: Constraints, engines: Mapping[str, Accelerators]
) -> Constraints:
    """Return the constraints with DSP and block RAM relaxed so far that a device has an engine."""
    if any(len(usable(chip, constraints, engines.get(name))) for name, chip in chips.items()):
        return constraints
    needs = [
        cost.resources(usable(chip, Constraints(), engines.get(name)), chip)
        for name, chip in chips.items()
    ]
    dsp, bram = (np.concatenate([getattr(n, kind) for n in needs]) for kind in ("dsp", "bram"))
    excess = constraints.excess(np.zeros((len(dsp), 4)), dsp, bram)[:, -2:]
    best = least(excess)
    need = {"max_dsp": float(dsp[best]), "max_bram": float(bram[best])}
    broken = [name for name, e in zip(need, excess[best], strict=True) if e > 0]
    return replace(constraints, **{name: need[name] for name in broken})


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
    # An architecture of the front stands there on several engines.
    distinct, which = np.unique(designs.genomes, axis=0, return_inverse=True)
    decoded = [space.decode(genome) for genome in distinct]
    rows = [
        Design(decoded[i], accelerator, designs.device)
        for i, accelerator in zip(which, designs.accelerators, strict=True)
    ]
    names = [str(architecture) for architecture in decoded]
    frame = pd.DataFrame(
        {
            "id": [design.id for design in rows],
            "architecture": [names[i] for i in which],
            "accelerator": [str(design.accelerator) for design in rows],
            "device": designs.device,
        }
    )
    for i, quantity in enumerate(QUANTITIES):
        frame[quantity] = designs.means[:, i]
        # The interval is calibrated, the mean is not: it may fall outside by a rounding error.
        frame[f"{quantity}_low"] = np.minimum(low[:, i], designs.means[:, i])
        frame[f"{quantity}_high"] = np.maximum(high[:, i], designs.means[:, i])
    # What is not known of latency and of power is taken as independent.
    frame["energy_mj"] = designs.energy_mj
    for end, sign in (("_low", -1), ("_high", 1)):
        parts = (np.log(frame[name + end] / frame[name]) for name in QUANTITIES[1:])
        frame[f"energy_mj{end}"] = frame["energy_mj"] * np.exp(sign * np.hypot(*parts))
    need = cost.resources(designs.accelerators, device)
    return frame.assign(dsp=need.dsp, bram=need.bram, lut=need.lut)
