"""First writes that need nothing from below: what a serving loop can allocate without waiting.

A part of the product's speed, as `batch.py` is: measure after every change.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from drivebay.blockmap import BlockState, Table, WritePlan
from drivebay.engine.active_table import ActiveTable
from drivebay.engine.epoch import Committer
from drivebay.engine.mapentry import UNIT_SHIFT, pack
from drivebay.engine.pagemap import PAGE_ENTRIES, PageMap
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
        self._granules = [_granules(active.table, shared.page_map) for active in tables]

    def write(self, offset: int, view: memoryview) -> bool:
        """Write ``view`` into a new block; false, with nothing changed, where that is not so simple.

        The map page where it begins is there.
        """
        number = bisect_right(self._starts, offset) - 1
        if number < 0:
            return False
        active = self._tables[number]
        table = active.table
        block, within = divmod(offset - table.start, table.block)
        place = number, block
        if place in self._in_flight or not self._is_bare(number, offset - within, within + len(view)):
            return False
        try:
            data = active.space.take(self._operations.oldest_under_way, block)
        except (OSError, StorageError):
            return False  # the blocking form meets the error again, and tells it
        if data is None:
            return False
        if not self._put(self._sources[number], view, data, within):
            active.space.give_back(data)
            return False
        entry = self._entries[number] + (data >> UNIT_SHIFT)
        if granules := self._granules[number]:
            self._map.set_granules(offset - within, granules, entry)
        else:
            self._map.set_block(*table.span(block), entry)
        self._committer.enter(place, active.data_value(data), None, len(view))
        return True

    def _is_bare(self, number: int, begin: int, length: int) -> bool:
        """Whether the block at ``begin`` has ``length`` bytes, and no layer has any for it."""
        table = self._tables[number].table
        whole = min(table.block, table.start + table.length - begin)
        if length > whole:
            return False
        if granules := self._granules[number]:
            return self._map.are_bare(begin, granules, self._bare_states)
        return self._map.is_bare(begin, whole, self._bare_states)

    def _put(self, number: int, view: memoryview, place: int, within: int) -> bool:
        write = self._map.writers[number]
        lead = self._lead_data
        try:
            if not lead:
                return write(view, place + within) == len(view)
            if not within and len(lead) == self._lead:
                together = memoryview(b"".join((lead, view)))
                return write(together, place - self._lead) == len(together)
            if write(memoryview(lead), place - self._lead) != len(lead):
                return False
            return write(view, place + within) == len(view)
        except OSError:
            return False


def _granules(table: Table, page_map: PageMap) -> int:
    """How many granules of the map each block of a table is, all of them in one page; else 0."""
    count, rest = divmod(table.block, page_map.granule)
    end = table.start + table.length
    even = not table.start % table.block and (end >= page_map.size or not end % table.block)
    return count if count and not rest and even and not PAGE_ENTRIES % count else 0
