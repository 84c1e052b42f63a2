"""How good the surrogate is: on held-out rows beside plain models, all on the same rows."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kendalltau
from sklearn.base import clone
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold
from tqdm.auto import tqdm

from .errors import integer
from .kernel import Floats
from .surrogate import Prior, Surrogate

Split = tuple[NDArray[np.int64], NDArray[np.int64]]
Other = Callable[[NDArray[np.int64], NDArray[np.int64]], tuple[Floats, Floats, Floats]]
PROCESS, ALONE = "Gaussian process", "Gaussian process, accuracies alone"

_PLAIN = {  # on the same inputs and logarithm as `Surrogate`, but not on those of an `other`
    "linear regression": RidgeCV(np.logspace(-3, 3, 13)),
    "gradient boosting": GradientBoostingRegressor(random_state=0),
}
ZERO_MEAN = "zero-mean Gaussian process"


def zero_mean_process(inputs: int) -> GaussianProcessRegressor:
    """Return a Gaussian process as it is commonly used: Matern 5/2 ARD, maximum likelihood."""
    kernel = ConstantKernel() * Matern(np.ones(inputs), nu=2.5) + WhiteKernel(0.01)
    return GaussianProcessRegressor(kernel, normalize_y=True)


def compare(
    X: ArrayLike,
    y: ArrayLike,
    prior: Prior = None,
    log: bool = False,
    folds: int = 10,
    seed: int = 0,
    coverage: float = 0.9,
    *,
    splits: Sequence[Split] = (),
    zero_mean: bool = False,
    other: Other | None = None,
) -> pd.DataFrame:
    """Test the surrogate beside plain models on held-out rows: cross-validated, or as `splits` say.

    X (n, d), y (n,), `prior` and `log` are as in `Surrogate`. `splits` are pairs of indices of rows
    to train and to test on; if there are none, shuffled folds by `seed`. One row a model, indexed
    by name, with `zero_mean` also that of `zero_mean_process`. `other` predicts rows to test on
    from rows to train on, (mean, low, high), in the surrogate's place, which is ALONE then. It may
    know more of the rows than the plain models do, as of each image and gene: what compares like
    with like is the row ALONE. If folds of the same rows chose it (`predict.fit_accuracy`), that
    choice is not nested in these tests.
    Columns: MAPE (%), MAE (target's unit), R2, Kendall tau, coverage (%) of the interval meant to
    hold `coverage`, and its mean width (target's unit). NaN where a model has no
    interval, and for MAPE where the target holds zero. Raises InputError unless 2 <= folds <= n.
    """
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if not splits:
        integer("folds", folds, 2)
        integer(f"the number of rows, of which {folds} folds are made,", len(y), folds)
        splits = list(KFold(folds, shuffle=True, random_state=seed).split(X))
    predicted: dict[str, Floats] = {}
    ends: dict[str, tuple[Floats, Floats]] = {}
    name = PROCESS if other is None else ALONE
    bar = tqdm(
        total=len(splits) * (1 + len(_PLAIN) + zero_mean),
        desc="held-out rows",
        unit="model",
        leave=False,
    )
    for train, test in splits:
        model = Surrogate(prior, log).fit(X[train], y[train])
        estimates = {} if other is None else {PROCESS: other(train, test)}
        estimates[name] = model.estimate(X[test], coverage)
        for each, (_, low, high) in estimates.items():
            sides = ends.setdefault(each, (np.empty_like(y), np.empty_like(y)))
            sides[0][test], sides[1][test] = low, high
        found = {each: values[0] for each, values in estimates.items()}
        bar.update()
        if prior is not None:
            found["analytic estimate"] = model.formula(X[test])
        known, asked = model.inputs(X[train]), model.inputs(X[test])
        plain = _PLAIN | ({ZERO_MEAN: zero_mean_process(known.shape[1])} if zero_mean else {})
        for kind, each in plain.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # plain models have their ways
                fitted = clone(each).fit(known, np.log(y[train]) if log else y[train])
            with np.errstate(over="ignore"):  # a plain model may be far off
                found[kind] = np.exp(fitted.predict(asked)) if log else fitted.predict(asked)
            bar.update()
        for kind, values in found.items():
            predicted.setdefault(kind, np.empty_like(y))[test] = values
    bar.close()
    held = np.sort(np.concatenate([test for _, test in splits]))
    truth = y[held]
    rows = {kind: errors(truth, values[held]) for kind, values in predicted.items()}
    for kind, sides in ends.items():
        low, high = (side[held] for side in sides)
        rows[kind]["coverage"] = 100 * float(np.mean((low <= truth) & (truth <= high)))
        rows[kind]["width"] = float(np.mean(high - low))
    return pd.DataFrame.from_dict(rows, orient="index")


def errors(y: Floats, predicted: Floats) -> dict[str, float]:
    """Return MAPE (%), MAE, R2 and Kendall tau of predictions (n,) of y (n,), n >= 2.

    NaN where there is none: MAPE of a zero, R2 of infinities, tau of constants.
    """
    finite = bool(np.isfinite(predicted).all())
    return {
        "MAPE": 100 * float(np.mean(np.abs(predicted / y - 1))) if (y != 0).all() else np.nan,
        "MAE": float(np.mean(np.abs(predicted - y))),
        "R2": float(r2_score(y, predicted)) if finite else np.nan,
        "Kendall tau": float(kendalltau(y, predicted).statistic),
    }
