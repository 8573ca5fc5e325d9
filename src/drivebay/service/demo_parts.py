"""The demo's props: a small file system, a home that goes with everything in it, and one run of a guest."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from drivebay.engine.disk import Disk
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.store import load
from drivebay.qemu.arguments import SERIAL_LOG
from drivebay.qemu.initramfs import MARK
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home, find_home
from drivebay.service.machines.lifecycle import list_machines
from drivebay.service.runtime import connect, is_running, start

_SBIN = os.pathsep.join(("/sbin", "/usr/sbin", os.environ.get("PATH", "")))
_PIECE = 64 << 10
_BOOT_TIMEOUT = 240.0  # seconds
_END_TIMEOUT = 60.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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


def write_content(disk: Disk, content: Path) -> None:
    """Write what is not zero of a raw file into a new disk."""
    with content.open("rb") as file:
        for offset in range(0, disk.size, _PIECE):
            data = file.read(_PIECE)
            if data.count(0) != len(data):
                disk.write(offset, data)


@dataclass(frozen=True, slots=True)
class Run:
    """What a guest said with a mark, and the seconds that it ran."""

    marks: tuple[str, ...]
    seconds: float

    def marked(self, word: str) -> list[str]:
        """What follows ``word`` in the marks that begin with it."""
        return [mark.removeprefix(word) for mark in self.marks if mark.startswith(word)]


def boot(home: Home, machine: UUID, on_status: Callable[[str], None]) -> Run:
    """Start a machine and wait until it has powered off. Raises StorageError."""
    with open_registry(home) as registry, registry.view() as view:
        log = Path(load(view, machine).folder, SERIAL_LOG)
    before = log.stat().st_size if log.exists() else 0
    began = time.monotonic()
    with _signals_wait():  # a machine that is half started can't be ended yet
        start(home, machine, on_status=on_status)
    with connect(home, machine) as client:
        client.wait_stopped(_BOOT_TIMEOUT)
    seconds = time.monotonic() - began
    _wait_for_end(home, machine)
    lines = log.read_bytes()[before:].decode(errors="replace").splitlines()
    found = (line.partition(MARK) for line in lines)
    return Run(tuple(text for _, mark, text in found if mark), seconds)


@contextmanager
def temporary_home() -> Iterator[Home]:
    """A home in a folder of its own; in the end its machines are off, and nothing is left of it."""
    with tempfile.TemporaryDirectory(prefix="drivebay-demo-") as folder:
        home = find_home(os.path.join(folder, "home"))
        try:
            yield home
        finally:
            with _signals_wait():
                _clear(home)


def _clear(home: Home) -> None:
    if not os.path.exists(home.registry):
        return
    for machine in list_machines(home):
        _end(home, machine.uuid)
        shutil.rmtree(home.run_folder(machine.uuid), ignore_errors=True)


def _end(home: Home, machine: UUID) -> None:
    """Kill a machine that still runs."""
    if is_running(home, machine):
        with contextlib.suppress(StorageError), connect(home, machine) as client:
            client.kill()
    _wait_for_end(home, machine)


def _wait_for_end(home: Home, machine: UUID) -> None:
    """The supervisor has answered, but lives for a moment yet."""
    deadline = time.monotonic() + _END_TIMEOUT
    while is_running(home, machine):
        if time.monotonic() > deadline:
            raise StorageError(
                ErrorKind.STATE,
                f"machine {{{machine}}} does not end; look for its processes by this UUID and end them",
                operation="demo",
            )
        time.sleep(0.05)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """What would interrupt the block comes after it."""
    caught: list[int] = []
    before = {each: signal.signal(each, lambda number, _: caught.append(number)) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        if caught:
            signal.raise_signal(signal.Signals(caught[0]))
