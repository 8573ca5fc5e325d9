"""A table of the active layer, with what it takes to write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drivebay.blockmap import Allocator, BlockState, Table, WritePlan
from drivebay.engine.change import Change
from drivebay.engine.eof_space import EofSpace
from drivebay.engine.leaves import BESIDE_SHIFT, EntryWriter
from drivebay.engine.metadata import MetadataFiles
from drivebay.engine.source import FileSource
from drivebay.engine.space import LeafSpace, Space
from drivebay.engine.unit_space import UnitSpace


class ActiveTable:
    """The table, its allocator, and the writers of its entries and those of its mirrors."""

    def __init__(
        self, table: Table, plan: WritePlan, sources: Sequence[FileSource], files: MetadataFiles
    ) -> None:
        self.table = table
        self.space, leaves = _spaces(table, plan, sources)
        self.own_place = plan.allocator is Allocator.OWN_PLACE  # blocks never move, nor leave their space
        self.raw_mask = (1 << table.entry.width * 8) - 1
        self.entries = EntryWriter(table, table.root, files, leaves, plan)
        self._mirrors = [EntryWriter(table, root, files, leaves, plan) for root in table.mirrors]
        self._plan = plan
        self._data_flags = plan.leaf_flags | plan.beside << BESIDE_SHIFT

    def data_value(self, offset: int) -> int:
        """The entry value of a block whose bytes are at ``offset``, all of them."""
        return self.table.entry.encode(offset) | self._data_flags

    def zero_value(self) -> int:
        """The entry value of a block of zeros; the plan has one."""
        assert self._plan.zero is not None
        return self._plan.zero | self._plan.beside_zero << BESIDE_SHIFT

    def absent_value(self) -> int:
        """The entry value of a block that is not there: the parent's bytes show."""
        return self._plan.absent

    def has_space(self, raw: int) -> bool:
        """Whether a raw entry may have space that is to be given back with it."""
        if self._plan.refcounts:
            return True  # the allocator tells
        state = self.table.entry.state(raw)
        return state is BlockState.DATA or (state is BlockState.SPLIT and self.table.entry.offset(raw) != 0)

    def changes(self, values: Mapping[int, int]) -> tuple[list[Change], list[Change]]:
        """As `EntryWriter.changes`, mirrors included."""
        below, above = self.entries.changes(values)
        for mirror in self._mirrors:
            more_below, more_above = mirror.changes(values)
            below += more_below
            above += more_above
        return below, above

    def release(self, freed: Sequence[int], newest_operation: int) -> None:
        """The last changes are durable: give what they left behind back."""
        for writer in (self.entries, *self._mirrors):
            writer.done()
        if freed:
            self.space.retire(freed, newest_operation)


def _spaces(table: Table, plan: WritePlan, sources: Sequence[FileSource]) -> tuple[Space, LeafSpace | None]:
    """Where blocks go, and where leaf tables do, if there are any."""
    source = sources[table.source]
    match plan.allocator:
        case Allocator.BUMP_COUNTER:  # for tables of one level
            return UnitSpace(source, table, plan), None
        case Allocator.REFCOUNT:
            from drivebay.engine.refcount import RefcountSpace  # few disks need it

            clusters = RefcountSpace(sources, (table,), plan)
            return clusters, clusters
        case Allocator.OWN_PLACE:
            from drivebay.engine.own_place import OwnPlace
            from drivebay.engine.refcount import RefcountSpace

            clusters = RefcountSpace(sources, (table,), plan)
            return OwnPlace(sources, table, plan, clusters), clusters
        case _:
            end = EofSpace(source, table, plan)
            return end, end
