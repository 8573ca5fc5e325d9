"""The disks that a worker serves, and what can be done to them while they are served."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from drivebay.chain import close_layers, open_layer
from drivebay.engine.disk import Disk
from drivebay.engine.source import OpenedLayer
from drivebay.errors import ErrorKind, StorageError
from drivebay.exports import Export, NbdServer
from drivebay.service.worker.opening import open_disk
from drivebay.service.worker.spec import DiskSpec

_PATIENCE = 60.0  # seconds to wait for somebody else's change of the same disk


@dataclass(slots=True, eq=False)
class Slot:
    """One disk in service; ``owner`` is whoever changes it or holds it now."""

    spec: DiskSpec
    export: Export
    owner: object = None

    @property
    def disk(self) -> Disk:
        """The opened chain."""
        return self.export.disk


@dataclass(eq=False)
class Holding:
    """What one control connection holds; used by that connection's thread only."""

    slots: list[Slot] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)

    def release(self) -> None:
        """Let the disks go on."""
        self.slots.clear()
        self.stack.close()


class Slots:
    """All disks of a worker by export. Safe for many threads: changes of one disk wait for each other.

    Everything raises StorageError: NOT_FOUND for an export that is not served, STATE for one that
    somebody else keeps for too long.
    """

    def __init__(self, server: NbdServer) -> None:
        self._server = server
        self._slots: dict[str, Slot] = {}
        self._changed = threading.Condition()
        self._opening: set[str] = set()

    def open(self, spec: DiskSpec) -> None:
        """Open a disk and offer it."""
        with self._changed:
            if spec.export in self._slots or spec.export in self._opening:
                raise _refused(ErrorKind.IN_USE, spec.export, "is served already; close that disk first")
            self._opening.add(spec.export)
        try:
            disk = open_disk(spec)
            export = Export(disk, spec.export, discard=spec.discard)
            with self._changed:
                self._server.add_export(export)
                self._slots[spec.export] = Slot(spec, export)
        finally:
            with self._changed:
                self._opening.discard(spec.export)

    def close(self, export: str, by: Holding) -> None:
        """Offer a disk no more, flush and close it."""
        with self._owned([export], by) as (slot,):
            if slot in by.slots:
                raise _refused(ErrorKind.STATE, export, "is held; release it first")
            with self._changed:
                del self._slots[export]
            self._server.remove_export(export)
            slot.disk.close()

    def close_all(self) -> None:
        """Flush and close all disks; the server has ended. Raises the first failure."""
        with ExitStack() as stack:
            for slot in self._slots.values():
                stack.callback(slot.disk.close)
            self._slots.clear()

    def flush(self, exports: Iterable[str]) -> None:
        """Flush the writable ones among these disks; all where none is named."""
        for slot in self._named(list(exports) or list(self._slots)):
            if slot.disk.writable:
                slot.disk.flush()

    def push(self, images: Mapping[str, str], by: Holding) -> float:
        """Put empty images on top, on all disks or none; for how many seconds writers were held."""
        with self._owned(list(images), by) as slots, ExitStack() as opened:
            layers = [self._open_top(images[slot.spec.export], slot.spec, opened) for slot in slots]
            started = time.monotonic()
            with ExitStack() as frozen:
                for slot in slots:
                    frozen.enter_context(slot.disk.quiesce())
                for slot, layer in zip(slots, layers, strict=True):
                    slot.disk.push(layer)
            opened.pop_all()
            paused = time.monotonic() - started
            for slot in slots:
                paths = images[slot.spec.export], *slot.spec.paths
                formats = ("", *slot.spec.formats) if slot.spec.formats else ()
                slot.spec = replace(slot.spec, paths=paths, formats=formats)
            return paused

    def _open_top(self, path: str, spec: DiskSpec, opened: ExitStack) -> OpenedLayer:
        layer = open_layer(path, search=[os.path.dirname(path)], writable=spec.writable, cache=spec.cache)
        opened.callback(close_layers, [layer])
        return layer

    def status(self) -> dict[str, Any]:
        """What each export is and has done."""
        now = time.monotonic()
        with self._changed:
            slots = dict(self._slots)
        return {name: {"time": now, **_status(slot)} for name, slot in slots.items()}

    def _named(self, exports: Sequence[str]) -> list[Slot]:
        with self._changed:
            unknown = [name for name in exports if name not in self._slots]
            if unknown:
                raise _refused(ErrorKind.NOT_FOUND, unknown[0], "is not served; look at the worker's status")
            return [self._slots[name] for name in exports]

    @contextmanager
    def _owned(self, exports: Sequence[str], by: Holding) -> Iterator[list[Slot]]:
        """Keep others from changing these disks; waits a while for those who do."""
        taken = self._take(exports, by)
        try:
            yield self._named(exports)
        finally:
            self._give_back(taken)

    def _take(self, exports: Sequence[str], by: Holding) -> list[Slot]:
        with self._changed:
            deadline = time.monotonic() + _PATIENCE
            while busy := [slot for slot in self._named(exports) if slot.owner not in (None, by)]:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    name = busy[0].spec.export
                    raise _refused(ErrorKind.STATE, name, "is held by another client; try again later")
            taken = [slot for slot in self._named(exports) if slot.owner is None]
            for slot in taken:
                slot.owner = by
            return taken

    def _give_back(self, slots: Iterable[Slot]) -> None:
        with self._changed:
            for slot in slots:
                slot.owner = None
            self._changed.notify_all()


def _status(slot: Slot) -> dict[str, Any]:
    disk, stats, spec = slot.disk, slot.disk.stats, slot.spec
    return {
        "paths": list(spec.paths),
        "size": disk.size,
        "depth": disk.depth,
        "writable": disk.writable,
        "cache": spec.cache.value,
        "group": spec.group,
        "reads": stats.reads,
        "writes": stats.writes,
        "zeros": stats.zeros,
        "discards": stats.discards,
        "flushes": stats.flushes,
        "read_bytes": stats.read_bytes,
        "written_bytes": stats.written_bytes,
        "bytes": stats.read_bytes + stats.written_bytes,
        "errors": 0,
        "last_error": None,
        "throttled": False,
        "held": slot.owner is not None,
    }


def _refused(kind: ErrorKind, export: str, why: str) -> StorageError:
    return StorageError(kind, f"the export {export} {why}", operation="worker")
