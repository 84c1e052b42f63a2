"""How well the surrogate predicts and how honest its intervals are, beside plain models.

    OMP_NUM_THREADS=1 python benchmarks/surrogate.py [nbmacro_cifar10.csv] > surrogate.md

Prints Markdown: the measured tables of data/, synthetic data, those in scikit-learn, and, if the
CSV is given, NAS-Bench-Macro, made as ABOUT says. Half an hour of one core.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measured import Table, accuracies, tables
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.linear_model import LinearRegression, RidgeCV
from tqdm.auto import tqdm

from codesign_kernel.baselines import zero_mean_process
from codesign_kernel.fitting import logarithm
from codesign_kernel.surrogate import Surrogate
from codesign_kernel.table import Problem, prepare

Floats, Rows = NDArray[np.float64], NDArray[np.int64]
SIZES, GROUP_SIZES, COVERAGE = (20, 50, 100, 200), (20, 100), 0.9
SEEDS = range(1000, 1010)  # others than those that the surrogate's constants were chosen on
MODELS = ("analytic", "linear regression", "gradient boosting", "zero-mean GP")
LINEAR = RidgeCV(np.logspace(-3, 3, 13))
ABOUT = f"""# Surrogate

Mean of {len(SEEDS)} splits. Errors are MAPE (%). Every model has the same inputs, the analytic
estimate among them, and models the same logarithm, if any; which that is, the training rows decide,
as in `codesign fit --table`. Linear regression is ridge regression with a penalty chosen by
leave-one-out; the zero-mean Gaussian process is scikit-learn's, Matern 5/2 ARD by maximum
likelihood. "Beside the best" is the surrogate's error less that of the best plain
model at that n, with the standard error over the splits, which the models share. Intervals are
meant to hold {COVERAGE:.0%}; width is in % of the target.

These tables are not untouched: the surrogate's constants were chosen on other splits of them. The
splits here had no part in that, but the rows had, so that new tables may be predicted less well.

Analytic estimates: of `layer_cycles` and `network_cycles` either the roofline, MACs / (PF PC PV),
or the closed form of `codesign_kernel/cycles.py`, scaled; of flips, clock and LUT those of
`codesign_kernel/cost.py`, whose constants were fitted to these very tables; of accuracy a
regression on log MACs and log parameters. Rows that are the same in all that the surrogate sees (a
layer that two networks share, on the same engine and memory) are there once, so that none is both
trained and tested on.

NAS-Bench-Macro is public: Su et al., Prioritized Architecture Sampling with Monto-Carlo Tree
Search, CVPR 2021; 6,561 networks, each trained three times on CIFAR-10;
github.com/xiusu/NAS-Bench-Macro at commit 61a2bfc2, Apache-2.0. It does not come along. Each
architecture of its `nas-bench-macro_cifar10.json` becomes a row of the CSV: the eight digits of its
name are `b0` to `b7`, the block of each layer (0 identity, 1 and 2 inverted bottlenecks of
expansion 3 and 6 with kernels of 3 and 5); `mean_acc`, and the first of `test_acc` as `acc1`, both
in %; `params` and `flops`.
"""
GROUPED = """
## Networks or engines never seen

Harder than rows at random: n rows out of half of the networks (or engines), tested on all rows of
the other half. Residuals of one network are alike, so a row left out says less of a new network
than the calibration takes it to: intervals hold less often than they say.
"""
TIME = """
## Time

Processor time at 20 inputs, beside scikit-learn's GaussianProcessRegressor (Matern 5/2
ARD, no restart); predictions are mean and standard deviation.
"""


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


def problem_of(name: str, table: Table) -> tuple[Problem, Floats]:
    """The table as `codesign fit --table` sees it, and the logarithms of its analytic columns."""
    frame = table.frame.astype(str)
    prior = table.analytic[0] if len(table.analytic) == 1 else None
    problem = prepare(frame, Path(name), table.target, prior)
    if len(problem.y) < len(frame):
        raise ValueError(f"{name} has rows that cannot be used: {problem.notes}")
    sizes = [np.log(table.frame[column].to_numpy(float)) for column in table.analytic]
    return problem, np.column_stack(sizes)


def trial(problem: Problem, sizes: Floats | None, train: Rows, test: Rows) -> dict[str, float]:
    """MAPE (%) of each model, and coverage (%) and width (%) of the intervals of two."""
    log = logarithm(problem, train)[0]
    X, y, truth = problem.inputs(log), problem.y[train], problem.y[test]

    def error(mean: Floats) -> float:
        return float(100 * np.mean(np.abs(mean / truth - 1)))

    ours = Surrogate(problem.prior, log).fit(X[train], y)
    low, high = ours.interval(X[test], COVERAGE)
    found = {
        "surrogate": error(ours.predict(X[test])),
        "coverage": float(100 * np.mean((low <= truth) & (truth <= high))),
        "width": float(100 * np.mean((high - low) / truth)),
        "analytic": np.nan,
    }
    if problem.prior is not None:
        found["analytic"] = error(ours.formula(X[test]))
    elif sizes is not None:
        found["analytic"] = error(LinearRegression().fit(sizes[train], y).predict(sizes[test]))
    # On the surrogate's own inputs, the analytic estimate among them, and its own logarithm.
    Z, new, t = ours._z, ours.inputs(X[test]), np.log(y) if log else y
    found["linear regression"] = error(ours._unlog(LINEAR.fit(Z, t).predict(new)))
    boosting = GradientBoostingRegressor(random_state=0).fit(Z, t)
    found["gradient boosting"] = error(ours._unlog(boosting.predict(new)))
    process = zero_mean_process(Z.shape[1]).fit(Z, t)
    mean, std = process.predict(new, return_std=True)
    found["zero-mean GP"] = error(ours._unlog(mean))
    miss = np.abs((np.log(truth) if log else truth) - mean)
    found["zero-mean coverage"] = float(100 * np.mean(miss <= norm.ppf((1 + COVERAGE) / 2) * std))
    return found


def by_rows(n: int, rows: int, seed: int) -> tuple[Rows, Rows]:
    """Train on n rows at random, test on all others."""
    order = np.random.default_rng(seed).permutation(rows)
    return order[:n], order[n:]


def by_groups(n: int, groups: pd.Series, seed: int) -> tuple[Rows, Rows]:
    """Train on n rows out of half of the groups, test on all rows of the other half."""
    rng = np.random.default_rng(seed)
    names = rng.permutation(groups.unique())
    inside = groups.isin(names[: len(names) // 2]).to_numpy()
    return rng.permutation(np.flatnonzero(inside))[:n], np.flatnonzero(~inside)


def row(label: str, n: int, trials: pd.DataFrame) -> str:
    """Row of a table of errors; the star marks the lowest error of the plain models."""
    mean = trials.mean()
    best = mean[[*MODELS]].idxmin()
    # Standard error of the mean difference over the splits: the models share them.
    gap = (trials["surrogate"] - trials[best]).sem()
    cells = []
    for model in MODELS:
        text = "–" if np.isnan(mean[model]) else f"{mean[model]:.3g}"
        cells.append(f"{text}\\*" if model == best else text)
    behind = mean["surrogate"] - mean[best]
    cells += [f"**{mean['surrogate']:.3g}**", f"{behind:+.2g} ± {gap:.1g}"]
    cells += [f"{mean['coverage']:.0f}", f"{trials['coverage'].min():.0f}"]
    cells += [f"{mean['width']:.3g}", f"{mean['zero-mean coverage']:.0f}"]
    return f"| {label} | {n} | {' | '.join(cells)} |"


HEADS = (
    "| data | n | "
    + " | ".join(MODELS)
    + " | **surrogate** | beside the best (\\*) | coverage (%) | "
    "lowest split | width (%) | zero-mean coverage |\n|---|--:|" + "--:|" * (len(MODELS) + 6)
)


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
    known = {
        name: table._replace(frame=table.frame.loc[(rows := table.frame.drop_duplicates().index)],
                             groups={key: each.loc[rows] for key, each in table.groups.items()})
        for name, table in tables().items()
    }  # fmt: skip
    if path:
        known |= {f"NAS-Bench-Macro, {t}": accuracies(path, t) for t in ("mean_acc", "acc1")}
    data = {name: problem_of(name, table) for name, table in known.items()}
    made = {
        "synthetic layers": layers(np.random.default_rng(5)),
        "synthetic networks": networks(np.random.default_rng(6)),
        "Friedman 1": make_friedman1(2000, random_state=0),
        "diabetes": load_diabetes(return_X_y=True),
    }
    for name, (X, y) in made.items():
        prior = X.shape[1] - 1 if name.startswith("synthetic") else None
        data[name] = Problem(X, y, prior, positive=bool((y > 0).all())), None

    print(ABOUT)
    print("## Rows drawn at random\n")
    print(HEADS)
    work = [(name, n) for name in data for n in SIZES if n + 20 <= len(data[name][0].y)]
    for name, n in tqdm(work, "rows", unit="row"):
        problem, sizes = data[name]
        splits = [by_rows(n, len(problem.y), seed) for seed in SEEDS]
        print(row(name, n, pd.DataFrame([trial(problem, sizes, *each) for each in splits])))

    print(GROUPED)
    print(HEADS)
    work = [(name, key, n) for name in known for key in known[name].groups for n in GROUP_SIZES]
    for name, key, n in tqdm(work, "groups", unit="row"):
        groups, (problem, sizes) = known[name].groups[key], data[name]
        splits = [by_groups(n, groups, seed) for seed in SEEDS]
        if min(len(train) for train, _ in splits) == n:
            trials = pd.DataFrame([trial(problem, sizes, *each) for each in splits])
            print(row(f"{name}; other {key}s", n, trials))

    print(TIME)
    print("| n | fit (s) | scikit-learn (s) | predictions (1000/s) | scikit-learn | ratio |")
    print("|--:|--:|--:|--:|--:|--:|")
    for n in (100, 300, 500):
        print(speed(n))


if __name__ == "__main__":
    main()
