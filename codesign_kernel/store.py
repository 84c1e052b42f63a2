"""Measurements in SQLite: rows are kept as they come, and what was measured is not measured again.

A row holds one quantity of one design: accuracy has an empty accelerator and device. `method` says
how it was obtained in enough detail that two values of one method can be compared; `source` is the
word a person sees: measured or modelled. What a value is a sum of may be kept with it, as bytes:
the margins on single images (`margins.py`) with an accuracy.
"""

import math
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .errors import InputError, choice, number

_SCHEMA = """
CREATE TABLE IF NOT EXISTS measurement (
    architecture TEXT NOT NULL,
    accelerator TEXT NOT NULL,
    device TEXT NOT NULL,
    quantity TEXT NOT NULL,
    method TEXT NOT NULL,
    value REAL NOT NULL,
    source TEXT NOT NULL CHECK (source IN ('measured', 'modelled')),
    seconds REAL NOT NULL,
    PRIMARY KEY (architecture, accelerator, device, quantity, method)
)
"""
_SERIES = """
CREATE TABLE IF NOT EXISTS series (
    architecture TEXT NOT NULL,
    accelerator TEXT NOT NULL,
    device TEXT NOT NULL,
    quantity TEXT NOT NULL,
    method TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (architecture, accelerator, device, quantity, method)
) WITHOUT ROWID
"""
_PICKED = """
CREATE TABLE IF NOT EXISTS picked (
    architecture TEXT NOT NULL,
    accelerator TEXT NOT NULL,
    device TEXT NOT NULL,
    PRIMARY KEY (architecture, accelerator, device)
) WITHOUT ROWID
"""
SOURCES = ("measured", "modelled")
PATIENCE_S = 30  # to wait for another writer
Series = NDArray[np.int8]
Key = tuple[str, str, str]  # architecture, accelerator, device
KEY = ["architecture", "accelerator", "device"]  # columns that hold it


def _patiently(connection: sqlite3.Connection, statement: str) -> None:
    """Execute a statement once it can be: SQLite waits for locks, but not while another writer
    comes or goes, i.e. changes the file's mode."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # of whatever kind
            if not busy or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


class Store:
    """The measurements in one file. Every method raises InputError if the file is damaged, or
    cannot be written where it writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def _open(self, write: bool) -> Iterator[sqlite3.Connection]:
        try:
            if write:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            uri = f"{self.path.resolve().as_uri()}?mode={'rwc' if write else 'ro'}"
            with closing(sqlite3.connect(uri, uri=True, timeout=PATIENCE_S)) as connection:
                if write:
                    for table in (_SCHEMA, _SERIES, _PICKED):
                        _patiently(connection, table)
                yield connection
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            does = "written" if write else "read"
            cause = error.__cause__ or error  # pandas quotes the query, and not just what is wrong
            why = " ".join(str(cause).split())[:200]
            left = self.path.with_name(f"{self.path.name}-wal")  # by a writer that was killed
            unopened = getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_CANTOPEN
            if not write and unopened and left.exists():
                why = (
                    "its writer was stopped, and nothing can be written beside it; copy the folder "
                    "to where it can be written, and use that"
                )
            raise InputError(f"{self.path} cannot be {does}: {why}.") from None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection for `add`, in write-ahead mode: a kill loses at most the last row.

        (A power failure may lose the last few, but leaves none in part.) On leaving, the file is
        whole by itself, so that it can be copied and read anywhere; while others have it open,
        that is left to the last writer.
        """
        with self._open(write=True) as connection:
            _patiently(connection, "PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")  # safe with WAL, and rows cost no wait
            try:
                yield connection
            finally:
                with suppress(sqlite3.OperationalError):  # in use by others
                    connection.execute("PRAGMA journal_mode=DELETE")

    @staticmethod
    def add(
        connection: sqlite3.Connection,
        key: Key,
        quantities: Mapping[str, float | Series],
        method: str,
        sources: str | Mapping[str, str],
        seconds: float,
        picked: bool = False,
    ) -> None:
        """Store the quantities of one design, all or none; a row that is there already stays.

        It was `picked` if it was measured for what was predicted of it. `sources` is the source of
        all quantities, or has that of each. An array of signed bytes is kept as a series. Raises
        InputError if another value is not a finite number or a source not a known one.
        """
        series = [
            (*key, name, method, value.tobytes())
            for name, value in quantities.items()
            if isinstance(value, np.ndarray)
        ]
        quantities = {k: v for k, v in quantities.items() if not isinstance(v, np.ndarray)}
        if isinstance(sources, str):
            sources = dict.fromkeys(quantities, sources)
        for source in sources.values():
            choice("source of a measurement", source, SOURCES)
        rows = [
            (*key, name, method, number(f"{name} of {'@'.join(key)}", value, -math.inf),
             sources[name], seconds)
            for name, value in quantities.items()
        ]  # fmt: skip
        with connection:
            connection.executemany(
                "INSERT INTO measurement VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                rows,
            )
            connection.executemany(
                "INSERT INTO series VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", series
            )
            if picked:
                insert = "INSERT INTO picked VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
                connection.execute(insert, key)

    def forget(self, method: str) -> int:
        """Remove all that was measured by this method; return how many values that was."""
        with self.writing() as connection, connection:
            connection.execute("DELETE FROM series WHERE method=?", [method])
            return connection.execute("DELETE FROM measurement WHERE method=?", [method]).rowcount

    def keys(self, method: str) -> set[Key]:
        """Return the designs that have a measurement by this method."""
        if self._empty():
            return set()
        query = "SELECT DISTINCT architecture, accelerator, device FROM measurement WHERE method=?"
        with self._open(write=False) as connection:
            return {(row[0], row[1], row[2]) for row in connection.execute(query, [method])}

    def series(self, quantity: str, method: str) -> dict[Key, Series]:
        """Return the arrays of a quantity that were kept with measurements by this method."""
        query = "SELECT architecture, accelerator, device, value FROM series "
        found = self._select("series", f"{query} WHERE quantity=? AND method=?", quantity, method)
        return {row[:3]: np.frombuffer(row[3], np.int8) for row in found}

    def picked(self) -> set[Key]:
        """Return the designs that were measured for what was predicted of them."""
        query = "SELECT architecture, accelerator, device FROM picked"
        return {row[:3] for row in self._select("picked", query)}

    def _select(self, table: str, query: str, *values: str) -> list[Any]:
        """Return the rows of a query, none if the file is of before there was the table."""
        if self._empty():
            return []
        there = "SELECT 1 FROM sqlite_master WHERE name=?"
        with self._open(write=False) as connection:
            found = connection.execute(there, [table]).fetchone()
            return connection.execute(query, values).fetchall() if found else []

    def rows(self) -> pd.DataFrame:
        """Return a row for each design, method and source, in the order of their first values.

        Columns: architecture, accelerator, device, method, source, then the quantities. Raises
        InputError if nothing was measured yet.
        """
        frame = self.found()
        if frame.empty:
            raise InputError(f"{self.path} holds no measurement: run `codesign profile` first.")
        return frame

    def found(self) -> pd.DataFrame:
        """Return what `rows` does, or a table without rows if nothing was measured yet."""
        index, frame = [*KEY, "method", "source"], self.values()
        stored = pd.MultiIndex.from_frame(frame[index].drop_duplicates())
        wide = frame.pivot(index=index, columns="quantity", values="value").reindex(stored)
        return wide.reset_index().rename_axis(columns=None)

    def values(self, keys: Collection[Key] | None = None) -> pd.DataFrame:
        """Return a row for each value, of `keys` if they are given, in the order they were stored,
        which that of `rows` does not keep. Columns: architecture, accelerator, device, method,
        source, quantity, value."""
        columns = [*KEY, "method", "source", "quantity", "value"]
        if self._empty():
            return pd.DataFrame(columns=columns)
        with self._open(write=False) as connection:
            query = f"SELECT {', '.join(columns)} FROM measurement ORDER BY rowid"
            frame = pd.read_sql_query(query, connection)
        if frame.duplicated(columns[:-1]).any():
            raise InputError(f"{self.path} is damaged: it holds a value twice.")
        return frame if keys is None else frame[pd.MultiIndex.from_frame(frame[KEY]).isin(keys)]

    def _empty(self) -> bool:
        # A writer makes the file a moment before its table.
        return not self.path.exists() or self.path.stat().st_size == 0
