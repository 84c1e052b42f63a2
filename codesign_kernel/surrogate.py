"""Surrogate: a Gaussian process with an analytic prior mean and calibrated intervals.

Few designs are measured, millions are predicted. What an analytic formula says of a design is the
prior mean; the Gaussian process learns what the formula leaves out:

    t(x) = m(x) + f(x) + noise,    cov f(x), f(x') = 1 + a z.z' + b matern52(|(z - z') / l|)

where t is the target or its logarithm, m the analytic estimate and z the standardised inputs. The
linear term is a Bayesian linear regression, so that the process is hardly ever worse than one.
Hyperparameters are the posterior mode: the maximum of the likelihood alone is badly over-confident
at 20 points. Their prior has tails of a normal distribution, or of Student's t if that predicts the
rows left out far better. What over-confidence is left, the leave-one-out residuals correct.

Posterior and gradient are computed here and not by scikit-learn's GaussianProcessRegressor, which
gives the same numbers (the tests hold it to that) but fits and predicts several times slower.
"""

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from .errors import InputError, integer, number
from .kernel import (
    JITTER,
    Floats,
    Penalty,
    condition,
    heavy_hyperprior,
    hyperprior,
    mode,
    posterior,
    quantile,
)

Prior = int | Callable[[Floats], ArrayLike] | None

_GAIN = 0.3  # mean log density of a row left out, in nats: its std is a quarter less
_ROWS = 20  # fewer, such as a regular grid that hides steps between, tell too little of the noise
_SHIFT, _STRETCH = 1e-3, 5e-3  # of its std a mean, of itself a std may move in single precision
_FAR, MOST = 1e15, 1e100  # from there on squares lose all meaning, or overflow


class Surrogate(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn regressor: exact Gaussian process, analytic prior mean, calibrated intervals.

    Args:
        prior: what an analytic formula says of the target, in the target's unit or proportional to
            it: the index of the column of X that holds it, or a callable X (n, d) -> (n,). It is
            the prior mean and also an input, so that its exponent is learnt. None: constant mean.
        log: model the logarithm of the target, for positive quantities such as latency and power.
            The prior then multiplies, columns without negative values enter by their logarithm
            (arcsinh of eight times its ratio to the smallest positive value, which allows zeros).

    Attributes after `fit`: `theta_`, the logarithms of a, b, l_1 ... l_d and the noise variance,
    in units of the standardised target and inputs; `n_features_in_` and `feature_names_in_`.
    """

    def __init__(self, prior: Prior = None, log: bool = False) -> None:
        self.prior = prior
        self.log = log

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit to inputs X (n, d) and target y (n,), n >= 2. Deterministic; a second at n = 500.

        Raises InputError if `prior` is no column of X, a value exceeds 1e100 in size, or with `log`
        if one is not positive.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        X, y = np.asarray(X), np.asarray(y, dtype=np.float64)
        for name, values in (("X", X), ("y", y)):
            if (size := np.abs(values).max()) > MOST:
                raise InputError(f"{name} holds {size:g} in size, but must be at most {MOST:g}.")
        self._standardise(X, y)
        d = self._z.shape[1]
        usual = self._mode(*hyperprior(d))
        if len(y) < _ROWS:
            return self._condition(usual)
        best, enough = usual, self._solve(usual).log_density() + _GAIN
        # The heavy-tailed posterior has several modes: the broad one leads to that of most promise.
        broad = self._mode(*hyperprior(d, 3.0), tolerance=2e-3)
        if self._solve(broad).log_density() > enough:
            heavy = self._mode(*heavy_hyperprior(d), broad, tolerance=2e-5)
            best = heavy if self._solve(heavy).log_density() > enough else usual
        return self._condition(best)

    def predict(self, X: ArrayLike, return_std: bool = False) -> Any:
        """Return the mean (n,) at X (n, d) in the target's unit, or (mean, std) of a measurement.

        With `log` the mean is the exponential of the logarithm's, i.e. the median, and std is mean
        times the logarithm's (delta method). std includes the noise and is not calibrated: for
        error bars use `interval`.
        """
        mean, std = self._posterior(X, return_std)
        mean = self._unlog(mean)
        return (mean, mean * std if self.log else std) if return_std else mean

    def interval(self, X: ArrayLike, coverage: float = 0.9) -> tuple[Floats, Floats]:
        """Return (low, high), each (n,), to hold a measurement at X (n, d) in `coverage` of cases.

        Half-width: the standard deviation times `kernel.quantile` of the leave-one-out residuals.
        Raises InputError unless 0.01 <= coverage <= 0.999.
        """
        return self.estimate(X, coverage)[1:]

    def estimate(
        self, X: ArrayLike, coverage: float | None = None, single: bool = False
    ) -> tuple[Floats, Floats, Floats]:
        """Return what `predict` and `interval` do, at once: (mean, low, high), each (n,).

        Without `coverage`, low and high are the mean. In `single` precision it is twice as fast,
        and no mean moves by a thousandth of its std: where one could, it is ignored.
        """
        if coverage is None:
            mean = self._unlog(self._posterior(X, False, single)[0])
            return mean, mean, mean
        c = number("coverage", coverage, 0.01, 0.999)
        mean, std = self._posterior(X, True, single)
        half = quantile(self._loo_z, c) * std
        return self._unlog(mean), self._unlog(mean - half), self._unlog(mean + half)

    def believing(self, X: ArrayLike) -> "Surrogate":
        """Return a surrogate that has seen rows X (n, d) turn out as this one predicts them."""
        (arrays, about), X = self.to_arrays(), np.asarray(X, dtype=np.float64)
        y = np.append(self._y, self.predict(X))
        return self.from_arrays(arrays | {"X": np.vstack([self._X, X]), "y": y}, about)

    def formula(self, X: Floats) -> Floats:
        """Return what the analytic prior alone says at X (n, d), (n,), in the target's unit: times
        the factor that suits what it was fitted to."""
        return self._unlog(self._mean(X))

    def leave_one_out(self) -> tuple[Floats, Floats]:
        """Return (mean, std), each (n,), of every training point as predicted from the others.

        Closed form at the fitted hyperparameters, in the target's unit as in `predict`
        (Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, eqs. 5.10-5.12).
        """
        check_is_fitted(self)
        std = self._scale * self._loo_std
        mean = self._unlog(self._mean(self._X) + self._scale * self._t - std * self._loo_z)
        return mean, mean * std if self.log else std

    def log_density(self) -> float:
        """Return how well the training points are predicted from the others: mean log density.

        That is of the target in its own unit, in nats, so that with and without `log` compare
        (Rasmussen & Williams 2006, eqs. 5.10-5.11, and the logarithm's Jacobian).
        """
        check_is_fitted(self)
        density = norm.logpdf(self._loo_z) - np.log(self._scale * self._loo_std)
        return float(np.mean(density - np.log(self._y) if self.log else density))

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return arrays and a JSON-able description from which `from_arrays` restores self.

        Raises InputError if the prior is a callable, which only a pickle could hold.
        """
        check_is_fitted(self)
        if callable(self.prior):
            raise InputError("prior is a callable, but must be a column or None to be stored.")
        names = getattr(self, "feature_names_in_", None)
        about = {
            "prior": None if self.prior is None else int(self.prior),
            "log": bool(self.log),
            "names": None if names is None else list(names),
        }
        return {"X": self._X, "y": self._y, "theta": self.theta_}, about

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> Self:
        """Return the fitted surrogate that `to_arrays` described; it is not fitted anew.

        Raises InputError if a part is absent or does not fit the others.
        """
        try:
            model, names = cls(about["prior"], about["log"]), about["names"]
            X, y, theta = (np.asarray(arrays[k], dtype=np.float64) for k in ("X", "y", "theta"))
            width = X.shape[1]
            shapes = y.shape == X.shape[:1] and theta.shape == (width + 3,)
            named = names is None or len(names) == width
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"The stored surrogate is damaged: {error!r}.") from None
        finite = all(np.isfinite(part).all() for part in (X, y, theta))
        if not (shapes and named and finite and isinstance(model.log, bool)):
            raise InputError("The stored surrogate is damaged: its parts do not fit each other.")
        model.n_features_in_ = width
        if names is not None:
            model.feature_names_in_ = np.asarray(names, dtype=object)
        model._standardise(X, y)
        return model._condition(theta)

    def _estimate(self, X: Floats) -> Floats:
        """The prior's values (n,) at X (n, d), as given."""
        if callable(self.prior):
            values = np.asarray(self.prior(X), dtype=np.float64)
            if values.shape != (len(X),):
                raise InputError(f"prior returns shape {values.shape}, but must ({len(X)},).")
        else:
            values = X[:, integer("prior", self.prior, -X.shape[1], X.shape[1] - 1)]
        if not np.isfinite(values).all() or (self.log and (values <= 0).any()):
            kind = "positive" if self.log else "finite"
            raise InputError(f"prior gives {values.min()}, but must be {kind} everywhere.")
        return values

    def _near(self, X: Floats) -> Floats:
        """Inputs z of X (n, d), all near enough to the training data to predict."""
        with np.errstate(over="ignore"):
            z = self.inputs(X)
        if (far := np.abs(z) > _FAR).any():
            row = X[far.any(axis=1)][0]
            raise InputError(
                f"X holds {row[np.abs(row).argmax()]:g}, but must be within {_FAR:g} standard "
                "deviations of the values that the surrogate was fitted to."
            )
        return z

    def _mean(self, X: Floats) -> Floats:
        """The prior mean m (n,), of the target or its logarithm."""
        if self.prior is None:
            return np.full(len(X), self._offset)
        values = self._estimate(X)
        return self._offset + (np.log(values) if self.log else self._ratio * values)

    def inputs(self, X: Floats) -> Floats:
        """Return inputs z of X (n, d), with the prior among them: logarithms where due,
        standardised as those that it was fitted to."""
        full = np.column_stack([X, self._estimate(X)]) if callable(self.prior) else X.copy()
        full[:, self._logged] = np.arcsinh(full[:, self._logged] / self._unit)
        return (full - self._centre) / self._spread

    def _standardise(self, X: Floats, y: Floats) -> None:
        """Set the scales of inputs and target, and the standardised z (n, d) and t (n,)."""
        if self.log and (y <= 0).any():
            raise InputError(f"y holds {y.min()}, but must be positive to have a logarithm.")
        self._X, self._y, self._offset, self._ratio = X, y, 0.0, 1.0
        self._logged, self._unit = np.arange(0), np.ones(0)
        self._centre, self._spread = np.zeros(1), np.ones(1)
        if self.log:
            raw = self.inputs(X)
            self._logged = np.flatnonzero((raw >= 0).all(axis=0) & (raw > 0).any(axis=0))
            self._unit = np.where(raw > 0, raw, np.inf).min(axis=0)[self._logged] / 8
        elif self.prior is not None:
            values = self._estimate(X)
            self._ratio = float(values @ y) / max(float(values @ values), 1e-300)
        # A constant column is measured by its own size: a design that departs from it is far off.
        self._centre, self._spread = _scales(self.inputs(X))
        self._z = self.inputs(X)
        residual: Floats = (np.log(y) if self.log else y) - self._mean(X)
        self._offset, self._scale = (float(value) for value in _scales(residual))
        self._t = (residual - self._offset) / self._scale

    def _mode(self, centre: Floats, penalty: Penalty, *how: Any, **more: Any) -> Floats:
        return mode(self._z, self._t, centre, penalty, *how, **more)

    def _solve(self, theta: Floats) -> Self:
        """Condition the process on the training data."""
        self.theta_ = theta
        self._root, self._alpha, self._loo_std = condition(theta, self._z, self._t)
        self._loo_z = self._alpha * self._loo_std  # (t - mean) / std
        return self

    def _condition(self, theta: Floats) -> Self:
        """The same, and find out where single precision will do."""
        self._solve(theta)
        # Single precision errs most at the training points, where the posterior has a closed form.
        # Elsewhere it was seen to err up to 1.6 times as much: half of what is allowed leaves room.
        noise = np.exp(theta[-1]) + JITTER
        std = np.sqrt(np.maximum(noise - (noise / self._loo_std) ** 2, 0.0) + np.exp(theta[-1]))
        line, bend, rough = self._conditional(self._z, True, np.float32, np.float32)
        shift = np.abs(line + bend - (self._t - noise * self._alpha)) / std
        self._single = bool(shift.max() < _SHIFT / 2)
        self._half = bool(np.abs(rough / std - 1).max() < _STRETCH / 2)
        return self

    def _posterior(
        self, X: ArrayLike, with_std: bool, single: bool = False
    ) -> tuple[Floats, Floats]:
        """Mean and std, each (n,), of the target or its logarithm; std is 0 unless asked for."""
        check_is_fitted(self)
        X = np.asarray(validate_data(self, X, dtype=np.float64, reset=False))
        z = self._near(X)
        mean, real = self._mean(X), np.float32 if single and self._single else np.float64
        line, bend, std = self._conditional(
            z, with_std, real, np.float32 if self._half else np.float64
        )
        mean += self._scale * line
        mean += self._scale * bend
        return mean, self._scale * std

    def _conditional(self, z: Floats, *how: Any) -> tuple[Floats, Floats, Floats]:
        return posterior(self.theta_, self._z, self._root, self._alpha, z, *how)

    def _unlog(self, values: Floats) -> Floats:
        """From the target or its logarithm to the target."""
        return np.exp(values) if self.log else values


def _scales(values: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each column; of a constant one its size, or 1 if it is 0."""
    centre, spread = values.mean(axis=0), values.std(axis=0)
    size = np.abs(centre)
    return centre, np.where(spread > 1e-12 * size, spread, np.where(size > 0, size, 1.0))
