"""A machine that runs as far as its disks are concerned: a worker serves them, and clients write them."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

import drivebay
from drivebay.machines import store
from drivebay.machines.model import MachineState, Slot
from drivebay.registry.database import open_registry
from drivebay.service import online_snapshots
from drivebay.service.runtime.presence import SupervisorLock
from drivebay.service.runtime.record import read_machine
from drivebay.service.snapshots import take_snapshot
from drivebay.service.worker import NBD_SOCKET, WorkerClient, WorkerProcess, start_worker
from support import nbd_client, workers
from support.machines import medium, named
from support.real_lab import RealLab

SLOT = Slot("SATA", 0)
EXPORT = str(SLOT)


class StubbornLoad:
    """As `workers.Load`, but it goes on with the worker that follows a killed one: each write is durable."""

    def __init__(self, path: str, seed: int = 1) -> None:
        self._path = path
        self._random = random.Random(seed)
        self._client: nbd_client.Client | None = None
        self._written: dict[int, bytes] = {}
        self._stopping = False
        self._failure: BaseException | None = None
        self.rounds = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopping:
                offset = self._random.randrange(workers.SIZE // workers.BLOCK) * workers.BLOCK
                data = self._random.randbytes(16) * (workers.BLOCK // 16)
                self._try(lambda client, at=offset, new=data: client.write(at, new, flags=nbd_client.FUA))
                self._written[offset] = data
                self._check(self._random.choice(list(self._written)))
                self.rounds += 1
            for offset in self._written:
                self._check(offset)
        except BaseException as error:
            self._failure = error

    def _check(self, offset: int) -> None:
        found = self._try(lambda client: client.read(offset, workers.BLOCK))
        assert found == self._written[offset], f"at {offset}"

    def _try(self, request: Callable[[nbd_client.Client], Any]) -> Any:
        deadline = time.monotonic() + 60
        while True:
            try:
                self._client = self._client or self._connected()
                return request(self._client)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                if self._client is not None:
                    self._client.sock.close()
                    self._client = None
                time.sleep(0.05)

    def _connected(self) -> nbd_client.Client:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(self._path)
        return nbd_client.Client(self._path, EXPORT)

    def stop(self) -> Mapping[int, bytes]:
        """Check all that was written, and end; what the disk must hold."""
        self._stopping = True
        self._thread.join()
        if self._client is not None:
            self._client.sock.close()
        if self._failure is not None:
            raise self._failure
        return self._written


class _Client:
    """What a snapshot without memory needs of a supervisor."""

    def __init__(self, run_folder: str) -> None:
        self._run_folder = run_folder

    def worker(self) -> WorkerClient:
        return WorkerClient.connect(self._run_folder)

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class ServedMachine:
    """A machine with one disk; `running` serves it, and `restart` does what a supervisor would."""

    def __init__(self, folder: Path, image_format: str = "vdi") -> None:
        self.lab = RealLab(folder, image_format)
        self.vm = self.lab.machine("vm")
        self.lab.add(medium("disk", size=workers.SIZE))
        self.lab.attach(self.vm, SLOT, named("disk"))
        self.run_folder = self.lab.home.run_folder(self.vm)
        self.worker: WorkerProcess

    @contextmanager
    def running(self) -> Iterator[None]:
        """The machine runs until the block ends."""
        lock = SupervisorLock(self.run_folder)
        assert lock.take()
        self._record(MachineState.RUNNING)
        self.restart()
        try:
            yield
        finally:
            self.worker.stop()
            lock.close()
            self._record(MachineState.POWERED_OFF)

    def restart(self) -> None:
        """Start a worker with what the registry says."""
        _, plan = read_machine(self.lab.home, self.vm, self.run_folder)
        self.worker = start_worker(self.run_folder, plan.specs)

    def load(self, seed: int = 1) -> workers.Load:
        """Writes without an end."""
        return workers.Load(self.worker, EXPORT, seed)

    def take(self, name: str) -> UUID:
        """A snapshot of the running machine."""
        with mock.patch.object(online_snapshots, "connect", return_value=_Client(self.run_folder)):
            return take_snapshot(self.lab.home, "vm", name, memory=False).snapshot.uuid

    @property
    def nbd_socket(self) -> str:
        """Where the worker's clients connect."""
        return str(Path(self.run_folder, NBD_SOCKET))

    @property
    def chain(self) -> list[str]:
        """The disk's images, top first, by the registry."""
        return [one.path for one in self.lab.tree.chain(self.lab.medium_at(self.vm, SLOT))]

    @property
    def served(self) -> list[str]:
        """The same, by the worker."""
        with self.worker.connect() as client:
            return list(client.status()[EXPORT]["paths"])

    def check(self, written: Mapping[int, bytes]) -> None:
        """The disk, which nobody serves any more, holds what was written, and no file is left over."""
        paths = self.chain
        with drivebay.open(paths[0], search=paths) as disk:
            for offset, data in written.items():
                assert disk.read(offset, len(data)) == data
        assert self.lab.files() == {one.path for one in self.lab.media.values()}

    def _record(self, state: MachineState) -> None:
        with open_registry(self.lab.home) as registry, registry.change() as change:
            store.save(change, replace(store.load(change, self.vm), state=state))
