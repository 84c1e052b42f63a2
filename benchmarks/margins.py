"""Accuracies predicted from single images, and from accuracies alone, beside gradient boosting.

    python benchmarks/margins.py data/studies/digits data/studies/fashion > benchmarks/margins.md

Of each study, NETWORKS random networks are measured with the supernet's weights on all validation
images. Of these, n are learnt from, for each of SEEDS draws, and the rest is predicted. Prints
Markdown. Some ten minutes of one core, most of them for measuring.
"""

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"

from pathlib import Path

import numpy as np
from scipy.stats import kendalltau
from sklearn.ensemble import GradientBoostingRegressor
from tqdm.auto import tqdm

from codesign_kernel.margins import ImageSurrogate, accuracy_of
from codesign_kernel.meters import MARGINS, Accuracy
from codesign_kernel.predict import accuracy_features, accuracy_surrogate, image_features
from codesign_kernel.study import Study, open_study

NETWORKS = 320
SIZES = (20, 40, 100, 200)
SEEDS = 10
BEST = 0.3  # of the networks
WAYS = ("from images", "from accuracies", "gradient boosting")


def measured(study: Study) -> tuple[np.ndarray, np.ndarray]:
    """Return random genomes and their margins on all validation images, (n, images)."""
    meter = Accuracy(study)
    genomes = np.unique(study.space.sample(NETWORKS, np.random.default_rng(5)), axis=0)
    names = [str(study.space.decode(genome)) for genome in genomes]
    bar = tqdm(names, study.space.name, unit="network")
    return genomes, np.stack([meter.measure((name, "", ""))[MARGINS] for name in bar])


def trial(study: Study, genomes: np.ndarray, codes: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return for each of WAYS: MAE, Kendall's tau, that among the BEST, coverage and width of 90 %
    intervals; (ways, 5)."""
    order = np.random.default_rng(seed).permutation(len(genomes))
    train, test = order[:n], order[n:]
    truth, images = accuracy_of(codes), image_features(study.space, genomes)
    X = accuracy_features(study.space, genomes)[0]
    best = truth[test] >= np.quantile(truth[test], 1 - BEST)
    found = {
        "from images": ImageSurrogate()
        .fit(images[train], codes[train])
        .estimate(images[test], 0.9),
        "from accuracies": accuracy_surrogate().fit(X[train], truth[train]).estimate(X[test], 0.9),
        "gradient boosting": [
            GradientBoostingRegressor(random_state=0).fit(X[train], truth[train]).predict(X[test])
        ]
        * 3,
    }
    rows = []
    for mean, low, high in found.values():
        inside = (low <= truth[test]) & (truth[test] <= high)
        none = np.nan if high is mean else 1.0
        rows.append([
            np.abs(mean - truth[test]).mean(), kendalltau(mean, truth[test]).statistic,
            kendalltau(mean[best], truth[test][best]).statistic,
            none * 100 * inside.mean(), none * (high - low).mean(),
        ])  # fmt: skip
    return np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", type=Path, nargs="+")
    print("# Accuracies from single images\n")
    print(
        f"{NETWORKS} random networks of each study, measured on all validation images with the "
        f"supernet's weights;\nn of them are learnt from, the rest is predicted: mean over "
        f"{SEEDS} draws, after ± the standard deviation over\nthese. `best`: Kendall's tau among "
        f"the {BEST:.0%} most accurate, between which luck decides more.\nCoverage and width are "
        "of 90 % intervals. `codesign fit` takes the one of the first two that is off by less\n"
        "on held-out rows.\n"
    )
    print(
        "| study | images | n | way | MAE (points) | Kendall's tau | best | coverage (%) | width |"
    )
    print("|---|--:|--:|---|--:|--:|--:|--:|--:|")
    for path in parser.parse_args().studies:
        study = open_study(path)
        genomes, codes = measured(study)
        for n in SIZES:
            tables = np.stack([trial(study, genomes, codes, n, seed) for seed in range(SEEDS)])
            for way, mean, std in zip(WAYS, tables.mean(axis=0), tables.std(axis=0), strict=True):
                cells = [f"{mean[0]:.3f} ± {std[0]:.3f}", f"{mean[1]:.3f}", f"{mean[2]:.3f}"]
                cells += ["", ""] if np.isnan(mean[3]) else [f"{mean[3]:.0f}", f"{mean[4]:.2f}"]
                print(f"| {study.space.name} | {codes.shape[1]:,} | {n} | {way} | "
                      f"{' | '.join(cells)} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
