"""How good the surrogate is: on held-out rows beside plain models, all on the same rows."""

import warnings
from collections.abc import Sequence

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

_PLAIN = {  # on the surrogate's own inputs and logarithm, so that they are fair comparisons
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
) -> pd.DataFrame:
    """Test the surrogate beside plain models on held-out rows: cross-validated, or as `splits` say.

    X (n, d), y (n,), `prior` and `log` are as in `Surrogate`. `splits` are pairs of indices of rows
    to train and to test on; if there are none, shuffled folds by `seed`. One row a model, indexed
    by name, with `zero_mean` also that of `zero_mean_process`; columns: MAPE (%), MAE (target's
    unit), R2, Kendall tau, coverage (%) of the interval meant to hold `coverage`, and its mean
    width (target's unit). NaN where a model has no interval, and for MAPE where the target holds
    zero. Raises InputError unless 2 <= folds <= n.
    """
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if not splits:
        integer("folds", folds, 2, len(y))
        splits = list(KFold(folds, shuffle=True, random_state=seed).split(X))
    low, high = np.empty_like(y), np.empty_like(y)
    predicted: dict[str, Floats] = {}
    bar = tqdm(
        total=len(splits) * (1 + len(_PLAIN) + zero_mean),
        desc="held-out rows",
        unit="model",
        leave=False,
    )
    for train, test in splits:
        model = Surrogate(prior, log).fit(X[train], y[train])
        low[test], high[test] = model.interval(X[test], coverage)
        found = {"Gaussian process": model.predict(X[test])}
        bar.update()
        if prior is not None:
            found["analytic estimate"] = model._unlog(model._mean(X[test]))
        plain = _PLAIN | ({ZERO_MEAN: zero_mean_process(model._z.shape[1])} if zero_mean else {})
        for name, each in plain.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # plain models have their ways
                fitted = clone(each).fit(model._z, np.log(y[train]) if log else y[train])
            with np.errstate(over="ignore"):  # a plain model may be far off
                found[name] = model._unlog(fitted.predict(model._inputs(X[test])))
            bar.update()
        for name, values in found.items():
            predicted.setdefault(name, np.empty_like(y))[test] = values
    bar.close()
    held = np.sort(np.concatenate([test for _, test in splits]))
    truth, low, high = y[held], low[held], high[held]
    rows = {name: errors(truth, values[held]) for name, values in predicted.items()}
    rows["Gaussian process"]["coverage"] = 100 * float(np.mean((low <= truth) & (truth <= high)))
    rows["Gaussian process"]["width"] = float(np.mean(high - low))
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
