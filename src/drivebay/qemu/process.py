"""Run QEMU and follow the guest's serial line."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from drivebay.errors import ErrorKind, StorageError

OnLine = Callable[[str], None]

_LONGEST_LINE = 64 << 10
_TAIL = 12


@dataclass(frozen=True, slots=True)
class SerialOutput:
    """What a guest wrote on its serial line (without line ends), and how long QEMU ran, in seconds."""

    lines: tuple[str, ...]
    seconds: float


def run(command: Sequence[str], *, timeout: float, on_line: OnLine | None = None) -> SerialOutput:
    """Run QEMU until it ends by itself; ``on_line`` gets every line of the serial output as it comes.

    QEMU never outlives the call: it is killed when ``timeout`` seconds have passed, when ``on_line`` raises
    and on KeyboardInterrupt. Raises `StorageError` (IO) for a time-out or when QEMU fails, with its own words
    and the last lines of the guest in the message.
    """
    started = time.monotonic()
    lines: list[str] = []
    with tempfile.TemporaryFile() as complaints, _qemu(command, complaints) as process:
        assert process.stdout is not None
        for line in _lines(process.stdout, started + timeout):
            lines.append(line)
            if on_line is not None:
                on_line(line)
        if not _ended(process, started + timeout):
            raise _failure(f"the guest was still running after {timeout:.0f} s and was stopped", lines)
        if process.returncode:
            complaints.seek(0)
            reason = complaints.read(4096).decode(errors="replace").strip() or "it gave no reason"
            raise _failure(f"QEMU failed with exit code {process.returncode}: {reason}", lines)
    return SerialOutput(tuple(lines), time.monotonic() - started)


@contextlib.contextmanager
def _qemu(command: Sequence[str], complaints: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, bufsize=0
        )
    except OSError as error:
        raise StorageError(
            ErrorKind.IO,
            f"QEMU cannot be started: {error.strerror}; check that it is installed",
            path=command[0],
            operation="run QEMU",
        ) from error
    with process:
        try:
            yield process
        finally:
            process.kill()


def _lines(pipe: IO[bytes], deadline: float) -> Iterator[str]:
    """The lines of ``pipe`` until it ends or the deadline passes; an endless line comes in pieces."""
    pending = b""
    for data in _chunks(pipe, deadline):
        *whole, pending = (pending + data).split(b"\n")
        yield from map(_text, whole)
        if len(pending) > _LONGEST_LINE:
            yield _text(pending)
            pending = b""
    if pending:
        yield _text(pending)


def _chunks(pipe: IO[bytes], deadline: float) -> Iterator[bytes]:
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                return
            data = os.read(pipe.fileno(), 1 << 16)
            if not data:
                return
            yield data


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")


def _ended(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Wait for the end of the process; it closes its output a moment before."""
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _failure(message: str, lines: Sequence[str]) -> StorageError:
    said = "\n".join(lines[-_TAIL:]) or "(nothing)"
    return StorageError(
        ErrorKind.IO,
        f"{message}; look at the guest's last lines for the cause:\n{said}",
        operation="run QEMU",
    )
