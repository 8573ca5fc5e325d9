"""Dropping blocks of the active layer, so that its parents' bytes show: what merging images needs.

Nothing of the disk is under way meanwhile. The entries go first, durably; then nobody can come to the
blocks' space any more, and the host gets it back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from drivebay.blockmap import BlockState, Table
from drivebay.engine.active_table import ActiveTable
from drivebay.engine.epoch import Committer, Place
from drivebay.engine.leaves import BESIDE_SHIFT
from drivebay.engine.shared import Shared
from drivebay.engine.source import FileSource
from drivebay.engine.space import unsafe_table
from drivebay.engine.tables import read_blocks
from drivebay.errors import StorageError, from_os_error

_CHUNK = 1 << 20  # entries


class Held(NamedTuple):
    """A block that the active layer says something about: its raw entry, and the word beside that."""

    place: Place
    raw: int
    beside: int

    @property
    def value(self) -> int:
        """The entry's value, as `EntryWriter` takes it."""
        return self.raw | self.beside << BESIDE_SHIFT


class Dropper:
    """Drops blocks of ``tables``, which lie in ``sources``. The disk is frozen, and all of it committed."""

    def __init__(
        self,
        shared: Shared,
        committer: Committer,
        tables: Sequence[ActiveTable],
        sources: Sequence[FileSource],
    ) -> None:
        self._changed = shared.changed
        self._map = shared.page_map
        self._committer = committer
        self._tables = tables
        self._sources = sources

    def drop(self, offset: int, length: int) -> None:
        """Let all blocks that lie wholly in the range be absent. Raises StorageError."""
        held = [
            block
            for number in range(len(self._tables))
            for block in self._held(number, offset, offset + length)
        ]
        if not held:
            return
        self._commit(held)
        for number, active in enumerate(self._tables):
            raws = [block.raw for block in held if block.place[0] == number]
            active.space.clear([raw for raw in raws if active.has_space(raw)])
        with self._changed:
            self._map.forget(offset, length)

    def _held(self, number: int, low: int, high: int) -> Iterator[Held]:
        table = self._tables[number].table
        blocks = _whole_blocks(table, low, high)
        for first in range(blocks.start, blocks.stop, _CHUNK):
            try:
                yield from self._held_blocks(number, first, min(_CHUNK, blocks.stop - first))
            except OSError as error:
                path = self._sources[table.source].path
                raise from_os_error(error, "read the block table", path=path) from error

    def _held_blocks(self, number: int, first: int, count: int) -> Iterator[Held]:
        table = self._tables[number].table
        source, data = self._sources[table.source], self._sources[table.data]
        found = read_blocks(table, source, data, first, count)
        if (found.states == int(BlockState.CORRUPT)).any():
            raise unsafe_table(source.path, table, "points outside the file")
        for index in np.flatnonzero(found.states != int(BlockState.ABSENT)).tolist():
            yield Held((number, first + index), int(found.raw[index]), int(found.beside[index]))

    def _commit(self, held: Sequence[Held]) -> None:
        with self._changed:
            for block in held:
                active = self._tables[block.place[0]]
                freed = block.raw if active.has_space(block.raw) else None
                self._committer.enter(block.place, active.absent_value(), freed, 0)
        try:
            self._committer.flush()
        except StorageError:
            with self._changed:
                epoch = self._committer.epoch
                if epoch.entries:  # the next commit says again what holds, whatever has reached the file
                    epoch.entries.update({block.place: block.value for block in held})
                    epoch.freed.clear()
            raise


def _whole_blocks(table: Table, low: int, high: int) -> range:
    """The blocks of a table that lie wholly in a range of the disk."""
    first = max(-(-(low - table.start) // table.block), 0)
    whole = high >= table.start + table.length
    return range(first, table.count if whole else max((high - table.start) // table.block, 0))
