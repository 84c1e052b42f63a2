"""The command line starts, or is stopped while it loads."""

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
