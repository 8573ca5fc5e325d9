"""A machine that runs as far as its disks are concerned: a worker serves them, and clients write them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from unittest import mock
from uuid import UUID

import drivebay
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines import store
from drivebay.machines.model import MachineState, Slot
from drivebay.registry.database import open_registry
from drivebay.service import online_snapshots
from drivebay.service.clones import clone_machine
from drivebay.service.runtime.presence import SupervisorLock
from drivebay.service.runtime.record import read_machine
from drivebay.service.snapshots import take_snapshot
from drivebay.service.worker import WorkerClient, WorkerProcess, start_worker
from support import workers
from support.machines import medium, named
from support.patience import until
from support.real_lab import RealLab

SLOT = Slot("SATA", 0)
EXPORT = str(SLOT)


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

    def __init__(self, lab: RealLab, vm: UUID) -> None:
        self.lab = lab
        self.vm = vm
        self.run_folder = lab.home.run_folder(vm)
        self.worker: WorkerProcess

    @classmethod
    def new(cls, folder: Path, image_format: str = "vdi") -> ServedMachine:
        """A machine with an empty disk, in a home of its own."""
        lab = RealLab(folder, image_format)
        vm = lab.machine("vm")
        lab.add(medium("disk", size=workers.SIZE))
        lab.attach(vm, SLOT, named("disk"))
        return cls(lab, vm)

    def linked_clone(self, snapshot: UUID) -> ServedMachine:
        """Another machine, on what a snapshot of this one holds."""
        made = clone_machine(self.lab.home, str(self.vm), "clone", snapshot=str(snapshot), linked=True)
        return ServedMachine(self.lab, made.machine.uuid)

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
        """Start a worker with what the registry says, once nobody has the images in use."""
        until(self._starts, "a worker starts")

    def _starts(self) -> bool:
        _, plan = read_machine(self.lab.home, self.vm, self.run_folder)
        try:
            self.worker = start_worker(self.run_folder, plan.specs)
        except StorageError as error:
            if error.kind is not ErrorKind.IN_USE:
                raise
            return False
        return True

    def load(self, seed: int = 1, known: Mapping[int, bytes] = MappingProxyType({})) -> workers.Load:
        """Writes without an end, to a disk that holds what is ``known``."""
        return workers.Load(workers.socket_of(self.worker), EXPORT, seed, known)

    def stubborn_load(self) -> workers.StubbornLoad:
        """The same; it outlives workers."""
        return workers.StubbornLoad(workers.socket_of(self.worker), EXPORT)

    def take(self, name: str) -> UUID:
        """A snapshot of the running machine."""
        with mock.patch.object(online_snapshots, "connect", return_value=_Client(self.run_folder)):
            return take_snapshot(self.lab.home, str(self.vm), name, memory=False).snapshot.uuid

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
