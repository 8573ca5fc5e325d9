"""The BUMP_COUNTER allocator: units behind each other in the file, counted in the header.

The counter is how many units the file has, used or free: other tools put their next block there. It
is never trusted: `recount` reads the whole table once, before the first write, and refuses tables
that a write would damage.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque

import numpy as np

from drivebay.blockmap import BlockState, Table, WritePlan
from drivebay.engine.decode import Entries, outside, read_raw_entries, states_of
from drivebay.engine.source import FileSource
from drivebay.errors import ErrorKind, StorageError

_CHUNK = 1 << 20


class UnitSpace:
    """Hands out units of ``source`` for new blocks of ``table``; safe for many threads.

    A unit that was in use comes back through `retire`, once the entry that pointed to it is durably
    gone, and is handed out again when no operation older than that can still touch it.
    """

    def __init__(self, source: FileSource, table: Table, plan: WritePlan) -> None:
        self._source = source
        self.table = table
        self._plan = plan
        self._lock = threading.Lock()
        self._next = 0
        self._dirty_below = 0
        self._free: deque[int] = deque()
        self._retired: deque[tuple[int, int]] = deque()

    @property
    def counter(self) -> int:
        """The number of units that the file has now."""
        return self._next

    def data_offset(self, unit: int) -> int:
        """Where the block of ``unit`` begins in the source."""
        return self._plan.first + unit * self._plan.unit + self._plan.lead

    def unit_at(self, data_offset: int) -> int:
        """The unit whose block begins at ``data_offset``."""
        return (data_offset - self._plan.lead - self._plan.first) // self._plan.unit

    def recount(self) -> None:
        """Read the table: what is used, what is free. Raises CORRUPT for a table unsafe to write."""
        room = max(self._source.size - self._plan.first, 0)
        units = min(room // self._plan.unit, self._plan.limit)
        used = np.zeros(units, np.bool_)
        blocks = 0
        for first in range(0, self.table.count, _CHUNK):
            numbers = self._used_units(first, min(_CHUNK, self.table.count - first))
            used[numbers] = True
            blocks += len(numbers)
        if int(used.sum()) != blocks:
            raise self._refusal("two entries of its block table point to one block")
        highest = int(used.nonzero()[0][-1]) + 1 if blocks else 0
        self._next = highest
        self._dirty_below = -(-room // self._plan.unit)  # the file may end within a unit
        self._free = deque((~used[:highest]).nonzero()[0].tolist())

    def _used_units(self, first: int, count: int) -> Entries:
        raw = read_raw_entries(self.table, self._source, first, count)
        raw = raw[states_of(self.table.entry, raw) == int(BlockState.DATA)]
        if outside(self.table, self._source, raw).any():
            raise self._refusal("an entry of its block table points outside the file")
        numbers: Entries = raw & np.uint64(self.table.entry.mask)
        if (numbers >= self._plan.limit).any():
            raise self._refusal("an entry of its block table points beyond the blocks that the image has")
        return numbers

    def _refusal(self, reason: str) -> StorageError:
        return StorageError(
            ErrorKind.CORRUPT,
            f"{reason}, so writing could destroy data; run 'drivebay check' on it, and open it read-only "
            "to save what can be saved",
            path=self._source.path,
            offset=self.table.root,
            operation="write",
        )

    def take(self, oldest_operation: int) -> int | None:
        """A unit that reads as zeros and lies within the file; ``None`` where none is left.

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
            return unit

    def _pick(self, oldest_operation: int) -> tuple[int | None, bool]:
        if self._retired and self._retired[0][0] < oldest_operation:
            return self._retired.popleft()[1], False
        if self._free:  # second: a full host may have failed to make room for these
            return self._free.popleft(), False
        if self._next >= self._plan.limit:
            return None, False
        self._next += 1
        return self._next - 1, self._next > self._dirty_below

    def give_back(self, unit: int) -> None:
        """A unit that was taken but never entered anywhere."""
        with self._lock:
            self._free.append(unit)

    def retire(self, units: list[int], newest_operation: int) -> None:
        """Units whose entries are durably gone: their bytes go back to the host, then they are free.

        Operations up to ``newest_operation`` may still be reading or writing them.
        """
        for unit in units if self._plan.punch else ():
            start = self._plan.first + unit * self._plan.unit
            with contextlib.suppress(OSError):  # a courtesy to the host: `take` zeroes what it hands out
                self._source.zero_range(start, self._plan.unit, punch=True)
        with self._lock:
            self._retired.extend((newest_operation, unit) for unit in units)
