"""Where the command line starts: what it needs takes a moment to load, and Ctrl-C may come then."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Load the command line and run it."""
    try:
        from .cli import main as run
    except KeyboardInterrupt:
        print("codesign: stopped; nothing was begun.", file=sys.stderr)
        sys.exit(130)
    run()
