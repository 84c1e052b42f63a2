"""Where the command line starts: what it needs takes a moment to load, and Ctrl-C may come then."""

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Load the command line and run it.

    Linear algebra gets one thread, unless OMP_NUM_THREADS says otherwise: its products are small,
    and on a busy machine two threads wait for each other longer than they work.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when NumPy is loaded
    try:
        from .cli import main as run
    except KeyboardInterrupt:
        print("codesign: stopped; nothing was begun.", file=sys.stderr)
        sys.exit(130)
    run()
