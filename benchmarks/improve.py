"""`codesign improve` beside other ways to spend as many measurements, held to the whole truth.

    python benchmarks/improve.py data/truth/digits benchmarks/improve.csv > benchmarks/improve.md

Of a space whose every design was measured (benchmarks/truth.py): all ways start from the same
START designs, as `codesign profile` draws them, and measure BUDGET more, which are looked up in the
truth. Prints how much of the true front's hypervolume the measured designs have. Rows are kept as
they come; a minute a seed.
"""

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from method import Scale, Unseen, stamp
from tqdm.auto import tqdm
from ways import Pair, fitted, known_of, pairs_of, places_of

from codesign_kernel import explore
from codesign_kernel.accelerator import Accelerators
from codesign_kernel.constraints import Constraints
from codesign_kernel.evolve import crowding
from codesign_kernel.explore import SIGNS
from codesign_kernel.files import write_text
from codesign_kernel.improve import Box, choose
from codesign_kernel.measure import stratified
from codesign_kernel.quantities import QUANTITIES
from codesign_kernel.space import load_space
from codesign_kernel.truth import Truth, load

START, BUDGET = 40, 40  # designs
ENGINES = 4  # that the start is on at most, as `codesign profile` has it
COLUMNS = ("way", "seed", "engines", "truth", "measured", "share", "test_share", "used")


def drawn(truth: Truth, n: int, engines: np.ndarray, rng: np.random.Generator) -> Pair:
    """Return designs as `codesign profile` draws them: architectures spread over the logarithm of
    MACs, each on one of the engines that can run it."""
    architectures = places_of(truth, stratified(truth.space, n, rng))
    runs = np.isfinite(truth.latency_ms[engines][:, architectures])
    draws = np.where(runs, rng.random(runs.shape), -1.0)
    kept = runs.any(axis=0)
    return np.column_stack([engines[draws.argmax(axis=0)], architectures])[kept]


def searched(truth: Truth, pairs: Pair, rounds: int, spread: bool) -> list[Pair]:
    """Fit, explore, choose and measure in rounds, as `codesign improve` does; return what is
    measured after each. With `spread`, choose the least crowded designs of the predicted front."""
    name, box, found = truth.device.name, None, []
    for _ in range(rounds):
        predictors = fitted(truth, np.unique(pairs[:, 1]), pairs)
        explored = explore.explore(
            predictors, [name], Constraints(), generations=20,
            engines={name: Accelerators.of(truth.engines)},
        )  # fmt: skip
        figures = explored.front[[*QUANTITIES]].to_numpy(dtype=np.float64)
        box, known = box or Box.of(figures), known_of(truth, pairs)
        if spread:
            rows = explored.front[["architecture", "accelerator", "device"]]
            keys = [tuple(row) for row in rows.itertuples(index=False)]
            kept = np.array([i for i, key in enumerate(keys) if not known.whole(key)])
            while len(kept) > BUDGET // rounds:
                lonely = crowding(figures[kept] * SIGNS, np.zeros(len(kept), np.int64))
                kept = np.delete(kept, lonely.argmin())
            keys = [keys[i] for i in kept]
        else:
            keys = choose(predictors, explored.designs, known, box, BUDGET // rounds)
        pairs = np.concatenate([pairs, pairs_of(truth, keys)])
        found.append(pairs)
    return found


def random(truth: Truth, start: Pair, rng: np.random.Generator) -> list[Pair]:
    """Measure more designs as `codesign profile` draws them, on all engines; none twice."""
    more = drawn(truth, BUDGET + START, np.arange(len(truth.engines)), rng)
    new = ~(more[:, None] == start).all(axis=2).any(axis=1)
    return [np.concatenate([start, more[new][:BUDGET]])]


def improved(
    truth: Truth, start: Pair, rng: np.random.Generator, rounds: int, spread: bool = False
) -> list[Pair]:
    """Measure what is chosen in rounds."""
    return searched(truth, start, rounds, spread)


WAYS: dict[str, Callable[[Truth, Pair, np.random.Generator], list[Pair]]] = {
    "random": random,
    "predicted front, spread, 4 rounds": partial(improved, rounds=4, spread=True),
    "improve, 1 round": partial(improved, rounds=1),
    "improve, 4 rounds": partial(improved, rounds=4),
    "improve, 10 rounds": partial(improved, rounds=10),
}


def report(table: pd.DataFrame) -> str:
    """Return the table of the ways in Markdown: hypervolume in % of the true front's."""
    last = table[table["measured"] == table.groupby(["way", "seed"])["measured"].transform("max")]
    base = last[last["way"] == "random"].set_index("seed")["share"]
    start, test = (table[table["way"] == "start"][name] for name in ("share", "test_share"))
    lines = [
        "| way | hypervolume, mean | least | most | lacking to the true front | more than random | "
        "seeds better than random | on test images | engines used |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        f"| start | {start.mean():.1f} % | {start.min():.1f} | {start.max():.1f} | "
        f"{100 - start.mean():.1f} | | | {test.mean():.1f} % | |",
    ]
    for way in (way for way in WAYS if way in set(last["way"])):
        part = last[last["way"] == way]
        share = part.set_index("seed")["share"]
        more = share - base
        beside = "| |" if way == "random" else f"{more.mean():+.1f} ± {more.std(ddof=1):.1f} | " \
            f"{(more > 0).sum()} of {len(more)} |"  # fmt: skip
        lines.append(
            f"| {way} | {share.mean():.1f} % | {share.min():.1f} | {share.max():.1f} | "
            f"{100 - share.mean():.1f} | {beside} "
            f"{part['test_share'].mean():.1f} % | {part['used'].mean():.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--space", default="digits")
    parser.add_argument("--seeds", type=int, default=10)
    asked = parser.parse_args()
    truth = load(asked.folder, load_space(asked.space))
    scale, unseen, count = Scale(truth.front()), Unseen(truth), len(truth.engines)
    rows = pd.read_csv(asked.csv).to_dict("records") if asked.csv.exists() else []
    now = stamp(truth)
    rows = [row for row in rows if row.get("truth") == now]
    there = {(row["way"], row["seed"]) for row in rows}
    some = np.unique(np.linspace(0, count - 1, min(ENGINES, count)).round().astype(int))
    todo = [(way, seed) for seed in range(asked.seeds) for way in ("start", *WAYS)]
    for way, seed in tqdm([job for job in todo if job not in there], "ways", unit="run"):
        rng = np.random.default_rng([seed, 12])
        start = drawn(truth, START, some, rng)
        for pairs in [start] if way == "start" else WAYS[way](truth, start, rng):
            points = truth.figures(*pairs.T) * SIGNS
            shares = scale.share(points), unseen.share(pairs)
            used = len(np.unique(pairs[:, 0]))
            about = (way, seed, count, now, len(pairs))
            values = (*about, *(round(share, 2) for share in shares), used)
            rows.append(dict(zip(COLUMNS, values, strict=True)))
        write_text(asked.csv, pd.DataFrame(rows).to_csv(index=False))
    table = pd.DataFrame(rows)
    designs = int(np.isfinite(truth.latency_ms).sum())
    print("# `codesign improve` and the truth\n")
    print(
        f"Space {truth.space.name}: {len(truth.genomes):,} architectures on {count} engines for "
        f"the {truth.device.label},\n{designs:,} designs: accuracy (with the supernet's weights), "
        f"latency and clock measured, power modelled; {len(scale.front):,} of them\nare the true "
        "front of accuracy on "
        f"validation images, latency and power. All ways start from the same {START} designs, as\n"
        f"`codesign profile` draws them, on {len(some)} engines, and measure {BUDGET} more: "
        "`random` as `profile` draws\nthem, on all engines; `predicted front, spread` the least "
        "crowded designs of the front explored on\npredictions; `improve` as the verb chooses "
        "them. Hypervolume of the measured designs, in % of the true\nfront's, latency and power "
        f"by their logarithms, in the box of that front and a tenth more. Mean over\n"
        f"{table['seed'].nunique()} seeds; ± is the standard deviation of the difference. `on test "
        "images`: the front of the\nmeasured designs, as the validation images have it, with "
        "accuracies on the test images, in % of the true\nfront of those.\n"
    )
    print(report(table))


if __name__ == "__main__":
    main()
