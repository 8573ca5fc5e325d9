"""The BUMP_COUNTER allocator: units behind each other in the file, counted in the header.

The counter is how many units the file has, used or free: other tools put their next block there. It
is never trusted: `recount` reads the whole table once, before the first write, and refuses tables
that a write would damage.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Sequence

import numpy as np

from drivebay.blockmap import Table, WritePlan
from drivebay.engine.change import Change
from drivebay.engine.source import FileSource
from drivebay.engine.space import encode, unsafe_table, used_offsets


class UnitSpace:
    """Hands out units of ``source`` for new blocks of ``table``; safe for many threads.

    A unit that was in use comes back through `retire`, once the entry that pointed to it is durably
    gone, and is handed out again when no operation older than that can still touch it.
    """

    def __init__(self, source: FileSource, table: Table, plan: WritePlan) -> None:
        self._source = source
        self._table = table
        self._plan = plan
        self._lock = threading.Lock()
        self._next = 0
        self._dirty_below = 0
        self._free: deque[int] = deque()
        self._retired: deque[tuple[int, int]] = deque()
        self._counted = self._reserving = -1  # what the file's counter says, and will say

    def _data_offset(self, unit: int) -> int:
        return self._plan.first + unit * self._plan.unit + self._plan.lead

    def _unit_at(self, data_offset: int) -> int:
        return (data_offset - self._plan.lead - self._plan.first) // self._plan.unit

    def recount(self) -> None:
        """Read the table: what is used, what is free. Raises CORRUPT for a table unsafe to write."""
        room = max(self._source.size - self._plan.first, 0)
        units = min(room // self._plan.unit, self._plan.limit)
        used = np.zeros(units, np.bool_)
        blocks = 0
        for offsets in used_offsets(self._table, self._source, self._source):
            first = np.uint64(self._plan.first + self._plan.lead)
            numbers = (offsets - first) // np.uint64(self._plan.unit)
            if (numbers >= units).any():
                raise unsafe_table(
                    self._source.path, self._table, "points beyond the blocks that the image has"
                )
            used[numbers] = True
            blocks += len(numbers)
        if int(used.sum()) != blocks:
            raise unsafe_table(
                self._source.path, self._table, "points to a block which another one points to"
            )
        highest = int(used.nonzero()[0][-1]) + 1 if blocks else 0
        self._next = highest
        self._dirty_below = -(-room // self._plan.unit)  # the file may end within a unit
        self._free = deque((~used[:highest]).nonzero()[0].tolist())

    def take(self, oldest_operation: int, _block: int) -> int | None:
        """Where a block may lie that reads as zeros and is within the file; ``None`` where none is left.

        ``oldest_operation`` is the number of the oldest operation under way. Raises OSError.
        """
        with self._lock:
            unit, known_zero = self._pick(oldest_operation)
            if unit is None:
                return None
            end = self._plan.first + (unit + 1) * self._plan.unit
            try:
                self._source.extend(end)
                if not known_zero:
                    start = end - self._plan.unit
                    self._source.zero_range(start, self._plan.unit, punch=self._plan.punch)
            except BaseException:
                self._free.append(unit)
                raise
            return self._data_offset(unit)

    def clear(self, raws: Sequence[int]) -> None:
        """As `Space.clear`: `retire` has done so already."""

    def _pick(self, oldest_operation: int) -> tuple[int | None, bool]:
        if self._retired and self._retired[0][0] < oldest_operation:
            return self._retired.popleft()[1], False
        if self._free:  # second: a full host may have failed to make room for these
            return self._free.popleft(), False
        if self._next >= self._plan.limit:
            return None, False
        self._next += 1
        return self._next - 1, self._next > self._dirty_below

    def give_back(self, offset: int) -> None:
        """What was taken but never entered anywhere."""
        with self._lock:
            self._free.append(self._unit_at(offset))

    def retire(self, raws: Sequence[int], newest_operation: int) -> None:
        """Units whose entries are durably gone: their bytes go back to the host, then they are free.

        Operations up to ``newest_operation`` may still be reading or writing them.
        """
        units = [self._unit_at(self._table.entry.offset(raw)) for raw in raws]
        for unit in units if self._plan.punch else ():
            start = self._plan.first + unit * self._plan.unit
            with contextlib.suppress(OSError):  # a courtesy to the host: `take` zeroes what it hands out
                self._source.zero_range(start, self._plan.unit, punch=True)
        with self._lock:
            self._retired.extend((newest_operation, unit) for unit in units)

    def shorten(self) -> None:
        """As `Space.shorten`: the file has no room ahead."""

    def reservations(self) -> list[list[Change]]:
        """The counter, where the file has another one."""
        counter, units = self._plan.counter, self._next
        if counter is None or units == self._counted:
            return []
        self._reserving = units
        return [[Change(self._table.source, counter.offset, encode(counter, units))]]

    def reserved(self) -> None:
        """The counter is in the file."""
        self._counted = self._reserving
