"""The method beside other ways to spend the same measurements, held to the whole truth.

    pip install '.[benchmarks]'
    cd benchmarks
    python method.py ../data/truth/digits method.csv method.svg > method.md

Of a space whose every design was measured (benchmarks/truth.py): each way may measure the accuracy
of BUDGET architectures and simulate them on every engine that was placed and routed. What it
proposes is looked up in the truth. Prints how much of the true front's hypervolume that has, how
far it is from the front, and what it is worth on test images. Rows are kept as they come; some
minutes a seed, most for BoTorch.
"""

import argparse
import hashlib
import os

os.environ["OMP_NUM_THREADS"] = "1"

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from codesign_kernel import charts, pareto
from codesign_kernel.accelerator import Accelerators
from codesign_kernel.explore import Designs
from codesign_kernel.files import write_text
from codesign_kernel.growth import grow, stairs
from codesign_kernel.improve import Box, Known, choose
from codesign_kernel.margins import Codes, ImageSurrogate, accuracy_of
from codesign_kernel.measure import stratified
from codesign_kernel.meters import MARGINS, Accuracy
from codesign_kernel.predict import (
    COVERAGE,
    SIMULATED,
    Predictors,
    fit_accuracy,
    hardware_features,
    hardware_surrogate,
)
from codesign_kernel.quantities import QUANTITIES
from codesign_kernel.space import load_space
from codesign_kernel.store import Key
from codesign_kernel.study import open_study
from codesign_kernel.surrogate import Surrogate
from codesign_kernel.truth import SIGNS, Truth, load
from codesign_kernel.workload import layers_of

STUDIES = Path(__file__).parent.parent / "data" / "studies"
BUDGET = 100  # accuracies
START = 40  # of them, where the rest is chosen in rounds or one by one
DESIGNS = 100  # designs from which hardware is predicted
BATCH = 10  # designs that are chosen at a time
POOL = 1000  # random designs that it chooses from
Pair = np.ndarray  # (n, 2): an engine and an architecture of the truth


def random_pairs(truth: Truth, n: int, rng: np.random.Generator) -> Pair:
    """Return designs that can run, an architecture not twice."""
    some = rng.permutation(len(truth.genomes))[: 2 * n + 50]
    engines = rng.integers(0, len(truth.engines), len(some))
    runs = np.isfinite(truth.latency_ms[engines, some])
    return np.column_stack([engines, some])[runs][:n]


def places_of(truth: Truth, genomes: np.ndarray) -> np.ndarray:
    """Return where genomes are among those of the truth, (n,)."""
    number = np.cumprod([1, *truth.space.radix[::-1]])[-2::-1]
    keys = truth.genomes @ number
    order = np.argsort(keys)
    return order[np.searchsorted(keys[order], genomes @ number)]


@cache
def meter(space: str) -> Accuracy:
    """Return what measures accuracies of the space's study."""
    return Accuracy(open_study(STUDIES / space))


@cache
def codes_of(space: str, architecture: str, accuracy: float) -> Codes:
    """Return the margins on validation images by which the truth has that accuracy."""
    codes = np.asarray(meter(space).measure((architecture, "", ""))[MARGINS], np.int8)
    assert abs(accuracy_of(codes) - accuracy) < 1e-3, "the truth is of another supernet"
    return codes


def accuracy_model(truth: Truth, some: np.ndarray) -> Surrogate | ImageSurrogate:
    """Fit the surrogate for accuracy to architectures."""
    genomes, accuracy = truth.genomes[some], truth.validation[some].astype(float)
    names = [str(truth.space.decode(genome)) for genome in genomes]
    codes = [codes_of(truth.space.name, *each) for each in zip(names, accuracy, strict=True)]
    return fit_accuracy(truth.space, genomes, accuracy, np.stack(codes))


def fitted(truth: Truth, architectures: np.ndarray, pairs: Pair) -> Predictors:
    """Fit the predictors to accuracies of architectures, and latency and power of designs."""
    space, device, engines = truth.space, truth.device, Accelerators.of(truth.engines)
    model = accuracy_model(truth, architectures)
    basis = {(quantity, device.name): SIMULATED for quantity in QUANTITIES[1:]}
    found = Predictors(space, {device.name: device}, model, basis=basis)
    layers = layers_of(space, truth.genomes[pairs[:, 1]])
    inputs, _ = hardware_features(layers, engines[pairs[:, 0]], device, QUANTITIES)
    values = dict(zip(QUANTITIES, truth.figures(*pairs.T).T, strict=True))
    for quantity, X in inputs.items():
        model = hardware_surrogate().fit(X, values[quantity])
        found.hardware[quantity, device.name] = model
    return found


def key_of(truth: Truth, pair: np.ndarray) -> Key:
    """Return a design as the store names it."""
    architecture = truth.space.decode(truth.genomes[pair[1]])
    return str(architecture), str(truth.engines[pair[0]]), truth.device.name


def pairs_of(truth: Truth, keys: list[Key]) -> Pair:
    """Return designs of the store as those of the truth, (n, 2)."""
    names = [str(engine) for engine in truth.engines]
    genomes = truth.space.genomes(key[0] for key in keys)
    return np.column_stack([[names.index(key[1]) for key in keys], places_of(truth, genomes)])


def known_of(truth: Truth, pairs: Pair) -> Known:
    """Return what is known of designs that were measured."""
    known = Known()
    for pair, (accuracy, latency, power) in zip(pairs, truth.figures(*pairs.T), strict=True):
        key = key_of(truth, pair)
        known.accuracy[key[0]], known.hardware[key] = float(accuracy), (latency, power)
    return known


def predicted(truth: Truth, predictors: Predictors) -> tuple[Pair, Designs]:
    """Return all designs that can run, with their predictions."""
    engine, architecture = np.nonzero(np.isfinite(truth.latency_ms))
    acc, parts = Accelerators.of(truth.engines)[engine], []
    for part in np.array_split(np.arange(len(engine)), -(-len(engine) // 20_000)):
        which, inverse = np.unique(architecture[part], return_inverse=True)
        asked = truth.genomes[which], acc[part], truth.device.name, inverse
        parts.append(predictors.figures(*asked))
    means, low, high = (np.concatenate(side) for side in zip(*parts, strict=True))
    pairs = np.column_stack([engine, architecture])
    return pairs, Designs(truth.device.name, truth.genomes[architecture], acc, means, low, high)


def predicted_front(truth: Truth, predictors: Predictors) -> tuple[Pair, np.ndarray]:
    """Return the front of all designs, exhaustively, and their predictions signed, (n, 3)."""
    pairs, designs = predicted(truth, predictors)
    signed = designs.means * SIGNS
    best = np.flatnonzero(pareto.front(signed))
    return pairs[best], signed[best]


def ours(truth: Truth, rng: np.random.Generator) -> tuple[Pair, Pair]:
    """Measure spread architectures, and designs of them; predict all; propose the front."""
    architectures = places_of(truth, stratified(truth.space, BUDGET, rng))
    pairs = random_pairs(truth, BUDGET, rng)
    front, _ = predicted_front(truth, fitted(truth, architectures, pairs))
    return front, pairs


def everywhere(truth: Truth, architectures: np.ndarray) -> Pair:
    """Return all designs of architectures that can run."""
    engine, which = np.nonzero(np.isfinite(truth.latency_ms[:, architectures]))
    return np.column_stack([engine, architectures[which]])


def by_network(truth: Truth, rng: np.random.Generator) -> tuple[Pair, Pair]:
    """Measure START spread architectures on every engine, then one after another that by which the
    front is expected to grow most; propose the front of predictions, that of what may be (accuracy
    a standard deviation higher), and what was measured."""
    chosen = places_of(truth, stratified(truth.space, START, rng))
    pairs = everywhere(truth, chosen)
    some = rng.choice(len(pairs), DESIGNS, replace=False)
    predictors = fitted(truth, chosen, pairs[some])
    all_pairs, designs = predicted(truth, predictors)
    box = Box.of(designs.means[pareto.front(designs.means * SIGNS)])
    places = np.full((len(truth.genomes), len(truth.engines), 2), np.nan)
    places[all_pairs[:, 1], all_pairs[:, 0]] = box.points(designs.means)[:, 1:]
    steps = stairs(places)
    while True:
        pairs = everywhere(truth, chosen)
        model = accuracy_model(truth, chosen)
        X = replace(predictors, accuracy=model).accuracy_inputs(truth.genomes)
        if len(chosen) >= BUDGET:
            break
        accuracy = np.full(len(X), np.nan)
        accuracy[chosen] = truth.validation[chosen]
        figures = truth.figures(*pairs.T)
        measured = figures[:, 0], stairs(box.points(figures)[:, None, 1:])
        new = np.flatnonzero(np.isnan(accuracy))
        best = grow(model, X[new], accuracy[new], steps[new], measured, box, 1)
        chosen = np.append(chosen, new[best])
    mean, low, high = model.estimate(X, COVERAGE)
    deviation = (high - low) / 2 / NormalDist().inv_cdf((1 + COVERAGE) / 2)
    fronts = [pairs]
    for share in (0, 1):
        estimate = mean + share * deviation
        estimate[chosen] = truth.validation[chosen]
        signed = np.column_stack([-estimate[all_pairs[:, 1]], designs.means[:, 1:]])
        fronts.append(all_pairs[pareto.front(signed)])
    return np.unique(np.concatenate(fronts), axis=0), pairs


def by_network_measured(truth: Truth, rng: np.random.Generator) -> tuple[Pair, Pair]:
    """The same, but nothing that was not measured within the budget is proposed."""
    _, pairs = by_network(truth, rng)
    return pairs, pairs


def ours_in_rounds(truth: Truth, rng: np.random.Generator) -> tuple[Pair, Pair]:
    """Measure START spread designs, then BATCH at a time those that `codesign improve` chooses;
    propose the front of predictions, and of what was measured."""
    architectures = places_of(truth, stratified(truth.space, START, rng))
    engines = rng.integers(0, len(truth.engines), START)
    pairs = np.column_stack([engines, architectures])
    pairs = pairs[np.isfinite(truth.latency_ms[engines, architectures])]
    box = None
    while True:
        known = np.unique(pairs[:, 1])
        predictors = fitted(truth, known, pairs)
        all_pairs, designs = predicted(truth, predictors)
        if len(pairs) >= BUDGET:
            break
        best = pareto.front(designs.means * SIGNS)
        box = box or Box.of(designs.means[best])
        some = min(BATCH, BUDGET - len(pairs))
        keys = choose(predictors, [designs], known_of(truth, pairs), box, some)
        pairs = np.concatenate([pairs, pairs_of(truth, keys)])
    means, seen = designs.means.copy(), np.isin(all_pairs[:, 1], known)
    means[seen, 0] = truth.validation[all_pairs[seen, 1]]
    front = all_pairs[pareto.front(means * SIGNS)]
    return np.unique(np.concatenate([front, pairs]), axis=0), pairs


def random_search(truth: Truth, rng: np.random.Generator) -> tuple[Pair, Pair]:
    """Measure random architectures on every engine."""
    pairs = everywhere(truth, rng.choice(len(truth.genomes), BUDGET, replace=False))
    return pairs, pairs


def two_step(truth: Truth, rng: np.random.Generator) -> tuple[Pair, Pair]:
    """The best networks for one engine, by evolution on measurements; then all engines for those.

    The engine is the one whose median latency is in the middle.
    """
    speed = np.nanmedian(truth.latency_ms, axis=1)
    engine = int(np.argsort(speed)[len(speed) // 2])
    fits = np.flatnonzero(np.isfinite(truth.latency_ms[engine]))
    chosen = list(rng.choice(fits, 20, replace=False))
    while len(chosen) < BUDGET:
        some = np.array(chosen)
        points = np.column_stack([-truth.validation[some], truth.latency_ms[engine, some]])
        parents = truth.genomes[some[pareto.front(points)]]
        one, two = parents[rng.integers(0, len(parents), (2, 1))][:, 0]
        child = truth.space.cross(one[None], two[None], rng)
        child = truth.space.mutate(child, rng, 1.5 / len(one))
        place = int(places_of(truth, child)[0])
        if place not in chosen and np.isfinite(truth.latency_ms[engine, place]):
            chosen.append(place)
    some = np.array(chosen)
    points = np.column_stack([-truth.validation[some], truth.latency_ms[engine, some]])
    best = some[pareto.front(points)]
    pairs = np.array([(e, a) for e in range(len(truth.engines)) for a in best])
    return pairs[np.isfinite(truth.latency_ms[tuple(pairs.T)])], pairs


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


def bayesian(truth: Truth, rng: np.random.Generator) -> tuple[Pair, Pair]:
    """One-loop Bayesian optimisation: BoTorch's qLogNEHVI (Daulton et al., NeurIPS 2021; Ament et
    al., NeurIPS 2023) over random designs, ten at a time."""
    import torch
    from botorch import fit_gpytorch_mll
    from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
    from botorch.models import ModelListGP, SingleTaskGP
    from botorch.models.transforms.outcome import Standardize
    from gpytorch.mlls import SumMarginalLogLikelihood

    torch.manual_seed(int(rng.integers(2**31)))
    torch.set_num_threads(1)
    pairs = random_pairs(truth, 20, rng)
    while len(pairs) < BUDGET:
        X, Y = (torch.tensor(side) for side in (encoded(truth, pairs), goals(truth, pairs)))
        models = [SingleTaskGP(X, Y[:, [i]], outcome_transform=Standardize(1)) for i in range(3)]
        model = ModelListGP(*models)
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
        worst = Y.min(dim=0).values - 0.1 * (Y.max(dim=0).values - Y.min(dim=0).values)
        pool = random_pairs(truth, POOL, rng)
        inputs = torch.tensor(encoded(truth, pool))
        taken: list[int] = []
        for _ in range(min(BATCH, BUDGET - len(pairs))):
            pending = inputs[taken] if taken else None
            gain = qLogNoisyExpectedHypervolumeImprovement(
                model, worst, X, X_pending=pending, prune_baseline=True
            )
            with torch.no_grad():
                values = torch.cat([gain(part[:, None]) for part in inputs.split(250)])
            values[taken] = -torch.inf
            taken.append(int(values.argmax()))
        pairs = np.concatenate([pairs, pool[taken]])
    return everywhere(truth, np.unique(pairs[:, 1])), pairs


def controller(truth: Truth, rng: np.random.Generator) -> tuple[Pair, Pair]:
    """A controller taught by REINFORCE with a mean reward as its baseline, as in FNAS (Jiang et
    al., DAC 2019) and Codesign-NAS (Abdelfattah et al., DAC 2020): a choice for each gene and for
    the engine. Each of four rewards, weighted sums of the goals, has a quarter of the budget."""
    sizes = [*truth.space.radix, len(truth.engines)]
    scale = goals(truth, random_pairs(truth, 1000, np.random.default_rng(0)))
    low, span = scale.min(axis=0), np.ptp(scale, axis=0)
    pairs: list[tuple[int, int]] = []
    for weights in ([1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4]):
        logits, mean = [np.zeros(size) for size in sizes], 0.0
        for episode in range(BUDGET // 4):
            shares = [np.exp(each) / np.exp(each).sum() for each in logits]
            drawn = [int(rng.choice(len(share), p=share)) for share in shares]
            genome = truth.space.repair(np.array([drawn[:-1]]), rng)
            pair = drawn[-1], int(places_of(truth, genome)[0])
            reward = -1.0  # the engine cannot run it
            if np.isfinite(truth.latency_ms[pair]):
                pairs.append(pair)
                found = (goals(truth, np.array([pair]))[0] - low) / span
                reward = float(found @ weights / np.sum(weights))
            mean = reward if episode == 0 else 0.8 * mean + 0.2 * reward
            for each, share, choice in zip(logits, shares, drawn, strict=True):
                each += 4.0 * (reward - mean) * (np.eye(len(share))[choice] - share)
    return everywhere(truth, np.unique(np.array(pairs)[:, 1])), np.array(pairs)


WAYS: dict[str, Callable[[Truth, np.random.Generator], tuple[Pair, Pair]]] = {
    "ours": ours, "ours, in rounds": ours_in_rounds, "ours, network by network": by_network,
    "the same, all measured": by_network_measured, "random": random_search,
    "two steps": two_step, "Bayesian optimisation": bayesian, "controller": controller,
}  # fmt: skip


class Scale:
    """The true front's range: latency and power by their logarithms, all from 0 to 1."""

    def __init__(self, front: np.ndarray) -> None:
        logs = self.logs(front)
        self.low, self.span = logs.min(axis=0), np.ptp(logs, axis=0)
        self.front = self(front)
        self.volume = pareto.hypervolume(self.front, np.full(3, 1.1))

    @staticmethod
    def logs(points: np.ndarray) -> np.ndarray:
        return np.column_stack([points[:, 0], np.log(points[:, 1:])])

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return (self.logs(points) - self.low) / self.span

    def share(self, points: np.ndarray) -> float:
        """Hypervolume in % of the true front's."""
        return 100 * pareto.hypervolume(self(points), np.full(3, 1.1)) / self.volume

    def distances(self, points: np.ndarray) -> np.ndarray:
        """By how much of the front's range each point must improve in all goals to be on it."""
        scaled = self(points)
        return np.array([(point - self.front).max(axis=1).min() for point in scaled]).clip(0)


def stamp(truth: Truth) -> str:
    """Return a fingerprint of the true front: rows of an earlier truth are run anew."""
    return hashlib.sha256(truth.front().tobytes()).hexdigest()[:12]


class Unseen:
    """What designs are worth on test images, by which nothing is chosen: the truth with these as
    its accuracies, and the range of its front."""

    def __init__(self, truth: Truth) -> None:
        self.truth, self.chosen_by = replace(truth, validation=truth.test), truth
        self.everything = everywhere(truth, np.arange(len(truth.genomes)))
        points = self.truth.figures(*self.everything.T) * SIGNS
        best = pareto.front(points)
        self.true_front, self.scale = self.everything[best], Scale(points[best])

    def share(self, pairs: Pair) -> float:
        """Hypervolume on test images, in % of their true front's, of the front that validation
        images choose from the designs."""
        known = self.chosen_by.figures(*pairs.T) * SIGNS
        return self.scale.share(self.truth.figures(*pairs[pareto.front(known)].T) * SIGNS)


def picture(table: pd.DataFrame) -> charts.alt.TopLevelMixin:
    """Return a picture of each way's hypervolume: its seeds as points, their median as a tick."""
    alt = charts.alt
    y = alt.Y("way:N", title=None, sort=list(WAYS), axis=alt.Axis(labelLimit=0, minExtent=160))
    title, scale = "Hypervolume, % of the true front's", alt.Scale(zero=False)
    base = alt.Chart(table).encode(y=y)
    ticks = base.mark_tick(thickness=3, size=16, color="#222").encode(
        alt.X("median(share):Q", title=title, scale=scale)
    )
    points = base.mark_point(filled=True, size=40, opacity=0.5).encode(
        alt.X("share:Q", title=title, scale=scale)
    )
    about = [
        f"{BUDGET} accuracies for each way; a point a seed, a bar the median.",
        f"Digits on {table['engines'].max()} engines for the ECP5 45F, all designs measured.",
    ]
    head = alt.TitleParams("How near the ways come to the true front", subtitle=about)
    return alt.layer(points, ticks, title=head, background="white").properties(width=420)


def main() -> None:
    """Run what is missing, then draw and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("csv", type=Path)
    parser.add_argument("svg", type=Path)
    parser.add_argument("--space", default="digits")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--ways", default=";".join(WAYS))
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")  # BoTorch's advice on scaling
    truth = load(asked.folder, load_space(asked.space))
    scale, unseen = Scale(truth.front()), Unseen(truth)
    whole = unseen.share(unseen.everything)  # of the true front
    now = stamp(truth)
    rows = pd.read_csv(asked.csv).to_dict("records") if asked.csv.exists() else []
    rows = [row for row in rows if row.get("truth") == now]
    there = {(row["way"], row["seed"]) for row in rows}
    todo = [
        (w, s) for w in asked.ways.split(";") for s in range(asked.seeds) if (w, s) not in there
    ]
    for way, seed in tqdm(todo, "ways", unit="run"):
        pairs, _ = WAYS[way](truth, np.random.default_rng([seed, 11]))
        points = truth.figures(*pairs.T) * SIGNS
        best = points[pareto.front(points)]
        distances = scale.distances(best)
        rows.append({
            "way": way, "seed": seed, "engines": len(truth.engines), "truth": now,
            "share": round(scale.share(points), 2),
            "test": round(100 * unseen.share(pairs) / whole, 2),
            "networks": len(np.unique(pairs[:, 1])), "proposed": len(best),
            "distance_median": round(float(np.median(distances)), 4),
            "distance_worst": round(float(distances.max()), 4),
        })  # fmt: skip
        write_text(asked.csv, pd.DataFrame(rows).to_csv(index=False))
    table = pd.DataFrame(rows)
    table = table.sort_values("way", key=lambda ways: ways.map([*WAYS].index), kind="stable")
    write_text(asked.svg, charts.to_svg(picture(table)))
    designs = int(np.isfinite(truth.latency_ms).sum())
    print("# The method and the truth\n")
    print(
        f"Space {truth.space.name}: {len(truth.genomes):,} architectures on {len(truth.engines)} "
        f"engines for the {truth.device.label},\n{designs:,} designs, all measured; "
        f"{len(scale.front):,} of them are the true front (accuracy on validation images,\n"
        f"latency, power). Each way measures {BUDGET} accuracies, and may simulate those networks "
        "on every engine.\n`ours` simulates as many designs, and proposes a front of predictions, "
        "which is then measured;\n`in rounds`, what to measure is chosen as `codesign improve` "
        "does; `network by network`, as\n`codesign improve --every-engine` does, one at a time "
        f"after {START}: it also proposes the front at accuracies\na standard deviation higher. "
        "What `all measured` and the other ways propose lies within the budget.\n"
        "Hypervolume in % of the true front's, latency and power by their logarithms; networks: of "
        "the designs\nmeasured or proposed; distance: by how much of the front's range the median "
        "and the worst design of\nthe front of those proposed must improve to be on it, mean over "
        "the seeds.\n"
    )
    exhaustive = scale.share(truth.figures(*unseen.true_front.T) * SIGNS)
    print(
        "An accuracy on a few hundred images is luck in part, and the true front is that of the "
        "luckiest networks:\non test images, by which nothing was chosen, it is worth "
        f"{whole:.1f} % of an exhaustive search by these,\nwhose front is worth "
        f"{exhaustive:.1f} % on validation images. `on test` says what the front that validation\n"
        "images choose of a way's designs is worth on test images, in % of what the true front is "
        "worth there.\n"
    )
    heads = ("way", "seeds", "hypervolume, median", "worst", "on test, median", "worst",
             "networks", "on the front", "distance, median", "worst")  # fmt: skip
    print(f"| {' | '.join(heads)} |")
    print(f"|---|{'--:|' * (len(heads) - 1)}")
    for way, part in table.groupby("way", sort=False):
        means = part.mean(numeric_only=True)
        print(f"| {way} | {len(part)} | {part['share'].median():.1f} % | "
              f"{part['share'].min():.1f} % | "
              f"{part['test'].median():.1f} % | {part['test'].min():.1f} % | "
              f"{means['networks']:.0f} | {means['proposed']:.0f} | "
              f"{means['distance_median']:.3f} | {means['distance_worst']:.3f} |")  # fmt: skip


if __name__ == "__main__":
    main()
