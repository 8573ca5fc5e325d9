"""Where a write goes: ranges of the disk cut at the blocks of the active layer's tables."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from drivebay.engine.active_table import ActiveTable
from drivebay.engine.epoch import Place

NO_TABLE = -1
_LINEAR_CHUNK = 1 << 30


class Target(NamedTuple):
    """A range within one block, or within a part of the disk that has no table.

    ``begin`` and ``block_length`` say where the whole block lies on the disk.
    """

    position: int
    length: int
    table: int
    block: int
    begin: int
    block_length: int

    @property
    def place(self) -> Place:
        """Which block it is."""
        return self.table, self.block

    @property
    def whole(self) -> bool:
        """Whether it is a whole block of a table."""
        return self.table != NO_TABLE and (self.position, self.length) == (self.begin, self.block_length)


class Targets:
    """The blocks of ``tables``, which are ordered by their places on the disk."""

    def __init__(self, tables: Sequence[ActiveTable]) -> None:
        self._tables = [active.table for active in tables]
        self._starts = [table.start for table in self._tables]

    def over(self, offset: int, length: int) -> Iterator[Target]:
        """A range cut at the ends of blocks."""
        end = offset + length
        while offset < end:
            target = self.at(offset, end)
            yield target
            offset += target.length

    def at(self, position: int, end: int) -> Target:
        """The first of the targets that cover ``position .. end``."""
        number = bisect_right(self._starts, position) - 1
        if number >= 0:
            table = self._tables[number]
            if position < table.start + table.length:
                block = (position - table.start) // table.block
                begin, length = table.span(block)
                return Target(position, min(end, begin + length) - position, number, block, begin, length)
        limit = min([position + _LINEAR_CHUNK, end, *self._starts[number + 1 : number + 2]])
        return Target(position, limit - position, NO_TABLE, 0, position, limit - position)
