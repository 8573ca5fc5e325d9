"""The demo's props: a small file system, and a server in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from drivebay.errors import ErrorKind, StorageError

_SBIN = os.pathsep.join(("/sbin", "/usr/sbin", os.environ.get("PATH", "")))
_END_TIMEOUT = 30


def file_system(files: Mapping[str, str], size: int, folder: Path) -> Path:
    """A raw file of ``size`` bytes in ``folder`` with an ext4 file system that holds ``files``."""
    program = shutil.which("mke2fs", path=_SBIN)
    if program is None:
        raise StorageError(
            ErrorKind.NOT_FOUND,
            "mke2fs is not installed; install it (Debian and Ubuntu: the package e2fsprogs)",
            operation="make a file system",
        )
    target = folder / "file-system.raw"
    with tempfile.TemporaryDirectory(dir=folder) as content:
        for name, text in files.items():
            Path(content, name).write_text(text)
        command = [program, "-q", "-F", "-t", "ext4", "-d", content, str(target), f"{size >> 10}k"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StorageError(
            ErrorKind.IO,
            f"mke2fs failed: {done.stderr.strip()}; look at its message for the cause",
            path=target,
            operation="make a file system",
        )
    return target


@contextmanager
def served(image: Path, socket: Path) -> Iterator[str]:
    """Serve ``image`` in a process of its own while the context lasts; it gives the URL.

    Raises StorageError if the server doesn't start, or doesn't end well.
    """
    command = [sys.executable, "-m", "drivebay", "serve", str(image), "--socket", str(socket)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if url:
                yield url
        except BaseException:
            process.kill()
            raise
        complaint = _end(process)
    if not url or process.returncode:
        raise StorageError(
            ErrorKind.IO,
            f"the server failed: {complaint or 'it gave no reason'}; serve the image by hand to see why",
            path=image,
            operation="serve",
        )


def _end(process: subprocess.Popen[str]) -> str:
    """Ask the server to end, and wait for it; the answer is its complaint, if any."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.communicate(timeout=_END_TIMEOUT)[1].strip()
    except subprocess.TimeoutExpired:
        process.kill()
        return f"it did not end within {_END_TIMEOUT} s"
