import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad
from scipy.spatial.distance import cdist
from scipy.stats import lognorm, norm
from scipy.stats import t as student
from sklearn.datasets import make_friedman1
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from codesign_kernel.baselines import compare
from codesign_kernel.errors import InputError
from codesign_kernel.files import read_arrays, write_arrays
from codesign_kernel.kernel import (
    JITTER,
    heavy_hyperprior,
    hyperprior,
    negative_log_posterior,
)
from codesign_kernel.surrogate import Surrogate


def smooth(n: int, seed: int = 0, noise: float = 0.1, d: int = 4):
    """Inputs (n, d) and a target of known shape: a line, a wave and normal noise."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    return X, 5 + 2 * X[:, 0] + np.sin(2 * X[:, 1]) + noise * rng.normal(size=n)


def cycles(n: int, seed: int = 0):
    """Cycles of random layers; the last column is the estimate without rounding up to lanes."""
    rng = np.random.default_rng(seed)
    f, c, size = rng.integers(4, 129, (3, n))
    lanes = rng.choice([4, 8, 16], n)
    exact = np.ceil(f / lanes) * np.ceil(c / lanes) * size**2 + 500.0
    return np.column_stack([f, c, size, lanes, f * c * size**2 / lanes**2]).astype(float), exact


def oracle(theta) -> GaussianProcessRegressor:
    """scikit-learn's own process with the kernel that the module says it has."""
    a, b, *lengths, variance = np.exp(theta)
    linear = ConstantKernel(a) * DotProduct(1 / np.sqrt(a))
    kernel = linear + ConstantKernel(b) * Matern(lengths, nu=2.5) + WhiteKernel(variance)
    return GaussianProcessRegressor(kernel, alpha=JITTER, optimizer=None)


CHECKS = [
    pytest.param(estimator, check, id=f"{estimator}-{check.func.__name__}")
    for model in (Surrogate(), Surrogate(prior=0))
    for estimator, check in estimator_checks_generator(model)
    # Runs only where SciPy was imported for other arrays than NumPy's; the surrogate takes NumPy's.
    if check.func.__name__ != "check_array_api_input"
]


@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("variance", [1e-2, 2e-4, 1e-5])
def test_posterior_is_that_of_scikit_learn(variance):
    X, y = smooth(60)
    model = Surrogate().fit(X, y)
    model._condition(np.append(model.theta_[:-1], np.log(variance)))
    reference = oracle(model.theta_).fit(model._z, model._t)
    new = np.vstack([smooth(300, seed=1)[0], X])
    mean, std = model.predict(new, return_std=True)
    z = (new - X.mean(axis=0)) / X.std(axis=0)
    # scikit-learn's std is of the noisy target too, for its kernel holds the noise.
    expected, expected_std = reference.predict(z, return_std=True)
    np.testing.assert_allclose(mean, y.mean() + y.std() * expected, rtol=1e-6)
    np.testing.assert_allclose(std, y.std() * expected_std, rtol=5e-3)
    np.testing.assert_allclose(model.predict(new), mean, rtol=1e-12)


ROUGH = [(1, 200, 30), (2, 400, 12), (1, 500, 60), (8, 300, 4), (4, 600, 5)]  # d, n, waves


@pytest.mark.parametrize(("d", "n", "waves"), [*ROUGH, (5, 200, 2), (20, 300, 1)])
def test_single_precision_moves_no_more_than_it_says(d, n, waves):
    rng = np.random.default_rng(0)
    X = rng.uniform(0, 1, (n, d))
    y = np.sin(waves * X).sum(axis=1) + 0.05 * rng.normal(size=n)
    model = Surrogate().fit(X, y)
    new = np.vstack([rng.uniform(0, 1, (2000, d)), rng.uniform(-3, 4, (500, d)), X])
    a, b, *lengths, noise = np.exp(model.theta_)
    z = (new - X.mean(axis=0)) / X.std(axis=0)
    r = np.sqrt(5) * cdist(z / lengths, model._z / lengths)
    k = 1 + a * z @ model._z.T + b * (1 + r + r**2 / 3) * np.exp(-r)
    known = ((k @ model._root.T) ** 2).sum(axis=1)
    std = np.sqrt(np.maximum(1 + a * (z**2).sum(axis=1) + b - known, 0) + noise) * y.std()
    mean = y.mean() + y.std() * k @ model._alpha
    found, found_std = model.predict(new, return_std=True)
    assert (np.abs(found - mean) < 1e-6 * std).all()
    np.testing.assert_allclose(found_std, std, rtol=5e-3)
    assert (np.abs(model.estimate(new, single=True)[0] - mean) < 1e-3 * std).all()


@pytest.mark.parametrize("prior", [hyperprior, heavy_hyperprior])
def test_gradient_and_value_of_the_log_posterior(prior):
    X, y = smooth(30)
    t = (y - y.mean()) / y.std()
    centre, penalty = prior(4)
    rng = np.random.default_rng(0)
    places = [centre + rng.normal(size=7) for _ in range(5)]
    likelihoods = []
    for theta in places:
        args = (X, t, centre, penalty)
        error = check_grad(
            lambda p, *a: negative_log_posterior(p, *a)[0],
            lambda p, *a: negative_log_posterior(p, *a)[1],
            theta,
            *args,
        )
        assert error < 1e-3 * np.linalg.norm(negative_log_posterior(theta, *args)[1])
        likelihoods.append(penalty(theta - centre)[0] - negative_log_posterior(theta, *args)[0])
    expected = [oracle(p).fit(X, t).log_marginal_likelihood_value_ for p in places]
    np.testing.assert_allclose(np.diff(likelihoods), np.diff(expected), rtol=1e-6)


def test_hyperparameters_are_a_mode():
    X, y = smooth(40)
    model = Surrogate().fit(X, y)
    args = (model._z, model._t, *hyperprior(4))
    best = negative_log_posterior(model.theta_, *args)[0]
    for step in np.vstack([np.eye(7), -np.eye(7)]) * 0.3:
        assert negative_log_posterior(model.theta_ + step, *args)[0] > best


@pytest.mark.parametrize("log", [False, True])
def test_leave_one_out_is_that_of_refitting(log):
    X, y = cycles(25)
    model = Surrogate(prior=4, log=log).fit(X, y)
    mean, std = model.leave_one_out()
    for i in range(len(y)):
        others = np.delete(np.arange(len(y)), i)
        refit = oracle(model.theta_).fit(model._z[others], model._t[others])
        m, s = refit.predict(model._z[[i]], return_std=True)
        m, s = model._mean(X[[i]]) + model._scale * m, model._scale * s
        np.testing.assert_allclose(mean[i], np.exp(m[0]) if log else m[0], rtol=1e-6)
        np.testing.assert_allclose(std[i], mean[i] * s[0] if log else s[0], rtol=1e-6)


def test_log_density_is_that_of_normal_and_log_normal_predictions():
    X, y = cycles(40)
    model = Surrogate(prior=4).fit(X, y)
    mean, std = model.leave_one_out()
    assert model.log_density() == pytest.approx(norm.logpdf(y, mean, std).mean())
    model = Surrogate(prior=4, log=True).fit(X, y)
    mean, std = model.leave_one_out()  # median and, by the delta method, median times sigma
    expected = lognorm.logpdf(y, s=std / mean, scale=mean).mean()
    assert model.log_density() == pytest.approx(expected)
    other = Surrogate(prior=4, log=True).fit(X, 1000 * y)
    assert other.log_density() == pytest.approx(expected - np.log(1000), abs=1e-3)


def test_heavy_tails_are_those_of_student():
    # Length scales are independent t about their mean, which is normal; a, b and noise are t.
    d, shift = 3, np.array([0.5, -2.0, 1.0, -0.5, 2.5, -7.0])
    value, apart = heavy_hyperprior(d)[1](shift), shift[2:-1] - 1.0
    expected = student.logpdf(apart / 0.5, 1).sum() + norm.logpdf(1.0, 0, np.sqrt(1 + 0.25 / 3))
    expected += student.logpdf(shift[[0, 1, -1]] / [1.5, 1.0, 1.0], 3).sum()
    peak = 3 * student.logpdf(0, 1) + norm.logpdf(0, 0, np.sqrt(1 + 0.25 / 3))
    peak += 3 * student.logpdf(0, 3)
    assert value[0] == pytest.approx(peak - expected)


def quadratic(n: int, seed: int):
    X = np.random.default_rng(seed).uniform(1, 10, (n, 3))
    return X, X[:, 0] + X[:, 1] ** 2 + 3


def few_matter(n: int, seed: int):
    return make_friedman1(n, random_state=seed)


@pytest.mark.parametrize(("make", "n", "worst"), [(quadratic, 20, 0.4), (few_matter, 60, 0.8)])
def test_what_has_no_noise_or_few_inputs_that_matter_is_learnt(make, n, worst):
    errors = []
    for seed in range(8):
        X, y = make(n, seed)
        new, truth = make(500, 99)
        model = Surrogate().fit(X, y)
        usual = Surrogate().fit(X, y)._condition(model._mode(*hyperprior(model._z.shape[1])))
        errors.append([np.abs(each.predict(new) - truth).mean() for each in (model, usual)])
    heavy, usual = np.mean(errors, axis=0)
    assert heavy < worst * usual


@pytest.mark.parametrize("kind", ["smooth", "cycles"])
def test_tails_are_normal_where_that_predicts_as_well(kind):
    for seed in range(5):
        X, y = smooth(60, seed, noise=0.3) if kind == "smooth" else cycles(60, seed)
        model = Surrogate() if kind == "smooth" else Surrogate(prior=4, log=True)
        model.fit(X, y)
        usual = model._mode(*hyperprior(model._z.shape[1]))
        np.testing.assert_array_equal(model.theta_, usual)


def test_recovers_a_known_function():
    X, y = smooth(150, noise=0.0)
    new, truth = smooth(1000, seed=1, noise=0.0)
    model = Surrogate().fit(X, y)
    assert r2_score(truth, model.predict(new)) > 0.995
    assert np.exp(model.theta_[-1] / 2) < 0.02  # the noise, in units of the target's std


def test_finds_the_noise():
    X, y = smooth(300, noise=0.5)
    model = Surrogate().fit(X, y)
    assert np.exp(model.theta_[-1] / 2) * y.std() == pytest.approx(0.5, rel=0.15)


@pytest.mark.parametrize("n", [20, 50, 100])
@pytest.mark.parametrize("kind", ["smooth", "cycles"])
def test_intervals_cover_what_they_say(n, kind):
    inside = []
    for seed in range(24):
        X, y = smooth(n, seed, noise=0.3) if kind == "smooth" else cycles(n, seed)
        new, truth = smooth(500, 99, noise=0.3) if kind == "smooth" else cycles(500, 99)
        model = Surrogate() if kind == "smooth" else Surrogate(prior=4, log=True)
        low, high = model.fit(X, y).interval(new, 0.9)
        inside.append(np.mean((low <= truth) & (truth <= high)))
    assert 0.85 <= np.mean(inside) <= 0.95


def test_calibration_corrects_what_is_not_normal():
    # A tenth of the measurements is coarse: a normal interval for a half holds far more.
    rng = np.random.default_rng(0)
    X, y = smooth(1200, noise=0.0)
    y += rng.normal(size=1200) * np.where(rng.random(1200) < 0.1, 4.0, 0.2)
    model = Surrogate().fit(X[:300], y[:300])
    low, high = model.interval(X[300:], 0.5)
    mean, std = model.predict(X[300:], return_std=True)
    assert np.mean(np.abs(y[300:] - mean) < 0.6745 * std) > 0.75
    assert 0.43 < np.mean((low <= y[300:]) & (y[300:] <= high)) < 0.68


@given(
    n=st.integers(2, 12),
    seed=st.integers(0, 2**32 - 1),
    log=st.booleans(),
    coverages=st.lists(st.floats(0.01, 0.999), min_size=2, max_size=2, unique=True),
)
@settings(max_examples=60, deadline=None)
def test_interval_holds_the_mean_and_widens_with_coverage(n, seed, log, coverages):
    X, y = cycles(n, seed)
    model = Surrogate(prior=4, log=log).fit(X, y)
    new = np.vstack([X, cycles(20, seed + 1)[0]])
    low, high = model.interval(new, min(coverages))
    mean, std = model.predict(new, return_std=True)
    outer_low, outer_high = model.interval(new, max(coverages))
    assert (low <= mean).all()
    assert (mean <= high).all()
    assert (std > 0).all()
    assert (outer_low <= low).all()
    assert (high <= outer_high).all()
    if log:
        assert (outer_low > 0).all()


@pytest.mark.parametrize("log", [False, True])
def test_units_do_not_matter(log):
    X, y = cycles(40)
    new = cycles(30, seed=1)[0]
    model = Surrogate(prior=4, log=log).fit(X, y)
    units = np.array([1.0, 1e3, 1e-3, 7.0, 1e-6])  # the prior's among them
    other = Surrogate(prior=-1, log=log).fit(X * units, y * 1000)
    for one, thousand in zip(
        [*model.predict(new, True), *model.interval(new), *model.leave_one_out()],
        [*other.predict(new * units, True), *other.interval(new * units), *other.leave_one_out()],
        strict=True,
    ):
        np.testing.assert_allclose(thousand, 1000 * one, rtol=2e-3, atol=1e-3 * y.std())


@pytest.mark.parametrize("log", [False, True])
def test_a_prior_helps_where_data_are_scarce(log):
    new, truth = cycles(500, seed=1)
    errors = []
    for seed in range(5):
        X, y = cycles(15, seed)
        column = Surrogate(prior=4, log=log).fit(X, y).predict(new)
        formula = Surrogate(prior=lambda A: 3 * A[:, 4], log=log).fit(X, y).predict(new)
        none = Surrogate(log=log).fit(X[:, :4], y).predict(new[:, :4])
        errors.append([np.mean(np.abs(p - truth)) for p in (column, formula, none)])
    column, formula, none = np.mean(errors, axis=0)
    # The logarithm of the columns alone makes a product of them a line: less is left to gain.
    assert max(column, formula) < (0.8 if log else 0.6) * none


def test_learns_the_exponent_of_its_prior():
    rng = np.random.default_rng(0)
    X = np.exp(rng.uniform(0, 5, (60, 1)))
    model = Surrogate(prior=0, log=True).fit(X, 30 * X[:, 0] ** 0.8)
    far = np.exp([[5.5], [6.0]])
    np.testing.assert_allclose(model.predict(far), 30 * far[:, 0] ** 0.8, rtol=0.02)


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9])
def test_a_constant_column_is_harmless_until_it_changes(unit):
    X, y = smooth(30)
    model = Surrogate().fit(np.column_stack([X, np.full(30, 200 * unit)]), y)
    mean, std = model.predict(np.column_stack([X, np.full(30, 200 * unit)]), return_std=True)
    np.testing.assert_allclose(mean, y, atol=0.5)
    _, wider = model.predict(np.column_stack([X, np.full(30, 800 * unit)]), return_std=True)
    assert (wider > 1.5 * std).all()
    assert (wider < 3 * y.std()).all()


@pytest.mark.parametrize("log", [False, True])
def test_a_constant_target_is_predicted(log):
    mean, std = (
        Surrogate(log=log)
        .fit(np.arange(8.0)[:, None], np.full(8, 7.0))
        .predict([[3.5]], return_std=True)
    )
    assert mean[0] == pytest.approx(7.0)
    assert np.isfinite(std[0])


def test_blocks_of_rows_do_not_matter():
    X, y = cycles(30)
    new = cycles(1000, seed=1)[0]
    model = Surrogate(prior=4, log=True).fit(X, y)
    mean, std = model.predict(new, return_std=True)
    parts = [model.predict(new[i : i + 77], return_std=True) for i in range(0, 1000, 77)]
    np.testing.assert_allclose(np.concatenate([m for m, _ in parts]), mean, rtol=1e-9)
    np.testing.assert_allclose(np.concatenate([s for _, s in parts]), std, rtol=1e-3)


@pytest.mark.parametrize("prior", [None, 4])
def test_round_trip(tmp_path: Path, prior):
    X, y = cycles(30)
    table = pd.DataFrame(X, columns=["filters", "channels", "size", "lanes", "estimate"])
    model = Surrogate(prior, log=True).fit(table, y)
    write_arrays(tmp_path / "latency.safetensors", *model.to_arrays())
    again = Surrogate.from_arrays(*read_arrays(tmp_path / "latency.safetensors"))
    new = table * 1.1
    for one, other in zip(
        [*model.predict(new, return_std=True), *model.interval(new), *model.leave_one_out()],
        [*again.predict(new, return_std=True), *again.interval(new), *again.leave_one_out()],
        strict=True,
    ):
        np.testing.assert_allclose(other, one, rtol=1e-9)
    assert again.get_params() == model.get_params()
    assert list(again.feature_names_in_) == list(table.columns)


def damage(part, value):
    arrays, about = Surrogate().fit(*smooth(9)).to_arrays()
    arrays, about = dict(arrays), dict(about)
    store = arrays if part in arrays else about
    if value is None:
        del store[part]
    else:
        store[part] = value
    return arrays, about


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("X", None),
        ("log", None),
        ("names", None),
        ("theta", np.zeros(3)),
        ("y", np.zeros(4)),
        ("X", np.zeros(9)),
        ("X", np.full((9, 4), np.nan)),
        ("log", "no"),
        ("names", ["filters"]),
    ],
)
def test_a_damaged_store_is_refused(part, value):
    with pytest.raises(InputError, match="damaged"):
        Surrogate.from_arrays(*damage(part, value))


def test_believing_is_conditioning_on_what_is_predicted():
    rng = np.random.default_rng(4)
    X, new = rng.uniform(1, 9, (30, 3)), rng.uniform(1, 9, (2, 3))
    y = X[:, 0] * np.exp(0.1 * rng.standard_normal(30))
    model = Surrogate(prior=0, log=True).fit(X, y)
    surer = model.believing(new)
    np.testing.assert_array_equal(surer.theta_, model.theta_)
    mean, std = model.predict(new, return_std=True)
    same, less = surer.predict(new, return_std=True)
    np.testing.assert_allclose(same, mean, rtol=0.02)
    assert (less < std).all()
    arrays = {"X": np.vstack([X, new]), "y": np.append(y, mean), "theta": model.theta_}
    whole = Surrogate.from_arrays(arrays, model.to_arrays()[1])
    np.testing.assert_array_equal(surer.predict(X), whole.predict(X))


def test_a_callable_prior_is_not_stored():
    model = Surrogate(prior=lambda X: X[:, 0] ** 2).fit(*smooth(10))
    with pytest.raises(InputError, match="prior is a callable"):
        model.to_arrays()


@pytest.mark.parametrize(
    ("prior", "log", "y", "message"),
    [
        (4, False, [1.0, 2.0, 3.0], "prior is 4, but must be from -2 to 1"),
        ("flops", False, [1.0, 2.0, 3.0], "prior is 'flops', but must be a whole number"),
        (None, True, [1.0, 0.0, 3.0], "y holds 0.0, but must be positive"),
        (1, True, [1.0, 2.0, 3.0], "prior gives -1.0, but must be positive"),
        (lambda X: X, False, [1.0, 2.0, 3.0], r"prior returns shape \(3, 2\)"),
    ],
)
def test_bad_input_is_named(prior, log, y, message):
    X = np.array([[1.0, 2.0], [2.0, -1.0], [3.0, 1.0]])
    with pytest.raises(InputError, match=message):
        Surrogate(prior, log).fit(X, y)


@pytest.mark.parametrize("log", [False, True])
def test_what_overflows_is_refused(log):
    X, y = cycles(12)
    with pytest.raises(InputError, match=r"y holds .*e\+30\d in size, but must be at most 1e\+100"):
        Surrogate(prior=4, log=log).fit(X, y * 1e300)
    with pytest.raises(InputError, match=r"X holds .* in size, but must be at most 1e\+100"):
        Surrogate(prior=4, log=log).fit(X * 1e200, y)


def test_a_query_beyond_all_reason_is_refused():
    X, y = smooth(12)
    model, new = Surrogate().fit(X, y), np.zeros((3, 4))
    new[1, 2] = -1e200
    for ask in (model.predict, model.interval):
        with pytest.raises(InputError, match=r"X holds -1e\+200, but must be within 1e"):
            ask(new)
    new[1, 2] = -1e12
    assert all(np.isfinite(each).all() for each in model.predict(new, return_std=True))
    assert np.isfinite(model.estimate(new, 0.9, single=True)).all()


@pytest.mark.parametrize("coverage", [0.0, 1.0, 90, float("nan")])
def test_coverage_is_a_fraction(coverage):
    with pytest.raises(InputError, match="coverage is"):
        Surrogate().fit(*smooth(9)).interval(np.zeros((1, 4)), coverage)


def test_compare_has_a_row_for_each_model():
    X, y = cycles(80, seed=1)
    table = compare(X, y, prior=4, log=True)
    assert list(table.index) == [
        "Gaussian process",
        "analytic estimate",
        "linear regression",
        "gradient boosting",
    ]
    assert list(table.columns) == ["MAPE", "MAE", "R2", "Kendall tau", "coverage", "width"]
    best = table.loc["Gaussian process"]
    assert (best["MAPE"] < table["MAPE"].drop("Gaussian process")).all()
    assert 80 <= best["coverage"] <= 100
    assert table["coverage"].isna().sum() == table["width"].isna().sum() == 3
    pd.testing.assert_frame_equal(table, compare(X, y, prior=4, log=True))
    assert list(compare(X, y, folds=2).index) == [
        "Gaussian process",
        "linear regression",
        "gradient boosting",
    ]


def test_compare_figures_are_those_of_scikit_learn():
    X, y = smooth(40)
    row = compare(X, y, folds=5, seed=3).loc["linear regression"]
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 13)))
    p = cross_val_predict(ridge, X, y, cv=KFold(5, shuffle=True, random_state=3))
    assert row["MAE"] == pytest.approx(np.abs(p - y).mean())
    assert row["MAPE"] == pytest.approx(100 * np.abs((p - y) / y).mean())
    assert row["R2"] == pytest.approx(r2_score(y, p))
    pairs = [np.sign(p[i] - p[j]) * np.sign(y[i] - y[j]) for i in range(40) for j in range(i)]
    assert row["Kendall tau"] == pytest.approx(np.mean(pairs))


def test_compare_of_a_target_with_zero_has_no_percentage():
    X, y = smooth(20)
    y[3] = 0.0
    assert compare(X, y)["MAPE"].isna().all()


def test_compare_needs_as_many_measurements_as_folds():
    with pytest.raises(InputError, match="number of rows, of which 10 folds are made, is 9, but"):
        compare(*smooth(9))


def test_import_needs_no_torch():
    code = "import sys, codesign_kernel.surrogate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
