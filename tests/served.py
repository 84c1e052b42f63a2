"""The page as a person gets it: the command line's server, in a process of its own."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Served:
    """A running page: its address, its process, and the folder that it was started in."""

    address: str
    process: "subprocess.Popen[str]"
    folder: Path
    said: str = ""  # after the address, on both streams, once it has ended


@contextmanager
def served(study: Path, folder: Path) -> Iterator[Served]:
    """Serve a study from `folder`, with a cache of its own, until the block ends: by Ctrl-C."""
    command = [sys.executable, "-m", "codesign_kernel.cli", "page", "--no-browser"]
    with subprocess.Popen(
        [*command, "--study", str(study)],
        cwd=folder,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert address, line + process.communicate(timeout=60)[1]
            running = Served(address[0], process, folder)
            yield running
        finally:
            process.send_signal(signal.SIGINT)
            try:
                said = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        running.said = "".join(said)
