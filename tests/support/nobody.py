"""Python code run as a user without rights, for what root may do all the same."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534
_BECOME = f"import os, sys; os.getuid() or os.setuid({NOBODY})"


def run_as_nobody(imports: str, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``imports``, give up root's rights, run ``code``; ``sys.argv[1:]`` are ``arguments``."""
    script = "\n".join((imports, _BECOME, code))
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that everybody may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="drivebay-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
