"""The servers that are compared: how each is started, and that each is ended."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bench.client import Client
from bench.errors import BenchError, DisconnectedError

STARTS_WITHIN = 20.0
ENDS_WITHIN = 20.0

_OUR_COMMAND = str(Path(sys.executable).with_name("drivebay"))


@dataclass(frozen=True)
class Image:
    """A disk image: where, of which format (as QEMU spells it), and how many bytes its disk has."""

    path: Path
    format: str
    size: int


@dataclass(frozen=True)
class Server:
    """A program that serves an image: ``command`` makes its arguments from the image and a socket's path."""

    name: str
    command: Callable[[Image, Path], list[str]]
    version: tuple[str, ...]
    export: str = ""


def _drivebay(image: Image, path: Path) -> list[str]:
    return [_OUR_COMMAND, "serve", str(image.path), "--socket", str(path)]


def _qemu_nbd(image: Image, path: Path) -> list[str]:
    shape = ["--format", image.format, "--cache", "writeback", "--persistent", "--shared", "8"]
    return ["qemu-nbd", *shape, "--socket", str(path), str(image.path)]


def _qemu_storage_daemon(image: Image, path: Path) -> list[str]:
    file = f"driver=file,node-name=file,filename={image.path}"
    disk = f"driver={image.format},node-name=disk,file=file"
    export = "type=nbd,id=export,node-name=disk,name=disk,writable=on,iothread=io"
    return [
        *("qemu-storage-daemon", "--object", "iothread,id=io", "--blockdev", file, "--blockdev", disk),
        *("--nbd-server", f"addr.type=unix,addr.path={path}", "--export", export),
    ]


def _nbdkit(image: Image, path: Path) -> list[str]:
    return ["nbdkit", "--foreground", "--unix", str(path), "file", str(image.path)]


def _echo(image: Image, path: Path) -> list[str]:
    return [sys.executable, "-m", "bench.echo", str(path), str(image.size)]


DRIVEBAY = Server("drivebay", _drivebay, (_OUR_COMMAND, "--version"))
QEMU_NBD = Server("qemu-nbd", _qemu_nbd, ("qemu-nbd", "--version"))
QEMU_STORAGE_DAEMON = Server(
    "qemu-storage-daemon", _qemu_storage_daemon, ("qemu-storage-daemon", "--version"), export="disk"
)
NBDKIT = Server("nbdkit", _nbdkit, ("nbdkit", "--version"))
ECHO = Server("echo server", _echo, ())

PEERS = (QEMU_NBD, QEMU_STORAGE_DAEMON, NBDKIT)
TOOLS = ("qemu-img", *(peer.version[0] for peer in PEERS))


def missing_tools() -> list[str]:
    """The programs the benchmark needs that are not installed."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


@dataclass(frozen=True)
class Running:
    """A server that listens on a Unix socket."""

    server: Server
    process: subprocess.Popen[bytes]
    path: Path
    log: IO[bytes]

    def connect(self, *, structured: bool = False) -> Client:
        """A new connection; waits until the server listens. Raises BenchError if it doesn't in time."""
        deadline = time.monotonic() + STARTS_WITHIN
        while True:
            try:
                return Client(self.path, self.server.export, structured=structured)
            except (FileNotFoundError, ConnectionError, DisconnectedError) as error:
                # qemu-nbd listens before it opens the image, and drops connections if it can't.
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise BenchError(f"{self.server.name} does not start: {self.words()}") from error
                time.sleep(0.001)

    def words(self) -> str:
        """The end of what the server wrote on its standard error."""
        self.log.seek(0)
        return self.log.read()[-500:].decode(errors="replace").strip() or "it said nothing"

    def resident(self) -> int:
        """Bytes of memory that the process holds now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024


@contextmanager
def running(server: Server, image: Image) -> Iterator[Running]:
    """A fresh process of ``server`` on ``image``; it is ended whatever happens, even if we are killed."""
    with tempfile.TemporaryDirectory(prefix="dbb-") as folder, tempfile.TemporaryFile() as log:
        path = Path(folder, "nbd")
        command = [*_killed_with_us(), *server.command(image, path)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
        try:
            yield Running(server, process, path, log)
        finally:
            end(server.name, process)


def _killed_with_us() -> list[str]:
    return ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []


def end(name: str, process: subprocess.Popen[bytes]) -> None:
    """Ask the process to end, then make it. Raises BenchError if it had to be made."""
    process.terminate()
    try:
        process.wait(ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{name} does not end within {ENDS_WITHIN:.0f} s of SIGTERM") from None
    finally:
        process.kill()
        process.wait()
