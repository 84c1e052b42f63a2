"""The Gaussian process's covariance, the prior of its hyperparameters, and their posterior.

theta holds the logarithms of a, b, l_1 ... l_d and the noise variance: see `surrogate.py`.
Equations are those of Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, get_blas_funcs, solve_triangular
from scipy.optimize import minimize

Floats = NDArray[np.float64]
# Of theta less its prior mean: the negative log prior, up to a constant, and its gradient.
Penalty = Callable[[Floats], tuple[float, Floats]]

JITTER = 1e-8  # added to the diagonal, in units of the target's variance
_BLOCK = 128  # rows predicted at a time: the block's covariances stay in the processor's cache
_DEVIATIONS = 1.5, 1.0, 1.0  # standard deviations of log a, log b and log noise
_APART = 0.5  # standard deviation of what the logarithm of a length scale differs by from others'


def matern52(square: Floats) -> tuple[Floats, Floats, Floats]:
    """k = (1 + r + r^2/3) e^-r, r and e^-r of r^2 = 5 |u - u'|^2 (eq. 4.17); overwrites r^2."""
    r = np.sqrt(np.maximum(square, 0.0, out=square))
    decay = np.negative(r)
    np.exp(decay, out=decay)
    k = square
    k *= 1 / 3
    k += r
    k += 1
    k *= decay
    return k, r, decay


def covariance(theta: Floats, z: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Covariance (n, n) of the targets at z (n, d), its two terms, and what its gradient needs."""
    a, b, noise = np.exp(theta[[0, 1, -1]])
    u = z * (np.sqrt(5) / np.exp(theta[2:-1]))
    square = (u**2).sum(axis=1)
    distance = square[:, None] + square - 2 * u @ u.T
    np.fill_diagonal(distance, 0.0)
    matern, r, decay = matern52(distance)
    linear, matern, slope = a * z @ z.T, b * matern, b / 3 * (1 + r) * decay
    total = 1 + linear + matern
    total.flat[:: len(z) + 1] += noise + JITTER
    return total, linear, matern, slope, u


def hyperprior(d: int, spread: float = 1.0) -> tuple[Floats, Penalty]:
    """Mean (d + 3,) of the normal prior of theta for d inputs, and its negative logarithm.

    The mean length scale grows with sqrt(d), as distances do (Hvarfner, Hellsten & Nardi, ICML
    2024). Length scales share a broad factor and differ by narrow ones: so the kernel is all but
    isotropic where data are few, and has a scale for each input where they are many. `spread`
    widens all but the shared factor.
    """
    covariance = np.diag(spread**2 * _deviations(d) ** 2)
    covariance[2:-1, 2:-1] += 1.0
    precision = np.linalg.inv(covariance)

    def penalty(shift: Floats) -> tuple[float, Floats]:
        return float(shift @ precision @ shift / 2), precision @ shift

    return _centre(d), penalty


def heavy_hyperprior(d: int) -> tuple[Floats, Penalty]:
    """As `hyperprior`, but with tails of Student's t: theta far from the mean costs little more.

    That is for data with next to no noise, or with a few inputs that matter far more than others.
    1 degree of freedom for what length scales differ by, 3 for a, b and the noise.
    """
    scale = _deviations(d)
    freedom = np.array([3.0, 3.0, *[1.0] * d, 3.0])

    def penalty(shift: Floats) -> tuple[float, Floats]:
        apart, shared = shift.copy(), shift[2:-1].mean()
        apart[2:-1] -= shared
        ratio = apart**2 / (freedom * scale**2)
        gradient = (freedom + 1) * apart / (freedom * scale**2 + apart**2)
        value = (freedom + 1) @ np.log1p(ratio) / 2 + shared**2 / (2 + 2 * _APART**2 / d)
        gradient[2:-1] += shared / (d + _APART**2) - gradient[2:-1].mean()
        return float(value), gradient

    return _centre(d), penalty


def _deviations(d: int) -> Floats:
    return np.array([*_DEVIATIONS[:2], *[_APART] * d, _DEVIATIONS[2]])


def _centre(d: int) -> Floats:
    return np.array([np.log(0.3 / d), np.log(0.5), *[0.5 + 0.5 * np.log(d)] * d, -3.0])


def negative_log_posterior(
    theta: Floats, z: Floats, t: Floats, centre: Floats, penalty: Penalty, worth: float = 1.0
) -> tuple[float, Floats]:
    """Negative log posterior of theta, up to a constant, and its gradient, in O(n^3 + n^2 d).

    Targets t are (n,), or (n, m) of m processes that share theta and count as much as `worth`
    independent ones. Rasmussen & Williams 2006, eqs. 5.8 and 5.9. The derivative of the covariance
    by log l_j is slope (u_j - u'_j)^2: its sum against the weights needs no (n, n, d) array.
    """
    total, linear, matern, slope, u = covariance(theta, z)
    factor = cholesky(total, lower=True)
    inverse = cho_solve((factor, True), np.eye(len(t)))
    t = t.reshape(len(t), -1)
    alpha = inverse @ t
    share = worth / t.shape[1]
    weight = share * (alpha @ alpha.T) - worth * inverse
    slope *= weight
    by_length = 2 * (slope.sum(axis=1) @ u**2 - ((slope @ u) * u).sum(axis=0))
    by_scale = [np.vdot(weight, linear), np.vdot(weight, matern)]
    likelihood = np.array([*by_scale, *by_length, np.exp(theta[-1]) * np.trace(weight)])
    prior, slope_of_prior = penalty(theta - centre)
    fit = share * np.vdot(t, alpha) / 2 + worth * np.log(np.diag(factor)).sum()
    return float(fit + prior), slope_of_prior - likelihood / 2


def mode(
    z: Floats, t: Floats, centre: Floats, penalty: Penalty, start: Floats | None = None,
    tolerance: float = 1e-7, worth: float = 1.0,
) -> Floats:  # fmt: skip
    """The posterior mode of theta under a hyperprior, sought from `start` on, else from `centre`:
    see `negative_log_posterior`."""
    found = minimize(
        negative_log_posterior,
        centre if start is None else start,
        args=(z, t, centre, penalty, worth),
        jac=True,
        method="L-BFGS-B",
        bounds=[*((m - 6, m + 6) for m in centre[:-1]), (-12, 2)],
        options={"maxiter": 200, "ftol": tolerance},
    )
    return np.asarray(found.x)


def condition(theta: Floats, z: Floats, t: Floats) -> tuple[Floats, Floats, Floats]:
    """Condition the process on targets t, (n,) or (n, m), at z (n, d): return the inverse (n, n) of
    the covariance's Cholesky factor, the inverse covariance times the targets, and the standard
    deviations (n,) with which each row is predicted from the others.

    Rasmussen & Williams 2006, algorithm 2.1 and eq. 5.12.
    """
    factor = cholesky(covariance(theta, z)[0], lower=True)
    root: Floats = solve_triangular(factor, np.eye(len(z)), lower=True)
    return root, root.T @ (root @ t), 1 / np.linalg.norm(root, axis=0)


def crossing(theta: Floats, z: Floats, new: Floats, real: type) -> NDArray[Any]:
    """Covariance (m, n) of what is to be predicted at `new` (m, d) with the targets at z (n, d),
    of type `real`."""
    stretch = np.sqrt(5) / np.exp(theta[2:-1])
    a, b = np.exp(theta[:2]).astype(real)
    u: NDArray[Any] = np.asarray(z * stretch, real)
    v: NDArray[Any] = np.asarray(new * stretch, real)
    square = (v**2).sum(axis=1)[:, None] + (u**2).sum(axis=1) - 2 * v @ u.T
    k: NDArray[Any] = matern52(square)[0]
    k *= b
    k += a * (np.asarray(new, real) @ np.asarray(z, real).T)
    k += 1
    return k


def quantile(residuals: Floats, coverage: float) -> float:
    """How many standard deviations hold a measurement in `coverage` of cases, given those by which
    the n measurements left out are off.

    q lies between the normal quantile g(c) and the residuals' own, e(c), whose rank c (n + 1) is
    that of conformal prediction, and tends to the latter as n grows:

        q = sqrt(1 + 10/n) (n e(c) + 50 g(c)) / (n + 50)

    The root allows for hyperparameters that have seen the point left out. The two constants were
    chosen on accuracy and latency data at n = 20 to 200, on other splits of the tables that
    benchmarks/surrogate.md reports.
    """
    n, ordered = len(residuals), np.append(0.0, np.sort(np.abs(residuals)))
    own = np.interp(coverage * (n + 1), np.arange(n + 1), ordered)
    normal = NormalDist().inv_cdf((1 + coverage) / 2)
    return float(np.sqrt(1 + 10 / n) * (n * own + 50 * normal) / (n + 50))


def posterior(
    theta: Floats,
    z: Floats,
    root: Floats,
    alpha: Floats,
    new: Floats,
    with_std: bool,
    real: type,
    half: type,
) -> tuple[Floats, Floats, Floats]:
    """Mean and std, each (m,), of a measurement at `new` (m, d), given z (n, d), the inverse (n, n)
    of the covariance's Cholesky factor and alpha (n,), the inverse covariance times the targets.

    The mean is the sum of the first two: what the linear term adds, and the other. std is 0 unless
    asked for. Distances come from one matrix product of [u, 1, |u|^2] and [-2u', |u'|^2, 1], of
    type `real`; what the training data tell of the variance is of type `half`.
    """
    a, b, noise = np.exp(theta[[0, 1, -1]])
    stretch = np.sqrt(5) / np.exp(theta[2:-1])
    u, ones = z * stretch, np.ones((len(z), 1))
    right: NDArray[Any] = np.hstack([-2 * u, (u**2).sum(axis=1, keepdims=True), ones]).T.astype(
        real
    )
    linear = np.hstack([a * z, ones]).T
    line, bend = linear @ alpha, (b * alpha).astype(real)
    small: NDArray[Any] = np.asfortranarray(root, dtype=half)
    product = get_blas_funcs("trmm", (small,))
    u, ones = new * stretch, np.ones((len(new), 1))
    left: NDArray[Any] = np.hstack([u, ones, (u**2).sum(axis=1, keepdims=True)]).astype(real)
    new = np.hstack([new, ones])
    bent: NDArray[Any] = np.empty(len(new), dtype=real)
    known = np.zeros(len(new))
    for i in range(0, len(new), _BLOCK):
        rows = slice(i, i + _BLOCK)
        k = matern52(left[rows] @ right)[0]
        bent[rows] = k @ bend
        if with_std:
            k *= real(b)
            k += new[rows] @ linear
            v = product(1.0, small, k.astype(half, copy=False).T, lower=1, overwrite_b=1)
            known[rows] = np.einsum("ij,ij->j", v, v)
    if not with_std:
        return new @ line, bent, known
    left_over = 1 + b + a * (new[:, :-1] ** 2).sum(axis=1) - known
    return new @ line, bent, np.sqrt(np.maximum(left_over, 0.0) + noise)
