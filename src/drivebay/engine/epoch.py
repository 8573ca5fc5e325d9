"""Commit epochs: the order in which changes reach the disk (design, section 5; ARCHITECTURE.md).

Data goes out at once; entry changes stay in memory until a flush closes the epoch:

1. RESERVE: marks and counters of source 0, then a sync that also covers all data written so far;
2. ENTRIES: the table entries of new, zeroed and dropped blocks, then a sync;
3. RELEASE: space that no entry points to any more.

A flush without new entries is one sync. Flushes that wait for each other share one.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from drivebay.blockmap import Field, Mark, MarkKind, Table, WritePlan
from drivebay.engine.shared import Shared
from drivebay.engine.source import FileSource
from drivebay.engine.space import UnitSpace
from drivebay.errors import ErrorKind, StorageError, from_os_error

_EPOCH_SECONDS = 1.0
_EPOCH_BYTES = 16 << 20
_ENTRY_RUN = 4096


@dataclass(slots=True)
class Epoch:
    """Changes since the last commit: raw entries by block number, units that lost their entry."""

    entries: dict[int, int] = field(default_factory=dict)
    freed: list[int] = field(default_factory=list)
    new_bytes: int = 0
    opened_at: float = 0.0
    dirty: bool = False


class Committer:
    """Brings the changes of the active layer to its file in an order that survives any crash."""

    def __init__(
        self,
        shared: Shared,
        plan: WritePlan,
        sources: Sequence[FileSource],
        space: UnitSpace | None,
        *,
        durable: bool,
    ) -> None:
        self._changed = shared.changed
        self._map = shared.page_map
        self._operations = shared.operations
        self._stats = shared.stats
        self._plan = plan
        self._sources = sources
        self._space = space
        self._durable = durable
        self._turn = threading.Lock()
        self._started = 0
        self._finished = 0
        self._written_counter = -1
        self.epoch = Epoch()
        self._verified = False
        self.armed = False
        self.poisoned: StorageError | None = None

    def arm(self) -> None:
        """Before the first write after opening: the table is verified and the marks change, durably."""
        with self._turn:
            if self.armed:
                return
            self.raise_if_poisoned()
            self._verify()
            if self._plan.marks:
                self._write_marks()
                self._sync()
            self.armed = True

    def verify(self) -> None:
        """Read the whole table once, ahead of the first write. Raises what forbids writing."""
        with self._turn:
            self._verify()

    def _verify(self) -> None:
        if self._space is None or self._verified:
            return
        try:
            self._space.recount()
        except OSError as error:
            raise from_os_error(error, "read the block table", path=self._sources[0].path) from error
        self._verified = True

    def enter(self, block: int, raw: int, new_bytes: int) -> None:
        """Note that ``block`` has the raw entry from now on. The disk's lock is held."""
        epoch = self.epoch
        if not epoch.entries:
            epoch.opened_at = time.monotonic()
        epoch.entries[block] = raw
        epoch.new_bytes += new_bytes
        epoch.dirty = True

    def due(self) -> bool:
        """Whether the open epoch is old or large enough to be closed without a flush."""
        epoch = self.epoch
        if not epoch.entries:
            return False
        return epoch.new_bytes >= _EPOCH_BYTES or time.monotonic() - epoch.opened_at >= _EPOCH_SECONDS

    def flush(self) -> None:
        """Everything written before this call is durable when it returns."""
        with self._changed:
            wanted = self._started + 1
        with self._turn:
            if self._finished >= wanted:
                return
            self.raise_if_poisoned()
            self._commit()

    def raise_if_poisoned(self) -> None:
        """Raises what the disk was poisoned by."""
        if self.poisoned is not None:
            raise self.poisoned.with_traceback(None)  # raised again and again: it must not grow

    def _commit(self) -> None:
        with self._changed:
            self._started += 1
            epoch, self.epoch = self.epoch, Epoch()
        try:
            if epoch.dirty:
                self._reserve()
                self._sync()
            if epoch.entries and self._space is not None:
                self._write_entries(self._space.table, epoch.entries)
                self._sync()
        except BaseException:
            self._reopen(epoch)
            raise
        self._finished = self._started
        self._stats.commits += epoch.dirty
        self._release(epoch)

    def _reopen(self, epoch: Epoch) -> None:
        with self._changed:
            later = self.epoch
            later.entries = {**epoch.entries, **later.entries}
            later.freed = epoch.freed + later.freed
            later.new_bytes += epoch.new_bytes
            later.opened_at = time.monotonic()
            later.dirty |= epoch.dirty

    def _reserve(self) -> None:
        counter = self._space.counter if self._space is not None and self.armed else None
        if self._plan.counter is not None and counter is not None and counter != self._written_counter:
            self._write(self._sources[0], encode(self._plan.counter, counter), self._plan.counter.offset)
            self._written_counter = counter
        self._write_marks()

    def _write_marks(self) -> None:
        for mark in self._plan.marks:
            self._write(self._sources[0], mark_bytes(mark), mark.offset)

    def _write_entries(self, table: Table, entries: dict[int, int]) -> None:
        width = table.entry.width
        for first, raws in consecutive(entries):
            data = np.array(raws, f"{table.entry.byte_order}u{width}").tobytes()
            self._write(self._sources[table.source], data, table.root + first * width)

    def _release(self, epoch: Epoch) -> None:
        with self._changed:
            self._map.unpin()
            if self._space is not None:
                for block in self.epoch.entries:
                    self._map.pin(*self._space.table.span(block))
            newest = self._operations.newest
        if self._space is not None and epoch.freed:
            self._space.retire(epoch.freed, newest)

    def _write(self, source: FileSource, data: bytes, offset: int) -> None:
        try:
            source.write(data, offset)
        except OSError as error:
            raise from_os_error(error, "write metadata", path=source.path, offset=offset) from error

    def _sync(self) -> None:
        if not self._durable:
            return
        for source in self._sources:
            try:
                source.sync()
            except OSError as error:
                self.poisoned = _poison(source, error)
                raise self.poisoned from error


def _poison(source: FileSource, error: OSError) -> StorageError:
    return StorageError(
        ErrorKind.IO,
        f"the host could not make written data durable ({error.strerror}), so what is on the device is "
        "not known; reads go on, writes are refused: look at the host's kernel log, then open the disk again",
        path=source.path,
        operation="sync",
    )


def encode(target: Field, value: int) -> bytes:
    """The bytes of a header field."""
    return value.to_bytes(target.width, "little" if target.byte_order == "<" else "big")


def mark_bytes(mark: Mark) -> bytes:
    """Fresh bytes for a mark."""
    match mark.kind:
        case MarkKind.RANDOM_UUID:
            return uuid.uuid4().bytes_le


def consecutive(entries: dict[int, int]) -> list[tuple[int, list[int]]]:
    """Entries by block number as runs of neighbours: ``[(first block, raw entries)]``."""
    runs: list[tuple[int, list[int]]] = []
    for block in sorted(entries):
        if runs and runs[-1][0] + len(runs[-1][1]) == block and len(runs[-1][1]) < _ENTRY_RUN:
            runs[-1][1].append(entries[block])
        else:
            runs.append((block, [entries[block]]))
    return runs
