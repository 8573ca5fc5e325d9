"""The BUMP_EOF allocator: new blocks and tables go to the end of the file.

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
from drivebay.engine.source import FileSource
from drivebay.engine.space import encode, table_places, unsafe_table, used_offsets
from drivebay.engine.tables import Entries
from drivebay.errors import ErrorKind, StorageError


class EofSpace:
    """Hands out space of ``data``, the file with the blocks of ``table``; safe for many threads.

    ``source`` has the table; leaf tables are made there, too.
    """

    def __init__(self, source: FileSource, data: FileSource, table: Table, plan: WritePlan) -> None:
        self._source = source
        self._data = data
        self._table = table
        self._plan = plan
        self._lock = threading.Lock()
        self._next = 0
        self._free: deque[int] = deque()
        self._retired: deque[tuple[int, int]] = deque()
        self._counted = self._reserving = -1  # what the file's counter says, and will say

    def recount(self) -> None:
        """Read the table: where its blocks end. Raises CORRUPT where two of them overlap."""
        table = self._table
        own = table_places(table, self._source)
        if _overlap(own):  # first: entries could be there to be read again and again
            raise self._shared()
        blocks = self._blocks()
        taken = [(blocks - np.uint64(self._plan.lead), table.block + self._plan.lead)]
        if _overlap(taken + own if self._source is self._data else taken):
            raise self._shared()
        last = int(blocks.max()) + table.block if len(blocks) else 0
        self._next = self._aligned(max(self._plan.first, last, self._end()))

    def _blocks(self) -> Entries:
        """Where all blocks lie; the memory goes by how many the file has room for."""
        parts, count = [np.zeros(0, np.uint64)], 0
        for offsets in used_offsets(self._table, self._source, self._data):
            if (offsets < self._plan.first + self._plan.lead).any():
                raise unsafe_table(self._source.path, self._table, "points into the image's own tables")
            parts.append(offsets)
            count += len(offsets)
            if (count - 1) * self._table.block > self._data.size:
                raise self._shared()
        return np.concatenate(parts)

    def _shared(self) -> StorageError:
        fault = "points to a place which another one points to"
        return unsafe_table(self._source.path, self._table, fault)

    def _end(self) -> int:
        """Where the file ends, without its tail."""
        tail = self._plan.tail
        begin = self._data.size - len(tail)
        if not tail or begin < 0:
            return self._data.size
        found = bytearray(len(tail))
        self._data.read_into(memoryview(found), begin)
        return begin if found == tail else self._data.size

    def _aligned(self, offset: int) -> int:
        return offset + -offset % self._plan.align

    def take(self, oldest_operation: int) -> int | None:
        """As `Space.take`: there is always room, unless the host or the format's numbers say no."""
        with self._lock:
            if self._retired and self._retired[0][0] < oldest_operation:
                return self._again(self._retired.popleft()[1])
            if self._free:
                return self._again(self._free.popleft())
            return self._append(self._data, self._plan.unit, self._plan.lead)

    def take_leaf(self) -> int:
        """As `Space.take_leaf`."""
        with self._lock:
            return self._append(self._source, self._plan.leaf, 0)

    def _again(self, offset: int) -> int:
        try:
            self._data.extend(offset - self._plan.lead + self._plan.unit)  # it may end within it
            self._data.zero_range(offset - self._plan.lead, self._plan.unit, punch=self._plan.punch)
        except BaseException:
            self._free.append(offset)
            raise
        return offset

    def _append(self, file: FileSource, length: int, lead: int) -> int:
        """Make the file longer by ``length`` bytes; returns where they begin, ``lead`` bytes further on."""
        start, old_end = self._next, file.size
        end = start + length
        self._require_room(start + lead)
        file.extend(end + len(self._plan.tail))
        if start < old_end:  # the tail was there
            file.zero_range(start, old_end - start, punch=False)
        if self._plan.tail:
            file.write(self._plan.tail, end)
        self._next = self._aligned(end)
        return start + lead

    def _require_room(self, offset: int) -> None:
        if self._table.entry.offset(self._table.entry.encode(offset)) != offset:
            raise StorageError(
                ErrorKind.NO_SPACE,
                f"the format can't count further than byte {offset} of its file, so the image is full; "
                "convert it to a format without this limit",
                path=self._data.path,
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
                    self._data.zero_range(entry.offset(raw) - self._plan.lead, self._plan.unit, punch=True)
        with self._lock:
            self._retired.extend((newest_operation, offset) for offset in offsets)

    def retire_leaf(self, offset: int) -> None:
        """Leaf tables are owned by their image, so none is ever replaced."""
        raise NotImplementedError(offset)

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
