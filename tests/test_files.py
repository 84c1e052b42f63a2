"""Files are whole or absent: failing and killed writers, full disks, damaged and foreign files."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from codesign_kernel.errors import InputError
from codesign_kernel.files import (
    alone,
    cache_folder,
    read_arrays,
    read_json,
    read_toml,
    replacing,
    write_arrays,
    write_json,
    write_text,
)

ARRAYS: dict[str, np.ndarray] = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bytes": np.array([0, 127, 255], np.uint8),
    "one": np.array(3.5),
    "none": np.zeros((0, 4), np.int64),
}
ABOUT = {"space": {"name": "digits"}, "steps": 3}


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_text_and_json_round_trip(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "größer\n")
    assert (tmp_path / "a.txt").read_bytes() == "größer\n".encode()
    value = {"b": [1, 2.5, None, True], "a": {"ä": "x"}}
    write_json(tmp_path / "deep" / "er" / "a.json", value)
    assert read_json(tmp_path / "deep" / "er" / "a.json") == value
    assert (tmp_path / "deep" / "er" / "a.json").read_text().endswith("}\n")


def test_toml_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('a = "é"\n[b]\nc = [1, 2.5]\n', encoding="utf-8")
    assert read_toml(tmp_path / "a.toml") == {"a": "é", "b": {"c": [1, 2.5]}}


def test_toml_in_another_encoding_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('a = "é"\n', encoding="latin-1")
    with pytest.raises(InputError, match=r"a\.toml is not valid TOML: it is no text in UTF-8\.$"):
        read_toml(tmp_path / "a.toml")


@pytest.mark.parametrize("home", ["", "here"])
def test_a_home_that_is_nowhere_is_no_place_for_a_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str
) -> None:
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "codesign"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    with pytest.raises(InputError, match=f"^HOME is '{home}', but must be an absolute path, or"):
        cache_folder()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "codesign"


def test_arrays_round_trip(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.safetensors", ARRAYS, ABOUT)
    arrays, about = read_arrays(tmp_path / "a.safetensors")
    assert about == ABOUT
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(arrays[name], array)


def test_arrays_of_any_layout_are_stored_by_value(tmp_path: Path) -> None:
    array = np.arange(24.0).reshape(2, 3, 4)
    views = {"turned": array.T, "thinned": array[:, ::2], "backwards": array[::-1]}
    write_arrays(tmp_path / "a.safetensors", views, {})
    for name, stored in read_arrays(tmp_path / "a.safetensors")[0].items():
        np.testing.assert_array_equal(stored, views[name])


def test_other_programs_can_read_the_arrays(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.safetensors", ARRAYS, ABOUT)
    plain = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(plain["weights"], ARRAYS["weights"])


def test_nan_is_not_written_as_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", [RuntimeError, OSError, KeyboardInterrupt, InputError])
def test_a_failure_in_the_middle_leaves_the_old_file(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    raised = InputError if failure is OSError else failure

    def half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise failure("no space")

    with pytest.raises(raised):
        half()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with path.open() as reader, replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path  # of one file system with the path
    assert path.read_text() == "new"
    assert reader.closed
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"value": "old"})
    code = """
import os, signal, sys
from pathlib import Path
from codesign_kernel.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text('{"value": "ne')
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert python(code, path).returncode == -signal.SIGKILL
    assert read_json(path) == {"value": "old"}
    write_json(path, {"value": "new"})
    assert read_json(path) == {"value": "new"}


def test_new_files_have_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_text(tmp_path / "a.txt", "a")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "a.txt")]
    assert modes[0] == modes[1]


def test_the_mode_of_a_file_that_is_replaced_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.touch(0o600)
    with replacing(path) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        temporary.write_text("new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)
    path.chmod(0o444)
    write_text(path, "newer")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("newer", 0o444)


def test_what_a_link_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (link := tmp_path / "a.txt").symlink_to("far/b.txt")
    for text in ("new", "newer"):
        write_text(link, text)
        assert link.is_symlink()
        assert (tmp_path / "far" / "b.txt").read_text() == text
    assert len([*tmp_path.rglob("*")]) == 3


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    (link := tmp_path / "null").symlink_to("/dev/null")
    for path in (pipe, link, tmp_path, Path("/"), Path()):
        words = f"{path} cannot be written: Not a regular file; nothing changed."
        with pytest.raises(InputError, match=f"^{re.escape(words)}$"):
            write_text(path, "a")
    assert pipe.is_fifo()
    assert Path("/dev/null").is_char_device()
    assert sorted(os.listdir(tmp_path)) == ["null", "pipe"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    # The kernel itself refuses to write beyond the limit, as it does on a full disk.
    path = tmp_path / "a.safetensors"
    write_arrays(path, {"a": np.zeros(3)}, {})
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from codesign_kernel.errors import InputError
from codesign_kernel.files import write_arrays, write_text
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
path = Path(sys.argv[1])
for write in (lambda: write_arrays(path, {"a": np.ones(9999)}, {}),
              lambda: write_text(path, "a" * 9999)):
    try:
        write()
    except InputError as error:
        print(error)
"""
    result = python(code, path)
    assert result.stderr == ""
    says = f"{path} cannot be written: File too large; nothing changed."
    assert result.stdout.splitlines() == [says, says]
    assert read_arrays(path)[0]["a"].tolist() == [0, 0, 0]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_full_device_is_bad_input(tmp_path: Path) -> None:
    def fill() -> None:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.unlink()
            temporary.symlink_to("/dev/full")  # a device on which no space is ever left
            temporary.write_text("a")

    with pytest.raises(InputError, match=r"a\.txt cannot be written: No space left on device"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_are_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    # Root may write anywhere, but nobody can below a file, in /proc, or in a folder's place.
    places = [tmp_path / "file" / "a", tmp_path / "file" / "deep" / "a", tmp_path / "folder"]
    places += [Path("/proc/none/a"), tmp_path / ("a" * 300)]
    for path in places:
        writes: list[Any] = [lambda p: write_text(p, "a"), lambda p: write_json(p, {})]
        for write in (*writes, lambda p: write_arrays(p, ARRAYS, ABOUT)):
            with pytest.raises(InputError, match=r"cannot be written: [A-Z].*; nothing changed"):
                write(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_absent_files_and_folders_are_bad_input(tmp_path: Path) -> None:
    for read in (read_json, read_toml, read_arrays):
        for path in (tmp_path / "none", tmp_path, tmp_path / "none" / "a"):
            with pytest.raises(InputError, match=r"does not exist|cannot be read: "):
                read(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"a": }', b"\xff", b"{'a': 1}", b"[" * 100_000, b"9" * 10_000, b'{"a": "\n"}'],
)
def test_malformed_json_is_bad_input(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("content", ["[]", "3", "null", '"a"', "NaN"])
def test_json_that_is_no_object_is_bad_input(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match="but must hold an object"):
        read_json(tmp_path / "a.json")


def raw(header: object, data: bytes = b"") -> bytes:
    """A safetensors file, from its format: the length of a JSON header, the header, the data."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


TENSOR = {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04\x95" + bytes(40),  # a pickle
        b"PK\x03\x04" + bytes(40),  # a zip, as torch.save writes
        bytes(1000),
        raw([]),
        raw({"a": TENSOR}, bytes(8)),  # another program's: not described
        raw({"a": TENSOR, "__metadata__": {"about": "{}"}}),  # without its data
        raw({"a": TENSOR, "__metadata__": {"about": "{"}}, bytes(8)),
        raw({"a": TENSOR, "__metadata__": {"about": "[]"}}, bytes(8)),
        raw({"a": TENSOR, "__metadata__": {"about": "[" * 100_000}}, bytes(8)),
        raw({"a": TENSOR | {"dtype": "F65"}, "__metadata__": {"about": "{}"}}, bytes(8)),
        *(
            raw({"a": TENSOR | {"dtype": kind, "shape": [n]}, "__metadata__": {"about": "{}"}},
                bytes(8))
            for kind, n in (("BF16", 4), ("F8_E4M3", 8))  # types that NumPy does not have
        ),
    ],
    ids=lambda content: repr(content[:30]),
)  # fmt: skip
def test_other_kinds_of_files_are_bad_input(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.safetensors is (damaged or )?not of this program"):
        read_arrays(tmp_path / "a.safetensors")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A place to write to, and the bytes of a good file."""
    path = tmp_path_factory.mktemp("stored") / "a.safetensors"
    write_arrays(path, ARRAYS, ABOUT)
    return path, path.read_bytes()


def test_every_truncation_is_bad_input(stored: tuple[Path, bytes]) -> None:
    path, content = stored
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="is damaged or not of this program"):
            read_arrays(path)


@given(st.data())
def test_any_flipped_byte_is_other_data_or_bad_input(
    stored: tuple[Path, bytes], data: st.DataObject
) -> None:
    path, content = stored
    place = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255))
    path.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
    try:
        _, about = read_arrays(path)
    except InputError:
        return
    assert isinstance(about, dict)


@pytest.mark.parametrize("read", [read_json, read_toml, read_arrays])
@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_bad_input(
    stored: tuple[Path, bytes], read: Any, content: bytes
) -> None:
    path, _ = stored
    path.write_bytes(content)
    try:
        read(path)
    except InputError as error:
        assert str(error).startswith(str(path))  # noqa: PT017 - most bytes end here, some do not


def test_many_writers_leave_one_whole_file(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from codesign_kernel.files import write_json
for turn in range(50):
    write_json(Path(sys.argv[1]), {"who": [sys.argv[2]] * 5000})
"""
    path = tmp_path / "a.json"
    write_json(path, {"who": ["0"] * 5000})
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(i)], stderr=subprocess.PIPE)
        for i in (1, 2)
    ]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        who = read_json(path)["who"]
        assert who == [who[0]] * 5000
        reads += 1
    assert [writer.communicate()[1] for writer in writers] == [b"", b""]
    assert reads > 0
    assert os.listdir(tmp_path) == ["a.json"]


def test_one_command_is_alone_with_a_file_and_others_wait(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, entered, order = tmp_path / "study.json", threading.Event(), list[str]()
    path.write_text("{}")

    def second() -> None:
        entered.set()
        with alone(path):
            order.append("second")

    with alone(path):
        other = threading.Thread(target=second)
        other.start()
        entered.wait()
        other.join(0.3)  # it cannot get in
        order.append("first")
    other.join(30)
    assert order == ["first", "second"]
    told = f"codesign: waiting for another command that works on {tmp_path} to end.\n"
    assert capfd.readouterr() == ("", told)
    with alone(path):  # without a word where nobody is
        pass
    assert capfd.readouterr() == ("", "")
