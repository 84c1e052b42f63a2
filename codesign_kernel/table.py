"""A table of one's own: from any CSV file to the inputs and the target of a surrogate.

What is decided for the user, such as which columns enter, is told in a note; what cannot be
decided is refused in one sentence.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from .errors import InputError, shown
from .kernel import Floats

LEVELS = 20  # values of a text column that get a column of their own
WIDE = 10.0  # a positive column that spans this factor enters by its logarithm
LEAKS = 0.995  # correlation with the target from which a feature is pointed out
FEW = 12  # columns or rows that a sentence names
SIZE = 1e-100, 1e100  # of numbers other than 0, so that squares and ratios stay finite
_MISSING = {"", "na", "n/a", "nan", "null", "?"}
_NO_NUMBER = {"none", "-"}  # missing among numbers, but a level among texts
_WRITTEN = {  # numbers that are written otherwise; at a tie, the first holds
    "a decimal comma or a thousands separator": r"([+-]?[1-9]\d{0,2},\d{3})",
    "a decimal comma": r"[+-]?\d*,\d+([eE][+-]?\d+)?",
    "a thousands separator": r"[+-]?[1-9]\d{0,2}([ '’.,\u00a0\u202f]\d{3})+([.,]\d+)?",
    "a unit": r"([+-]?\d*[.,]?\d+(?:[eE][+-]?\d+)?)\s*([^\W\d_][^\d.,]{0,11}|[%°€$£].{0,11})",
}


@dataclass
class Problem:
    """Inputs X (n, d) of a table's usable rows, its target y (n,), the prior's column of X."""

    X: Floats
    y: Floats
    prior: int | None = None
    features: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    positive: bool = True  # target and prior have logarithms
    wide: list[bool] = field(default_factory=list)  # columns that enter by their logarithm
    blank: pd.DataFrame = field(default_factory=pd.DataFrame)  # rows that lack the target alone,
    asked: Floats = field(default_factory=lambda: np.empty((0, 0)))  # and their inputs, as X

    def inputs(self, log: bool, of: Floats | None = None) -> Floats:
        """What enters the surrogate, (n, d), of X or other rows: with `log` it takes the logarithms
        itself, else those of some columns are taken here."""
        X = self.X if of is None else of
        if log or not any(self.wide):
            return X
        columns = np.array(self.wide)
        found = X.copy()
        found[:, columns] = np.log(found[:, columns])
        return found


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file (comma, semicolon or tab) as texts, missing cells as "". Raises InputError.

    `none` and `-` are missing in a column of numbers, but a text like others in one of texts. Rows
    without any value, and rows that are the same as another in all columns, stay.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            blank, head = next(((i, x) for i, x in enumerate(file) if x.strip()), (0, ""))
        separator = max(",;\t", key=head.count)
        frame = pd.read_csv(
            path, header=None, dtype=str, keep_default_na=False, skip_blank_lines=False,
            sep=separator, encoding="utf-8-sig", low_memory=False, skiprows=blank,
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text in UTF-8, but must be a CSV table.") from None
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} is empty, but must be a CSV table with a header.") from None
    except (pd.errors.ParserError, ValueError) as error:
        found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
        if found is None:
            raise InputError(f"{path} is damaged or no CSV table.") from None
        wide, line, here = found.groups()
        raise InputError(
            f"line {line} of {path} has {here} fields, but must have {wide} as the header has."
        ) from None
    frame = frame.fillna("").map(str.strip)
    names = [name or f"column {i}" for i, name in enumerate(frame.iloc[0], start=1)]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path} has more than one column {shown(name)}, but must have one.")
    frame = frame.iloc[1:].set_axis(names, axis="columns").reset_index(drop=True)
    return pd.DataFrame({name: _blanked(frame[name]) for name in names})


def _blanked(cells: pd.Series) -> pd.Series:
    """Return a column's cells with "" for those that are missing."""
    lower = cells.map(str.lower)
    cells = cells.mask(lower.isin(_MISSING), "")
    doubtful = lower.isin(_NO_NUMBER)
    return cells.mask(doubtful, "") if _numeric(cells[~doubtful & (cells != "")]) else cells


def _numeric(cells: pd.Series) -> bool:
    """Whether these cells are numbers: a text among numbers is a slip, no category."""
    return bool(pd.to_numeric(cells, errors="coerce").notna().mean() > 0.5)


def prepare(
    frame: pd.DataFrame,
    path: Path,
    target: str,
    prior: str | None = None,
    features: Sequence[str] | None = None,
    fill: bool = False,
    notes: list[str] | None = None,
) -> Problem:
    """Turn a table of `read_table` into numbers. Raises InputError.

    With `fill` also the rows that lack the target alone, so that it can be predicted. What is
    decided is added to `notes` as it is, so that they say what led to an error.

    Left out, each with a note: rows that repeat another or lack a value, columns that are constant,
    mostly missing or name the row. A text column becomes one of 0 and 1 for each of its values.
    """
    notes = [] if notes is None else notes
    named = [("--target", target), *([] if prior is None else [("--prior", prior)])]
    named += [("--features", name) for name in features or ()]
    for option, name in named:
        if name not in frame:
            there = listed(frame.columns[:FEW]) + ", ..." * (len(frame.columns) > FEW)
            raise InputError(f"{option} is {shown(name)}, but must be a column of {path}: {there}.")
        if name == target and option != "--target":
            raise InputError(f"{option} names the target {shown(target)}, but must not.")
    if features is not None and len({*features}) < len(features):
        raise InputError(f"--features is {shown(','.join(features))}, but must name a column once.")
    used = list(frame.columns if features is None else features)
    used = [name for name in used if name not in (target, prior)]
    given = frame.loc[(frame != "").any(axis="columns")]
    whole = given[given[target] != ""]
    if len(whole) < len(given):
        notes.append(f"{_rows(len(given) - len(whole))} left out: {target} is missing")
    again = whole.duplicated()
    if again.any():
        notes.append(f"{_rows(int(again.sum()))} left out, the same as another in all columns")
    whole = whole[~again]
    if features is None:
        used = _worth_using(whole, used, notes)
    needed = [*used, *([] if prior is None else [prior])]
    gaps = (whole[needed] == "").sum()
    gaps = gaps[gaps > 0]
    if len(gaps):
        before = len(whole)
        whole = whole[(whole[gaps.index] != "").all(axis="columns")]
        missing = ", ".join(f"{name} ({count:,})" for name, count in gaps.items())
        notes.append(f"{_rows(before - len(whole))} left out: a value is missing in {missing}")
    blank = given[(given[target] == "") & fill]
    lacks = (blank[needed] == "").any(axis="columns")
    if lacks.any():
        notes.append(f"{_rows(int(lacks.sum()))} without {target}: another value is missing, too")
    if whole.empty:
        raise InputError(f"{path} has no row in which {target} and all that predicts it is given.")
    y = _numbers(whole, target, "--target", path)
    if np.ptp(y) == 0:
        raise InputError(f"target {shown(target)} is {y[0]:g} in all rows, but must vary.")
    if np.ptp(y) < 1e-9 * np.abs(y).max():
        raise InputError(
            f"target {shown(target)} varies by {np.ptp(y):g} about {y[0]:g}, but must vary by more."
        )
    problem = Problem(np.empty((len(y), 0)), y, notes=notes, positive=bool((y > 0).all()))
    blocks: list[Floats] = []
    entering: list[_Column] = []
    if prior is not None:
        estimate = _numbers(whole, prior, "--prior", path)
        if np.ptp(estimate) == 0:
            raise InputError(f"prior {shown(prior)} is {estimate[0]:g} in all rows, but must vary.")
        if problem.positive and (estimate <= 0).any():
            problem.positive = False
            notes.append(f"prior {prior} is {estimate.min():g} in a row, so no logarithm is taken")
        problem.prior = 0
        blocks.append(estimate[:, None])
        entering.append(_Column(prior, option="--prior", positive=problem.positive))
        problem.wide.append(False)
    columns = [column for name in used if (column := _column(whole, name, path, notes))]
    problem.features = [column.name for column in columns]
    for column in columns:
        each = column.of(whole, path)
        wide = bool(each.min() > 0 and each.max() / each.min() >= WIDE)
        blocks.append(each)
        entering.append(column._replace(positive=wide))
        problem.wide += [wide] * each.shape[1]
        varies = each.shape[1] == 1 and np.ptp(each) > 0
        if varies and abs(np.corrcoef(each[:, 0], y)[0, 1]) > LEAKS:
            notes.append(
                f"{column.name} all but equals {target}: leave it out if it is not known before"
            )
    if not blocks:
        raise InputError(f"{path} has no column left that could predict {shown(target)}.")
    problem.X = np.hstack(blocks)
    problem.blank = blank[~lacks]
    for column in entering:
        problem.blank = column.predictable(problem.blank, target, path, notes)
    problem.asked = np.hstack([column.of(problem.blank, path) for column in entering])
    prefix = f"prior: {prior}; " if prior is not None else ""
    notes.insert(0, f"{prefix}features: {listed(problem.features) or 'none'}")
    return problem


def listed(names: Sequence[str] | pd.Index) -> str:
    """Return names of columns as --features takes them: quoted as in a CSV file."""
    special = [name for name in names if "," in name or '"' in name]
    quoted = {name: '"{}"'.format(name.replace('"', '""')) for name in special}
    return ", ".join(quoted.get(name, name) for name in names)


def _worth_using(frame: pd.DataFrame, names: list[str], notes: list[str]) -> list[str]:
    """Columns that nobody named are left out where they are empty or only count the rows."""
    kept = []
    for name in names:
        cells = frame[name]
        gaps = int((cells == "").sum())
        numbers = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
        counts = len(cells) > 1 and np.array_equal(numbers, numbers[0] + np.arange(len(cells)))
        if 2 * gaps > len(cells):
            notes.append(f"{name} left out: it is missing in {gaps:,} of {len(cells):,} rows")
        elif counts and len(names) > 1:
            notes.append(f"{name} left out: it counts the rows; --features can name it")
        else:
            kept.append(name)
    return kept


def _numbers(frame: pd.DataFrame, name: str, option: str, path: Path) -> Floats:
    """Return a column (n,) that has to hold numbers. Raises InputError."""
    cells = frame[name]
    values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
    size = np.abs(values)
    bad = np.flatnonzero(~((size == 0) | ((size >= SIZE[0]) & (size <= SIZE[1]))))
    if len(bad):
        looks = _looks(cells)
        raise InputError(
            f"{option} {shown(name)} is {shown(str(cells.iloc[bad[0]]))} in row "
            f"{cells.index[bad[0]] + 1} of {path}, but must be a number (0, or {SIZE[0]:g} to "
            f"{SIZE[1]:g} in size){looks and f': the column looks like {looks}'}."
        )
    return np.asarray(values)


def _looks(cells: pd.Series) -> str:
    """Return how the texts among these cells write numbers, and how to; "" if most are none."""
    texts = cells[pd.to_numeric(cells, errors="coerce").isna()].unique()
    found = {
        kind: [match for text in texts if (match := re.fullmatch(pattern, text))]
        for kind, pattern in _WRITTEN.items()
    }
    kind = max(found, key=lambda kind: len(found[kind]))
    numbers, units = ({match.groups()[part] for match in found[kind]} for part in (0, -1))
    names = kind == "a unit" and len(units) >= len(numbers)  # such as 1a, 1b, 2a, 2b
    if names or 2 * len(found[kind]) <= len(texts):
        return ""
    plain = "plain ones, such as 1234.5" + ", all in one unit" * (kind == "a unit")
    return f"numbers with {kind}, such as {shown(found[kind][0][0])}; write {plain}"


class _Column(NamedTuple):
    """How a feature enters: as its numbers, or a text as 0 and 1 for each of its `levels`; `known`
    are all texts that it may be, and `positive` must be a number whose logarithm is taken."""

    name: str
    levels: list[str] | None = None
    known: frozenset[str] | None = None
    positive: bool = False
    option: str = "feature"

    def of(self, frame: pd.DataFrame, path: Path) -> Floats:
        """Return the columns (n, k) of the rows. Raises InputError for what is no number."""
        if self.levels is None:
            return _numbers(frame, self.name, self.option, path)[:, None]
        cells = frame[self.name]
        return np.column_stack([cells == level for level in self.levels]).astype(np.float64)

    def predictable(
        self, blank: pd.DataFrame, target: str, path: Path, notes: list[str]
    ) -> pd.DataFrame:
        """Return the rows without target that are here like some with it, and tell of others."""
        cells = blank[self.name]
        if self.positive:
            why, unlike = "positive in all", self.of(blank, path)[:, 0] <= 0
        else:
            known = cells if self.known is None else self.known
            why, unlike = "in no", ~cells.isin([*known]).to_numpy(dtype=np.bool_)
        rows = np.flatnonzero(unlike)
        if len(rows):
            where = [f"{shown(cells.iloc[i])} in row {cells.index[i] + 1}" for i in rows[:FEW]]
            notes.append(
                f"{_rows(len(rows))} without {target} not predicted: {self.name} is "
                f"{', '.join(where)}{', ...' * (len(rows) > FEW)}, but {why} rows with {target}"
            )
        return blank[~unlike]


def _column(frame: pd.DataFrame, name: str, path: Path, notes: list[str]) -> _Column | None:
    """Return how a feature enters; None if it is left out."""
    cells = frame[name]
    levels = cells.value_counts()
    if len(levels) == 1:
        notes.append(f"{name} left out: it is {shown(str(cells.iloc[0]))} in all rows")
        return None
    if _numeric(cells):
        return _Column(name)
    looks = _looks(cells)
    if 2 * len(levels) > len(cells):
        why = f"looks like {looks}" if looks else f"names {len(levels):,} of {len(cells):,} rows"
        notes.append(f"{name} left out: it {why}")
        return None
    if looks:
        notes.append(f"{name} is taken for categories, but looks like {looks}")
    # Ties are broken by the text, so that the order of rows does not matter.
    often = sorted(levels.index, key=lambda level: (-levels[level], level))[:LEVELS]
    if len(levels) > LEVELS:
        notes.append(
            f"{name} has {len(levels):,} values: the {LEVELS} most frequent are told apart"
        )
    often = often[:1] if len(levels) == 2 else often
    return _Column(name, often, None if len(levels) > LEVELS else frozenset(levels.index))


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
