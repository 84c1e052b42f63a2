"""Measurements of one's own, such as of a board: from a CSV table into a study.

Each row names a design, and what was measured of it. `fit` then learns from these in place of
simulated or modelled ones, and intervals leave out what is not known of a model.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from .accelerator import Accelerator, Accelerators
from .design import Design
from .errors import InputError, number, shown
from .meters import RECORDED, recorded
from .quantities import QUANTITIES, UNITS
from .space import Architecture
from .store import KEY, Key
from .study import LEAST, Study

DESIGN = "design"  # a column that may stand for the three of KEY
# What may be recorded, from and to which value: beyond lies no unit that was meant.
VALUES = {
    "accuracy": (0.0, 100.0), "latency_ms": (1e-6, 1e7), "power_w": (1e-6, 1e4),
    "clock_mhz": (0.01, 1e4),
}  # fmt: skip
_DECIMAL = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
POINTS, FACTOR = 20.0, 100.0  # off what is predicted: more is doubted


def record(study: Study, path: Path, by: str) -> str:
    """Store the measurements of a table, once all were checked, and say what they are of.

    Columns: `design`, or architecture, accelerator and device; and any of VALUES, in %, ms, W and
    MHz, where cells may be empty. Accuracy is of the architecture, so that accelerator and device
    may be empty in a row that has nothing else. `by` says who or what measured: a design has one
    value by each. Where values are far from what the study predicts, stderr has a sentence on it.
    Raises InputError that names the row, counted below the header, and the column.
    """
    from .table import read_table  # with it comes scipy, which the page does without

    table, method = read_table(path), _method("--by", by)
    rows = _parsed(study, path, table)
    known = _stored(study, method)
    new: dict[Key, dict[str, float]] = {}
    for place, key, quantity, value in rows:
        there = known.get((key, quantity), value)
        if there != value:
            of = "@".join(filter(None, key))
            raise InputError(
                f"{quantity} in row {place} of {path} is {value:g}, but {of} has {there:g} by {by} "
                "already: give another --by for another measurement."
            )
        if (key, quantity) not in known:
            new.setdefault(key, {})[quantity] = value
            known[key, quantity] = value
    with study.store.writing() as connection:
        for key, quantities in new.items():
            study.store.add(connection, key, quantities, method, "measured", 0.0)
    undo = study.command("record", "--forget", by.strip())
    for doubt in _doubts(study, path, rows):
        print(f"codesign: {doubt}; `{undo}` removes it.", file=sys.stderr)
    told = dict.fromkeys((quantity, key) for _, key, quantity, _ in rows)  # in their order
    counts = Counter((quantity, key[2]) for quantity, key in told)
    passed = [shown(name) for name in table if name not in (DESIGN, *KEY, *VALUES)]
    more = f"\nPassed over: {', '.join(passed)}." if passed else ""
    return _told(counts, known) + more


def forget(study: Study, by: str) -> str:
    """Remove what a name has recorded, and say how much that was. Raises InputError if nothing."""
    method, rows = _method("--forget", by), study.store.found()
    names = sorted({each for text in rows["method"] if (each := recorded(text) and text)})
    if method not in names:
        there = " and ".join(repr(name.removeprefix(RECORDED)) for name in names)
        has = f"has records by {there}" if names else "has no records by anybody"
        raise InputError(f"--forget is {shown(by)}, but this study {has}.")
    count = study.store.forget(method)
    return f"{count} values by {by.strip()} removed; `codesign fit` learns without them."


def _method(option: str, by: str) -> str:
    if not by.strip() or not by.isprintable() or len(by) > 60:
        raise InputError(f"{option} is {shown(by)}, but must be a name of up to 60 letters.")
    return RECORDED + by.strip()


def _doubts(study: Study, path: Path, rows: list[tuple[int, Key, str, float]]) -> Iterator[str]:
    """Yield for each quantity a sentence, without its end, on the first of the values that are more
    than POINTS, or the factor FACTOR, off what the study predicts, if it is fitted."""
    try:
        predictors = study.predictors()
    except InputError:
        return
    for quantity in QUANTITIES:
        mine = [row for row in rows if row[2] == quantity]
        values = np.array([row[3] for row in mine])
        told = np.empty(len(mine))
        devices = np.array([row[1][2] for row in mine])
        for device in np.unique(devices):
            here = np.flatnonzero(devices == device)
            genomes = study.space.genomes([mine[i][1][0] for i in here])
            if quantity == "accuracy":
                inputs = predictors.accuracy_inputs(genomes)
                told[here] = predictors.accuracy.estimate(inputs)[0]
            else:
                acc = Accelerators.of([Accelerator.parse(mine[i][1][1]) for i in here])
                figures = predictors.means(genomes, acc, str(device))
                told[here] = figures[:, QUANTITIES.index(quantity)]
        if quantity == "accuracy":
            off = np.flatnonzero(np.abs(values - told) > POINTS)
        else:
            off = np.flatnonzero(np.abs(np.log(values / told)) > np.log(FACTOR))
        if len(off):
            first, unit = off[0], UNITS[quantity]
            limit = f"{POINTS:g} points" if quantity == "accuracy" else f"a factor of {FACTOR:g}"
            yield (
                f"{quantity} in row {mine[first][0]} of {path} is {values[first]:g} {unit}, but "
                f"{told[first]:.3g} {unit} is predicted: {len(off)} of {len(mine)} values are off "
                f"by more than {limit}, so look at their unit"
            )


def _parsed(study: Study, path: Path, table: pd.DataFrame) -> list[tuple[int, Key, str, float]]:
    """Return row, design, quantity and value of each cell of a table that holds one."""
    names = [name for name in VALUES if name in table]
    single = DESIGN in table
    if not names or not (single or set(KEY) <= set(table)):
        raise InputError(
            f"columns of {path} are {', '.join(map(shown, table))}, but must be {DESIGN}, or "
            f"{', '.join(KEY)}; and one or more of {', '.join(VALUES)}."
        )
    found: list[tuple[int, Key, str, float]] = []
    for place, row in enumerate(table.to_dict("records"), start=1):
        if not any(map(str.strip, row.values())):
            continue
        where = f"row {place} of {path}"
        text = [row[DESIGN]] if single else [row[name] for name in KEY]
        given = [name for name in names if row[name].strip()]
        try:
            key = _key(study, "@".join(part.strip() for part in text), given)
            for name, part in zip(KEY, key, strict=True) if single else ():
                if (other := row.get(name, "").strip()) and part and other != part:
                    raise InputError(f"{name} is {shown(other)}, but {DESIGN} says {part}.")
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        for name in given:
            value = _number(f"{name} in {where}", row[name], name)
            # Half of what guessing has is no accuracy, and at most 1 it is a fraction.
            if name == "accuracy" and 0 < value <= min(1, 50 / study.space.classes):
                raise InputError(
                    f"{name} in {where} is {value:g}, but must be in %, as 95 for a part of 0.95."
                )
            found.append((place, (key[0], "", "") if name == "accuracy" else key, name, value))
    if not found:
        raise InputError(f"{path} holds no measurement: all cells of {', '.join(names)} are empty.")
    return found


def _key(study: Study, text: str, given: list[str]) -> Key:
    """Return a row's design as the store names it. Raises InputError if the study has none such."""
    if given == ["accuracy"] and not text.partition("@")[2].strip("@"):
        architecture = Architecture.parse(text.partition("@")[0])
        study.space.encode(architecture)
        return str(architecture), "", ""
    return study.find(str(Design.parse(text))).key


def _number(field: str, cell: str, name: str) -> float:
    if not _DECIMAL.fullmatch(cell.strip()):
        raise InputError(f"{field} is {shown(cell)}, but must be a number, such as 0.95 or 1.2e-3.")
    return number(field, float(cell), *VALUES[name])


def _stored(study: Study, method: str) -> dict[tuple[Key, str], float]:
    """Return what the study holds by a method, by design and quantity."""
    rows = study.store.values()
    rows = rows[(rows["method"] == method) & rows["quantity"].isin(VALUES)]
    keys = rows[KEY].itertuples(index=False, name=None)
    pairs = zip(keys, rows["quantity"], strict=True)
    return dict(zip(pairs, rows["value"].astype(float), strict=True))


def _told(counts: Counter[tuple[str, str]], known: dict[tuple[Key, str], float]) -> str:
    """Say how many designs were recorded, and whether `fit` has enough to learn from."""
    lines = []
    for (quantity, device), count in counts.items():
        total = sum(name == quantity and key[2] == device for key, name in known)
        of, what = (f"{quantity} on {device}", "designs") if device else (quantity, "networks")
        line = f"{of}: {count} {what} measured, {total} in all"
        if quantity in QUANTITIES and total < LEAST:
            line += f"; `codesign fit` learns from these once there are {LEAST}"
        lines.append(line + ".")
    return "\n".join(lines)


def values(study: Study, design: Design) -> dict[str, float]:
    """Return what was recorded of a design last, of QUANTITIES."""
    rows = study.store.values([design.key, (design.key[0], "", "")])
    rows = rows[rows["method"].map(recorded).astype(bool) & rows["quantity"].isin(QUANTITIES)]
    return dict(zip(rows["quantity"], rows["value"].astype(float), strict=True))
