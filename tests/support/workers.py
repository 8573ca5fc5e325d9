"""Real workers for tests, on small disks in a folder with a short path."""

from __future__ import annotations

import random
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from drivebay.chain import create_image
from drivebay.service.worker import NBD_SOCKET, DiskSpec, WorkerProcess, start_worker
from support.nbd_client import Client

SIZE = 64 << 20
BLOCK = 4096


@contextmanager
def running(specs: Sequence[DiskSpec], groups: Mapping[str, int] | None = None) -> Iterator[WorkerProcess]:
    """A worker that ends with the block."""
    with tempfile.TemporaryDirectory(prefix="worker-") as folder:
        worker = start_worker(folder, specs, groups)
        try:
            yield worker
        finally:
            worker.stop()


def nbd(worker: WorkerProcess, export: str = "disk", **options: str) -> Client:
    """An NBD client of the worker."""
    return Client(str(Path(worker.run_folder, NBD_SOCKET)), export, **options)


def new_disk(path: Path, export: str = "disk") -> DiskSpec:
    """A new disk."""
    create_image(path, size=SIZE)
    return DiskSpec(export, (str(path),), writable=True)


def new_diff(path: Path, parent: Path) -> str:
    """A new image upon one that the worker writes."""
    create_image(path, parent=parent, parent_in_use=True)
    return str(path)


class Load:
    """Writes and reads random blocks of one disk, each answer checked, until `stop`."""

    def __init__(self, worker: WorkerProcess, export: str = "disk", seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._client = nbd(worker, export)
        self._written: dict[int, bytes] = {}
        self._stopping = False
        self._failure: BaseException | None = None
        self.rounds = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopping:
                offset = self._random.randrange(SIZE // BLOCK) * BLOCK
                data = self._random.randbytes(16) * (BLOCK // 16)
                self._client.write(offset, data)
                self._written[offset] = data
                self._check(self._random.choice(list(self._written)))
                self.rounds += 1
            for offset in self._written:
                self._check(offset)
        except BaseException as error:
            self._failure = error

    def _check(self, offset: int) -> None:
        assert self._client.read(offset, BLOCK) == self._written[offset]

    def stop(self) -> Mapping[int, bytes]:
        """Check all that was written, and end; what the disk must hold."""
        self._stopping = True
        self._thread.join()
        self._client.sock.close()
        if self._failure is not None:
            raise self._failure
        return self._written
