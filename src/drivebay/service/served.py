"""An image as running machines serve it: so that those who change it can hold them and tell them of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Machine
from drivebay.machines.store import load, load_all
from drivebay.registry.database import Registry, View
from drivebay.registry.home import Home
from drivebay.registry.medium import MediaTree, Medium
from drivebay.service.runtime.client import is_running
from drivebay.service.worker import WorkerClient

_SHORTEST_REST = 0.002  # seconds between two holds


@dataclass(frozen=True, slots=True)
class Disk:
    """One export of a running machine's worker, and the medium that the registry has there."""

    machine: UUID
    client: WorkerClient
    export: str
    medium: Medium


def running_with(view: View, home: Home, medium: UUID) -> list[Machine]:
    """The machines that run now and whose current state builds on a medium, or is it."""
    return [
        machine
        for machine in load_all(view)
        if _slots(machine, view.tree, medium) and is_running(home, machine.uuid)
    ]


def _slots(machine: Machine, tree: MediaTree, medium: UUID) -> list[tuple[str, Medium]]:
    return [
        (str(at.slot), tree.get(at.medium))
        for at in machine.hardware.attachments
        if at.medium is not None and any(one.uuid == medium for one in tree.chain(at.medium))
    ]


class Served:
    """All exports of running machines that show a medium. ``longest`` is the longest hold, in seconds."""

    def __init__(self, disks: Sequence[Disk], pace: float) -> None:
        self.disks = tuple(disks)
        self.longest = 0.0
        self._pace = pace

    @classmethod
    @contextmanager
    def connected(cls, registry: Registry, medium: UUID, pace: float = 1.0) -> Iterator[Served]:
        """Connected to the workers; when the block ends they go on, with the images opened anew if held.

        Between holds the disks are left alone for ``pace`` times as long as they were held. Raises
        StorageError (IN_USE) for a machine whose worker can't be reached, or serves something else.
        """
        with ExitStack() as stack:
            with registry.view() as view:
                tree = view.tree
                machines = running_with(view, registry.home, medium)
            disks: list[Disk] = []
            for machine in machines:
                client = _reach(registry.home, machine)
                stack.enter_context(client)
                slots = _slots(machine, tree, medium)
                disks += [Disk(machine.uuid, client, export, top) for export, top in slots]
            yield cls(disks, pace)

    def catch_up(self, tree: MediaTree) -> None:
        """Put on top what the registry has there: a new image whose maker died before, or an emptied one.

        The latter is merged, and gone from the disk, but whoever merged it died before that was recorded.
        """
        for disk in self.disks:
            wanted = [one.path for one in tree.chain(disk.medium.uuid)]
            if self.paths(disk) == wanted[1:]:
                disk.client.push({disk.export: wanted[0]})

    def paths(self, disk: Disk) -> list[str]:
        """The images that the worker has in use for a disk, top first. Raises StorageError (IN_USE)."""
        status = disk.client.status().get(disk.export)
        if status is None:
            raise _not_served(disk)
        return list(status["paths"])

    def require(self, *allowed: Sequence[Medium]) -> None:
        """Whether each worker serves, below what is on top of them, these images in this order.

        Raises StorageError (IN_USE).
        """
        for disk in self.disks:
            paths = self.paths(disk)
            if not any(paths[-len(chain) :] == [one.path for one in chain] for chain in allowed):
                raise StorageError(
                    ErrorKind.IN_USE,
                    f"its machine's worker serves other images at {disk.export} than the registry has "
                    "there; restart the machine",
                    path=disk.medium.path,
                    operation="merge",
                )

    @contextmanager
    def held(self) -> Iterator[None]:
        """No request is under way, and all images below the active ones are opened anew before any is.

        Nothing interrupts this. Where the block fails the disks stay held until the connection ends.
        """
        with _interrupts_wait():
            started = self._hold(settle=False)
            yield
            for disk in self.disks:
                disk.client.rebase(disk.export, self.paths(disk))
            self._release(started)
        time.sleep(max((time.monotonic() - started) * self._pace, _SHORTEST_REST))

    @contextmanager
    def settled(self) -> Iterator[None]:
        """As `held`; the active images may be changed, too, but each disk must get new ones (`rebase`)."""
        with _interrupts_wait():
            started = self._hold(settle=True)
            yield
            self._release(started)

    def rebase(self, view: View) -> None:
        """Let all disks consist of the images that the registry has there. Raises StorageError."""
        for disk in self.disks:
            attachments = load(view, disk.machine).hardware.attachments
            medium = next((at.medium for at in attachments if str(at.slot) == disk.export), None)
            if medium is None:
                raise _not_served(disk)
            chain = list(view.tree.chain(medium))
            disk.client.rebase(disk.export, [one.path for one in chain], [one.format for one in chain])

    def _hold(self, *, settle: bool) -> float:
        started = 0.0
        for client, exports in self._by_client():
            client.hold(exports, settle=settle)
            started = started or time.monotonic()
        return started

    def _release(self, started: float) -> None:
        for client, _ in self._by_client():
            client.release()
        self.longest = max(self.longest, time.monotonic() - started)

    def _by_client(self) -> list[tuple[WorkerClient, list[str]]]:
        clients = {id(disk.client): disk.client for disk in self.disks}
        return [
            (client, [disk.export for disk in self.disks if disk.client is client])
            for client in clients.values()
        ]


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """An interrupt from the keyboard comes when the block has ended."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _not_served(disk: Disk) -> StorageError:
    return StorageError(
        ErrorKind.IN_USE,
        f"its machine's worker does not serve {disk.export} at present; try again later",
        path=disk.medium.path,
        operation="merge",
    )


def _reach(home: Home, machine: Machine) -> WorkerClient:
    try:
        return WorkerClient.connect(home.run_folder(machine.uuid))
    except StorageError as error:
        raise StorageError(
            ErrorKind.IN_USE,
            f"machine {machine.name!r} runs, but its worker can't be reached now; try again later",
            path=os.path.join(machine.folder, machine.name),
            operation="merge",
        ) from error
