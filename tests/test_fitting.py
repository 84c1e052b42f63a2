"""`codesign fit --table` tells how well a table is predicted, and its figures can be recomputed."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
from scipy.stats import kendalltau
from sklearn.linear_model import RidgeCV
from sklearn.metrics import mean_absolute_error, mean_absolute_percentage_error, r2_score

from codesign_kernel import fitting
from codesign_kernel.errors import InputError
from codesign_kernel.fitting import fit_table, logarithm
from codesign_kernel.surrogate import Surrogate
from codesign_kernel.table import Problem, prepare, read_table

KEYS = ("mape", "mae", "r2", "kendall_tau")
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def codesign(codesign: Command) -> Command:
    """Run `codesign fit` in this process; return status, stdout and stderr."""
    return partial(codesign, "fit")


def latencies(n: int, seed: int = 0) -> pd.DataFrame:
    """Latency of layers on engines: a product with losses, and an estimate without them."""
    rng = np.random.default_rng(seed)
    f, c = rng.integers(4, 129, (2, n))
    lanes, port = rng.choice([4, 8, 16], n), rng.choice(["narrow", "wide"], n)
    estimate = f * c / lanes**2
    exact = np.ceil(f / lanes) * np.ceil(c / lanes) * np.where(port == "wide", 1.0, 1.2) + 5
    names = [f"l{i}" for i in range(n)]
    columns = {"name": names, "f": f, "c": c, "lanes": lanes, "port": port, "estimate": estimate}
    return pd.DataFrame(columns).assign(latency=exact)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.csv"
    latencies(120).to_csv(path, index=False)
    return path


def test_json_has_these_keys_and_is_all_there_is_on_stdout(codesign: Command, own: Path) -> None:
    status, out, err = codesign(
        "--table", own, "--target", "latency", "--prior", "estimate",
        "--features", "f, c,lanes,port", "--train", 60, "--seed", 3, "--json",
    )  # fmt: skip
    assert status == 0, err
    found = json.loads(out)
    assert tuple(found) == (*KEYS, "coverage", "width", "n_train", "n_test", "baselines")
    assert (found["n_train"], found["n_test"]) == (60, 60)
    assert 0.75 < found["coverage"] <= 1
    assert list(found["baselines"]) == [
        "analytic estimate", "linear regression", "gradient boosting", "zero-mean Gaussian process",
    ]  # fmt: skip
    for figures in found["baselines"].values():
        assert tuple(figures) == KEYS
    for name in ("analytic estimate", "linear regression", "gradient boosting"):
        assert found["mape"] < found["baselines"][name]["mape"]
    assert "note: prior: estimate; features: f, c, lanes, port." in err
    assert "note: latency is modelled by its logarithm: it is positive and spans a factor" in err
    assert codesign(
        "--table", own, "--target", "latency", "--prior", "estimate",
        "--features", "f, c,lanes,port", "--train", 60, "--seed", 3, "--json",
    )[1] == out  # fmt: skip


def test_figures_are_those_of_predictions_made_by_hand(own: Path) -> None:
    report = json.loads(
        fit_table(own, "latency", "estimate", ["f", "c", "lanes"], train=60, seed=3).json()
    )
    table = latencies(120)
    X, y = table[["estimate", "f", "c", "lanes"]].to_numpy(float), table["latency"].to_numpy()
    order = np.random.default_rng(3).permutation(120)
    train, test = np.sort(order[:60]), np.sort(order[60:])
    model = Surrogate(prior=0, log=True).fit(X[train], y[train])
    ridge = RidgeCV(np.logspace(-3, 3, 13)).fit(model._z, np.log(y[train]))
    scale = np.exp(np.mean(np.log(y[train] / X[train, 0])))
    predicted = {
        "": model.predict(X[test]),
        "analytic estimate": scale * X[test, 0],
        "linear regression": np.exp(ridge.predict(model.inputs(X[test]))),
    }
    for name, p in predicted.items():
        figures = report["baselines"][name] if name else report
        assert figures["mape"] == pytest.approx(100 * mean_absolute_percentage_error(y[test], p))
        assert figures["mae"] == pytest.approx(mean_absolute_error(y[test], p))
        assert figures["r2"] == pytest.approx(r2_score(y[test], p))
        assert figures["kendall_tau"] == pytest.approx(kendalltau(y[test], p).statistic)
    low, high = model.interval(X[test], 0.9)
    assert report["coverage"] == pytest.approx(np.mean((low <= y[test]) & (y[test] <= high)))
    assert report["width"] == pytest.approx(np.mean(high - low))


def test_without_train_each_row_is_tested_once(codesign: Command, own: Path) -> None:
    status, out, err = codesign("--table", own, "--target", "latency")
    assert status == 0, err
    assert "latency: each of 120 rows is tested once, by fits to 108 others." in out
    assert "note: features: f, c, lanes, port, estimate." in err
    assert "note: name left out: it names 120 of 120 rows." in err
    assert "note: cross-validated in 10 folds" in err
    assert [line.split("  ")[0] for line in out.splitlines()[2:6]] == [
        "Gaussian process", "linear regression", "gradient boosting", "zero-mean Gaussian process",
    ]  # fmt: skip
    assert "held-out rows" in err  # the bar


def test_a_long_table_is_cut_and_that_is_told(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "MOST", 50)
    monkeypatch.setattr(fitting, "MOST_ZERO_MEAN", 40)
    for train in (None, 80):
        report = fit_table(own, "latency", train=train)
        assert (report.n_train, report.n_test) == (50, 70)
        assert "trained on 50 of 120 rows, the most that are fitted at once" in report.notes
        assert "zero-mean Gaussian process left out: too slow for over 40 rows" in report.notes
        assert "zero-mean Gaussian process" not in report.models.index


@pytest.mark.parametrize(("rows", "tested"), [(51, 6), (55, 6), (56, 6), (60, 10), (120, 70)])
def test_of_a_long_table_a_tenth_at_least_is_held_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rows: int, tested: int
) -> None:
    monkeypatch.setattr(fitting, "MOST", 50)
    latencies(rows).to_csv(tmp_path / "own.csv", index=False)
    report = fit_table(tmp_path / "own.csv", "latency", features=["f", "c", "lanes", "port"])
    assert (report.n_train, report.n_test) == (rows - tested, tested)
    assert any(note.startswith(f"trained on {rows - tested} of {rows}") for note in report.notes)


def test_names_that_hold_a_comma_are_given_in_quotes(codesign: Command, tmp_path: Path) -> None:
    names = {"f": "f, of filters", "c": 'c"', "lanes": "lanes"}
    latencies(40)[[*names, "latency"]].rename(columns=names).to_csv(tmp_path / "t.csv", index=False)
    options = ("--table", tmp_path / "t.csv", "--target", "latency", "--features")
    features = '"f, of filters", "c""", lanes'
    status, _, err = codesign(*options, features)
    assert status == 0, err
    assert f"note: features: {features}." in err
    status, _, err = codesign(*options, "f, of filters,lanes")
    assert status == 1
    assert err.endswith(f"{tmp_path / 't.csv'}: {features}, latency.\n")


def test_a_target_with_zeros_and_negative_values_has_no_logarithm(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=40)
    table = pd.DataFrame({"a": a, "b": rng.normal(size=40), "y": np.round(a, 1)})
    table.loc[0, "y"] = 0
    table.to_csv(tmp_path / "own.csv", index=False)
    report = fit_table(tmp_path / "own.csv", "y")
    assert json.loads(report.json())["mape"] is None
    assert "no MAPE: y is 0 in a row that was tested" in report.notes
    assert "y is modelled as it is: it is not positive everywhere" in report.notes


def test_what_spans_little_is_modelled_as_the_data_say() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 2))
    line, product = 5 + 0.8 * X[:, 0] + 0.1 * rng.normal(size=80), np.exp(0.3 * X.sum(axis=1))
    rows = np.arange(80)
    assert not logarithm(Problem(X, line), rows)[0]
    assert product.max() / product.min() < 10
    log, why = logarithm(Problem(X, product), rows)
    assert log
    assert why.startswith("is modelled by its logarithm: the mean log density of a row left out")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "latency"], "--target cannot be given without --table FILE.csv"),
        (["--train", 9, "--seed", 1], "--train, --seed cannot be given without --table FILE.csv"),
        (["--seed", 0], "--seed cannot be given without --table"),
        (["--table", "OWN"], "--target is missing, but must be a column of"),
        (["--table", "OWN", "--target", "nope"], "--target is 'nope', but must be a column of"),
        (["--table", "OWN", "--target", "name"], "--target 'name' is 'l0' in row 1 of"),
        (
            ["--table", "OWN", "--target", "latency", "--train", 9],
            "--train is 9, but must be from 10",
        ),
        (["--table", "OWN", "--target", "latency", "--train", 119], "must be from 10 to 118"),
        (
            ["--table", "OWN", "--target", "latency", "--seed", -1],
            "--seed is -1, but must be from 0",
        ),
        (["--table", "OWN", "--target", "latency", "--features", "latency"], "names the target"),
        (["--table", "nope.csv", "--target", "latency"], "nope.csv cannot be read: No such file"),
        (
            ["--table", "OWN", "--target", "latency", "--features", 'f,"c'],
            "must be names parted by commas, quoted as in a CSV file where they hold one",
        ),
        (
            ["--table", "OWN", "--target", "latency", "--features", ""],
            "--features is '', but must be a column of",
        ),
    ],
)
def test_bad_input_ends_in_one_sentence(
    codesign: Command, own: Path, arguments: list[object], words: str
) -> None:
    status, out, err = codesign(*(own if word == "OWN" else word for word in arguments))
    assert (status, out) == (1, "")
    *notes, sentence = err.splitlines()
    assert all(note.startswith("note: ") for note in notes)
    tiny.assert_one_sentence(sentence)
    assert words in sentence
    assert sentence.startswith("codesign: ")


def test_why_rows_and_columns_went_is_told_before_a_refusal(
    codesign: Command, tmp_path: Path
) -> None:
    table = latencies(40)[["lanes", "latency"]].assign(ratio=[f"0,{i:03}" for i in range(40)])
    table["lanes"] = 8
    table.to_csv(tmp_path / "own.csv", index=False)
    status, out, err = codesign("--table", tmp_path / "own.csv", "--target", "latency")
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        "note: lanes left out: it is '8' in all rows.",
        "note: ratio left out: it looks like numbers with a decimal comma, such as '0,000'; "
        "write plain ones, such as 1234.5.",
        f"codesign: {tmp_path / 'own.csv'} has no column left that could predict 'latency'.",
    ]


def test_rows_with_the_same_features_are_held_out_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=40), "y": rng.normal(size=40)})
    repeated = pd.concat([table, table.assign(y=table["y"] + 0.001)])  # noise, measured twice
    repeated.to_csv(tmp_path / "own.csv", index=False)
    report = fit_table(tmp_path / "own.csv", "y")
    assert "40 rows have the features of another: those are held out together" in report.notes
    assert report.models.loc["Gaussian process", "R2"] < 0.3
    assert report.n_test == 80
    report = fit_table(tmp_path / "own.csv", "y", train=60)
    assert any("have the features of a row trained on" in note for note in report.notes)


def test_a_single_row_is_too_few_and_not_a_constant(tmp_path: Path) -> None:
    latencies(1).to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(InputError, match="has 1 rows, but at least 12 are needed"):
        fit_table(tmp_path / "own.csv", "latency")


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    latencies(11).to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(InputError, match="has 11 rows, but at least 12"):
        fit_table(tmp_path / "own.csv", "latency", features=["f"])


def test_a_target_that_hardly_varies_asks_for_other_rows(tmp_path: Path) -> None:
    table = latencies(40).assign(latency=[1.0] * 39 + [2.0])
    table.to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(InputError, match="in all 10 training rows, but must vary: choose"):
        fit_table(tmp_path / "own.csv", "latency", train=10)


def test_rows_without_the_target_are_predicted(codesign: Command, tmp_path: Path) -> None:
    table = latencies(120)
    truth = table["latency"].to_numpy(copy=True)
    blank = np.arange(100, 120)
    texts = table.astype(str)
    texts.loc[blank, "latency"] = ""
    texts.to_csv(tmp_path / "own.csv", index=False)
    out = tmp_path / "new" / "predicted.csv"
    status, printed, err = codesign(
        "--table", tmp_path / "own.csv", "--target", "latency", "--prior", "estimate",
        "--out", out, "--json",
    )  # fmt: skip
    assert status == 0, err
    assert f"note: wrote 20 rows, predicted, to {out}; its last columns are predicted, low" in err
    assert json.loads(printed)["n_test"] == 100
    found = pd.read_csv(out)
    assert found["name"].tolist() == table["name"].iloc[blank].tolist()
    assert set(found["source"]) == {"predicted"}
    # As a process says that is fitted to the other rows by hand.
    problem = prepare(read_table(tmp_path / "own.csv"), tmp_path, "latency", "estimate", fill=True)
    model = Surrogate(0, log=True).fit(problem.X, problem.y)
    np.testing.assert_allclose(found["predicted"], model.predict(problem.asked), rtol=1e-4)
    low, high = model.interval(problem.asked, 0.9)
    np.testing.assert_allclose(found[["low", "high"]], np.column_stack([low, high]), rtol=1e-4)
    inside = (found["low"] <= truth[blank]) & (truth[blank] <= found["high"])
    assert inside.mean() >= 0.7


def test_rows_that_cannot_be_predicted_are_told(codesign: Command, tmp_path: Path) -> None:
    table = latencies(40).astype(str).assign(kind=["a", "b"] * 20)
    path = tmp_path / "own.csv"
    options = ("--table", path, "--target", "latency", "--prior", "estimate", "--seed", 1)

    def run(*more: object) -> tuple[int, str, str]:
        table.to_csv(path, index=False)
        return codesign(*options, *more)

    blank = "--out", tmp_path / "out.csv"
    refusal = f"codesign: --out is given, but {path} has no row without latency that can be"
    status, out, err = run(*blank)
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith(refusal)
    assert "held-out rows" not in err  # the bar
    table.loc[39, ["latency", "kind"]] = ["", "c"]
    status, out, err = run(*blank)
    why = "1 row without latency not predicted: kind is 'c' in row 40, but in no rows with latency"
    assert (status, out) == (1, "")
    assert f"note: {why}." in err
    assert err.splitlines()[-1].startswith(refusal)
    status, out, err = run()  # nobody asked for that row
    assert status == 0, err
    assert why not in err
    table.loc[34:38, "latency"] = ""
    table.loc[38, "f"] = ""
    table.loc[36:37, "f"] = ["0", "-1"]
    table.loc[35, "estimate"] = "0"
    status, out, err = run(*blank)
    assert status == 0, err
    assert "1 row without latency: another value is missing, too" in err
    assert f"note: {why}." in err
    assert (
        "note: 2 rows without latency not predicted: f is '0' in row 37, '-1' in row 38, but "
        "positive in all rows with latency."
    ) in err
    assert "1 row without latency not predicted: estimate is '0' in row 36, but positive" in err
    assert pd.read_csv(tmp_path / "out.csv")["name"].tolist() == ["l34"]


def half_blank(path: Path, **more: object) -> None:
    """A table whose second half lacks the target."""
    table = latencies(40).astype(str).assign(**more)
    table.loc[20:, "latency"] = ""
    table.to_csv(path, index=False)


@pytest.mark.parametrize("column", ["predicted", "low", "high", "source"])
def test_no_column_of_the_table_is_lost_in_what_is_written(
    codesign: Command, tmp_path: Path, column: str
) -> None:
    half_blank(tmp_path / "own.csv", **{column: "mine", "latency_low": "mine, too"})
    status, _, err = codesign(
        "--table", tmp_path / "own.csv", "--target", "latency", "--out", tmp_path / "out.csv"
    )
    assert status == 0, err
    found = pd.read_csv(tmp_path / "out.csv")
    prefix = "latency_latency_"
    assert set(found[column]) == {"mine"}
    assert set(found["latency_low"]) == {"mine, too"}
    new = [f"{prefix}{name}" for name in ("predicted", "low", "high", "source")]
    assert found.columns.tolist()[-4:] == new
    assert (found[f"{prefix}low"] < found[f"{prefix}predicted"]).all()
    assert set(found[f"{prefix}source"]) == {"predicted"}
    assert f"its last columns are {', '.join(new)}." in err


@pytest.mark.parametrize("way", ["same", "spelling", "new folder", "link", "hard link"])
def test_the_table_itself_is_not_written_over(codesign: Command, tmp_path: Path, way: str) -> None:
    path, out = tmp_path / "own.csv", tmp_path / "out.csv"
    half_blank(path)
    if way == "same":
        out = path
    elif way == "spelling":
        out = tmp_path / "there" / ".." / "own.csv"
        (tmp_path / "there").mkdir()
    elif way == "new folder":
        out = tmp_path / "there" / ".." / "own.csv"
    elif way == "link":
        out.symlink_to(path)
    else:
        out.hardlink_to(path)
    before = path.read_bytes()
    for table, to in ((path, out), (out, path))[: 1 if way == "new folder" else 2]:
        status, printed, err = codesign("--table", table, "--target", "latency", "--out", to)
        assert (status, printed) == (1, "")
        assert err == f"codesign: --out is {to}, but must be another file than that of --table.\n"
    assert path.read_bytes() == before


def test_what_cannot_be_written_is_refused_before_any_work(
    codesign: Command, tmp_path: Path
) -> None:
    half_blank(tmp_path / "own.csv")
    (tmp_path / "closed").mkdir()
    own = tmp_path / "own.csv"
    with tiny.read_only(tmp_path / "closed"):
        for out, words in (
            (tmp_path, f"--out is {tmp_path}, but must be a file."),
            (own / "out.csv", "cannot be written: Not a directory."),
            (tmp_path / "closed" / "out.csv", "cannot be written: Permission denied."),
            (tmp_path / "closed" / "new" / "out.csv", "cannot be written: Permission denied."),
        ):
            status, printed, err = codesign("--table", own, "--target", "latency", "--out", out)
            assert (status, printed) == (1, "")
            assert err.count("\n") == 1
            assert err.endswith(f"{words}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["closed", "own.csv"]


@pytest.mark.parametrize("more", [["--json"], []])
def test_a_report_is_printed_though_its_rows_cannot_be_written(
    codesign: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    def full(path: Path, text: str) -> None:
        raise InputError(f"{path} cannot be written: No space left on device; nothing changed.")

    monkeypatch.setattr(fitting, "write_text", full)
    half_blank(tmp_path / "own.csv")
    status, printed, err = codesign(
        "--table", tmp_path / "own.csv", "--target", "latency", "--out", tmp_path / "o.csv", *more
    )
    assert status == 1
    assert err.endswith("No space left on device; nothing changed.\n")
    assert json.loads(printed)["n_test"] == 20 if more else "latency: each of 20 rows" in printed
