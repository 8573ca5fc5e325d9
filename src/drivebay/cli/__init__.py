"""The command line: a skin over `drivebay.service`, without logic of its own."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command that the process was started with, and exit with its code."""
    try:
        from drivebay.cli.run import run  # only now: importing the package must stay cheap
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)  # as drivebay.cli.exit_codes has it
    sys.exit(run(sys.argv[1:]))
