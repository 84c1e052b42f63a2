"""The surrogate of accuracy that learns from each image, on networks made for the tests."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import kendalltau, norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

from codesign_kernel.errors import InputError
from codesign_kernel.kernel import JITTER, mode, negative_log_posterior
from codesign_kernel.margins import STEPS, Codes, ImageSurrogate, accuracy_of, encode
from codesign_kernel.surrogate import Surrogate

IMAGES = 400


def draw(n: int, seed: int = 0, noise: float = 0.3) -> tuple[np.ndarray, Codes]:
    """Return n networks, (n, 4), and their codes: margins are smooth in the network, an image's
    own function of it, and a common one."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, 4))
    hard, slopes = rng.normal(3, 3, IMAGES), np.random.default_rng(7).normal(0, 2, (4, IMAGES))
    hard = np.random.default_rng(8).normal(3, 3, IMAGES)
    common = 3 * np.sqrt(X[:, :1]) + np.sin(3 * X[:, 1:2])
    margins = hard + common + X @ slopes + noise * rng.normal(size=(n, IMAGES))
    return X, encode(margins, margins > 0)


@pytest.fixture(scope="module")
def fitted() -> ImageSurrogate:
    return ImageSurrogate().fit(*draw(60))


def test_codes_are_steps_of_the_area_sinus_and_keep_the_side() -> None:
    margins = np.array([0.0, 0.0, 1e-9, -1e-9, 1.0, -1.0, 1e9, -1e9])
    right = np.array([True, False, True, False, True, False, True, False])
    codes = encode(margins, right)
    assert codes.dtype == np.int8
    assert codes.tolist() == [1, -1, 1, -1, 28, -28, 127, -127]  # asinh(1) = 0.8814
    assert accuracy_of(codes) == 50.0
    np.testing.assert_array_equal(accuracy_of(np.array([[1, 1], [1, -1]], np.int8)), [100, 50])


def test_the_process_of_an_image_is_that_of_scikit_learn(fitted: ImageSurrogate) -> None:
    X, codes = draw(60)
    theta, z = fitted.theta_, (X - X.mean(axis=0)) / X.std(axis=0)
    a, b, noise = np.exp(theta[[0, 1, -1]])
    kernel = (
        ConstantKernel(1.0)
        + ConstantKernel(a) * DotProduct(1e-9)
        + ConstantKernel(b) * Matern(np.exp(theta[2:-1]), nu=2.5)
        + WhiteKernel(noise)
    )
    margins = codes / STEPS
    image = int(np.argmin(np.abs(margins.mean(axis=0))))
    t = (margins[:, image] - margins[:, image].mean()) / margins[:, image].std()
    theirs = GaussianProcessRegressor(kernel, optimizer=None, alpha=JITTER).fit(z, t)
    new = np.random.default_rng(3).random((9, 4))
    mean, std = theirs.predict((new - X.mean(axis=0)) / X.std(axis=0), return_std=True)
    # All other images left out, and the line of before it is mended: what one image says.
    one = ImageSurrogate.from_arrays(
        {"X": X, "codes": codes[:, [image]], "theta": theta}, {"images": 1, "sure": 0}
    )
    one._line[:2] = 0.0
    expected = ndtr((mean + one._centre[0]) / (std * one._noise[0]))
    np.testing.assert_allclose(one.predict(new) / 100, expected, atol=3e-4)


def test_many_targets_count_as_much_as_they_are_worth() -> None:
    rng = np.random.default_rng(0)
    z, t, theta = rng.normal(size=(12, 2)), rng.normal(size=(12, 3)), rng.normal(size=5) / 3

    def none(shift: np.ndarray) -> tuple[float, np.ndarray]:
        return 0.0, np.zeros_like(shift)

    each = [negative_log_posterior(theta, z, t[:, i], theta, none) for i in range(3)]
    value, slope = negative_log_posterior(theta, z, t, theta, none, worth=3.0)
    assert value == pytest.approx(sum(one[0] for one in each))
    np.testing.assert_allclose(slope, sum(one[1] for one in each))
    best = mode(z, t, theta, none, worth=3.0)
    assert negative_log_posterior(best, z, t, theta, none, 3.0)[0] < value


def test_it_ranks_better_than_what_learns_from_counts(fitted: ImageSurrogate) -> None:
    (X, codes), (new, theirs) = draw(60), draw(500, 1)
    truth = accuracy_of(theirs)
    counts = Surrogate().fit(X, accuracy_of(codes)).predict(new)
    found = fitted.predict(new)
    assert np.abs(found - truth).mean() < 0.8 * np.abs(counts - truth).mean()
    assert kendalltau(found, truth).statistic > kendalltau(counts, truth).statistic + 0.02


def test_intervals_hold_about_as_often_as_asked() -> None:
    held = []
    for seed in range(5):
        new, theirs = draw(300, 100 + seed)
        model = ImageSurrogate().fit(*draw(50, seed))
        low, high = model.interval(new, 0.9)
        held.append(np.mean((low <= accuracy_of(theirs)) & (accuracy_of(theirs) <= high)))
    assert 0.85 <= np.mean(held) <= 0.97


def test_left_out_is_what_a_model_without_the_row_predicts(fitted: ImageSurrogate) -> None:
    X, codes = draw(60)
    without = ImageSurrogate.from_arrays(
        {"X": X, "codes": fitted._codes, "theta": fitted.theta_},
        {"images": IMAGES, "sure": fitted._sure},
    )
    row, rest = 7, np.delete(np.arange(60), 7)
    z = without._z
    without._solve(z[rest], without._t[rest])  # all else as calibrated on all rows
    mean, std = without._posterior(z[[row]], np.float64)
    assert fitted.leave_one_out()[0][row] == pytest.approx(mean[0], abs=1e-6)
    assert fitted.leave_one_out()[1][row] == pytest.approx(std[0], abs=1e-6)
    density = norm.logpdf(accuracy_of(codes), *fitted.leave_one_out()).mean()
    assert fitted.log_density() == pytest.approx(density)


def test_what_is_restored_predicts_the_same(fitted: ImageSurrogate) -> None:
    arrays, about = fitted.to_arrays()
    again = ImageSurrogate.from_arrays(arrays, json.loads(json.dumps(about)))
    new = np.random.default_rng(5).random((300, 4))  # more than are predicted at a time
    for mine, theirs in zip(fitted.estimate(new, 0.9), again.estimate(new, 0.9), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    low, high = fitted.interval(new)
    assert (low < fitted.predict(new)).all()
    assert (high > fitted.predict(new)).all()
    single = fitted.estimate(new, 0.9, single=True)
    np.testing.assert_allclose(single, fitted.estimate(new, 0.9), atol=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"X": None}, {"codes": None}, {"theta": None}, {"X": np.zeros((60, 3))},
        {"X": np.zeros(60)}, {"codes": np.zeros((59, 5), np.int8)}, {"theta": np.full(7, np.nan)},
        {"codes": np.zeros((60, 0), np.int8)}, {"codes": np.ones((60, 500), np.int8)},
        {"X": np.full((60, 4), np.inf)},
    ],
)  # fmt: skip
def test_damaged_parts_are_refused(fitted: ImageSurrogate, change: dict[str, Any]) -> None:
    arrays, about = fitted.to_arrays()
    arrays = {k: v for k, v in (arrays | change).items() if v is not None}
    with pytest.raises(InputError, match="The stored surrogate is damaged: "):
        ImageSurrogate.from_arrays(arrays, about)


def test_what_it_believes_makes_it_surer_there(fitted: ImageSurrogate) -> None:
    new = np.array([[0.95, 0.05, 0.95, 0.05], [0.5, 0.5, 0.5, 0.5]])
    surer = fitted.believing(new[:1])
    np.testing.assert_allclose(surer.predict(new), fitted.predict(new), atol=0.3)
    before, after = (np.ptp(model.interval(new), axis=0) for model in (fitted, surer))
    assert after[0] < 0.97 * before[0]
    assert np.ptp(fitted.interval(new), axis=0)[0] == before[0]  # itself it is as it was


@pytest.mark.parametrize("right", [True, False])
def test_where_all_networks_agree_there_is_no_doubt(right: bool) -> None:
    X, margins = np.random.default_rng(0).random((12, 3)), np.full((12, 30), 9.0 if right else -9.0)
    model = ImageSurrogate().fit(X, encode(margins, np.full(margins.shape, right)))
    mean, low, high = model.estimate(X + 0.1, 0.9)
    np.testing.assert_allclose(mean, 100.0 if right else 0.0, atol=0.5)
    assert (high - low < 10).all()
    assert np.isfinite([mean, low, high]).all()


@given(st.integers(2, 12), st.integers(1, 30), st.integers(0, 2**31))
def test_any_codes_give_finite_figures(n: int, images: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(1, 128, (n, images)) * rng.choice([-1, 1], (n, images))
    X = rng.integers(0, 2, (n, 3)).astype(float)
    model = ImageSurrogate().fit(X, codes.astype(np.int8))
    mean, low, high = model.estimate(rng.random((5, 3)), 0.9)
    assert np.isfinite([mean, low, high]).all()
    assert ((low <= mean) & (mean <= high)).all()
