"""How well accuracy is predicted, by how an architecture is described to the Gaussian process.

    python benchmarks/accuracy.py data/studies/fashion data/accuracy.csv > benchmarks/accuracy.md

Random subnets of the study, its extremes left out, are labelled with the supernet's shared weights
on the validation and on the test images: a quarter of an hour of one core. Each finished row is
kept, so a run that was killed goes on where it stopped. Then every description is fitted to the
validation labels of some subnets, which is what a user measures, and held to the test labels of all
others. Prints Markdown.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import kendalltau
from sklearn.linear_model import LinearRegression
from tqdm.auto import tqdm

from codesign_kernel import baselines, datasets, train
from codesign_kernel.files import write_text
from codesign_kernel.predict import accuracy_features
from codesign_kernel.space import Architecture, Genomes, SearchSpace
from codesign_kernel.study import Study, open_study
from codesign_kernel.workload import layers_of, totals

Floats = NDArray[np.float64]
SIZES, SEEDS, COVERAGE = (20, 50, 100, 200), range(10), 0.9
ASKED = 100  # labels, at which MAE must be at most 1.0 points and tau at least 0.65
PRESENT = "per block: 1 - 1/K, sizes"  # what `accuracy_features` gives
ABOUT = """# Accuracy

{subnets} random subnets of Fashion-MNIST with the supernet's weights, the smallest and the largest
left out: test accuracies of {low:.1f} to {high:.1f} %, standard deviation {std:.2f} points. All
accuracies are measured, on 10,000 validation and 10,000 test images. Models are fitted to n of the
subnets and held to all others; mean and standard deviation of {seeds} splits. MAE and the width of
the 90 % intervals are in points. "Beside" is the difference from **{present}**, which the program
uses, on the same splits. Linear (ridge) regression and gradient boosting have the same inputs.

Asked at {asked} labels: MAE of at most 1.0 points and Kendall's tau of at least 0.65. Measured:
**MAE {mae}** (at worst {worst:.3f}), **tau {tau}** (at worst {least:.3f}).

A validation label itself is {gap:.2f} points off the test accuracy of its subnet in the mean, and
{rest:.2f} but for the constant offset of {offset:+.2f} points between the two sets. It ranks the
subnets with tau {rank:.3f}. The offset adds to every MAE of what is fitted to validation labels,
and is why their intervals, which are about validation accuracy, hold test accuracy too seldom.

Per block: width and depth of each stage, and the kernel size K of each block, 0 where it is absent,
or 1 - 1/K, 0 where it is absent or 1 x 1. Per stage: width, depth, and either mean K, or the taps
of all kernels and log MACs. Sizes: logarithms of MACs and parameters, as inputs, or as the prior
mean: a linear regression on them, fitted to the same labels.

Per stage is far worse than per block: which of a stage's blocks has which kernel matters. Sizes add
little to it, as inputs or as the prior mean. Kernels are better described by 1 - 1/K than by K: 3
differs from 1 far more than 5 does from 3. K beside whether K ≥ 3 does as well, with more inputs.

## Fitted to validation labels, held to test labels
"""
SAME = """## Fitted to test labels, held to test labels

The same without the offset, for comparison: no user should select on test images.
"""
HEADS = (
    "| described by | MAE | tau | coverage (lowest split) | width | MAE beside | tau beside | "
    "linear MAE | tau | boosting MAE | tau |\n|---|" + "--:|" * 10
)


def label(study: Study, csv: Path, subnets: int, folder: Path | None) -> pd.DataFrame:
    """Return a row of each subnet with its accuracies in %, measuring those that the CSV lacks."""
    space = study.space
    drawn = space.sample(2 * subnets, np.random.default_rng([study.seed, 8]))
    drawn = np.concatenate([np.stack(space.extremes()), drawn])
    first = np.sort(np.unique(drawn, axis=0, return_index=True)[1])
    genomes = drawn[first[2 : 2 + subnets]]  # the first two are the extremes
    rows = pd.read_csv(csv).to_dict("records") if csv.exists() else []
    done = {row["architecture"] for row in rows}
    sizes = np.column_stack(totals(space, genomes))
    pending = [
        (str(space.decode(genome)), *(int(size) for size in pair))
        for genome, pair in zip(genomes, sizes, strict=True)
    ]
    pending = [each for each in pending if each[0] not in done]
    if pending:
        data = datasets.load(study.dataset, folder=folder, shape=space.input)
        supernet = train.load_supernet(study.supernet_path)
        calibration = train.calibration_images(data)
    for name, macs, parameters in tqdm(pending, "label", unit="subnet"):
        network = train.subnet(supernet, Architecture.parse(name), calibration)
        row = {"architecture": name, "macs": macs, "parameters": parameters}
        row |= {"validation": train.accuracy(network, data.validation)}
        rows.append(row | {"test": train.accuracy(network, data.test)})
        write_text(csv, pd.DataFrame(rows).to_csv(index=False, float_format="%.8g"))
    return pd.DataFrame(rows)


class Encoding(NamedTuple):
    """How architectures are described: inputs (n, d), and the sizes (n, 2) whose regression is the
    prior mean, if any."""

    X: Floats
    sizes: Floats | None = None


def encodings(space: SearchSpace, genomes: Genomes) -> dict[str, Encoding]:
    """Return the descriptions that are compared; that of `accuracy_features` is PRESENT."""
    blocks, names = space.features(genomes)
    kernel = np.array(["_k" in name for name in names])
    K = blocks[:, kernel]
    sizes = np.log2(np.column_stack(totals(space, genomes)))
    reach = blocks.copy()
    reach[:, kernel] = 1 - 1 / np.maximum(K, 1)
    stages, more = per_stage(space, genomes)
    made = {
        "per block: K, sizes": Encoding(np.hstack([blocks, sizes])),
        "per block: K": Encoding(blocks),
        "per block: K, sizes as prior mean": Encoding(blocks, sizes),
        "per block: K and whether K ≥ 3, sizes": Encoding(np.hstack([blocks, K >= 3, sizes])),
        "per block: 1 - 1/K, sizes": Encoding(np.hstack([reach, sizes])),
        "per block: 1 - 1/K": Encoding(reach),
        "per block: 1 - 1/K, sizes as prior mean": Encoding(reach, sizes),
        "per stage: mean K": Encoding(stages),
        "per stage: mean K, sizes": Encoding(np.hstack([stages, sizes])),
        "per stage: mean K, sizes as prior mean": Encoding(stages, sizes),
        "per stage: taps, MACs": Encoding(more),
        "per stage: taps, MACs, sizes": Encoding(np.hstack([more, sizes])),
        "sizes": Encoding(sizes),
    }
    return made | {PRESENT: Encoding(accuracy_features(space, genomes)[0])}


def per_stage(space: SearchSpace, genomes: Genomes) -> tuple[Floats, Floats]:
    """Return two descriptions, (n, 3 stages) and (n, 4 stages): width, depth and mean K of each
    stage; or width, depth, taps of all its kernels and the base-2 logarithm of its MACs."""
    layers = layers_of(space, genomes)
    mean, more = [], []
    for stage in range(1, len(space.stages) + 1):
        inside = [name.startswith(f"s{stage}b") for name in layers.names]
        there = layers.filters[:, inside] > 0
        width, depth = layers.filters[:, inside].max(axis=1), there.sum(axis=1)
        mean += [width, depth, (layers.kernel[:, inside] * there).sum(axis=1) / depth]
        taps = (layers.taps[:, inside] * there).sum(axis=1)
        more += [width, depth, taps, np.log2(layers.macs[:, inside].sum(axis=1))]
    return np.column_stack(mean), np.column_stack(more)


def trial(how: Encoding, labels: Floats, truth: Floats, n: int, seed: int) -> pd.DataFrame:
    """Return the errors of all models as `baselines.compare` does: fitted to the labels of `n` rows
    at random, held to the truth of all others."""
    order = np.random.default_rng(seed).permutation(len(truth))
    rows, rest = order[:n], order[n:]
    X, y = how.X, truth.copy()
    y[rows] = labels[rows]
    if how.sizes is not None:  # the regression has seen what the process may see, and no more
        line = LinearRegression().fit(how.sizes[rows], y[rows])
        X = np.column_stack([line.predict(how.sizes), X])
    prior = None if how.sizes is None else 0
    return baselines.compare(X, y, prior, splits=[(rows, rest)], coverage=COVERAGE)


def trials(
    how: dict[str, Encoding], labels: Floats, truth: Floats, sizes: Sequence[int]
) -> pd.DataFrame:
    """Return all trials: a row for each encoding, n, seed and model."""
    work = [(name, n, seed) for name in how for n in sizes for seed in SEEDS]
    found = [
        trial(how[name], labels, truth, n, seed).assign(encoding=name, n=n, seed=seed)
        for name, n, seed in tqdm(work, "compare", unit="fit")
    ]
    return pd.concat(found).rename_axis("model").reset_index()


def spread(values: pd.Series, sign: str = "") -> str:
    """Return the mean and the standard deviation over the seeds."""
    return f"{values.mean():{sign}.3f} ± {values.std():.3f}"


def rows(found: pd.DataFrame, n: int) -> str:
    """Return the table of one n, in Markdown."""
    figures = found[found["n"] == n].pivot(
        index="seed",
        columns=["encoding", "model"],
        values=["MAE", "Kendall tau", "coverage", "width"],
    )
    ours = figures.xs("Gaussian process", axis=1, level="model")
    lines = [HEADS]
    for name in found["encoding"].unique():
        mae, tau, coverage = (ours[each, name] for each in ("MAE", "Kendall tau", "coverage"))
        cells = [f"**{name}**" if name == PRESENT else name, spread(mae), spread(tau)]
        cells += [
            f"{coverage.mean():.0f} ({coverage.min():.0f})",
            f"{ours['width', name].mean():.2f}",
        ]
        beside = mae - ours["MAE", PRESENT], tau - ours["Kendall tau", PRESENT]
        cells += [spread(each, "+") if name != PRESENT else "" for each in beside]
        for model in ("linear regression", "gradient boosting"):
            cells += [f"{figures[each, name, model].mean():.3f}" for each in ("MAE", "Kendall tau")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def report(table: pd.DataFrame, how: dict[str, Encoding]) -> str:
    """Return the comparison, in Markdown."""
    validation, test = (table[name].to_numpy(float) for name in ("validation", "test"))
    found = trials(how, validation, test, SIZES)
    same = trials(how, test, test, SIZES[1:])
    ours = found[(found["model"] == "Gaussian process") & (found["encoding"] == PRESENT)]
    ours = ours[ours["n"] == ASKED]
    offset = test - validation
    text = ABOUT.format(
        subnets=len(table), seeds=len(SEEDS), asked=ASKED, coverage=COVERAGE, present=PRESENT,
        mae=spread(ours["MAE"]), tau=spread(ours["Kendall tau"]), worst=ours["MAE"].max(),
        least=ours["Kendall tau"].min(), low=test.min(), high=test.max(), std=test.std(),
        gap=np.abs(offset).mean(), offset=offset.mean(), rest=np.abs(offset - offset.mean()).mean(),
        rank=kendalltau(validation, test).statistic,
    )  # fmt: skip
    parts = [f"### {n} labels\n\n{rows(found, n)}\n" for n in SIZES]
    parts += [SAME, *(f"### {n} labels\n\n{rows(same, n)}\n" for n in SIZES[1:])]
    return "\n".join([text, *parts]).rstrip()


def main() -> None:
    """Label what is missing, then print how well the rest is predicted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--subnets", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="of the data set")
    asked = parser.parse_args()
    study = open_study(asked.study)
    table = label(study, asked.csv, asked.subnets, asked.folder)
    names = map(Architecture.parse, table["architecture"])
    genomes = np.stack([study.space.encode(name) for name in names])
    print(report(table, encodings(study.space, genomes)))


if __name__ == "__main__":
    main()
