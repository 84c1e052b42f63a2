"""How many designs a second the exploration considers, and how good a front so many give.

    pip install '.[benchmarks]'
    python benchmarks/explore.py > benchmarks/explore.md

Beside a loop that predicts designs one by one, and beside pymoo's NSGA-II on the same predictors,
vectorised over its population, at equal evaluations. Prints Markdown. First with the predictors of
the shipped study of Fashion-MNIST, all fitted to measurements. Then with those of a space of which
nothing was measured here: fitted to as many rows as `codesign profile` measures by default, so that
they cost what a study's cost, to the closed form and to accuracies that are made up of the choices
as the study's are: their effects spread by 1.1 points, and 0.3 are left unexplained. Some minutes
on one core.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # one core: numpy reads this when it is first imported

import time
from pathlib import Path

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize

from codesign_kernel import cost, pareto
from codesign_kernel.accelerator import load_device
from codesign_kernel.constraints import Constraints
from codesign_kernel.cycles import Port
from codesign_kernel.evolve import POPULATION
from codesign_kernel.explore import SIGNS, explore, usable
from codesign_kernel.loops import outline
from codesign_kernel.predict import (
    Predictors,
    accuracy_features,
    accuracy_surrogate,
    hardware_features,
    hardware_surrogate,
)
from codesign_kernel.space import SearchSpace, load_space
from codesign_kernel.study import open_study
from codesign_kernel.workload import layers_of

ARCHITECTURES, DESIGNS = 100, 200  # rows of accuracy, and of latency and power
EXPLAINED, LEFT = 1.1, 0.3  # points of accuracy, as in the study
ONE_BY_ONE, GENERATIONS, SEEDS = 500, 60, 5
STUDY = Path(__file__).parents[1] / "data" / "studies" / "fashion"


def predictors_of(space: SearchSpace, name: str) -> Predictors:
    """Fit predictors to the closed form and to made-up accuracies."""
    rng = np.random.default_rng(0)
    device = load_device(name)
    X, _ = accuracy_features(space, space.sample(ARCHITECTURES, rng))
    effect = (X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 1e-12) @ rng.normal(size=X.shape[1])
    noise = LEFT * rng.normal(size=len(X))
    accuracy = accuracy_surrogate().fit(X, 90 + EXPLAINED * effect / effect.std() + noise)
    found = Predictors(space, {name: device}, accuracy)
    grid = usable(device, Constraints())
    layers = layers_of(space, space.sample(DESIGNS, rng))
    acc = grid[rng.integers(0, len(grid), DESIGNS)]
    figures = cost.figures(layers, acc, device)
    inputs, _ = hardware_features(layers, acc, device, ())
    for quantity, X in inputs.items():
        found.hardware[quantity, name] = hardware_surrogate().fit(X, getattr(figures, quantity))
    return found


def search(predictors: Predictors, name: str, seed: int) -> tuple[np.ndarray, float]:
    """Objectives of all designs considered, (n, 3), and the processor's seconds."""
    start = time.process_time()
    found = explore(predictors, [name], Constraints(), generations=GENERATIONS, seed=seed)
    return found.designs[0].means * SIGNS, time.process_time() - start


class Codesign(Problem):
    """The search as pymoo states problems: genes and the number of an engine."""

    def __init__(self, predictors: Predictors, name: str) -> None:
        self.predictors, self.name = predictors, name
        self.grid = usable(predictors.devices[name], Constraints())
        high = [*(predictors.space.radix - 1), len(self.grid) - 1]
        super().__init__(
            n_var=len(high), n_obj=3, n_ieq_constr=1, xl=0, xu=np.array(high), vtype=int
        )
        self.seen: list[np.ndarray] = []

    def _evaluate(self, x: np.ndarray, out: dict, *_: object, **__: object) -> None:
        genomes, acc = x[:, :-1].astype(np.int64), self.grid[x[:, -1].astype(np.int64)]
        layers = layers_of(self.predictors.space, genomes)
        busy, runs = outline(layers, acc, Port.of(self.predictors.devices[self.name]))
        points = self.predictors.figures(genomes, acc, self.name, busy=busy, single=True)[0] * SIGNS
        self.seen.append(points[runs])
        out["F"], out["G"] = points, 1.0 - runs[:, None]


class Valid(Repair):
    """Whole numbers, and genomes as the space has them."""

    def _do(self, problem: Codesign, x: np.ndarray, **_: object) -> np.ndarray:
        x = np.rint(x).astype(np.int64)
        x[:, :-1] = problem.predictors.space.repair(x[:, :-1], np.random.default_rng(0))
        return x


def nsga2(
    predictors: Predictors, name: str, seed: int, evaluations: int
) -> tuple[np.ndarray, float]:
    """What `search` returns, of pymoo's NSGA-II with its operators for whole numbers."""
    problem, start = Codesign(predictors, name), time.process_time()
    algorithm = NSGA2(
        pop_size=POPULATION, sampling=IntegerRandomSampling(), repair=Valid(),
        crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=Valid()),
        mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=Valid()),
    )  # fmt: skip
    minimize(problem, algorithm, ("n_eval", evaluations), seed=seed)
    return np.concatenate(problem.seen)[:evaluations], time.process_time() - start


def loop_rate(predictors: Predictors, name: str) -> float:
    """Designs a second of one core when each is predicted by itself."""
    rng = np.random.default_rng(1)
    grid = usable(predictors.devices[name], Constraints())
    genomes = predictors.space.sample(ONE_BY_ONE, rng)
    acc = grid[rng.integers(0, len(grid), ONE_BY_ONE)]
    start = time.process_time()
    for i in range(ONE_BY_ONE):
        predictors.means(genomes[i : i + 1], acc[i : i + 1], name)
    return ONE_BY_ONE / (time.process_time() - start)


def volume(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Hypervolume, latency and power by their logarithms, all scaled to [0, 1] by low and high."""
    scaled = np.column_stack([points[:, 0], np.log(points[:, 1:])])
    scaled = (scaled - low) / (high - low)
    return pareto.hypervolume(scaled[pareto.front(scaled)], np.full(3, 1.1))


def main() -> None:
    print("# Exploration\n")
    print(
        "Designs considered a second of one core, with all predictions and the intervals of the\n"
        f"front, in {GENERATIONS} generations: mean of {SEEDS} seeds. Predictors of `fashion` are\n"
        "the shipped study's, accuracies of `imagenet` made up. One by one: a plain loop\n"
        "over the same predictors. NSGA-II: pymoo's, on the same predictors, with as many\n"
        "evaluations. Hypervolumes are those of all that was considered, latency and power by\n"
        "their logarithms, scaled to the range of all fronts.\n"
    )
    print("| space | device | considered | designs/s | one by one | NSGA-II | hypervolume, mean "
          "and least of the seeds | that of NSGA-II |")  # fmt: skip
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    cases = (
        (open_study(STUDY).predictors(), "ecp5-85f"),
        (predictors_of(load_space("imagenet"), "arria10-gx1150"), "arria10-gx1150"),
    )
    for predictors, device in cases:
        plain, ours, theirs = loop_rate(predictors, device), [], []
        for seed in range(SEEDS):
            ours.append(search(predictors, device, seed))
            theirs.append(nsga2(predictors, device, seed, len(ours[-1][0])))
        fronts = np.concatenate([p[pareto.front(p)] for p, _ in (*ours, *theirs)])
        logs = np.column_stack([fronts[:, 0], np.log(fronts[:, 1:])])
        ends = logs.min(axis=0), logs.max(axis=0)
        cells = [f"{np.mean([len(p) for p, _ in ours]):,.0f}"]
        rates = [np.mean([len(p) / s for p, s in each]) for each in (ours, theirs)]
        cells += [f"{rate:,.0f}" for rate in (rates[0], plain, rates[1])]
        for each in (ours, theirs):
            volumes = [volume(points, *ends) for points, _ in each]
            cells.append(f"{np.mean(volumes):.4f}, {min(volumes):.4f}")
        print(f"| {predictors.space.name} | {device} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
