"""What all tests share: one thread a process, repeatable examples, and what a machine may lack."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from codesign_kernel.study import Study

# Two workers of two threads each are slower than two of one. numpy and torch read these when they
# are first imported, and so does every process that a test starts.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"

# No deadline and no complaint about slow examples: a busy machine is no defect of the program.
hypothesis.settings.register_profile(
    "codesign",
    deadline=None,
    derandomize="CODESIGN_REQUIRE_ALL" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("codesign")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MARKERS = ("browser", "fashion", "verilator")
LEFT_OUT = pytest.StashKey[dict[str, list[str]]]()


def find_browser() -> str | None:
    """Return CODESIGN_BROWSER if that is set, or else the first Chromium on the PATH, or None."""
    names = [os.environ["CODESIGN_BROWSER"]] if "CODESIGN_BROWSER" in os.environ else BROWSERS
    return next(filter(None, map(shutil.which, names)), None)


def missing(marker: str) -> str | None:
    """Return the sentence that says what tests marked `marker` lack on this machine, or None."""
    if marker == "browser":
        return (
            None
            if find_browser()
            else (
                "No Chromium was found: install it (on Debian: apt-get install chromium), or set "
                "CODESIGN_BROWSER to its path."
            )
        )
    if marker == "verilator":
        return (
            None
            if shutil.which("verilator")
            else "Verilator was not found: install it (on Debian: apt-get install verilator)."
        )
    from codesign_kernel import datasets, errors  # numpy may load only now that threads are set

    try:
        datasets.load("fashion-mnist")
    except errors.InputError as error:
        return str(error)
    return None


@pytest.fixture(scope="session")
def browser_path() -> Path:
    """Return the Chromium that is installed. A test that uses it is marked `browser`."""
    path = find_browser()
    assert path is not None, missing("browser")
    return Path(path)


@pytest.fixture
def codesign(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process; return status, stdout and stderr."""
    from codesign_kernel import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["codesign", *map(str, arguments)])
        capsys.readouterr()  # what came before is not the command's
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to start where all tests are to run and the machine lacks something."""
    config.stash[LEFT_OUT] = {}
    if os.environ.get("CODESIGN_REQUIRE_ALL") == "1" and not hasattr(config, "workerinput"):
        lacks = [sentence for marker in MARKERS if (sentence := missing(marker))]
        if lacks:
            raise pytest.UsageError(" ".join(lacks))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> "Study":
    """A study of the digits that no test of a module changes."""
    import tiny  # numpy may load only now that threads are set

    return tiny.study(tmp_path_factory, tmp_path_factory.mktemp("made") / "digits")


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> "Study":
    """The same, for a test that changes it."""
    import tiny

    return tiny.study(tmp_path_factory, tmp_path / "digits")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that need what this machine lacks, and note their names."""
    for marker in MARKERS:
        out = [item for item in items if item.get_closest_marker(marker)]
        if out and (sentence := missing(marker)):
            items[:] = [item for item in items if item not in out]
            config.stash[LEFT_OUT][sentence] = [item.nodeid for item in out]
            config.hook.pytest_deselected(items=out)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the names from a pytest-xdist worker to the process that prints the summary."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash[LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the names from a pytest-xdist worker; each has collected all tests, so all agree."""
    node.config.stash[LEFT_OUT].update(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out and why, above pytest's own last line."""
    for sentence, names in terminalreporter.config.stash[LEFT_OUT].items():
        terminalreporter.write_line(f"LEFT OUT. {sentence}", yellow=True)
        for name in names:
            terminalreporter.write_line(f"  {name}")
