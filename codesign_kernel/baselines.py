"""How good the surrogate is: cross-validated beside plain models, all on the same folds."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import kendalltau
from sklearn.base import clone
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold
from tqdm.auto import tqdm

from .errors import integer
from .surrogate import Floats, Prior, Surrogate

_PLAIN = {  # on the surrogate's own inputs and logarithm, so that they are fair comparisons
    "linear regression": RidgeCV(np.logspace(-3, 3, 13)),
    "gradient boosting": GradientBoostingRegressor(random_state=0),
}


def compare(
    X: ArrayLike,
    y: ArrayLike,
    prior: Prior = None,
    log: bool = False,
    folds: int = 10,
    seed: int = 0,
    coverage: float = 0.9,
) -> pd.DataFrame:
    """Cross-validate the surrogate beside plain models, all on the same shuffled folds.

    X (n, d), y (n,), `prior` and `log` are as in `Surrogate`. One row a model, indexed by name;
    columns: MAPE (%), MAE (target's unit), R2, Kendall tau, coverage (%) of the interval meant to
    hold `coverage`, and its mean width (target's unit). NaN where a model has no interval, and for
    MAPE where the target holds zero. Raises InputError unless 2 <= folds <= n.
    """
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    integer("folds", folds, 2, len(y))
    low, high = np.empty_like(y), np.empty_like(y)
    predicted: dict[str, Floats] = {}
    splits = KFold(folds, shuffle=True, random_state=seed).split(X)
    for train, test in tqdm(splits, "cross-validation", folds, leave=False, unit="fold"):
        model = Surrogate(prior, log).fit(X[train], y[train])
        low[test], high[test] = model.interval(X[test], coverage)
        found = {"Gaussian process": model.predict(X[test])}
        if prior is not None:
            found["analytic estimate"] = model._unlog(model._mean(X[test]))
        for name, plain in _PLAIN.items():
            fitted = clone(plain).fit(model._z, np.log(y[train]) if log else y[train])
            found[name] = model._unlog(fitted.predict(model._inputs(X[test])))
        for name, values in found.items():
            predicted.setdefault(name, np.empty_like(y))[test] = values
    rows = {
        name: {
            "MAPE": 100 * np.mean(np.abs(p / y - 1)) if (y != 0).all() else np.nan,
            "MAE": np.mean(np.abs(p - y)),
            "R2": r2_score(y, p),
            "Kendall tau": kendalltau(y, p).statistic,
        }
        for name, p in predicted.items()
    }
    rows["Gaussian process"]["coverage"] = 100 * np.mean((low <= y) & (y <= high))
    rows["Gaussian process"]["width"] = np.mean(high - low)
    return pd.DataFrame.from_dict(rows, orient="index")
