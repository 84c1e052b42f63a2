"""The method beside other ways to spend the same measurements, held to the whole truth.

    pip install '.[benchmarks]'
    cd benchmarks
    python method.py ../data/truth/digits method.csv method.svg > method.md

Of a space whose every design was measured (benchmarks/truth.py): each way may measure the accuracy
of so many architectures (ways.py, others.py), and simulate them on every engine that was placed and
routed. All that is looked up in the truth. Prints how much of the true front's hypervolume it has,
how far it is from the front, and what it is worth on test images. Rows are kept as they come; half
a minute a seed, a quarter of an hour for BoTorch.

The ways were made on seeds 0 to 9, and are reported on others.
"""

import argparse
import hashlib
import os

os.environ["OMP_NUM_THREADS"] = "1"

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from others import POOL, bayesian, controller, random_search, two_step
from tqdm.auto import tqdm
from ways import (
    BATCH,
    BUDGET,
    START,
    Found,
    Pair,
    by_network,
    everywhere,
    meter,
    ours,
    ours_in_rounds,
)

from codesign_kernel import charts, pareto
from codesign_kernel.explore import SIGNS
from codesign_kernel.files import write_text
from codesign_kernel.space import load_space
from codesign_kernel.truth import Truth, load

FRESH = 10  # first of the seeds that nothing was chosen on
SEEDS = 20
MORE = 382  # accuracies that `network by network` comes to with its front, on seeds 0 to 9
EARLY = 20  # a smaller start of `network by network`
SCARCE = {"Bayesian optimisation": 6}  # seeds of what takes long
WAYS: dict[str, Callable[[Truth, np.random.Generator], Found]] = {
    "ours": ours,
    "ours, in rounds": ours_in_rounds,
    "ours, network by network": by_network,
    "random": random_search,
    "two steps": two_step,
    "Bayesian optimisation": bayesian,
    "controller": controller,
    f"random, {MORE} networks": partial(random_search, budget=MORE),
    f"two steps, {MORE} networks": partial(two_step, budget=MORE),
    f"controller, {MORE} networks": partial(controller, budget=MORE),
    f"images, start of {EARLY}": partial(by_network, start=EARLY),
    f"accuracies alone, start of {START}": partial(by_network, images=False),
    f"accuracies alone, start of {EARLY}": partial(by_network, start=EARLY, images=False),
}
OURS, RIVALS, LARGER, VARIANTS = (list(WAYS)[i:j] for i, j in ((0, 3), (3, 7), (7, 10), (10, 13)))
SEARCH, FRONT = "measured in the search", "proposed front measured too"
ALONE, BOTH = "designs of the search alone", "and the designs proposed"
GROUPS = {  # what a table or a part of the picture is of: ways, and what of each is scored
    f"{BUDGET} accuracies measured": [(way, SEARCH) for way in OURS + RIVALS],
    f"The proposed front measured too, or {MORE} accuracies": [
        *((way, FRONT) for way in OURS), *((way, SEARCH) for way in LARGER),
    ],
    "Parts of `ours, network by network`": [
        (way, scored) for scored in (SEARCH, FRONT) for way in (OURS[-1], *VARIANTS)
    ],
    "The designs that were measured, each on its own engine": [
        (OURS[1], scored) for scored in (ALONE, BOTH)
    ],
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


def scores(truth: Truth, pairs: Pair, scale: Scale, unseen: Unseen) -> dict[str, float]:
    """Return the figures of a row, of designs."""
    points = truth.figures(*pairs.T) * SIGNS
    best = points[pareto.front(points)]
    distances = scale.distances(best)
    return {
        "networks": len(np.unique(pairs[:, 1])),
        "share": round(scale.share(points), 2),
        "test": round(unseen.share(pairs), 2),
        "front": len(best),
        "distance_median": round(float(np.median(distances)), 4),
        "distance_worst": round(float(distances.max()), 4),
    }


def grouped(table: pd.DataFrame, group: str) -> pd.DataFrame:
    """Return the rows of a group, in its order."""
    order = {each: place for place, each in enumerate(GROUPS[group])}
    places = [order.get(each, -1) for each in zip(table["way"], table["scored"], strict=True)]
    found = table.assign(place=places)
    return found[found["place"] >= 0].sort_values(["place", "seed"], ignore_index=True)


def picture(table: pd.DataFrame, truth: Truth) -> charts.alt.TopLevelMixin:
    """Return a picture of each way's hypervolume, by how much it measured: its seeds as points,
    their median as a tick."""
    alt = charts.alt
    panels, scale = [], alt.Scale(zero=False)
    for name in list(GROUPS)[:2]:
        part = grouped(table, name)
        y = alt.Y("way:N", title=None, sort=None, axis=alt.Axis(labelLimit=0, minExtent=160))
        title = "Hypervolume, % of the true front's"
        base = alt.Chart(part).encode(y=y)
        ticks = base.mark_tick(thickness=3, size=16, color="#222").encode(
            alt.X("median(share):Q", title=title, scale=scale)
        )
        points = base.mark_point(filled=True, size=40, opacity=0.5).encode(
            alt.X("share:Q", title=title, scale=scale)
        )
        panels.append(alt.layer(points, ticks, title=name).properties(width=420))
    about = [
        "A point a seed, a bar the median; all networks measured, on every engine.",
        f"Space {truth.space.name} on {len(truth.engines)} engines for the {truth.device.label}; "
        "of all designs",
        "accuracy, latency and clock are measured, power is modelled.",
    ]
    head = alt.TitleParams("How near the ways come to the true front", subtitle=about)
    return alt.vconcat(*panels, title=head, background="white").resolve_scale(x="shared")


def report(table: pd.DataFrame, whole: float) -> str:
    """Return the table of a group in Markdown; `whole` is what the true front is worth on test
    images, in % of an exhaustive search by these."""
    heads = ("way", "seeds", "networks", "engines", "hypervolume, median", "worst",
             "on test, median", "worst", "of the best on test, median", "on the front",
             "distance, median", "worst")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"|---|{'--:|' * (len(heads) - 1)}"]
    both = table["way"].nunique() < len(table.groupby(["way", "scored"]))
    for (_, way, scored), part in table.groupby(["place", "way", "scored"]):
        mean, share, test = part.mean(numeric_only=True), part["share"], part["test"]
        relative = 100 * test / whole
        lines.append(
            f"| {way}{f'; {scored}' if both else ''} | {len(part)} | {mean['networks']:.0f} | "
            f"{mean['engines']:.0f} | {share.median():.1f} % | {share.min():.1f} % | "
            f"{relative.median():.1f} % | {relative.min():.1f} % | {test.median():.1f} % | "
            f"{mean['front']:.0f} | {mean['distance_median']:.3f} | {mean['distance_worst']:.3f} |"
        )
    return "\n".join(lines)


def introduction(truth: Truth, scale: Scale, unseen: Unseen, whole: float) -> str:
    """Say what is compared, and how it is scored."""
    designs = int(np.isfinite(truth.latency_ms).sum())
    exhaustive = scale.share(truth.figures(*unseen.true_front.T) * SIGNS)
    images = meter(truth.space.name).dataset
    n, seen = len(images.validation), len(images.test)
    paragraphs = (
        f"Space {truth.space.name}: {len(truth.genomes):,} architectures on {len(truth.engines)} "
        f"engines for the {truth.device.label}, {designs:,} designs: accuracy (with the "
        f"supernet's weights), latency and clock measured, power modelled. {len(scale.front):,} "
        f"of them are the true front: accuracy on {n} validation images, latency, power. A way is "
        "scored by all networks whose accuracy it measured, each on every engine: networks are "
        "counted, and engines on which the search measured; simulations are not.",
        f"The first table has what is found within {BUDGET} accuracies. The three of `ours` also "
        "propose a front, which a user would measure next: the second table has them with the "
        f"networks of that front, beside the simple ways with {MORE} networks, as many as `network "
        "by network` comes to in the mean of ten seeds. The ways were made on seeds 0 to "
        f"{FRESH - 1}; the tables are of others.",
        f"`ours` measures {BUDGET} spread networks, and designs for hardware; `in rounds`, what "
        "to measure is chosen as `codesign improve` does, but drawn at first on all engines; "
        "`network by network`, as `codesign improve --every-engine` does, one at a time after "
        f"{START}. All three propose what `--front` has measured: the front as it is predicted, "
        "and as it may be, at accuracies one and two standard deviations higher. In rounds, the "
        f"{BUDGET} are designs, of a few networks less. "
        "`two steps` picks networks for one engine, by evolution, then engines for these. The "
        "`controller` learns by REINFORCE. `Bayesian optimisation` is BoTorch's qLogNEHVI over up "
        f"to {2 * POOL:,} candidates a batch of {BATCH}, half of them random and half mutated "
        f"children of its best, with {SCARCE['Bayesian optimisation']} seeds, for the time it "
        "takes.",
        "The third table takes `network by network` apart: it learns accuracy from by how much "
        f"each validation image was right or wrong, after a start of {START} networks; its "
        f"variants from accuracies alone, or after {EARLY}, or both.",
        "The last table does without further simulations: it is of the designs that were measured "
        "in the search, each on its own engine, and of these with the designs proposed, as "
        "`codesign improve --front` measures them without `--every-engine`.",
        "Hypervolume in % of the true front's, latency and power by their logarithms; distance: by "
        "how much of the front's range the median and the worst design of the front found must "
        "improve to be on it, mean over the seeds.",
        f"An accuracy on {n} images is luck in part, and the true front is that of the luckiest "
        f"networks: on {seen} test images, by which nothing was chosen, it is worth {whole:.1f} % "
        f"of an exhaustive search by these, whose front is worth {exhaustive:.1f} % on validation "
        "images. `on test` is what the front that validation images choose of a way's designs is "
        "worth on test images, in % of what the true front is worth there; `of the best on test`, "
        "in % of that exhaustive search.",
    )
    text = (fill(each, 100, break_on_hyphens=False) + "\n" for each in paragraphs)
    return "\n".join(("# The method and the truth\n", *text))


def main() -> None:
    """Run what is missing, then draw and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("csv", type=Path)
    parser.add_argument("svg", type=Path)
    parser.add_argument("--space", default="digits")
    parser.add_argument("--first-seed", type=int, default=FRESH)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--ways", default=";".join(WAYS))
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")  # BoTorch's advice on scaling
    truth = load(asked.folder, load_space(asked.space))
    scale, unseen, now = Scale(truth.front()), Unseen(truth), stamp(truth)
    rows = pd.read_csv(asked.csv).to_dict("records") if asked.csv.exists() else []
    rows = [row for row in rows if row.get("truth") == now]
    there = {(row["way"], row["seed"]) for row in rows}
    first, ways = asked.first_seed, asked.ways.split(";")
    seeds = {way: range(first, first + min(asked.seeds, SCARCE.get(way, asked.seeds)))
             for way in ways}  # fmt: skip
    todo = [(way, seed) for way in ways for seed in seeds[way] if (way, seed) not in there]
    for way, seed in tqdm(todo, "ways", unit="run"):
        found = WAYS[way](truth, np.random.default_rng([seed, 11]))
        parts = {SEARCH: everywhere(truth, found.measured)}
        if len(found.proposed):
            parts[FRONT] = everywhere(truth, np.union1d(found.measured, found.proposed[:, 1]))
        if found.designs is not None:
            parts[ALONE] = found.designs
            parts[BOTH] = np.concatenate([found.designs, found.proposed])
        for scored, pairs in parts.items():
            about = {"way": way, "seed": seed, "scored": scored}
            about |= {"engines": found.engines or len(truth.engines), "truth": now}
            rows.append(about | scores(truth, pairs, scale, unseen))
        write_text(asked.csv, pd.DataFrame(rows).to_csv(index=False))
    table = pd.DataFrame(rows)
    table = table[table["seed"].between(first, first + asked.seeds - 1)]
    write_text(asked.svg, charts.to_svg(picture(table, truth)))
    whole = unseen.share(unseen.everything)
    print(introduction(truth, scale, unseen, whole))
    for group in GROUPS:
        if len(part := grouped(table, group)):
            print(f"## {group}\n\n{report(part, whole)}\n")


if __name__ == "__main__":
    main()
