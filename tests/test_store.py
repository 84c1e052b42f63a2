"""The store: rows are whole or absent whatever happens to the writer, the disk or the file."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign_kernel.errors import InputError
from codesign_kernel.store import Key, Store

ONE, TWO = ("w8k3", "8x8x1w16f16", "ecp5-85f"), ("w16k3", "8x8x1w16f16", "ecp5-85f")
# Adds rows of two quantities as fast as it can, saying each once it is stored.
WRITER = """
import sys
from pathlib import Path
from codesign_kernel.store import Store
with Store(Path(sys.argv[1])).writing() as connection:
    for i in range(int(sys.argv[3])):
        key = (f"{sys.argv[2]}-{i}", "", "")
        Store.add(connection, key, {"a": float(i), "b": -float(i)}, "m", "measured", 0.1)
        print(i, flush=True)
"""


def add(store: Store, key: Key, quantities: dict[str, float], method: str = "m") -> None:
    with store.writing() as connection:
        store.add(connection, key, quantities, method, "measured", 0.5)


def writer(path: Path, name: str, rows: int) -> subprocess.Popen[str]:
    """Start a process that adds rows."""
    command = [sys.executable, "-c", WRITER, str(path), name, str(rows)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "measurements.sqlite")


def test_rows_have_a_column_for_each_quantity(store: Store) -> None:
    add(store, TWO, {"latency_ms": 1.5, "power_w": 0.4}, "closed")
    add(store, ONE, {"latency_ms": 2.5}, "closed")
    add(store, ("w8k3", "", ""), {"accuracy": 91.0}, "supernet")
    frame = store.rows()
    keys = ["architecture", "accelerator", "device", "method", "source"]
    assert list(frame) == [*keys, "accuracy", "latency_ms", "power_w"]
    assert frame[keys].values.tolist() == [  # in the order they were stored
        [*TWO, "closed", "measured"],
        [*ONE, "closed", "measured"],
        ["w8k3", "", "", "supernet", "measured"],
    ]
    assert frame["latency_ms"].tolist()[:2] == [1.5, 2.5]
    assert frame[["accuracy", "power_w"]].isna().values.tolist() == [
        [True, False], [True, True], [False, True],
    ]  # fmt: skip


def test_keys_are_those_of_a_method(store: Store) -> None:
    assert store.keys("m") == set()
    add(store, ONE, {"a": 1.0, "b": 2.0}, "m")
    add(store, TWO, {"a": 1.0}, "n")
    assert (store.keys("m"), store.keys("n"), store.keys("o")) == ({ONE}, {TWO}, set())


def test_a_row_that_is_there_stays(store: Store) -> None:
    add(store, ONE, {"a": 1.0})
    add(store, ONE, {"a": 2.0, "b": 3.0})
    frame = store.rows()
    assert frame[["a", "b"]].values.tolist() == [[1.0, 3.0]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), None, "3", True])
def test_what_is_no_number_is_refused_with_all_its_row(store: Store, value: float) -> None:
    with pytest.raises(
        InputError, match=r"b of w8k3@8x8x1w16f16@ecp5-85f is .*, but must be a fin"
    ):
        add(store, ONE, {"a": 1.0, "b": value})
    assert store.keys("m") == set()


def test_a_source_is_one_of_two_words(store: Store) -> None:
    with (
        pytest.raises(InputError, match="'predicted', but must be one of: measured, modelled"),
        store.writing() as connection,
    ):
        store.add(connection, ONE, {"a": 1.0}, "m", "predicted", 0.0)


def test_a_row_is_stored_whole_or_not_at_all(store: Store) -> None:
    def fail() -> None:
        with store.writing() as connection:
            store.add(connection, ONE, {"a": 1.0}, "m", "measured", 0.0)
            # The table refuses the second of these, when the first is already in.
            connection.execute(
                "CREATE TRIGGER no AFTER INSERT ON measurement WHEN NEW.quantity = 'b' "
                "BEGIN SELECT RAISE(ABORT, 'no b'); END"
            )
            store.add(connection, TWO, {"a": 1.0, "b": 1.0}, "m", "measured", 0.0)

    with pytest.raises(InputError, match="cannot be written: no b"):
        fail()
    assert store.keys("m") == {ONE}


def test_what_was_stored_before_a_failure_stays(store: Store) -> None:
    def fail() -> None:
        with store.writing() as connection:
            store.add(connection, ONE, {"a": 1.0}, "m", "measured", 0.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert store.keys("m") == {ONE}
    assert os.listdir(store.path.parent) == [store.path.name]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False))))
def test_any_text_and_number_come_back(rows: list[tuple[str, float]]) -> None:
    texts = {text.encode("utf-8", "replace").decode(): value for text, value in rows}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "a.sqlite")
        with store.writing() as connection:
            for text, value in texts.items():
                store.add(connection, (text, "", ""), {"a": value}, "m", "modelled", 0.0)
        assert store.keys("m") == {(text, "", "") for text in texts}
        if texts:
            frame = store.rows()
            assert dict(zip(frame["architecture"], frame["a"], strict=True)) == texts


def test_nothing_measured_is_bad_input(store: Store) -> None:
    says = r"measurements\.sqlite holds no measurement: run `codesign profile` first"
    with pytest.raises(InputError, match=says):
        store.rows()
    store.path.touch()  # as a writer leaves it for a moment
    with pytest.raises(InputError, match=says):
        store.rows()
    assert store.keys("m") == set()
    with store.writing():
        pass
    with pytest.raises(InputError, match=says):
        store.rows()


def test_nothing_measured_is_nothing_found_and_a_damaged_file_is_told(store: Store) -> None:
    def nothing() -> None:
        frame = store.found()
        keys = ["architecture", "accelerator", "device", "method", "source"]
        assert ([*frame], len(frame)) == (keys, 0)

    nothing()
    store.path.touch()
    nothing()
    with store.writing():
        pass
    nothing()
    whole = store.path.read_bytes()
    store.path.write_bytes(b"garbage " * 20)
    with pytest.raises(InputError, match=r"\.sqlite cannot be read: file is not a database"):
        store.found()
    store.path.write_bytes(whole.replace(b"CREATE TABLE picked", b"CREATE TAB\x80E picked"))
    with pytest.raises(InputError, match=r"\.sqlite cannot be read: 'utf-8' codec can't decode"):
        store.found()
    with closing(sqlite3.connect(store.path.with_name("twice.sqlite"))) as connection, connection:
        columns = "architecture, accelerator, device, quantity, method, value, source, seconds"
        connection.execute(f"CREATE TABLE measurement ({columns})")
        row = "('w8k3', '', '', 'a', 'm', 1.0, 'measured', 0.0)"
        connection.execute(f"INSERT INTO measurement VALUES {row}, {row}")
    with pytest.raises(InputError, match=r"twice\.sqlite is damaged: it holds a value twice\."):
        Store(store.path.with_name("twice.sqlite")).found()


def test_a_killed_writer_loses_at_most_the_row_it_was_at(store: Store) -> None:
    with writer(store.path, "killed", 10**9) as process:
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(50)]
        process.send_signal(signal.SIGKILL)
        said += [int(line) for line in process.stdout]
    assert process.returncode == -signal.SIGKILL
    frame = store.rows()
    numbers = [int(name.removeprefix("killed-")) for name in frame["architecture"]]
    assert numbers == list(range(len(numbers)))
    assert len(said) <= len(numbers) <= len(said) + 1  # the last may be stored, but not yet said
    assert frame["a"].tolist() == numbers
    assert (frame["b"] == -frame["a"]).all()
    # The next one goes on, and leaves a file that is whole by itself.
    again = writer(store.path, "killed", len(numbers) + 5)
    assert again.communicate()[1] == ""
    assert store.rows()["a"].tolist() == list(range(len(numbers) + 5))
    assert os.listdir(store.path.parent) == [store.path.name]


def test_a_writer_killed_within_a_row_leaves_none_of_it(store: Store) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from codesign_kernel.store import Store
with Store(Path(sys.argv[1])).writing() as connection:
    Store.add(connection, ("x", "", ""), {"a": 1.0}, "m", "measured", 0.0)
    row = "INSERT INTO measurement VALUES ('y', '', '', 'a', 'm', 1.0, 'measured', 0.0)"
    connection.execute(row)  # and no commit
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert python(code, store.path).returncode == -signal.SIGKILL
    assert store.rows()["architecture"].tolist() == ["x"]
    add(store, ("y", "", ""), {"a": 2.0})
    assert store.rows()["a"].tolist() == [1.0, 2.0]


def test_two_processes_write_at_once(store: Store) -> None:
    both = [writer(store.path, name, 200) for name in ("x", "y")]
    seen = 0
    while any(process.poll() is None for process in both):
        found = len(store.keys("m"))  # a reader is never in the way, and never sees a row go
        assert found >= seen
        seen = found
    assert [process.communicate()[1] for process in both] == ["", ""]
    frame = store.rows()
    expected = {f"{name}-{i}" for name in "xy" for i in range(200)}
    assert set(frame["architecture"]) == expected
    assert len(frame) == 400
    assert (frame["b"] == -frame["a"]).all()


def test_writers_that_come_and_go_are_not_in_each_others_way(store: Store) -> None:
    code = """
import sys
from pathlib import Path
from codesign_kernel.store import Store
store = Store(Path(sys.argv[1]))
for i in range(30):
    with store.writing() as connection:
        store.add(connection, (f"{sys.argv[2]}-{i}", "", ""), {"a": 1.0}, "m", "measured", 0.0)
    assert (f"{sys.argv[2]}-{i}", "", "") in store.keys("m")
"""
    several = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(store.path), name], stderr=subprocess.PIPE, text=True
        )
        for name in ("x", "y", "z")
    ]
    assert [process.communicate()[1] for process in several] == ["", "", ""]
    assert len(store.rows()) == 90
    assert os.listdir(store.path.parent) == [store.path.name]


def test_one_writer_may_open_another(store: Store) -> None:
    with store.writing() as outer:
        store.add(outer, ONE, {"a": 1.0}, "m", "measured", 0.0)
        add(store, TWO, {"a": 2.0})
        assert store.keys("m") == {ONE, TWO}
        store.add(outer, ("w24k3", "", ""), {"a": 3.0}, "m", "measured", 0.0)
    assert store.rows()["a"].tolist() == [1.0, 2.0, 3.0]
    assert os.listdir(store.path.parent) == [store.path.name]


def test_a_full_disk_is_bad_input_and_keeps_what_there_is(store: Store) -> None:
    add(store, ONE, {"a": 1.0})
    code = """
import resource, sys
from pathlib import Path
from codesign_kernel.errors import InputError
from codesign_kernel.store import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))
try:
    with Store(Path(sys.argv[1])).writing() as connection:
        for i in range(10_000):
            Store.add(connection, (f"full-{i}", "", ""), {"a": 1.0}, "m", "measured", 0.0)
            print(i)
except InputError as error:
    print(error)
"""
    result = python(code, store.path)
    assert result.stderr == ""
    *said, error = result.stdout.splitlines()
    assert error.startswith(f"{store.path} cannot be written: ")
    assert len(said) > 10
    assert store.keys("m") == {ONE, *((f"full-{i}", "", "") for i in range(len(said)))}
    add(store, TWO, {"a": 1.0})  # there is space again
    assert TWO in store.keys("m")


def test_places_that_cannot_be_written_are_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.sqlite", Path("/proc/none/a.sqlite"), tmp_path):
        with pytest.raises(InputError, match="cannot be written"):
            add(Store(path), ONE, {"a": 1.0})


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that other users can enter too, which pytest's own cannot be."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_a_read_only_place_can_be_read(readable: Path) -> None:
    store = Store(readable / "a.sqlite")
    add(store, ONE, {"a": 1.0})
    os.chmod(store.path, 0o444)
    os.chmod(readable, 0o555)
    code = """
import os, sys
from pathlib import Path
from codesign_kernel.errors import InputError
from codesign_kernel.store import Store
store = Store(Path(sys.argv[1]))
store.rows()  # loads what pandas loads late, while this process may still read everything
if os.geteuid() == 0:
    os.seteuid(65534)  # root may write anywhere
print(os.access(store.path.parent, os.W_OK, effective_ids=True))
print(store.keys("m"), len(store.rows()))
try:
    with store.writing() as connection:
        store.add(connection, ("x", "", ""), {"a": 1.0}, "m", "measured", 0.0)
except InputError as error:
    print(error)
"""
    result = python(code, store.path)
    os.chmod(readable, 0o755)
    assert result.stderr == ""
    writable, read, error = result.stdout.splitlines()
    assert (writable, read) == ("False", f"{ {ONE} } 1")
    assert error.startswith(f"{store.path} cannot be written: ")
    assert store.keys("m") == {ONE}


def test_what_a_killed_writer_left_where_nothing_can_be_written_says_what_to_do(
    store: Store, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    with store.writing() as connection:
        store.add(connection, ONE, {"a": 1.0}, "m", "measured", 0.5)
        for path in (store.path, store.path.with_name(f"{store.path.name}-wal")):
            shutil.copy(path, shared)
    left = Store(shared / store.path.name)
    reads: list[Callable[[], object]] = [left.rows, left.picked, lambda: left.keys("m")]
    with tiny.read_only(shared):
        for read in reads:
            with pytest.raises(InputError, match="copy the folder to where it can be wr") as raised:
                read()
            tiny.assert_one_sentence(str(raised.value))
            assert "SELECT" not in str(raised.value)
    shutil.copytree(shared, tmp_path / "copy")
    assert len(Store(tmp_path / "copy" / store.path.name).rows()) == 1


def test_reading_leaves_no_trace(store: Store) -> None:
    add(store, ONE, {"a": 1.0})
    before = [(store.path.read_bytes(), store.path.stat().st_mtime_ns)]
    store.rows()
    store.keys("m")
    assert os.listdir(store.path.parent) == [store.path.name]
    assert before == [(store.path.read_bytes(), store.path.stat().st_mtime_ns)]


def test_a_copy_of_the_file_alone_is_whole(store: Store, tmp_path: Path) -> None:
    add(store, ONE, {"a": 1.0})
    shutil.copy(store.path, tmp_path / "copy.sqlite")
    assert Store(tmp_path / "copy.sqlite").rows().equals(store.rows())


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A good file of several pages."""
    store = Store(tmp_path_factory.mktemp("stored") / "a.sqlite")
    with store.writing() as connection:
        for i in range(300):
            store.add(connection, (f"x{i}", "", ""), {"a": float(i)}, "m", "measured", 0.0)
    return store.path.read_bytes()


def test_truncated_files_are_bad_input(store: Store, content: bytes) -> None:
    for length in [15, 16, 99, 100, 2000, *range(4096, len(content), 4096)]:
        store.path.write_bytes(content[:length])
        with pytest.raises(InputError, match="cannot be read: "):
            store.rows()
        with pytest.raises(InputError, match="cannot be written: "):
            add(store, ONE, {"a": 1.0})


def test_overwritten_pages_are_bad_input(store: Store, content: bytes) -> None:
    for page in range(len(content) // 4096):
        start = page * 4096
        store.path.write_bytes(content[:start] + b"\xa5" * 4096 + content[start + 4096 :])
        with pytest.raises(InputError, match="cannot be read: "):
            # The first reads the table, the second the index, the others theirs.
            _ = store.rows(), store.keys("m"), store.series("a", "m"), store.picked()


@pytest.mark.parametrize(
    "wrong", [b"not a database, but longer than a header" * 5, b"{}", bytes(4096)]
)
def test_other_files_are_bad_input(store: Store, wrong: bytes) -> None:
    store.path.write_bytes(wrong)
    for use in (store.rows, lambda: store.keys("m"), lambda: add(store, ONE, {"a": 1.0})):
        with pytest.raises(InputError, match=r"cannot be (read|written): "):
            use()
    assert store.path.read_bytes() == wrong


@pytest.mark.parametrize("table", ["other (a)", "measurement (a, b)"])
def test_other_databases_are_bad_input(store: Store, table: str) -> None:
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute(f"CREATE TABLE {table}")
    for use in (store.rows, lambda: store.keys("m")):
        with pytest.raises(InputError, match="cannot be read: "):
            use()


def test_a_series_is_kept_with_its_measurement(store: Store) -> None:
    codes = np.array([1, -128, 127], np.int8)
    other = (ONE[0], "", "")
    with store.writing() as connection:
        store.add(connection, ONE, {"a": 1.0, "s": codes}, "m", "measured", 0.0)
        store.add(connection, ONE, {"a": 2.0, "s": codes[::-1]}, "m", "measured", 0.0)  # stays
        store.add(connection, other, {"s": codes[:1]}, "m", {}, 0.0)
        store.add(connection, ONE, {"s": codes[:2]}, "n", "measured", 0.0)
    found = store.series("s", "m")
    assert {key: value.tolist() for key, value in found.items()} == {
        ONE: [1, -128, 127],
        other: [1],
    }
    assert store.series("s", "n")[ONE].dtype == np.int8
    assert store.series("t", "m") == {}
    assert store.rows()["a"].tolist() == [1.0]
    assert Store(store.path.with_name("none.sqlite")).series("s", "m") == {}


def test_what_was_picked_is_known_by_its_design(store: Store) -> None:
    other = (ONE[0], "", "")
    with store.writing() as connection:
        store.add(connection, ONE, {"a": 1.0}, "m", "measured", 0.0)
        for method in ("m", "n"):
            store.add(connection, other, {"a": 1.0}, method, "measured", 0.0, picked=True)
    assert store.picked() == {other}
    assert Store(store.path.with_name("none.sqlite")).picked() == set()


def test_a_file_of_before_there_were_series_has_none(store: Store) -> None:
    add(store, ONE, {"a": 1.0})
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("DROP TABLE series")
        connection.execute("DROP TABLE picked")
    assert store.series("s", "m") == {}
    assert store.picked() == set()
    add(store, ONE, {"b": 1.0})
    assert store.series("s", "m") == {}
