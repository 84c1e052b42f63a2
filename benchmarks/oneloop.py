"""Ways to design network and accelerator in which each candidate is trained and implemented.

Each answers one constraint set: the most accurate design within bounds on latency and power. What
a candidate's figures would be, a study's predictions say, taken at their word, since training and
routing thousands would take months: what is counted is what a way would have had to train, to
route and to simulate. benchmarks/codesign.py does that.

All doubts are settled in favour of these ways. Nothing is trained, routed or simulated twice in a
search. Hardware comes first: a network is trained only if its design keeps to the bounds, as in
FNAS (Jiang et al., DAC 2019). An engine that cannot run a network is neither routed nor simulated.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import norm

from codesign_kernel import cost
from codesign_kernel.constraints import Constraints
from codesign_kernel.explore import usable
from codesign_kernel.predict import Predictors
from codesign_kernel.space import Genomes
from codesign_kernel.surrogate import Surrogate
from codesign_kernel.workload import layers_of

BUDGET = 100  # designs a search
FIRST = 20  # of them, random
BATCH = 10  # designs that Bayesian optimisation chooses at a time,
POOL = 1000  # out of so many random ones, and as many children of the best
NETWORKS = 80  # of the two steps, the rest are engines
FIXED = "8x8x1w32f32"  # the engine of the first step
LEARNING = 4.0  # rate of the controller


class Lab:
    """Where the designs of one search are trained, routed and simulated, each once."""

    def __init__(self, predictors: Predictors, name: str) -> None:
        self.predictors, self.device = predictors, predictors.devices[name]
        self.space, self.grid = predictors.space, usable(self.device, Constraints())
        self.trained: set[bytes] = set()
        self.routed: set[int] = set()
        self.simulated: set[tuple[bytes, int]] = set()

    def hardware(self, genomes: Genomes, engines: np.ndarray) -> np.ndarray:
        """Return latency in ms and power in W of designs, (n, 2), NaN where none runs."""
        acc, name = self.grid[engines], self.device.name
        runs = self.predictors.runs(genomes, acc, name)
        for genome, engine in zip(genomes[runs], engines[runs], strict=True):
            self.routed.add(int(engine))
            self.simulated.add((genome.tobytes(), int(engine)))
        return np.where(runs[:, None], self.predictors.means(genomes, acc, name)[:, 1:], np.nan)

    def accuracy(self, genomes: Genomes) -> np.ndarray:
        """Return accuracies in %, (n,)."""
        self.trained |= {genome.tobytes() for genome in genomes}
        engine = self.grid[np.zeros(len(genomes), np.int64)]
        return self.predictors.means(genomes, engine, self.device.name)[:, 0]

    def figures(self, genomes: Genomes, engines: np.ndarray, bounds: Constraints) -> np.ndarray:
        """Return accuracy, latency and power, (n, 3): NaN what was not measured."""
        found = np.column_stack([np.full(len(genomes), np.nan), self.hardware(genomes, engines)])
        kept = excess(found[:, 1:], bounds) == 0
        if kept.any():
            found[kept, 0] = self.accuracy(genomes[kept])
        return found

    def random(self, n: int, rng: np.random.Generator) -> tuple[Genomes, np.ndarray]:
        """Return designs that can run, an architecture not twice."""
        genomes, engines = self.space.sample(3 * n, rng), rng.integers(0, len(self.grid), 3 * n)
        runs = self.predictors.runs(genomes, self.grid[engines], self.device.name)
        return genomes[runs][:n], engines[runs][:n]

    def encoded(self, genomes: Genomes, engines: np.ndarray) -> np.ndarray:
        """Return designs as numbers, (n, d)."""
        genes = genomes / np.maximum(self.space.radix - 1, 1)
        return np.column_stack([genes, self.grid[engines].features()[0]])


def excess(hardware: np.ndarray, bounds: Constraints) -> np.ndarray:
    """By what fraction latency and power, (n, 2), break bounds, (n,); infinite where none runs."""
    limits = np.array([bounds.max_latency_ms or np.inf, bounds.max_power_w or np.inf])
    over = np.maximum(hardware / limits - 1, 0).sum(axis=1)
    return np.where(np.isnan(over), np.inf, over)


def rewards(found: np.ndarray, bounds: Constraints) -> np.ndarray:
    """Accuracy in %, or by how much bounds are broken, negative, (n,)."""
    over = excess(found[:, 1:], bounds)
    return np.where(over > 0, -over, np.nan_to_num(found[:, 0]))


def improvement(model: Surrogate, X: np.ndarray, best: float) -> np.ndarray:
    """Expected improvement on the highest value so far (Jones et al., 1998, equation 15)."""
    mean, std = model.predict(X, return_std=True)
    gain = (mean - best) / std
    return np.asarray(std * (gain * norm.cdf(gain) + norm.pdf(gain)))


def kept_to(model: Surrogate, X: np.ndarray, limit: float | None) -> np.ndarray:
    """Probability that what a model of a logarithm predicts keeps to a limit, (n,)."""
    mean, std = model.predict(X, return_std=True)
    return np.asarray(norm.cdf(np.log((limit or np.inf) / mean) * mean / std))


def pool(
    lab: Lab, genomes: Genomes, engines: np.ndarray, best: np.ndarray, rng: np.random.Generator
) -> tuple[Genomes, np.ndarray]:
    """Return random designs, and mutated ones of the best, to choose from."""
    some, on = lab.random(POOL, rng)
    parents = best[rng.integers(0, len(best), POOL)]
    children = lab.space.mutate(genomes[parents], rng, 1.5 / genomes.shape[1])
    moved = rng.random(POOL) < 0.5
    other = np.where(moved, rng.integers(0, len(lab.grid), POOL), engines[parents])
    runs = lab.predictors.runs(children, lab.grid[other], lab.device.name)
    return np.concatenate([some, children[runs]]), np.concatenate([on, other[runs]])


def best_new(genomes: Genomes, values: np.ndarray, known: Genomes, n: int) -> np.ndarray:
    """Return the indices of the `n` highest values, of architectures that differ."""
    seen, taken = {genome.tobytes() for genome in known}, []
    for i in np.argsort(-values):
        if genomes[i].tobytes() not in seen:
            seen.add(genomes[i].tobytes())
            taken.append(i)
        if len(taken) == n:
            break
    return np.array(taken)


def bayesian(lab: Lab, bounds: Constraints, rng: np.random.Generator) -> np.ndarray:
    """Constrained Bayesian optimisation (Gardner et al., ICML 2014) with the Gaussian process of
    this program, for accuracy, latency and power; without any analytic formula."""
    genomes, engines = lab.random(FIRST, rng)
    found = lab.figures(genomes, engines, bounds)
    while len(genomes) < BUDGET:
        X, reward = lab.encoded(genomes, engines), rewards(found, bounds)
        more, on = pool(lab, genomes, engines, np.argsort(-reward)[:5], rng)
        Z = lab.encoded(more, on)
        value = np.ones(len(Z))
        for i, limit in ((1, bounds.max_latency_ms), (2, bounds.max_power_w)):
            value *= kept_to(Surrogate(log=True).fit(X, found[:, i]), Z, limit)
        trained = np.isfinite(found[:, 0])
        if trained.sum() >= 2:
            model = Surrogate().fit(X[trained], found[trained, 0])
            value *= improvement(model, Z, found[trained, 0].max())
        taken = best_new(more, value, genomes, BATCH)
        genomes, engines = (np.concatenate([old, new[taken]])
                            for old, new in ((genomes, more), (engines, on)))  # fmt: skip
        found = np.concatenate([found, lab.figures(more[taken], on[taken], bounds)])
    return found


def one_front(lab: Lab, bounds: Constraints, rng: np.random.Generator) -> np.ndarray:
    """Bayesian optimisation of all three goals, whatever the bounds: ParEGO (Knowles, IEEE TEC
    2006). Its front can answer any constraint set, so one search does for all."""
    genomes, engines = lab.random(FIRST, rng)
    found = lab.figures(genomes, engines, Constraints())
    while len(genomes) < BUDGET:
        goals = np.column_stack([found[:, 0], -np.log(found[:, 1:])])
        goals = (goals - goals.max(axis=0)) / np.ptp(goals, axis=0)
        X = lab.encoded(genomes, engines)
        for weights in rng.dirichlet(np.ones(3), BATCH):
            y = (goals * weights).min(axis=1) + 0.05 * goals @ weights
            more, on = pool(lab, genomes, engines, np.argsort(-y)[:5], rng)
            model = Surrogate().fit(X, y)
            value = improvement(model, lab.encoded(more, on), y.max())
            taken = best_new(more, value, genomes, 1)
            genomes, engines = (np.concatenate([old, new[taken]])
                                for old, new in ((genomes, more), (engines, on)))  # fmt: skip
        new = slice(len(found), None)
        found = np.concatenate([found, lab.figures(genomes[new], engines[new], Constraints())])
    return found


def controller(lab: Lab, bounds: Constraints, rng: np.random.Generator) -> np.ndarray:
    """A controller taught by REINFORCE with a mean reward as its baseline, as in FNAS and
    Codesign-NAS (Abdelfattah et al., DAC 2020): a choice for each gene and each parameter of the
    engine. In place of an engine that does not fit stands the nearest that does."""
    steps = np.rint(lab.grid.features()[0])
    levels = [np.unique(column) for column in steps.T]
    sizes = [*lab.space.radix, *map(len, levels)]
    logits, mean, rows = [np.zeros(size) for size in sizes], 0.0, []
    for episode in range(BUDGET):
        shares = [np.exp(each - each.max()) for each in logits]
        shares = [each / each.sum() for each in shares]
        drawn = [int(rng.choice(len(share), p=share)) for share in shares]
        genome = lab.space.repair(np.array([drawn[: -len(levels)]]), rng)
        choices = zip(levels, drawn[-len(levels) :], strict=True)
        asked = np.array([level[i] for level, i in choices])
        engine = np.abs(steps - asked).sum(axis=1).argmin()
        rows.append(lab.figures(genome, np.array([engine]), bounds)[0])
        value = rewards(rows[-1][None], bounds)[0]
        reward = max(value, -1.0) if value <= 0 else (value - 80) / 10
        mean = reward if episode == 0 else 0.8 * mean + 0.2 * reward
        for each, share, choice in zip(logits, shares, drawn, strict=True):
            each += LEARNING * (reward - mean) * (np.eye(len(share))[choice] - share)
    return np.array(rows)


def two_step(lab: Lab, bounds: Constraints, rng: np.random.Generator) -> np.ndarray:
    """The most accurate network within the latency on one engine, by evolution; then an engine for
    it: those that the closed form likes best, one after the other until one keeps to the bounds."""
    engine = [str(acc) for acc in lab.grid].index(FIXED)
    first = Constraints(max_latency_ms=bounds.max_latency_ms)
    genomes = lab.space.sample(FIRST, rng)
    found = lab.figures(genomes, np.full(FIRST, engine), first)
    while len(genomes) < NETWORKS:
        best = np.argsort(-rewards(found, first))[:10]
        one, two = genomes[best[rng.integers(0, len(best), (2, BATCH))]]
        child = lab.space.mutate(lab.space.cross(one, two, rng), rng, 1.5 / genomes.shape[1])
        genomes = np.concatenate([genomes, child])
        found = np.concatenate([found, lab.figures(child, np.full(BATCH, engine), first)])
    best = genomes[[int(rewards(found, first).argmax())]]
    layers, grid = layers_of(lab.space, best), lab.grid
    modelled = cost.figures(layers, grid, lab.device)
    hope = excess(np.column_stack([modelled.latency_ms, modelled.power_w]), bounds)
    runs = lab.predictors.runs(np.repeat(best, len(grid), axis=0), grid, lab.device.name)
    order = np.lexsort((modelled.latency_ms * modelled.power_w, hope, ~runs))
    rows = []
    for engine in order[: BUDGET - NETWORKS]:
        rows.append(lab.figures(best, np.array([engine]), bounds)[0])
        if np.isfinite(rows[-1][0]):
            break
    return np.array(rows)


WAYS: dict[str, Callable[[Lab, Constraints, np.random.Generator], np.ndarray]] = {
    "Bayesian optimisation": bayesian,
    "controller": controller,
    "two steps": two_step,
    "Bayesian optimisation, one front": one_front,
}
