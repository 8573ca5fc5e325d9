"""Real workers for tests, on small disks in a folder with a short path."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from drivebay.chain import create_image
from drivebay.service.worker import NBD_SOCKET, DiskSpec, WorkerProcess, start_worker
from support.nbd_client import FUA, WRITE_ZEROES, Client
from support.patience import until

SIZE = 64 << 20
BLOCK = 4096
_STRETCH = 4 << 20
_NOTHING: Mapping[int, bytes] = MappingProxyType({})


@contextmanager
def running(specs: Sequence[DiskSpec], groups: Mapping[str, int] | None = None) -> Iterator[WorkerProcess]:
    """A worker that ends with the block."""
    with tempfile.TemporaryDirectory(prefix="worker-") as folder:
        worker = start_worker(folder, specs, groups)
        try:
            yield worker
        finally:
            worker.stop()


def socket_of(worker: WorkerProcess) -> str:
    """Where NBD clients connect."""
    return str(Path(worker.run_folder, NBD_SOCKET))


def nbd(worker: WorkerProcess, export: str = "disk", **options: str) -> Client:
    """An NBD client of the worker."""
    return Client(socket_of(worker), export, **options)


def new_disk(path: Path, export: str = "disk") -> DiskSpec:
    """A new disk."""
    create_image(path, size=SIZE)
    return DiskSpec(export, (str(path),), writable=True)


def new_diff(path: Path, parent: Path) -> str:
    """A new image upon one that the worker writes."""
    create_image(path, parent=parent, parent_in_use=True)
    return str(path)


class Load:
    """Writes and reads random blocks of one disk, each answer checked, until `stop`.

    Every now and then it zeros a stretch, whole blocks of any image. ``known`` is what the disk holds.
    """

    FLAGS = 0  # of each write
    ZEROING = 100  # writes, on average, between two stretches of zeros

    def __init__(
        self,
        path: str,
        export: str = "disk",
        seed: int = 1,
        known: Mapping[int, bytes] = MappingProxyType({}),
    ) -> None:
        self._path = path
        self._export = export
        self._random = random.Random(seed)
        self._client: Client | None = None
        self._written: dict[int, bytes] = dict(known)
        self._stopping = False
        self._failure: BaseException | None = None
        self.rounds = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopping:
                if self._random.randrange(self.ZEROING) == 0:
                    self._zero_stretch()
                offset = self._random.randrange(SIZE // BLOCK) * BLOCK
                data = self._random.randbytes(16) * (BLOCK // 16)
                self._ask(lambda client, at=offset, new=data: client.write(at, new, flags=self.FLAGS))
                self._written[offset] = data
                self._check(self._random.choice(list(self._written)))
                self.rounds += 1
            for offset in self._written:
                self._check(offset)
        except BaseException as error:
            self._failure = error

    def _zero_stretch(self) -> None:
        begin = self._random.randrange(SIZE // _STRETCH) * _STRETCH
        reply = self._ask(lambda client: client.call(WRITE_ZEROES, begin, _STRETCH, flags=self.FLAGS))
        assert not reply.error, reply
        blocks = range(begin, begin + _STRETCH, BLOCK)
        known = [offset for offset in blocks if offset in self._written]
        self._written.update(dict.fromkeys([*known, *self._random.sample(blocks, 8)], bytes(BLOCK)))

    def _check(self, offset: int) -> None:
        found = self._ask(lambda client: client.read(offset, BLOCK))
        assert found == self._written[offset], f"at {offset}"

    def _ask(self, request: Callable[[Client], Any]) -> Any:
        if self._client is None:
            self._client = Client(self._path, self._export)
        return request(self._client)

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.sock.close()
            self._client = None

    def go_on(self, rounds: int = 30) -> None:
        """Wait until so many more writes are done."""
        goal = self.rounds + rounds
        until(lambda: self.rounds >= goal or not self._thread.is_alive(), "the load goes on")

    def stop(self) -> Mapping[int, bytes]:
        """Check all that was written, and end; what the disk must hold."""
        self._stopping = True
        self._thread.join()
        self._hang_up()
        if self._failure is not None:
            raise self._failure
        return self._written


class StubbornLoad(Load):
    """It goes on with the worker that follows a killed one: each write is durable."""

    FLAGS = FUA
    ZEROING = 400  # each is durable, which takes its time

    def _ask(self, request: Callable[[Client], Any]) -> Any:
        deadline = time.monotonic() + 60
        while True:
            try:
                return super()._ask(request)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                self._hang_up()
                time.sleep(0.05)
