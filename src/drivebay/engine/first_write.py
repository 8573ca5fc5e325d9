"""First writes that need nothing from below: what a serving loop can allocate without waiting.

A part of the product's speed, as `batch.py` is: measure after every change.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from drivebay.blockmap import BlockState, WritePlan
from drivebay.engine.active_table import ActiveTable
from drivebay.engine.epoch import Committer
from drivebay.engine.mapentry import UNIT_SHIFT, pack
from drivebay.engine.shared import Shared
from drivebay.engine.writer import Writer
from drivebay.errors import StorageError


class FirstWrites:
    """Gives new space to blocks that no layer has bytes for. The disk's lock is held throughout."""

    def __init__(
        self,
        shared: Shared,
        committer: Committer,
        writer: Writer,
        plan: WritePlan,
        tables: Sequence[ActiveTable],
    ) -> None:
        self._map = shared.page_map
        self._operations = shared.operations
        self._committer = committer
        self._in_flight = writer.in_flight
        self._lead, self._lead_data = plan.lead, plan.lead_data
        self._tables = tables
        self._starts = [active.table.start for active in tables]
        # With reference counts, zeros of the layer itself may have space that is to be given back.
        self._bare_states = BlockState.ZERO if plan.refcounts else BlockState.CORRUPT
        first = shared.page_map.layers[0].first_source
        self._sources = [first + active.table.data for active in tables]
        self._entries = [pack(BlockState.DATA, number, in_place=True) for number in self._sources]

    def write(self, offset: int, view: memoryview) -> bool:
        """Write ``view`` into a new block; false, with nothing changed, where that is not so simple."""
        number = bisect_right(self._starts, offset) - 1
        if number < 0:
            return False
        active = self._tables[number]
        table = active.table
        place = number, (offset - table.start) // table.block
        begin, length = table.span(place[1])
        if offset + len(view) > begin + length or place in self._in_flight:
            return False
        if not self._map.is_bare(begin, length, self._bare_states):
            return False
        try:
            data = active.space.take(self._operations.oldest_under_way)
        except (OSError, StorageError):
            return False  # the blocking form meets the error again, and tells it
        if data is None:
            return False
        if not self._put(self._sources[number], view, data, offset - begin):
            active.space.give_back(data)
            return False
        self._map.set_block(begin, length, self._entries[number] + (data >> UNIT_SHIFT))
        self._committer.enter(place, active.data_value(data), None, len(view))
        return True

    def _put(self, number: int, view: memoryview, place: int, within: int) -> bool:
        write = self._map.writers[number]
        lead = self._lead_data
        try:
            if lead and not within and len(lead) == self._lead:
                together = memoryview(b"".join((lead, view)))
                return write(together, place - self._lead) == len(together)
            if lead and write(memoryview(lead), place - self._lead) != len(lead):
                return False
            return write(view, place + within) == len(view)
        except OSError:
            return False
