"""The disks that a worker serves, and who may change them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from drivebay.errors import ErrorKind, StorageError
from drivebay.exports import Bandwidth, Export, Gate, NbdServer
from drivebay.service.worker.opening import open_disk
from drivebay.service.worker.pushing import push_all
from drivebay.service.worker.rebasing import rebase
from drivebay.service.worker.slot import Slot
from drivebay.service.worker.spec import DiskSpec

_PATIENCE = 60.0  # seconds to wait for somebody else's change of the same disk


@dataclass(eq=False)
class Holding:
    """What one control connection holds; used by that connection's thread only."""

    slots: list[Slot] = field(default_factory=list)
    settled: list[Slot] = field(default_factory=list)  # whose images are to be opened anew
    frozen: ExitStack = field(default_factory=ExitStack)


class Slots:
    """All disks of a worker by export. Safe for many threads: changes of one disk wait for each other.

    ``by`` tells who asks: what it holds, it may change. Everything raises StorageError: NOT_FOUND for an
    export that is not served, STATE for one that somebody else keeps for too long.
    """

    def __init__(self, server: NbdServer) -> None:
        self._server = server
        self._slots: dict[str, Slot] = {}
        self._changed = threading.Condition()
        self._opening: set[str] = set()
        self._groups: dict[str, Bandwidth] = {}
        self._ending = False

    def open(self, spec: DiskSpec) -> None:
        """Open a disk and offer it."""
        with self._changed:
            if spec.export in self._slots or spec.export in self._opening:
                raise _refused(ErrorKind.IN_USE, spec.export, "is served already; close that disk first")
            self._opening.add(spec.export)
        try:
            disk = open_disk(spec)
            gate = Gate(self._group(spec.group))
            export = Export(disk, spec.export, discard=spec.discard, gate=gate)
            self._server.add_export(export)
            with self._changed:
                self._slots[spec.export] = Slot(spec, export)
        finally:
            with self._changed:
                self._opening.discard(spec.export)

    def close(self, name: str, by: Holding) -> None:
        """Offer a disk no more, flush and close it."""
        with self._owned([name], by, held=False) as (slot,):
            with self._changed:
                del self._slots[name]
            self._server.remove_export(name)
            slot.disk.close()

    def end(self) -> None:
        """Let nobody wait any more for what others hold."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def close_all(self) -> None:
        """Flush and close all disks; the server has ended. Raises the first failure."""
        with ExitStack() as stack:
            for slot in self._slots.values():
                stack.callback(slot.disk.close)
            self._slots.clear()

    def flush(self, exports: Sequence[str], by: Holding) -> None:
        """Flush the writable ones among these disks; all where none is named."""
        for slot in self._named(exports or list(self._slots)):
            if slot.disk.writable and slot not in by.slots:  # what is held is flushed
                slot.disk.flush()

    def push(self, images: Mapping[str, str], by: Holding) -> float:
        """Put empty images on top, of all these disks or none; for how many seconds writers were held."""
        with self._owned(list(images), by, held=False) as slots:
            return push_all(slots, list(images.values()))

    def rebase(self, name: str, paths: tuple[str, ...], formats: tuple[str, ...], by: Holding) -> float:
        """Let a disk consist of other images; for how many seconds it was frozen."""
        with self._owned([name], by) as (slot,):
            frozen: AbstractContextManager[None] = contextlib.nullcontext()
            if slot not in by.slots:
                slot.disk.flush()  # now, so that little is left when the disk is frozen
                frozen = self._frozen(slot)
            paused = rebase(slot, paths, formats, frozen, settled=slot in by.settled)
            by.settled = [other for other in by.settled if other is not slot]
            return paused

    def hold(self, exports: Sequence[str], by: Holding, *, settle: bool = False) -> None:
        """Flush and freeze disks until `release`; ``settle`` lets ``by`` change their active images, too."""
        taken = [slot for slot in self._take(exports, by) if slot not in by.slots]
        try:
            with ExitStack() as stack:
                for slot in taken:
                    slot.disk.flush()  # now, so that little is left when the disk is frozen
                for slot in taken:
                    stack.enter_context(self._frozen(slot))
                by.frozen.push(stack.pop_all())
            by.slots += taken
            if settle:
                by.settled += taken
                for slot in taken:
                    slot.disk.settle()
        except BaseException:
            self._give_back(taken)
            raise

    def release(self, by: Holding, *, forsaken: bool = False) -> None:
        """Let all that is held go on; whoever has ``forsaken`` it may have changed any image of it."""
        for slot in by.slots if forsaken else by.settled:
            rebase(
                slot, slot.spec.paths, slot.spec.formats, contextlib.nullcontext(), settled=slot in by.settled
            )
        by.settled = []
        by.frozen.close()
        self._give_back(by.slots)
        by.slots = []

    def limit(self, group: str, bytes_per_second: int) -> None:
        """Give a bandwidth group a limit, in bytes; 0 is none."""
        self._server.set_limit(self._group(group), bytes_per_second)

    def _group(self, name: str) -> Bandwidth:
        """What disks share; a group of no name is each disk's own."""
        if not name:
            return Bandwidth()
        with self._changed:
            return self._groups.setdefault(name, Bandwidth())

    @contextmanager
    def _frozen(self, slot: Slot) -> Iterator[None]:
        """Freeze a disk; the server lets its requests wait where they are in nobody's way."""
        with self._server.holding(slot.export), slot.disk.freeze():
            yield

    def status(self) -> dict[str, Any]:
        """What each export is and has done; ``time`` is the clock for rates, in seconds."""
        with self._changed:
            slots = dict(self._slots)
        return {name: {"time": time.monotonic(), **slot.status()} for name, slot in slots.items()}

    def _named(self, exports: Sequence[str]) -> list[Slot]:
        with self._changed:
            unknown = [name for name in exports if name not in self._slots]
            if unknown:
                raise _refused(ErrorKind.NOT_FOUND, unknown[0], "is not served; look at the worker's status")
            return [self._slots[name] for name in exports]

    @contextmanager
    def _owned(self, exports: Sequence[str], by: Holding, *, held: bool = True) -> Iterator[list[Slot]]:
        """Keep others from changing these disks; with ``held`` it is no obstacle that ``by`` holds them."""
        taken = self._take(exports, by)
        try:
            slots = self._named(exports)
            for slot in slots:
                if slot in by.slots and not held:
                    raise _refused(ErrorKind.STATE, slot.spec.export, "is held; release it first")
            yield slots
        finally:
            self._give_back(taken)

    def _take(self, exports: Sequence[str], by: Holding) -> list[Slot]:
        """Own these disks, of which the answer has those that ``by`` did not own; waits for other owners."""
        with self._changed:
            deadline = time.monotonic() + _PATIENCE
            while busy := [slot for slot in self._named(exports) if slot.owner not in (None, by)]:
                patience = 0.0 if self._ending else deadline - time.monotonic()
                if patience <= 0 or not self._changed.wait(patience):
                    name = busy[0].spec.export
                    raise _refused(ErrorKind.STATE, name, "is held by another client; try again later")
            taken = [slot for slot in dict.fromkeys(self._named(exports)) if slot.owner is None]
            for slot in taken:
                slot.owner = by
            return taken

    def _give_back(self, slots: Iterable[Slot]) -> None:
        with self._changed:
            for slot in slots:
                slot.owner = None
            self._changed.notify_all()


def _refused(kind: ErrorKind, export: str, why: str) -> StorageError:
    return StorageError(kind, f"the export {export} {why}", operation="worker")
