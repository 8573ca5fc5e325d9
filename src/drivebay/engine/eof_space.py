"""The BUMP_EOF allocator: new blocks and tables go to the end of the file.

The file is made longer by several blocks at once, and is cut to its length when the disk is closed: so
a format whose file ends with a tail needs to move that once for all of them.

What becomes free is known only while the disk is open: it is handed out again, and what is left of it
when the disk is closed is a hole in the file that no entry points to.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Sequence

import numpy as np

from drivebay.blockmap import BlockState, Table, WritePlan
from drivebay.engine.change import Change
from drivebay.engine.presence import bitmap_blocks
from drivebay.engine.punching import punch
from drivebay.engine.source import FileSource
from drivebay.engine.space import encode, table_places, unsafe_table, used_offsets
from drivebay.engine.tables import Entries
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import SECTOR

_MOST_AHEAD = 16  # blocks
_MOST_BYTES_AHEAD = 32 << 20


class EofSpace:
    """Hands out space of ``source``, which holds ``table`` and its blocks; safe for many threads."""

    def __init__(self, source: FileSource, table: Table, plan: WritePlan) -> None:
        self._source = source
        self._table = table
        self._plan = plan
        self._lock = threading.Lock()
        self._next = 0  # where new space begins
        self._used = 0  # where what was handed out ends
        self._ready = 0  # up to here the file reads as zeros behind that; then comes the tail
        self._ahead = 0
        self._free: deque[int] = deque()
        self._retired: deque[tuple[int, int]] = deque()
        self._counted = self._reserving = -1  # what the file's counter says, and will say

    def recount(self) -> None:
        """Read the table: where its blocks end. Raises CORRUPT where two of them overlap."""
        table = self._table
        header = np.zeros(1, np.uint64), min(SECTOR, table.root)
        own = [header, *table_places(table, self._source), self._bitmaps()]
        if _overlap(own):  # first: entries could be there to be read again and again
            raise self._shared()
        blocks = self._blocks()
        taken = [(blocks - np.uint64(self._plan.lead), table.block + self._plan.lead)]
        if _overlap(taken + own):
            raise self._shared()
        last = int(blocks.max()) + table.block if len(blocks) else 0
        self._ready = self._used = self._end()
        self._next = self._aligned(max(self._plan.first, last, self._ready))

    def _bitmaps(self) -> tuple[Entries, int]:
        """Where bitmap blocks lie, and the length of each."""
        bitmaps, length = bitmap_blocks(self._table, self._source)
        if len(bitmaps) and int(bitmaps.max()) + length > self._source.size:
            raise unsafe_table(self._source.path, self._table, "points outside the file")
        return bitmaps, length

    def _blocks(self) -> Entries:
        """Where all blocks lie; the memory goes by how many the file has room for."""
        parts, count = [np.zeros(0, np.uint64)], 0
        for offsets in used_offsets(self._table, self._source, self._source):
            if (offsets < self._plan.first + self._plan.lead).any():
                raise unsafe_table(self._source.path, self._table, "points into the image's own tables")
            parts.append(offsets)
            count += len(offsets)
            if (count - 1) * self._table.block > self._source.size:
                raise self._shared()
        return np.concatenate(parts)

    def _shared(self) -> StorageError:
        fault = "points to a place which another one points to"
        return unsafe_table(self._source.path, self._table, fault)

    def _end(self) -> int:
        """Where the file ends, without its tail."""
        tail = self._plan.tail
        begin = self._source.size - len(tail)
        if not tail or begin < 0:
            return self._source.size
        found = bytearray(len(tail))
        self._source.read_into(memoryview(found), begin)
        return begin if found == tail else self._source.size

    def _aligned(self, offset: int) -> int:
        return offset + -offset % self._plan.align

    def take(self, oldest_operation: int, _block: int) -> int | None:
        """As `Space.take`: there is always room, unless the host or the format's numbers say no."""
        with self._lock:
            if self._retired and self._retired[0][0] < oldest_operation:
                return self._again(self._retired.popleft()[1])
            if self._free:
                return self._again(self._free.popleft())
            return self._append(self._plan.unit, self._plan.lead)

    def take_leaf(self) -> int:
        """As `LeafSpace.take_leaf`."""
        with self._lock:
            return self._append(self._plan.leaf, 0)

    def _again(self, offset: int) -> int:
        try:
            self._source.extend(offset - self._plan.lead + self._plan.unit)  # it may end within it
            self._source.zero_range(offset - self._plan.lead, self._plan.unit, punch=self._plan.punch)
        except BaseException:
            self._free.append(offset)
            raise
        return offset

    def _append(self, length: int, lead: int) -> int:
        """The next ``length`` bytes of the file; returns where they begin, ``lead`` bytes further on."""
        start = self._next
        end = start + length
        if end > self._ready:
            self._require_room(start + lead)
            self._prepare(end)
        self._used, self._next = end, self._aligned(end)
        return start + lead

    def _prepare(self, end: int) -> None:
        """Make the file long enough for what ends at ``end``, and for some blocks more if it can be."""
        ahead = min(self._ahead, _MOST_BYTES_AHEAD // self._plan.unit)
        self._ahead = min(ahead * 2 + 1, _MOST_AHEAD)
        last = self._aligned(end) + ahead * self._aligned(self._plan.unit)
        if ahead and self._has_room(last):
            with contextlib.suppress(OSError):
                self._lengthen(last)
                return
        self._lengthen(end)

    def _lengthen(self, ready: int) -> None:
        """Let the file reach to ``ready``, and the tail follow: it is there before the old one goes."""
        old_end = self._source.size
        self._source.shorten(ready + len(self._plan.tail))  # an attempt that failed may have made it longer
        self._source.extend(ready + len(self._plan.tail))
        if self._plan.tail:
            self._source.write(self._plan.tail, ready)
        if self._ready < min(old_end, ready):
            self._source.zero_range(self._ready, min(old_end, ready) - self._ready, punch=False)
        self._ready = ready

    def shorten(self) -> None:
        """As `Space.shorten`."""
        with self._lock, contextlib.suppress(OSError):
            if self._used < self._ready:
                if self._plan.tail:
                    self._source.write(self._plan.tail, self._used)
                    self._source.sync()
                self._source.shorten(self._used + len(self._plan.tail))
                self._ready, self._ahead = self._used, 0

    def _has_room(self, offset: int) -> bool:
        return self._table.entry.offset(self._table.entry.encode(offset)) == offset

    def _require_room(self, offset: int) -> None:
        if not self._has_room(offset):
            raise StorageError(
                ErrorKind.NO_SPACE,
                f"the format can't count further than byte {offset} of its file, so the image is full; "
                "convert it to a format without this limit",
                path=self._source.path,
                offset=offset,
                operation="write",
            )

    def give_back(self, offset: int) -> None:
        """As `Space.give_back`."""
        with self._lock:
            self._free.append(offset)

    def retire(self, raws: Sequence[int], newest_operation: int) -> None:
        """As `Space.retire`; the bytes of what was discarded go back to the host.

        Older readers may see those as zeros. What was copied elsewhere they need as it was.
        """
        entry = self._table.entry
        offsets = [entry.offset(raw) for raw in raws]
        for raw in raws if self._plan.punch else ():
            if entry.state(raw) is BlockState.DATA:
                with contextlib.suppress(OSError):  # a courtesy to the host: `take` zeroes what it hands out
                    self._source.zero_range(entry.offset(raw) - self._plan.lead, self._plan.unit, punch=True)
        with self._lock:
            self._retired.extend((newest_operation, offset) for offset in offsets)

    def clear(self, raws: Sequence[int]) -> None:
        """As `Space.clear`."""
        last = self._source.size - len(self._plan.tail)  # a block that is cut short ends there
        starts = [self._table.entry.offset(raw) - self._plan.lead for raw in raws]
        if self._plan.punch:
            punch(self._source, [(start, min(start + self._plan.unit, last)) for start in starts])

    def retire_leaf(self, offset: int) -> None:
        """As `LeafSpace.retire_leaf`: it stays where it is, as a hole that no entry points to."""

    def reservations(self) -> list[list[Change]]:
        """The counter of formats that keep one: where new space begins, in units of the alignment.

        Else the file's length is all that there is to reserve, and the first sync brings it.
        """
        counter, begin = self._plan.counter, self._next // self._plan.align
        if counter is None or begin == self._counted:
            return []
        self._reserving = begin
        return [[Change(self._table.source, counter.offset, encode(counter, begin))]]

    def reserved(self) -> None:
        """The counter is in the file."""
        self._counted = self._reserving


def _overlap(places: Sequence[tuple[Entries, int]]) -> bool:
    """Whether any two of the ranges, given as (beginnings, length of each), share a byte."""
    starts = np.concatenate([found for found, _ in places])
    lengths = np.concatenate([np.full(len(found), length, np.uint64) for found, length in places])
    order = np.argsort(starts, kind="stable")
    starts, lengths = starts[order], lengths[order]
    return bool((starts[1:] < (starts + lengths)[:-1]).any())
