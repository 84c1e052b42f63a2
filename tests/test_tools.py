import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from tiny import read_only

from codesign_kernel import tools
from codesign_kernel.errors import InputError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "codesign"


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come about in a minute")


def test_run_returns_what_was_printed() -> None:
    assert tools.run([sys.executable, "-c", "print('abc')"], "it") == "abc\n"


def test_run_says_what_failed_in_one_sentence() -> None:
    code = "import sys; print('first', file=sys.stderr); sys.exit('the end.')"
    with pytest.raises(InputError, match=r"^the tool failed with status 1: the end\.$"):
        tools.run([sys.executable, "-c", code], "the tool")
    with pytest.raises(InputError, match=r"^the tool failed with status 3: it printed nothing\.$"):
        tools.run([sys.executable, "-c", "raise SystemExit(3)"], "the tool")
    with pytest.raises(
        InputError, match=r"^the tool cannot be started: /no/such/tool is no program"
    ):
        tools.run(["/no/such/tool"], "the tool")


def test_python_returns_its_log_and_its_own_processor_time() -> None:
    idle = tools.python("print(sys.argv[1]); import time; time.sleep(1)", ["hello"], "it")
    busy = "import time\nwhile time.process_time() < 0.8: pass\nprint('x', file=sys.stderr)"
    done = tools.python(busy, [], "it")
    assert (idle.log, done.log) == ("hello\n", "x\n")
    assert done.cpu_s > 0.8 > idle.cpu_s > 0


def test_python_runs_in_a_folder_with_variables(tmp_path: Path) -> None:
    code = "print(os.getcwd(), os.environ['WHICH'])"
    done = tools.python(code, [], "it", folder=tmp_path, variables={"WHICH": "one"})
    assert done.log == f"{tmp_path} one\n"


def test_python_names_the_error_among_what_follows_it() -> None:
    code = (
        "print('Info: a')\nprint('ERROR: it is full.')\nprint('0 warnings, 1 error')\nsys.exit(255)"
    )
    with pytest.raises(tools.Failed) as caught:
        tools.python(code, [], "place and route")
    assert str(caught.value) == "place and route failed with status 255: it is full."
    assert caught.value.log.startswith("Info: a\n")


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (
            "/usr/bin/ld: final link failed: No space left on device\n"
            "collect2: error: ld returned 1 exit status",
            "/usr/bin/ld: final link failed: No space left on device",
        ),
        (
            "a.cc:1:2: error: expected ';'\n    1 | int a\ncompilation ended.",
            "a.cc:1:2: error: exp",
        ),
    ],
)
def test_a_failure_is_told_by_its_cause(log: str, cause: str) -> None:
    code = f"import sys; sys.exit({log!r})"
    with pytest.raises(InputError) as raised:
        tools.run([sys.executable, "-c", code], "the C++ compiler")
    assert f"the C++ compiler failed with status 1: {cause}" in str(raised.value)


def test_python_is_bounded_by_processor_time() -> None:
    with pytest.raises(InputError) as caught:
        tools.python("while True: pass", [], "the tool", limit=1)
    assert str(caught.value) == (
        "the tool was stopped: it is not done after 1 s of processor time, its limit."
    )


@pytest.mark.parametrize("ending", ["while True: pass", "sys.exit(3)", ""])
def test_python_is_stopped_where_its_log_is_hopeless(ending: str) -> None:
    code = f"print('é' * 9, 'so far so good')\nprint('in vain', flush=True)\n{ending}"
    with pytest.raises(tools.Hopeless) as caught:
        tools.python(code, [], "the tool", hopeless=lambda log: "in vain" in log)
    assert str(caught.value) == "the tool was stopped: it does not converge."
    assert caught.value.log == f"{'é' * 9} so far so good\nin vain\n"
    assert caught.value.cpu_s > 0
    assert tools.python("print('well')", [], "it", hopeless=lambda log: "vain" in log).log


@pytest.mark.parametrize("limit", [0, -1, 1.5, True])
def test_bad_limit_is_refused(limit: int) -> None:
    with pytest.raises(InputError, match=r"^the limit of processor time in seconds is "):
        tools.python("pass", [], "it", limit=limit)


def test_python_is_stopped_from_another_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, there = threading.Event(), tmp_path / "there"
    monkeypatch.setattr(tools, "stopping", lambda: stop)
    code = "open(sys.argv[1], 'w')\nwhile True: pass"

    def wait() -> None:
        wait_for(there.exists)
        stop.set()

    thread = threading.Thread(target=wait)
    thread.start()
    with pytest.raises(InputError, match=r"^the tool was stopped\.$"):
        tools.python(code, [str(there)], "the tool")
    thread.join()


GROWING = (
    "import time\nwith open(sys.argv[1], 'a', buffering=1) as stream:\n"
    "    while True: stream.write('x\\n'); time.sleep(0.01)"
)
# A tool that lets no thread run, as Yosys does in a pass.
LOCKED = f"sys.setswitchinterval(1e9)\n{GROWING}".replace("time.sleep(0.01)", "sum(range(9999))")


@pytest.mark.parametrize(
    "call",
    [
        f"tools.python({GROWING!r}, sys.argv[1:], 'it')",
        f"tools.python({LOCKED!r}, sys.argv[1:], 'it')",
        f"tools.run([sys.executable, '-c', {'import sys; ' + GROWING!r}, *sys.argv[1:]], 'it')",
    ],
    ids=["code", "code without threads", "program"],
)
def test_a_tool_ends_when_the_process_that_waits_for_it_is_killed(
    tmp_path: Path, call: str
) -> None:
    growing = tmp_path / "growing"
    code = f"import sys; from codesign_kernel import tools; {call}"
    parent = subprocess.Popen([sys.executable, "-c", code, str(growing)])
    wait_for(lambda: growing.exists() and growing.stat().st_size > 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()

    def rests() -> bool:
        before = growing.stat().st_size
        time.sleep(0.5)
        return growing.stat().st_size == before

    wait_for(rests)


def test_yosys_runs_passes_and_says_what_is_wrong(tmp_path: Path) -> None:
    source = tmp_path / "a.v"
    source.write_text("module a(input x, output y); assign y = ~x; endmodule\n", encoding="utf-8")
    done = tools.yosys([f"read_verilog {source}", "hierarchy -top a", "stat"])
    assert "Printing statistics" in done.log
    assert done.cpu_s > 0
    with pytest.raises(InputError, match=r"^Yosys failed with status 1: .*nonsense.*[^.]\.$"):
        tools.yosys(["nonsense"])


def test_tool_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "find_spec", lambda name: None)
    monkeypatch.setattr(tools.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"^Yosys is not installed: run `pip install pyosys`\.$"):
        tools.yosys(["stat"])
    with pytest.raises(InputError, match=r"^nextpnr is not installed: run `pip install yowasp-"):
        tools.nextpnr("ecppack", [], Path())
    with pytest.raises(InputError, match=r"^no C\+\+ compiler was found: install g\+\+, or run "):
        tools.compiler()


def test_compiler_is_the_named_one_or_the_first_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(name: str) -> None:
        (tmp_path / name).write_text("#!/bin/sh\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(tools, "find_spec", lambda name: name)
    ziglang = [sys.executable, "-m", "ziglang", "c++"]
    assert tools.compiler() == ziglang
    add("clang++")
    assert tools.compiler() == ["clang++"]
    add("g++")
    assert tools.compiler() == ["g++"]
    add("mine")
    monkeypatch.setenv("CXX", "mine")
    assert tools.compiler() == ["mine"]
    monkeypatch.setenv("CXX", "absent")
    assert tools.compiler() == ziglang


def test_versions_are_those_installed() -> None:
    assert tools.versions("numpy", "no-such-thing") == f"numpy {version('numpy')}, no no-such-thing"


def test_cached_makes_a_file_once_for_each_content(home: Path) -> None:
    made = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_text("content", encoding="utf-8")

    first = tools.cached("kind", "a", make, ".txt")
    assert first == tools.cached("kind", "a", make, ".txt")
    assert first.parent == home
    assert first.read_text(encoding="utf-8") == "content"
    assert tools.cached("kind", "b", make, ".txt") != first
    assert len(made) == 2


def test_cached_leaves_nothing_of_what_failed(home: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half", encoding="utf-8")
        raise InputError("no.")

    with pytest.raises(InputError, match=r"^no\.$"):
        tools.cached("kind", "a", fail)
    assert [path.name for path in home.iterdir() if not path.name.endswith(".lock")] == []
    assert tools.cached("kind", "a", lambda path: None).exists()


def test_cached_removes_what_a_killed_process_left_of_it(home: Path) -> None:
    path = tools.cached("thing", "a", lambda path: path.write_text("x") and None)
    path.unlink()
    left, other = (home / f".{name}.0123abcd.tmp" for name in (path.name, "thing-else"))
    for each in (left, other):
        each.touch()
    tools.cached("thing", "a", lambda path: path.write_text("x") and None)
    assert not left.exists()
    assert other.exists()  # may be of one that works


def test_cached_is_made_by_one_thread_while_others_wait() -> None:
    made = []

    def make(path: Path) -> None:
        made.append(path)
        time.sleep(0.2)

    threads = [threading.Thread(target=tools.cached, args=("kind", "a", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    what_to_do = "; set XDG_CACHE_HOME to a folder that can."
    with pytest.raises(InputError, match=f"file cannot be written: Not a directory{what_to_do}$"):
        tools.cached("kind", "a", lambda path: None)
    (tmp_path / "home" / "codesign").mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with (
        read_only(tmp_path / "home"),
        pytest.raises(InputError, match=f"lock cannot be written: Permission denied{what_to_do}$"),
    ):
        tools.cached("kind", "a", lambda path: None)


def test_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for content in ("old", "new"):
        with tools.replacing_folder(folder) as made:
            (made / content).touch()
        assert [path.name for path in folder.iterdir()] == [content]

    def interrupted() -> None:
        with tools.replacing_folder(folder) as made:
            (made / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_folder_that_cannot_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    with tools.replacing_folder(folder) as made:
        (made / "old").touch()
    move = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "made":
            raise OSError(28, "No space left on device")
        return move(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with (
        pytest.raises(InputError, match=r"folder cannot be written: No space left on device\.$"),
        tools.replacing_folder(folder),
    ):
        pass
    assert [path.name for path in folder.iterdir()] == ["old"]
