"""The OWN_PLACE allocator: a data file in which each block lies where it is on the disk (QCOW2).

Nothing is handed out twice, nor comes back: a block that was given up keeps its place, and what was there
is gone when it is taken again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drivebay.blockmap import BlockState, Table, WritePlan
from drivebay.engine.change import Change
from drivebay.engine.punching import punch
from drivebay.engine.refcount import RefcountSpace
from drivebay.engine.source import FileSource
from drivebay.engine.space import stored_blocks, unsafe_table
from drivebay.engine.tables import offsets_of

_DATA, _SPLIT = int(BlockState.DATA), int(BlockState.SPLIT)


class OwnPlace:
    """The places of the blocks of ``table``; ``leaves`` is what its leaf tables get their room from."""

    def __init__(
        self, sources: Sequence[FileSource], table: Table, plan: WritePlan, leaves: RefcountSpace
    ) -> None:
        self._table = table
        self._source = sources[table.source]
        self._data = sources[table.data]
        self._plan = plan
        self._leaves = leaves

    def recount(self) -> None:
        """As `Space.recount`: every block must be in its own place, and belong to this table alone."""
        self._leaves.recount()
        for first, blocks in stored_blocks(self._table, self._source, self._data):
            own = np.arange(first, first + len(blocks.raw), dtype=np.uint64) * np.uint64(self._table.block)
            partly = blocks.beside & np.uint64(self._plan.beside) > 0
            here = (blocks.states == _DATA) | ((blocks.states == _SPLIT) & partly)
            if (here & ((offsets_of(self._table.entry, blocks.raw) != own) | ~blocks.owned)).any():
                fault = "shares its place in the data file, or points to that of another block"
                raise unsafe_table(self._source.path, self._table, fault)

    def take(self, _oldest_operation: int, block: int) -> int:
        """As `Space.take`; there is always the block's own place."""
        begin, length = self._table.span(block)
        place = begin - self._table.start
        beyond = place >= self._data.size
        self._data.extend(place + length)
        if not beyond:
            self._data.zero_range(place, length, punch=self._plan.punch)
        return place

    def give_back(self, offset: int) -> None:
        """As `Space.give_back`: nothing says so yet that the block is there."""

    def retire(self, raws: Sequence[int], newest_operation: int) -> None:
        """As `Space.retire`: the block may be in use again, in the same place."""

    def clear(self, raws: Sequence[int]) -> None:
        """As `Space.clear`."""
        entry = self._table.entry
        starts = [entry.offset(raw) for raw in raws if raw & entry.owned == entry.owned]
        if self._plan.punch:
            punch(self._data, [(start, start + self._table.block) for start in starts])

    def shorten(self) -> None:
        """As `Space.shorten`: the file is as long as the disk needs it."""

    def reservations(self) -> list[list[Change]]:
        """As `Space.reservations`, for the leaf tables."""
        return self._leaves.reservations()

    def reserved(self) -> None:
        """As `Space.reserved`."""
        self._leaves.reserved()
