"""Commit epochs: the order in which changes reach the disk (design, section 5; ARCHITECTURE.md).

Data goes out at once; entry changes stay in memory until a flush closes the epoch:

1. RESERVE: what the allocators need, and marks, then a sync that also covers all data written so far;
2. ENTRIES: the table entries of new, zeroed and dropped blocks, and new leaf tables, then a sync;
3. DIRECTORY: the entries that point to new leaf tables, then a sync;
4. RELEASE: space that no entry points to any more.

A flush without new entries is one sync. Flushes that wait for each other share one. How ENTRIES and
DIRECTORY are made safe is the journal's choice.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from drivebay.blockmap import WritePlan
from drivebay.engine.active_table import ActiveTable
from drivebay.engine.change import Change
from drivebay.engine.journal import Journal
from drivebay.engine.marks import Marks
from drivebay.engine.metadata import MetadataFiles
from drivebay.engine.pagemap import PAGE_BYTES, PageMap
from drivebay.engine.shared import Shared
from drivebay.errors import from_os_error

_EPOCH_SECONDS = 1.0
_EPOCH_BYTES = 16 << 20
_PINNED_PART = 4  # of the map's memory, the part that an epoch may pin
Place = tuple[int, int]  # number of the table, number of the block


@dataclass(slots=True)
class Epoch:
    """Changes since the last commit.

    ``entries`` are values (see `EntryWriter`) by place, ``freed`` the raw entries by table that are gone,
    and ``new_bytes`` is about what was written to new blocks.
    """

    entries: dict[Place, int] = field(default_factory=dict)
    freed: list[tuple[int, int]] = field(default_factory=list)
    new_bytes: int = 0
    opened_at: float = 0.0
    dirty: bool = False


class Committer:
    """Brings the changes of the active layer to its files in an order that survives any crash."""

    def __init__(
        self,
        shared: Shared,
        plan: WritePlan,
        tables: Sequence[ActiveTable],
        files: MetadataFiles,
        journal: Journal,
    ) -> None:
        self._changed = shared.changed
        self._map = shared.page_map
        self._operations = shared.operations
        self._stats = shared.stats
        self._tables = tables
        self._files = files
        self._journal = journal
        self._marks = Marks(plan.marks, files)
        self._turn = threading.Lock()
        self._started = 0
        self._finished = 0
        self.epoch = Epoch()
        self._committing = Epoch()
        self._verified = False
        self.armed = False

    def move(self, page_map: PageMap) -> None:
        """The layer has got its place in another map; nothing waits for a commit."""
        self._map = page_map

    def arm(self) -> None:
        """Before the first write after opening: the tables are verified and the marks change, durably."""
        with self._turn:
            if self.armed:
                return
            self.raise_if_poisoned()
            self._verify()
            self._files.complete()
            self._journal.arm()
            self._marks.open()
            self.armed = True

    def arm_at_once(self) -> bool:
        """As `arm`, where nothing of that takes long; false where it would. The disk's lock is held."""
        waits = not self._verified or self.poisoned or self._journal.marks or self._marks.any
        if waits or not self._turn.acquire(blocking=False):
            return False
        try:
            self._files.complete()
            self.armed = True
        finally:
            self._turn.release()
        return True

    def verify(self) -> None:
        """Read the whole tables once, ahead of the first write. Raises what forbids writing."""
        with self._turn:
            self._verify()

    def _verify(self) -> None:
        if self._verified:
            return
        for active in self._tables:
            try:
                active.space.recount()
            except OSError as error:
                path = self._files.path(active.table.source)
                raise from_os_error(error, "read the block table", path=path) from error
        self._verified = True

    def raw(self, number: int, block: int) -> int:
        """The raw entry that a block of table ``number`` has now, durable or not."""
        with self._changed:
            for epoch in (self.epoch, self._committing):
                value = epoch.entries.get((number, block))
                if value is not None:
                    return value & self._tables[number].raw_mask
        return self._tables[number].entries.raw(block)

    def enter(self, place: Place, value: int, freed: int | None, new_bytes: int) -> None:
        """Note that a block has the entry ``value`` from now on. The disk's lock is held.

        ``freed`` is its old raw entry, if that pointed to something of the active layer's.
        """
        epoch = self.epoch
        if not epoch.entries:
            epoch.opened_at = time.monotonic()
        epoch.entries[place] = value
        if freed is not None:
            epoch.freed.append((place[0], freed))
        epoch.new_bytes += new_bytes
        epoch.dirty = True

    def due(self) -> bool:
        """Whether the open epoch is old or large enough to be closed without a flush."""
        epoch = self.epoch
        if not epoch.entries:
            return False
        if epoch.new_bytes >= _EPOCH_BYTES or time.monotonic() - epoch.opened_at >= _EPOCH_SECONDS:
            return True
        return len(self._map.pinned) * PAGE_BYTES * _PINNED_PART > self._map.budget

    def flush(self) -> None:
        """Everything written before this call is durable when it returns."""
        with self._changed:
            wanted = self._started + 1
        with self._turn:
            if self._finished >= wanted:
                return
            self.raise_if_poisoned()
            self._commit()

    def close(self) -> None:
        """After the last flush: the image says that it is whole and not in use."""
        with self._turn:
            if self.armed and self._files.poisoned is None:
                self.armed = False  # whoever writes after all must say so in the image first
                self._journal.close()
                for active in self._tables:
                    active.space.shorten()
                self._marks.close()

    @property
    def poisoned(self) -> bool:
        """Whether writes are refused since the host failed to make data durable."""
        return self._files.poisoned is not None

    def raise_if_poisoned(self) -> None:
        """Raises what the disk was poisoned by."""
        if self._files.poisoned is not None:
            raise self._files.poisoned.with_traceback(None)  # raised again and again: it must not grow

    def _commit(self) -> None:
        with self._changed:
            self._started += 1
            epoch = self._committing = self.epoch
            self.epoch = Epoch()
        try:
            if epoch.dirty:
                self._bring(epoch)
        except BaseException:
            self._reopen(epoch)
            raise
        self._finished = self._started
        self._stats.commits += epoch.dirty
        self._release(epoch)

    def _bring(self, epoch: Epoch) -> None:
        below: list[Change] = []
        above: list[Change] = []
        values: defaultdict[int, dict[int, int]] = defaultdict(dict)  # there may be thousands of tables
        for (number, block), value in epoch.entries.items():
            values[number][block] = value
        for number in sorted(values):
            entries, directory = self._changes(number, values[number])
            below += entries
            above += directory
        self._reserve()
        self._journal.publish([below, above])

    def _changes(self, number: int, values: dict[int, int]) -> tuple[list[Change], list[Change]]:
        active = self._tables[number]
        try:
            return active.changes(values)
        except OSError as error:
            path = self._files.path(active.table.source)
            raise from_os_error(error, "make room for a new leaf table", path=path) from error

    def _reserve(self) -> None:
        """All data, and what new entries rely on, is durable when this returns."""
        stages = self._reservations() if self.armed else []
        *before, last = stages or [[]]
        for stage in before:
            self._files.write_stage(stage)
        for change in (*last, *self._marks.changes()):
            self._files.write(change)
        self._files.sync()
        for active in self._tables:
            active.space.reserved()

    def _reservations(self) -> list[list[Change]]:
        stages: list[list[Change]] = []
        for active in self._tables:
            for number, stage in enumerate(active.space.reservations()):
                stages += [[]] if number >= len(stages) else []
                stages[number] += stage
        return stages

    def _reopen(self, epoch: Epoch) -> None:
        with self._changed:
            later = self.epoch
            later.entries = {**epoch.entries, **later.entries}
            later.freed = epoch.freed + later.freed
            later.new_bytes += epoch.new_bytes
            later.opened_at = time.monotonic()
            later.dirty |= epoch.dirty
            self._committing = Epoch()

    def _release(self, epoch: Epoch) -> None:
        with self._changed:
            self._committing = Epoch()
            self._map.unpin()
            for number, block in self.epoch.entries:
                self._map.pin(*self._tables[number].table.span(block))
            newest = self._operations.newest
        freed: dict[int, list[int]] = {number: [] for number, _ in epoch.entries}
        for number, raw in epoch.freed:
            freed[number].append(raw)
        for number, raws in freed.items():
            self._tables[number].release(raws, newest)
