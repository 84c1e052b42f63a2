"""Work in threads: a bar that moves, and an end at once when it is stopped."""

import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from tqdm.auto import tqdm

from codesign_kernel import threads
from codesign_kernel.errors import InputError
from codesign_kernel.threads import doing, in_threads, stopping, ticking


def test_results_come_in_the_order_of_the_jobs() -> None:
    first = threading.Event()
    jobs = [lambda: first.wait(60) and 1, lambda: first.set() or 2]
    assert in_threads(jobs, 2, "x", "job") == [1, 2]
    assert in_threads([], 2, "x", "job") == []


def test_an_error_drops_what_waits_and_tells_what_runs() -> None:
    begun: list[int] = []
    running = threading.Event()

    def job(i: int) -> None:
        begun.append(i)
        if i == 0:
            running.wait(60)
            raise InputError("it failed.")
        running.set()
        assert stopping().wait(60)

    with pytest.raises(InputError, match=r"^it failed\.$"):
        in_threads([partial(job, i) for i in range(9)], 2, "x", "job")
    assert set(begun) <= {0, 1, 2}
    assert not stopping().is_set()  # of this thread, which nobody stops


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_tools_and_drops_what_waits(tmp_path: Path, sent: signal.Signals) -> None:
    code = """
import sys, typer
from functools import partial
from codesign_kernel import cli, tools
from codesign_kernel.threads import in_threads
tool = "import sys, time; open(sys.argv[1], 'w'); time.sleep(600)"
folder = sys.argv.pop()
cli.app = typer.Typer()
@cli.app.command()
def work():
    jobs = [partial(tools.run, [sys.executable, "-c", tool, f"{folder}/{i}"], "it")
            for i in range(9)]
    in_threads(jobs, 2, "x", "job")
cli.main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE, text=True
    )
    while len([*tmp_path.iterdir()]) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert len([*tmp_path.iterdir()]) == 2
    assert "Traceback" not in err
    assert err.endswith("codesign: stopped; the same command goes on from what is stored.\n")
    assert process.returncode == 130


def test_a_bar_moves_though_nothing_is_done_and_names_what_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = ""
    with tqdm(total=1, desc="x") as bar, ticking(bar), doing("Yosys"):
        for _ in range(600):
            time.sleep(0.1)
            shown += capsys.readouterr().err
            if "Yosys" in shown:
                break
    assert "00:01<?, ?it/s, Yosys" in shown


def test_nobody_gets_all_cores_of_a_large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda who: {*range(64)}, raising=False)
    assert threads.workers() == 4
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda who: {7}, raising=False)
    assert threads.workers() == 1
    monkeypatch.delattr(threads.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 2)
    assert threads.workers() == 2
