"""Accuracy from single images: a Gaussian process of the margins by which networks are right.

The accuracy of a network on some images is a count, and luck in part. But its margin on an image,
what it gives the image's class less what it gives the best of the others, changes smoothly from
network to network. So the margin on each image is a target of its own,

    t_i(x) = m_i + s_i (f_i(x) + noise_i),    f_i as in `surrogate.py`, theta the same for all;

image i is right with probability P_i = Phi(E t_i / std t_i), and the accuracy is their mean. That
learns from each image of a measurement, where `Surrogate` learns from their count: which networks
are lucky on these images is in part predicted. How networks that were left out turn out says by
what line the logarithm of the error rate is to be mended, and how wide the interval is: images are
right or wrong together, so the deviation is as the number of those that could be either.
"""

import copy
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError, number
from .kernel import Floats, condition, crossing, hyperprior, mode, quantile

STEPS = 32  # of a code, to one of the margin's area sinus hyperbolicus
Codes = NDArray[np.int8]

_SURE = 4.0  # deviations from 0 beyond which an image is left out, if all networks agree on it
_FEWEST = 10  # images that are kept in any case
_TELLING = 300  # images from which theta is learnt: those nearest to 0
_WORTH = 20.0  # independent images that these count as
_CALM = 5.0  # images' noise and the mended line are shrunk as by so many networks
_BLOCK = 128  # networks predicted at a time, to stay in the processor's cache


def encode(margins: ArrayLike, right: ArrayLike) -> Codes:
    """Return margins (n,), in units of the network's outputs, as bytes: positive where `right`.

    In steps of 1/STEPS of asinh(margin), which is linear near 0, where it matters.
    """
    steps = np.clip(np.rint(STEPS * np.arcsinh(margins)), -127, 127)
    steps = np.where(right, np.maximum(steps, 1), np.minimum(steps, -1))
    return np.asarray(steps, np.int8)


def accuracy_of(codes: Codes) -> Floats:
    """Return the accuracy in %, (...,), that codes (..., images) say."""
    return np.asarray(100.0 * (codes > 0).sum(axis=-1) / codes.shape[-1])


class ImageSurrogate:
    """Predicts the accuracy in % that networks have on the images on which others were measured.

    Attributes after `fit`: `theta_` as of `Surrogate`; `images_`, how many there are in all.
    """

    def fit(self, X: ArrayLike, codes: Codes) -> Self:
        """Fit to descriptions X (n, d) of networks and their `codes` (n, images), n >= 2.

        Deterministic; some seconds at n = 300.
        """
        X = np.asarray(X, np.float64)
        _, centre = _standardised(codes)
        distance = np.abs(centre)
        mixed = (codes > 0).any(axis=0) & (codes < 0).any(axis=0)
        some = min(_FEWEST, codes.shape[1]) - 1
        kept = mixed | (distance <= max(_SURE, float(np.partition(distance, some)[some])))
        self.images_, self._sure = codes.shape[1], int((codes[0, ~kept] > 0).sum())
        self._X, self._codes = X, codes[:, kept]
        t, centre = _standardised(self._codes)
        telling = np.argsort(np.abs(centre), kind="stable")[:_TELLING]
        z = self._inputs(X)
        theta = mode(z, t[:, telling], *hyperprior(z.shape[1]), tolerance=1e-6, worth=_WORTH)
        return self._condition(theta)

    def predict(self, X: ArrayLike) -> Floats:
        """Return the accuracy expected at X (n, d), (n,) in %."""
        return self.estimate(X)[0]

    def interval(self, X: ArrayLike, coverage: float = 0.9) -> tuple[Floats, Floats]:
        """Return (low, high), (n,) each, to hold the accuracy at X (n, d) in `coverage` of cases.

        Raises InputError unless 0.01 <= coverage <= 0.999.
        """
        return self.estimate(X, coverage)[1:]

    def estimate(
        self, X: ArrayLike, coverage: float | None = None, single: bool = False
    ) -> tuple[Floats, Floats, Floats]:
        """Return what `predict` and `interval` do, at once: (mean, low, high), each (n,).

        Without `coverage`, low and high are the mean; `single` precision is faster.
        """
        mean, std = self._posterior(self._inputs(X), np.float32 if single else np.float64)
        if coverage is None:
            return mean, mean, mean
        half = quantile(self._loo_z, number("coverage", coverage, 0.01, 0.999)) * std
        return mean, mean - half, mean + half

    def believing(self, X: ArrayLike) -> Self:
        """Return a surrogate that has seen networks X (n, d) turn out as this one predicts them."""
        other, z = copy.copy(self), self._inputs(X)
        expected = crossing(self.theta_, self._z, z, np.float64) @ self._alpha
        other._solve(np.vstack([self._z, z]), np.vstack([self._t, expected]))
        return other

    def leave_one_out(self) -> tuple[Floats, Floats]:
        """Return (mean, std), (n,) each in %, of every network's accuracy as predicted from the
        others (Rasmussen & Williams 2006, eqs. 5.10-5.12, for each image)."""
        return self._loo, self._loo_std

    def log_density(self) -> float:
        """Return how well accuracies are predicted from the others: mean log density, in nats.

        As `Surrogate.log_density`, with which it compares.
        """
        return float(np.mean(-(self._loo_z**2) / 2 - np.log(np.sqrt(2 * np.pi) * self._loo_std)))

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return arrays and a JSON-able description from which `from_arrays` restores self."""
        about = {"images": self.images_, "sure": self._sure}
        return {"X": self._X, "codes": self._codes, "theta": self.theta_}, about

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> Self:
        """Return the fitted surrogate that `to_arrays` described; it is not fitted anew.

        Raises InputError if a part is absent or does not fit the others.
        """
        try:
            model = cls()
            model.images_, model._sure = int(about["images"]), int(about["sure"])
            model._X, theta = (np.asarray(arrays[name], np.float64) for name in ("X", "theta"))
            model._codes = np.asarray(arrays["codes"], np.int8)
            n, d = model._X.shape
            fits = len(model._codes) == n > 1 and theta.shape == (d + 3,)
            fits &= 0 < model._codes.shape[1] <= model.images_
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"The stored surrogate is damaged: {error!r}.") from None
        if not (fits and np.isfinite(model._X).all() and np.isfinite(theta).all()):
            raise InputError("The stored surrogate is damaged: its parts do not fit each other.")
        return model._condition(theta)

    def _inputs(self, X: ArrayLike) -> Floats:
        """Inputs z (n, d), standardised as the networks measured."""
        spread = self._X.std(axis=0)
        shift = np.asarray(X, np.float64) - self._X.mean(axis=0)
        return np.asarray(shift / np.where(spread > 1e-12, spread, 1.0))

    def _condition(self, theta: Floats) -> Self:
        """Condition the processes on the margins, and calibrate what follows of the accuracy."""
        self.theta_ = theta
        t, self._centre = _standardised(self._codes)
        self._noise = np.ones(len(self._centre))
        self._solve(self._inputs(self._X), t)
        n, std = len(t), self._left_out
        off = self._alpha * std[:, None]  # deviations by which margins left out are off
        self._noise = np.sqrt(((off**2).sum(axis=0) + _CALM) / (n + _CALM))
        truth = 100.0 * ((self._codes > 0).sum(axis=1) + self._sure) / self.images_
        self._line = np.zeros(3)
        left_out = (t - off * std[:, None]) / self._noise
        mean, unsure = self._count(left_out, np.empty_like(t), std)
        level, goal = self._level(mean), self._level(truth)
        sides = np.column_stack([np.ones(n), level - level.mean()])
        calm = np.diag([0.0, _CALM * (level.var() + 0.01)])
        self._line[:2] = np.linalg.solve(sides.T @ sides + calm, sides.T @ (goal - level))
        self._line[2], self._wide = level.mean(), 1.0
        self._loo, std = self._mended(mean, unsure)
        self._wide = float(np.sqrt(((truth - self._loo) ** 2).sum() / (std**2).sum()) + 1e-9)
        self._loo_std = self._wide * std
        self._loo_z = (truth - self._loo) / self._loo_std
        return self

    def _solve(self, z: Floats, t: Floats) -> None:
        self._z, self._t = z, t
        self._root, self._alpha, self._left_out = condition(self.theta_, z, t)

    def _posterior(self, z: Floats, real: type) -> tuple[Floats, Floats]:
        """Mean and std (n,) of the accuracy at inputs z (n, d)."""
        a, b, noise = np.exp(self.theta_[[0, 1, -1]])
        alpha: NDArray[Any] = np.asarray(self._alpha / self._noise, real)
        root: NDArray[Any] = np.asarray(self._root.T, real)
        mean, unsure = np.empty(len(z)), np.empty(len(z))
        shape = (2, min(_BLOCK, len(z)), alpha.shape[1])
        t: NDArray[Any] = np.empty(shape, real)  # for all blocks: new memory is slow
        for at in range(0, len(z), _BLOCK):
            rows = slice(at, at + _BLOCK)
            k = crossing(self.theta_, self._z, z[rows], real)
            known = ((k @ root) ** 2).sum(axis=1, dtype=np.float64)
            left = np.maximum(1 + b + a * (z[rows] ** 2).sum(axis=1) - known, 0.0)
            np.matmul(k, alpha, out=t[0, : len(k)])
            first, second = t[:, : len(k)]
            mean[rows], unsure[rows] = self._count(first, second, np.sqrt(left + noise))
        return self._mended(mean, unsure)

    def _count(self, t: NDArray[Any], cubic: NDArray[Any], std: Floats) -> tuple[Floats, Floats]:
        """What part of all images is right, and could be either, (n,) each in %, given what is
        expected of the margins beyond their mean, t (n, images), both in units of the images'
        noise, and their deviation (n,). Overwrites t and `cubic`, as large.

        Phi(t) = (1 + tanh(sqrt(2/pi) (t + 0.044715 t^3))) / 2, off by less than 0.0002 (Page,
        Applied Statistics 26, 1977).
        """
        real = t.dtype.type
        t += (self._centre / self._noise).astype(real)
        t /= std[:, None].astype(real)
        np.multiply(t, t, out=cubic)
        cubic *= real(np.sqrt(2 / np.pi) * 0.044715)
        cubic += real(np.sqrt(2 / np.pi))
        t *= cubic
        np.tanh(t, out=t)
        images, share = t.shape[1], 100 / self.images_
        right = (images + t.sum(axis=1)) / 2 + self._sure
        either = (images - np.einsum("ij,ij->i", t, t)) / 4
        return share * right, share * (np.maximum(either, 0.0) + 0.5)

    def _level(self, accuracy: Floats) -> Floats:
        """The logarithm of the error rate, which half an image keeps from 0."""
        return np.asarray(np.log(100 - accuracy + 50 / self.images_))

    def _mended(self, mean: Floats, unsure: Floats) -> tuple[Floats, Floats]:
        """Mean and std of the accuracy, (n,) each, of what the margins say."""
        offset, slope, middle = self._line
        level = self._level(mean)
        moved = level + offset + slope * (level - middle)
        return 100 + 50 / self.images_ - np.exp(moved), self._wide * unsure * np.exp(moved - level)


def _standardised(codes: Codes) -> tuple[Floats, Floats]:
    """Margins t (n, images) with mean 0 and deviation 1, and what their mean was in units of the
    deviation, (images,)."""
    margins = codes.astype(np.float64) / STEPS
    mean, spread = margins.mean(axis=0), np.maximum(margins.std(axis=0), 1 / STEPS)
    return (margins - mean) / spread, mean / spread
