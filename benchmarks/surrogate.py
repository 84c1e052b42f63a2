"""How well the surrogate predicts and how honest its intervals are, beside plain models.

    OMP_NUM_THREADS=1 python benchmarks/surrogate.py [nbmacro_cifar10.csv] > surrogate.md

Prints Markdown. Without the CSV (NAS-Bench-Macro: columns b0 ... b7, params, flops, mean_acc, acc1)
only synthetic data and those in scikit-learn are used. About ten minutes on one core.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from codesign_kernel.surrogate import Surrogate

Floats = NDArray[np.float64]
SIZES, COVERAGE = (20, 50, 100, 200), 0.9
SEEDS = range(1000, 1010)  # others than those that the surrogate's constants were chosen on
MODELS = ("analytic", "linear regression", "gradient boosting", "ML-ARD GP")


def layers(rng: np.random.Generator, n: int = 5000) -> tuple[Floats, Floats]:
    """Cycles of random convolutions on random engines; the last column is MACs / (PF PC)."""
    f, c = rng.integers(8, 257, (2, n))
    size, kernel = rng.choice([4, 7, 8, 14, 16, 28, 32], n), rng.choice([1, 3, 5], n)
    pf, pc = rng.choice([4, 8, 16, 32], (2, n))
    bandwidth = rng.choice([4, 8, 16], n)  # bytes a cycle
    compute = np.ceil(f / pf) * np.ceil(c / pc) * size**2 * kernel**2
    memory = (f * c * kernel**2 + (f + c) * size**2) / bandwidth
    ideal = f * c * size**2 * kernel**2 / (pf * pc)
    X = np.column_stack([f, c, size, kernel, pf, pc, bandwidth, ideal]).astype(float)
    return X, np.maximum(compute, memory) + 100.0


def networks(rng: np.random.Generator, n: int = 5000) -> tuple[Floats, Floats]:
    """Cycles, with 1 % of jitter, of random four-stage networks; last column MACs / (PF PC)."""
    depth = rng.integers(1, 4, (n, 4))
    width, kernel = rng.choice([16, 24, 32, 48, 64, 96], (n, 4)), rng.choice([1, 3, 5], (n, 4))
    pf, pc = rng.choice([4, 8, 16], (2, n))
    cycles, macs, c = np.zeros(n), np.zeros(n), np.full(n, 3)
    for stage in range(4):
        f, k, size = width[:, stage], kernel[:, stage], 32 >> stage
        for level in range(3):
            present = depth[:, stage] > level
            compute = np.ceil(f / pf) * np.ceil(c / pc) * size**2 * k**2
            memory = (f * c * k**2 + (f + c) * size**2) / 8
            cycles += present * (np.maximum(compute, memory) + 200)
            macs += present * f * c * size**2 * k**2
            c = np.where(present, f, c)
    X = np.column_stack([depth, width, kernel, pf, pc, macs / (pf * pc)]).astype(float)
    return X, cycles * np.exp(0.01 * rng.normal(size=n))


def accuracies(path: Path, target: str) -> tuple[Floats, Floats]:
    """NAS-Bench-Macro: block choices one-hot, then log params and log flops; accuracy in %."""
    table = pd.read_csv(path)
    blocks = table[[f"b{i}" for i in range(8)]].to_numpy()
    X = [*((blocks == choice) for choice in (1, 2)), np.log(table[["params", "flops"]])]
    return np.hstack(X).astype(float), table[target].to_numpy(dtype=float)


def plain_models(X: Floats, y: Floats, test: Floats, kind: str) -> dict[str, tuple[Floats, Floats]]:
    """Predictions (mean, std) of the models beside ours; std is empty where there is none."""
    none, analytic = np.zeros(0), np.full(len(test), np.nan)
    if kind == "cycles":
        X, y, test = np.log(X), np.log(y), np.log(test)
        analytic = test[:, -1] + np.mean(y - X[:, -1])
    elif kind == "accuracy":
        analytic = LinearRegression().fit(X[:, -2:], y).predict(test[:, -2:])
    scaler = StandardScaler().fit(X)
    X, test = scaler.transform(X), scaler.transform(test)
    kernel = ConstantKernel() * Matern(np.ones(X.shape[1]), nu=2.5) + WhiteKernel(0.01)
    process = GaussianProcessRegressor(
        kernel, normalize_y=True, n_restarts_optimizer=2, random_state=0
    ).fit(X, y)
    boosting = GradientBoostingRegressor(random_state=0).fit(X, y)
    return {
        "analytic": (analytic, none),
        "linear regression": (LinearRegression().fit(X, y).predict(test), none),
        "gradient boosting": (boosting.predict(test), none),
        "ML-ARD GP": process.predict(test, return_std=True),
    }


def trial(X: Floats, y: Floats, kind: str, n: int, seed: int) -> dict[str, float]:
    """MAPE (%) of each model, and coverage (%) of two, trained on n rows, tested on the rest."""
    log = kind == "cycles"
    order = np.random.default_rng(seed).permutation(len(y))
    train, test = order[:n], order[n:]
    truth = y[test]

    def error(mean: Floats) -> float:
        return float(100 * np.mean(np.abs(mean / truth - 1)))

    ours = Surrogate(X.shape[1] - 1 if log else None, log).fit(X[train], y[train])
    low, high = ours.interval(X[test], COVERAGE)
    found = {
        "surrogate": error(ours.predict(X[test])),
        "coverage": float(100 * np.mean((low <= truth) & (truth <= high))),
        "width": float(100 * np.mean((high - low) / truth)),
    }
    for name, (mean, std) in plain_models(X[train], y[train], X[test], kind).items():
        found[name] = error(np.exp(mean) if log else mean)
        if len(std):
            miss = np.abs((np.log(truth) if log else truth) - mean)
            found[f"{name} coverage"] = float(
                100 * np.mean(miss <= norm.ppf((1 + COVERAGE) / 2) * std)
            )
    return found


def seconds(work: Callable[..., Any], *args: Any, repeats: int = 3) -> float:
    """The least processor time that `work` of `args` takes, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work(*args)
        times.append(time.process_time() - start)
    return min(times)


def speed(n: int) -> str:
    """Row of the table of times, at 20 inputs."""
    rng = np.random.default_rng(0)
    X, new = rng.normal(size=(n, 20)), rng.normal(size=(20_000, 20))
    y = np.sin(X[:, 0]) + X[:, 1:5].sum(axis=1) + 0.1 * rng.normal(size=n)
    kernel = ConstantKernel() * Matern(np.full(20, 3.0), nu=2.5) + WhiteKernel(0.01)
    ours, theirs = Surrogate(), GaussianProcessRegressor(kernel)
    fit, their_fit = seconds(ours.fit, X, y), seconds(theirs.fit, X, y, repeats=1)
    rate = len(new) / seconds(ours.predict, new, True, repeats=5)
    their_rate = len(new) / seconds(theirs.predict, new, True)
    rates = f"{rate / 1e3:.0f} | {their_rate / 1e3:.0f} | {rate / their_rate:.1f}"
    return f"| {n} | {fit:.2f} | {their_fit:.2f} | {rates} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", nargs="?", type=Path, help="NAS-Bench-Macro on CIFAR-10")
    path = parser.parse_args().csv
    warnings.simplefilter("ignore", ConvergenceWarning)
    data = {}
    if path:
        for target in ("mean_acc", "acc1"):
            data[f"accuracy ({target})"] = (*accuracies(path, target), "accuracy")
    data["cycles of layers"] = (*layers(np.random.default_rng(5)), "cycles")
    data["cycles of networks"] = (*networks(np.random.default_rng(6)), "cycles")
    data["Friedman 1"] = (*make_friedman1(2000, random_state=0), "other")
    data["diabetes"] = (*load_diabetes(return_X_y=True), "other")

    print("# Surrogate\n")
    print(
        f"Mean of {len(SEEDS)} random splits, tested on all other rows. Errors are MAPE (%); "
        "models of cycles work on\nlogarithms. The analytic model is MACs / (PF PC), scaled, for "
        "cycles, and linear in log MACs\nand log parameters for accuracy; every model has it among "
        f"its inputs. Intervals are meant to\nhold {COVERAGE:.0%}; width is in % of the target. "
        "The splits, and the last two data sets, had no part in\n"
        "choosing the surrogate's constants.\n"
    )
    columns = [*MODELS, "**surrogate**", "coverage (%)"]
    print(
        "| data | n |", " | ".join([*columns, "lowest split", "width (%)", "ML-ARD coverage"]), "|"
    )
    print("|---|--:|" + "--:|" * (len(columns) + 3))
    work = [(name, n) for name in data for n in SIZES]
    for name, n in tqdm(work, "benchmark", unit="row"):
        trials = pd.DataFrame([trial(*data[name], n, seed) for seed in SEEDS])
        mean = trials.mean()
        cells = [f"{mean[model]:.2f}".replace("nan", "–") for model in MODELS]
        cells += [f"**{mean['surrogate']:.2f}**", f"{mean['coverage']:.0f}"]
        cells += [f"{trials['coverage'].min():.0f}", f"{mean['width']:.1f}"]
        print(f"| {name} | {n} |", " | ".join([*cells, f"{mean['ML-ARD GP coverage']:.0f}"]), "|")

    print("\n## Time\n")
    print(
        "Processor time at 20 inputs, beside scikit-learn's GaussianProcessRegressor (Matern 5/2\n"
        "ARD, no restart); predictions are mean and standard deviation.\n"
    )
    print("| n | fit (s) | scikit-learn (s) | predictions (1000/s) | scikit-learn | ratio |")
    print("|--:|--:|--:|--:|--:|--:|")
    for n in (100, 300, 500):
        print(speed(n))


if __name__ == "__main__":
    main()
