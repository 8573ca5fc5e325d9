"""The command line: a skin over `drivebay.service`, without logic of its own."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the process was started with, and exit with its code."""
    from drivebay.cli.run import run  # only now: importing the package must stay cheap

    sys.exit(run(sys.argv[1:]))
