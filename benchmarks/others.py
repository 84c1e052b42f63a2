"""Other ways to look for the front of a space whose truth is known; see method.py and ways.py.

What each returns is all that it measured the accuracy of, none twice, `budget` architectures.
"""

import numpy as np
from ways import BATCH, BUDGET, Found, Pair, places_of, random_pairs

from codesign_kernel import pareto
from codesign_kernel.accelerator import Accelerators
from codesign_kernel.explore import SIGNS
from codesign_kernel.truth import Truth

POOL = 500  # random designs that Bayesian optimisation chooses from, and children of its best
FIRST = 20  # random architectures or designs
REWARDS = ([1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4])  # weights of the goals, each a controller's
LEARNING = 4.0  # rate of a controller
PATIENCE = 20  # episodes without a new network after which a controller begins anew


def random_search(truth: Truth, rng: np.random.Generator, budget: int = BUDGET) -> Found:
    """Measure random architectures."""
    return Found(rng.choice(len(truth.genomes), budget, replace=False))


def two_step(truth: Truth, rng: np.random.Generator, budget: int = BUDGET) -> Found:
    """The best networks for one engine, by evolution on measurements; then all engines for these.

    The engine is the one whose median latency is in the middle.
    """
    speed = np.nanmedian(truth.latency_ms, axis=1)
    engine = int(np.argsort(speed)[len(speed) // 2])
    fits = np.flatnonzero(np.isfinite(truth.latency_ms[engine]))
    chosen = list(rng.choice(fits, FIRST, replace=False))
    while len(chosen) < budget:
        some = np.array(chosen)
        points = np.column_stack([-truth.validation[some], truth.latency_ms[engine, some]])
        parents = truth.genomes[some[pareto.front(points)]]
        one, two = parents[rng.integers(0, len(parents), (2, 1))][:, 0]
        child = truth.space.cross(one[None], two[None], rng)
        child = truth.space.mutate(child, rng, 1.5 / len(one))
        place = int(places_of(truth, child)[0])
        if place not in chosen and np.isfinite(truth.latency_ms[engine, place]):
            chosen.append(place)
    return Found(np.array(chosen))


def encoded(truth: Truth, pairs: Pair) -> np.ndarray:
    """Return designs as numbers in [0, 1], (n, d): genes and the engine's parameters."""
    engines = Accelerators.of(truth.engines).features()[0]
    engines = (engines - engines.min(axis=0)) / np.maximum(np.ptp(engines, axis=0), 1)
    genes = truth.genomes[pairs[:, 1]] / np.maximum(truth.space.radix - 1, 1)
    return np.column_stack([genes, engines[pairs[:, 0]]])


def goals(truth: Truth, pairs: Pair) -> np.ndarray:
    """Return accuracy and the negative logarithms of latency and power, to be maximised, (n, 3)."""
    accuracy, latency, power = truth.figures(*pairs.T).T
    return np.column_stack([accuracy, -np.log(latency), -np.log(power)])


def candidates(truth: Truth, pairs: Pair, rng: np.random.Generator) -> Pair:
    """Return random designs, and mutated ones of the best of `pairs`, to choose from: designs that
    can run, an architecture not twice and none of those known."""
    best = pairs[pareto.front(truth.figures(*pairs.T) * SIGNS)]
    parents = best[rng.integers(0, len(best), POOL)]
    genomes = truth.genomes[parents[:, 1]]
    children = truth.space.mutate(genomes, rng, 1.5 / genomes.shape[1])
    moved = rng.random(POOL) < 0.5
    engines = np.where(moved, rng.integers(0, len(truth.engines), POOL), parents[:, 0])
    pool = np.column_stack([engines, places_of(truth, children)])
    pool = np.concatenate([pool, random_pairs(truth, POOL, rng)])
    pool = pool[np.isfinite(truth.latency_ms[tuple(pool.T)])]
    pool = pool[~np.isin(pool[:, 1], pairs[:, 1])]
    return pool[np.unique(pool[:, 1], return_index=True)[1]]


def bayesian(truth: Truth, rng: np.random.Generator, budget: int = BUDGET) -> Found:
    """One-loop Bayesian optimisation: BoTorch's qLogNEHVI (Daulton et al., NeurIPS 2021; Ament et
    al., NeurIPS 2023) over `candidates`, BATCH at a time."""
    import torch
    from botorch import fit_gpytorch_mll
    from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
    from botorch.models import ModelListGP, SingleTaskGP
    from botorch.models.transforms.outcome import Standardize
    from gpytorch.mlls import SumMarginalLogLikelihood

    torch.manual_seed(int(rng.integers(2**31)))
    torch.set_num_threads(1)
    pairs = random_pairs(truth, FIRST, rng)
    while len(pairs) < budget:
        X, Y = (torch.tensor(side) for side in (encoded(truth, pairs), goals(truth, pairs)))
        models = [SingleTaskGP(X, Y[:, [i]], outcome_transform=Standardize(1)) for i in range(3)]
        model = ModelListGP(*models)
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
        worst = Y.min(dim=0).values - 0.1 * (Y.max(dim=0).values - Y.min(dim=0).values)
        pool = candidates(truth, pairs, rng)
        inputs = torch.tensor(encoded(truth, pool))
        taken: list[int] = []
        for _ in range(min(BATCH, budget - len(pairs))):
            pending = inputs[taken] if taken else None
            gain = qLogNoisyExpectedHypervolumeImprovement(
                model, worst, X, X_pending=pending, prune_baseline=True
            )
            with torch.no_grad():
                values = torch.cat([gain(part[:, None]) for part in inputs.split(250)])
            values[taken] = -torch.inf
            taken.append(int(values.argmax()))
        pairs = np.concatenate([pairs, pool[taken]])
    return Found(pairs[:, 1])


def controller(truth: Truth, rng: np.random.Generator, budget: int = BUDGET) -> Found:
    """Controllers taught by REINFORCE with a mean reward as their baseline, as in FNAS (Jiang et
    al., DAC 2019) and Codesign-NAS (Abdelfattah et al., DAC 2020): a choice for each gene and for
    the engine. Each of REWARDS gets an equal part of the budget. In their favour, what was measured
    before, or cannot run, costs nothing, and who has settled begins anew."""
    sizes = [*truth.space.radix, len(truth.engines)]
    scale = goals(truth, random_pairs(truth, 1000, np.random.default_rng(0)))
    low, span = scale.min(axis=0), np.ptp(scale, axis=0)
    measured: list[int] = []
    for turn, weights in enumerate(REWARDS, start=1):
        idle = PATIENCE
        while len(measured) < budget * turn // len(REWARDS):
            if fresh := idle == PATIENCE:
                logits, mean, idle = [np.zeros(size) for size in sizes], 0.0, 0
            shares = [np.exp(each) / np.exp(each).sum() for each in logits]
            drawn = [int(rng.choice(len(share), p=share)) for share in shares]
            genome = truth.space.repair(np.array([drawn[:-1]]), rng)
            pair = drawn[-1], int(places_of(truth, genome)[0])
            reward, idle = -1.0, idle + 1  # where the engine cannot run it
            if np.isfinite(truth.latency_ms[pair]):
                found = (goals(truth, np.array([pair]))[0] - low) / span
                reward = float(found @ weights / np.sum(weights))
                if pair[1] not in measured:
                    measured.append(pair[1])
                    idle = 0
            mean = reward if fresh else 0.8 * mean + 0.2 * reward
            for each, share, choice in zip(logits, shares, drawn, strict=True):
                each += LEARNING * (reward - mean) * (np.eye(len(share))[choice] - share)
    return Found(np.array(measured))
