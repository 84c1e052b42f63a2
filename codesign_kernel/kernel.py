"""The Gaussian process's covariance, the prior of its hyperparameters, and their posterior.

theta holds the logarithms of a, b, l_1 ... l_d and the noise variance: see `surrogate.py`.
Equations are those of Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky

Floats = NDArray[np.float64]

JITTER = 1e-8  # added to the diagonal, in units of the target's variance


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


def hyperprior(d: int) -> tuple[Floats, Floats]:
    """Mean (d + 3,) and precision (d + 3, d + 3) of the normal prior of theta for d inputs.

    The mean length scale grows with sqrt(d), as distances do (Hvarfner, Hellsten & Nardi, ICML
    2024). Length scales share a broad factor and differ by narrow ones: so the kernel is all but
    isotropic where data are few, and has a scale for each input where they are many.
    """
    length = 0.5 + 0.5 * np.log(d)
    mean = np.array([np.log(0.3 / d), np.log(0.5), *[length] * d, -3.0])
    covariance = np.diag([1.5**2, 1.0, *[0.5**2] * d, 1.0])
    covariance[2:-1, 2:-1] += 1.0
    return mean, np.linalg.inv(covariance)


def negative_log_posterior(
    theta: Floats, z: Floats, t: Floats, centre: Floats, precision: Floats
) -> tuple[float, Floats]:
    """Negative log posterior of theta, up to a constant, and its gradient, in O(n^3 + n^2 d).

    Rasmussen & Williams 2006, eqs. 5.8 and 5.9. The derivative of the covariance by log l_j is
    slope (u_j - u'_j)^2: its sum against the weights needs no (n, n, d) array.
    """
    total, linear, matern, slope, u = covariance(theta, z)
    factor = cholesky(total, lower=True)
    inverse = cho_solve((factor, True), np.eye(len(t)))
    alpha = inverse @ t
    weight = np.outer(alpha, alpha) - inverse
    slope *= weight
    by_length = 2 * (slope.sum(axis=1) @ u**2 - ((slope @ u) * u).sum(axis=0))
    by_scale = [np.vdot(weight, linear), np.vdot(weight, matern)]
    likelihood = np.array([*by_scale, *by_length, np.exp(theta[-1]) * np.trace(weight)])
    shift = theta - centre
    value = t @ alpha / 2 + np.log(np.diag(factor)).sum() + shift @ precision @ shift / 2
    return float(value), precision @ shift - likelihood / 2
