"""From how many networks, measured how, the accuracy of specialised ones is predicted.

    python benchmarks/labels.py > benchmarks/labels.md

Of Fashion-MNIST: labels are accuracies on validation images of networks that the shipped study
specialised, or of data/accuracy.csv, with the supernet's weights, which take a tenth of the time.
Predicted are the networks of data/specialised.csv, of which none is learnt from. Minutes of a core.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import kendalltau
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from codesign_kernel import fits, measure
from codesign_kernel.margins import ImageSurrogate
from codesign_kernel.predict import (
    COVERAGE,
    accuracy_features,
    accuracy_surrogate,
    image_features,
)
from codesign_kernel.study import open_study

DATA = Path(__file__).parents[1] / "data"
SIZES, DRAWS = (12, 25, 50, 100, 180), 10
HEAD = """\
# Labels for accuracy

{tests} specialised networks of Fashion-MNIST, predicted from n labels of others; mean of {draws}
draws of n out of {labels}. Error: mean, in points, against the accuracy on validation images, which
moves by a standard deviation of 0.14 points with the seed of the specialisation
(`data/specialise.csv`); tau: Kendall's, with the accuracy on test images, of what is predicted.
`codesign fit` takes the first or the second, by which folds of its rows are off by less. With the
third, the accuracy with the supernet's weights is one more input, predicted from the {shared}
labels of `data/accuracy.csv`; the last learns from n of these alone, and knows nothing of
specialising.
"""
WAYS = (
    "Gaussian process",
    "Gaussian process, single images",
    "Gaussian process, shared weights as an input",
    "linear regression",
    "line over log MACs and log parameters",
    "Gaussian process, labels with shared weights",
)


def linear(X: np.ndarray, y: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return what ridge regression, its penalty chosen by leave-one-out, predicts."""
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 13)))
    return np.asarray(model.fit(X, y).predict(asked))


def main() -> None:
    """Draw, predict and print the table in Markdown."""
    study = open_study(DATA / "studies" / "fashion")
    rows, space = measure.rows(study, "accuracy"), study.space
    tests, shared = (pd.read_csv(DATA / name) for name in ("specialised.csv", "accuracy.csv"))
    tests = tests[~tests["architecture"].isin(rows["architecture"])]
    shared = shared[~shared["architecture"].isin(tests["architecture"])]
    genomes, asked, cheap = (
        space.genomes(table["architecture"]) for table in (rows, tests, shared)
    )
    X, x, S = (accuracy_features(space, some)[0] for some in (genomes, asked, cheap))
    images, image = image_features(space, genomes), image_features(space, asked)
    y, codes = rows["accuracy"].to_numpy(float), fits.margins(study, rows)
    assert codes is not None
    known = shared["validation"].to_numpy(float)
    by_shared = accuracy_surrogate().fit(S, known)
    more = [np.column_stack([some, by_shared.predict(some)]) for some in (X, x)]
    found = []
    for n in SIZES:
        for draw in tqdm(range(DRAWS), f"{n} labels", unit="draw"):
            rng = np.random.default_rng([draw, n])
            pick, other = (rng.permutation(len(some))[:n] for some in (y, known))
            guesses = (
                accuracy_surrogate().fit(X[pick], y[pick]).estimate(x, COVERAGE),
                ImageSurrogate().fit(images[pick], codes[pick]).estimate(image, COVERAGE),
                accuracy_surrogate().fit(more[0][pick], y[pick]).estimate(more[1], COVERAGE),
                (linear(X[pick], y[pick], x),),
                (linear(X[pick, -2:], y[pick], x[:, -2:]),),
                accuracy_surrogate().fit(S[other], known[other]).estimate(x, COVERAGE),
            )
            truth = tests["specialised_validation"].to_numpy(float)
            for way, (mean, *ends) in zip(WAYS, guesses, strict=True):
                inside = 100 * ((ends[0] <= truth) & (truth <= ends[1])).mean() if ends else np.nan
                tau = kendalltau(mean, tests["specialised_test"]).statistic
                found.append((way, n, np.abs(mean - truth).mean(), tau, inside))
    print(HEAD.format(tests=len(tests), draws=DRAWS, labels=len(y), shared=len(shared)))
    print("| way | n | error (points) | tau | 90 % intervals that hold (%) |")
    print("|---|--:|--:|--:|--:|")
    table = pd.DataFrame(found, columns=["way", "n", "error", "tau", "inside"])
    for (way, n), part in table.groupby(["way", "n"], sort=False):
        error, tau, inside = part[["error", "tau", "inside"]].mean()
        share = f"{inside:.0f}" if np.isfinite(inside) else ""
        print(f"| {way} | {n} | {error:.2f} | {tau:.2f} | {share} |")


if __name__ == "__main__":
    main()
