"""The guest, booted by every test here, and `drivebay serve` as a process of its own."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drivebay.qemu import TinyGuest

START_TIMEOUT = 60.0
DRIVEBAY = Path(sys.executable).with_name("drivebay")


class Server:
    """One image served by ``drivebay serve``; it can be killed and started again on the same socket."""

    def __init__(self, image: Path, address: Path) -> None:
        self.image = image
        self.socket = address
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [DRIVEBAY, "serve", self.image, "--socket", self.socket]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            assert self._process.poll() is None, "the server ended at its start"
            assert time.monotonic() < deadline, "the server did not start to listen"
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: nothing is flushed and nothing is said good-bye to."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, which must end well."""
        assert self._end(signal.SIGTERM) == 0

    def _end(self, how: signal.Signals) -> int | None:
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(how)
        return process.wait(START_TIMEOUT)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.socket)) == 0


@pytest.fixture(scope="session")
def guest() -> TinyGuest:
    return TinyGuest.prepare()


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Server]]:
    """Start a server for an image; what still runs at the end of the test is killed."""
    folder = Path(tempfile.mkdtemp(prefix="drivebay-", dir="/tmp"))  # a socket's path must be short
    servers: list[Server] = []

    def start(image: Path) -> Server:
        server = Server(image, folder / f"{len(servers)}.sock")
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.kill()
    shutil.rmtree(folder)
