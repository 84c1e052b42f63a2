"""The command line starts, or is stopped while it loads."""

import os
import subprocess
import sys
from types import ModuleType

import pytest

from codesign_kernel import start


def test_ctrl_c_while_loading_ends_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "codesign_kernel.cli", Interrupted("codesign_kernel.cli"))
    with pytest.raises(SystemExit) as ended:
        start.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "codesign: stopped; nothing was begun.\n"


def test_the_command_line_runs() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--version']; from codesign_kernel import start; start.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("codesign ")


def test_linear_algebra_has_one_thread_unless_asked_otherwise() -> None:
    code = (
        "import os, sys, threadpoolctl; sys.argv[1:] = ['--version']\n"
        "from codesign_kernel import start\n"
        "try: start.main()\nexcept SystemExit: pass\n"
        "pools = {each['num_threads'] for each in threadpoolctl.threadpool_info()}\n"
        "print(os.environ['OMP_NUM_THREADS'], *pools)"
    )
    free = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    for asked, expected in (({}, "1 1"), ({"OMP_NUM_THREADS": "2"}, "2 ")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=free | asked, capture_output=True, text=True
        )
        assert done.stdout.splitlines()[-1].startswith(expected), done
