"""How well a surrogate predicts a table of one's own, on rows held out, beside plain models."""

import csv
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from . import baselines
from .baselines import ZERO_MEAN, Split
from .errors import InputError, integer, shown
from .files import check_out, write_text
from .kernel import Floats
from .surrogate import Surrogate
from .table import FEW, WIDE, Problem, listed, prepare, read_table

LEAST = 10  # training rows
MOST = 1_000  # training rows: the time of an exact Gaussian process grows with their cube
MOST_ZERO_MEAN = 500  # training rows of scikit-learn's Gaussian process, ten times as slow
FOLDS = 10
COVERAGE = 0.9


@dataclass(frozen=True)
class Report:
    """How well a target is predicted on held-out rows; `models` as from `baselines.compare`."""

    target: str
    models: pd.DataFrame
    n_train: int
    n_test: int
    notes: list[str]
    folds: bool = False  # cross-validated: each row is tested once
    filled: pd.DataFrame = field(default_factory=pd.DataFrame)  # rows without target, predicted

    def json(self) -> str:
        """Return the figures for programs; those that do not exist are null."""
        own, *others = self.models.index
        rows = {
            name: {
                key: _finite(self.models.loc[name, column])
                for key, column in (
                    ("mape", "MAPE"), ("mae", "MAE"), ("r2", "R2"), ("kendall_tau", "Kendall tau"),
                )
            }
            for name in self.models.index
        }  # fmt: skip
        coverage, width = self.models.loc[own, ["coverage", "width"]]
        content = rows[own] | {
            "coverage": _finite(coverage / 100),
            "width": _finite(width),
            "n_train": self.n_train,
            "n_test": self.n_test,
            "baselines": {name: rows[name] for name in others},
        }
        return json.dumps(content, indent=2, allow_nan=False)

    def __str__(self) -> str:
        names = {"MAPE": "MAPE (%)", "coverage": "coverage (%)"}
        shown = self.models.rename(columns=names)
        text = shown.to_string(na_rep="", float_format=lambda value: f"{value:.4g}")
        how = f"trained on {self.n_train:,} rows, tested on {self.n_test:,} others"
        if self.folds:
            how = f"each of {self.n_test:,} rows is tested once, by fits to {self.n_train:,} others"
        return (
            f"{self.target}: {how}.\n"
            f"{text}\nMAE and width are in the unit of {self.target}; coverage and width are those "
            "of the 90 % interval."
        )


def fit_table(
    path: Path,
    target: str,
    prior: str | None = None,
    features: Sequence[str] | None = None,
    train: int | None = None,
    seed: int = 0,
    fill: bool = False,
    notes: list[str] | None = None,
) -> Report:
    """Fit the table's target, and test that on rows held out: all but `train` rows drawn by `seed`.

    Without `train` it is cross-validated in ten shuffled folds, so that each row is tested once; a
    table of over 1,000 rows is tested on a tenth, or on all but 1,000 if that is more. `prior` is a
    column in the target's unit or proportional to it, `features` are columns (all others if None).
    With `fill`, rows that lack the target are predicted. What is decided is added to `notes`, also
    if it ends in an error. Raises InputError.
    """
    integer("--seed", seed, 0, 2**31 - 1)
    whole = read_table(path)
    if len(whole) < LEAST + 2:
        raise InputError(f"{path} has {len(whole)} rows, but at least {LEAST + 2} are needed.")
    problem = prepare(whole, path, target, prior, features, fill, notes)
    rows, notes = len(problem.y), problem.notes
    if fill and problem.blank.empty:
        raise InputError(
            f"--out is given, but {path} has no row without {target} that can be predicted."
        )
    if rows < LEAST + 2:
        raise InputError(
            f"{path} has {rows} rows that can be used, but at least {LEAST + 2} are needed."
        )
    most = min(MOST, rows - 2)
    if train is not None:
        integer("--train", train, LEAST, rows - 2)
    elif rows > MOST:
        train = min(MOST, rows * (FOLDS - 1) // FOLDS)
        if train < MOST:
            notes.append(f"trained on {train:,} of {rows:,} rows, too many to be cross-validated")
    if train is not None and train > most:
        train = most
    if train == MOST:
        notes.append(f"trained on {MOST:,} of {rows:,} rows, the most that are fitted at once")
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows)
    kinds, same = np.unique(problem.X, axis=0, return_inverse=True)
    repeats = rows - len(kinds)
    if train is None:
        parts = np.array_split(order, FOLDS)
        if repeats:
            # What is measured again is to be predicted from others, not from itself.
            groups = np.array_split(rng.permutation(len(kinds)), min(FOLDS, len(kinds)))
            parts = [order[np.isin(same[order], group)] for group in groups]
            notes.append(
                f"{repeats} rows have the features of another: those are held out together"
            )
        splits = [(np.setdiff1d(order, part), np.sort(part)) for part in parts]
        notes.append(
            f"cross-validated in {len(splits)} folds; --train N tests on all but N rows instead"
        )
    else:
        splits = [(np.sort(order[:train]), np.sort(order[train:]))]
        seen_before = int(np.isin(same[order[train:]], same[order[:train]]).sum())
        if seen_before:
            notes.append(f"{seen_before} rows tested have the features of a row trained on")
    n_train = max(len(part) for part, _ in splits)
    seen = splits[0][0] if train is not None else order
    _check_split(problem.y, splits, target)
    log, why = logarithm(problem, seen)
    notes.append(f"{target} {why}")
    zero_mean = n_train <= MOST_ZERO_MEAN
    if not zero_mean:
        notes.append(f"{ZERO_MEAN} left out: too slow for over {MOST_ZERO_MEAN} rows")
    models = baselines.compare(
        problem.inputs(log), problem.y, problem.prior, log, splits=splits, zero_mean=zero_mean
    )
    n_test = sum(len(part) for _, part in splits)
    if np.isnan(models["MAPE"].iloc[0]):
        notes.append(f"no MAPE: {target} is 0 in a row that was tested")
    filled = _filled(problem, target, log, order[:MOST])
    return Report(target, models, n_train, n_test, notes, len(splits) > 1, filled)


def _filled(problem: Problem, target: str, log: bool, rows: NDArray[np.int64]) -> pd.DataFrame:
    """Return the rows that lack the target with its prediction and 90 % interval, by a fit to
    `rows` of those that have it. A column of theirs that has the name of a new one is kept: the new
    ones are then named after the target, too."""
    if len(problem.blank) == 0:
        return pd.DataFrame()
    model = Surrogate(problem.prior, log).fit(problem.inputs(log)[rows], problem.y[rows])
    X = problem.inputs(log, problem.asked)
    low, high = model.interval(X, COVERAGE)
    new = {"predicted": model.predict(X), "low": low, "high": high, "source": "predicted"}
    while not problem.blank.columns.intersection([*new]).empty:
        new = {f"{target}_{name}": values for name, values in new.items()}
    return problem.blank.assign(**new)


def logarithm(problem: Problem, rows: NDArray[np.int64]) -> tuple[bool, str]:
    """Whether to model the target's logarithm, as `rows` to be trained on say, and why.

    It is where target and prior are positive and the target spans a factor of ten: errors are then
    as large as what they are errors of. If it spans less, what predicts each row better from the
    others decides; that is too noisy a judge at 20 rows to overrule a wide span.
    """
    if not problem.positive:
        what = "it" if problem.prior is None else "it or the prior"
        return False, f"is modelled as it is: {what} is not positive everywhere"
    y = problem.y[rows]
    span = y.max() / y.min()
    if span >= WIDE:
        return (
            True,
            f"is modelled by its logarithm: it is positive and spans a factor of {span:.3g}",
        )
    few, plain = rows[: MOST // 2], problem.inputs(False)
    without, with_it = (
        Surrogate(problem.prior, log).fit(X[few], problem.y[few]).log_density()
        for X, log in ((plain, False), (problem.X, True))
    )
    return with_it > without, (
        f"is modelled {'by its logarithm' if with_it > without else 'as it is'}: the mean log "
        f"density of a row left out is {with_it:.3g} with the logarithm, {without:.3g} without"
    )


def _check_split(y: Floats, splits: Sequence[Split], target: str) -> None:
    for part, _ in splits:
        if np.ptp(y[part]) == 0:
            raise InputError(
                f"target {shown(target)} is {y[part][0]:g} in all {len(part)} training rows, but "
                "must vary: choose a larger --train or another --seed."
            )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def without_table(options: Mapping[str, object]) -> None:
    """Refuse the options of `fit` that belong to --table. Raises InputError."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise InputError(f"{', '.join(given)} cannot be given without --table FILE.csv.")


def show(
    path: Path, target: str | None, prior: str | None, features: str | None, train: int | None,
    seed: int, as_json: bool, out: Path | None = None,
) -> None:  # fmt: skip
    """Print how well a table is predicted, and on stderr what was decided for the user, also before
    a refusal. With `out`, write the rows that lack the target there, predicted."""
    if target is None:
        there = listed(read_table(path).columns[:FEW])
        raise InputError(f"--target is missing, but must be a column of {path}, such as {there}.")
    if out is not None:
        _check_out(out, path)
    names = None if features is None else _names(features)
    notes: list[str] = []
    try:
        report = fit_table(path, target, prior, names, train, seed, out is not None, notes)
    finally:  # what was left out is often why the rest is refused
        for note in notes:
            print(f"note: {note}.", file=sys.stderr)
    try:
        if out is not None:
            write_text(out, report.filled.to_csv(index=False))
            count, new = len(report.filled), ", ".join(report.filled.columns[-4:])
            print(
                f"note: wrote {count:,} rows, predicted, to {out}; its last columns are {new}.",
                file=sys.stderr,
            )
    finally:  # a full disk takes nothing of the report
        print(report.json() if as_json else report)


def _names(features: str) -> list[str]:
    """Return the names in a line of CSV: one that holds a comma is in quotes. Raises InputError."""
    try:
        line = next(csv.reader([features], skipinitialspace=True, strict=True))
    except csv.Error:
        raise InputError(
            f"--features is {shown(features)}, but must be names parted by commas, quoted as in a "
            "CSV file where they hold one."
        ) from None
    return [name.strip() for name in line] or [""]


def _check_out(out: Path, path: Path) -> None:
    """Refuse a file to write that is the table itself, or none that can be written. Raises
    InputError."""
    check_out("--out", out)
    # As in new/../own.csv, before `new` is made.
    same = os.path.realpath(out) == os.path.realpath(path)
    if same or (out.exists() and path.exists() and out.samefile(path)):
        raise InputError(f"--out is {out}, but must be another file than that of --table.")
