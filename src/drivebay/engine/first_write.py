"""First writes that need nothing from below: what a serving loop can allocate without waiting."""

from __future__ import annotations

from collections.abc import Sequence

from drivebay.blockmap import BlockState, WritePlan
from drivebay.engine.active_table import ActiveTable
from drivebay.engine.epoch import Committer
from drivebay.engine.mapentry import pack
from drivebay.engine.shared import Shared
from drivebay.engine.targets import NO_TABLE, Targets
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
        self._writer = writer
        self._plan = plan
        self._tables = tables
        self._targets = Targets(tables)
        # With reference counts, zeros of the layer itself may have space that is to be given back.
        self._bare_states = BlockState.ZERO if plan.refcounts else BlockState.CORRUPT
        self._first_source = shared.page_map.layers[0].first_source

    def write(self, offset: int, view: memoryview) -> bool:
        """Write ``view`` into a new block; false, with nothing changed, where that is not so simple."""
        target = self._targets.at(offset, offset + len(view))
        if target.length != len(view) or target.table == NO_TABLE or target.place in self._writer.in_flight:
            return False
        if not self._map.is_bare(target.begin, target.block_length, self._bare_states):
            return False
        active = self._tables[target.table]
        try:
            place = active.space.take(self._operations.oldest_under_way)
        except (OSError, StorageError):
            return False  # the blocking form meets the error again, and tells it
        if place is None:
            return False
        number = self._first_source + active.table.data
        if not self._put(number, view, place, offset - target.begin):
            active.space.give_back(place)
            return False
        entry = pack(BlockState.DATA, number, place, in_place=True)
        self._map.set_block(target.begin, target.block_length, entry)
        self._committer.enter(target.place, active.data_value(place), None, active.table.block)
        return True

    def _put(self, number: int, view: memoryview, place: int, within: int) -> bool:
        write = self._map.writers[number]
        lead = self._plan.lead_data
        try:
            if lead and write(memoryview(lead), place - self._plan.lead) != len(lead):
                return False
            return write(view, place + within) == len(view)
        except OSError:
            return False
