"""Changed entries of a block table -> changes of its file: in place, or in new leaf tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

import numpy as np

from drivebay.blockmap import BlockState, Directory, Table, WritePlan
from drivebay.engine.change import Change
from drivebay.engine.metadata import MetadataFiles
from drivebay.engine.space import LeafSpace, unsafe_table
from drivebay.engine.tables import position

BESIDE_SHIFT = 64  # an entry's value holds the word beside it above its raw entry
_RAW = (1 << BESIDE_SHIFT) - 1
_LONGEST_RUN = 64 << 10  # bytes
_NEAR = 1024  # bytes from one entry to the next


class EntryWriter:
    """Turns entry values by block number into changes, for the table (or its mirror) at ``root``."""

    def __init__(
        self, table: Table, root: int, files: MetadataFiles, space: LeafSpace | None, plan: WritePlan
    ) -> None:
        self._table = table
        self._root = root
        self._files = files
        self._space = space
        self._plan = plan
        self._new_leaves: dict[int, int] = {}  # made by a commit that is not done yet: number -> offset
        self._replaced: list[int] = []

    def raw(self, block: int) -> int:
        """The raw entry of a block as the file has it; ``absent`` where there is no leaf table."""
        directory, root = self._table.directory, self._root
        if directory is not None:
            leaf, block = divmod(block, directory.per_leaf)
            raw, state = self._leaf(directory, leaf)
            if state is not BlockState.DATA:
                return self._plan.absent
            root = directory.entry.offset(raw)
        entry = self._table.entry
        return self._number(position(self._table, root, block), entry.width, entry.byte_order)

    def _number(self, offset: int, width: int, byte_order: str) -> int:
        stored = self._files.read(self._table.source, offset, width)
        return int.from_bytes(stored, "little" if byte_order == "<" else "big")

    def _leaf(self, directory: Directory, leaf: int) -> tuple[int, BlockState]:
        entry = directory.entry
        raw = self._number(self._root + leaf * entry.step, entry.width, entry.byte_order)
        state = entry.state(raw)
        size = directory.per_leaf * self._table.entry.step
        if state is BlockState.DATA and entry.offset(raw) + size > self._files.size(self._table.source):
            raise unsafe_table(self._files.path(self._table.source), self._table, "lies in a table that")
        return raw, state

    def changes(self, values: Mapping[int, int]) -> tuple[list[Change], list[Change]]:
        """What brings ``values`` to the file: changes of entries, and then of the directory."""
        directory = self._table.directory
        if directory is None:
            return list(self._in_place(self._root, values)), []
        below: list[Change] = []
        above: list[Change] = []
        for leaf, blocks in groupby(sorted(values), lambda block: block // directory.per_leaf):
            part = {block % directory.per_leaf: values[block] for block in blocks}
            raw, state = self._leaf(directory, leaf)
            offset = directory.entry.offset(raw)
            if state is BlockState.DATA and raw & directory.entry.owned == directory.entry.owned:
                below += self._in_place(offset, part)
                continue
            new = self._new_leaf(leaf, offset if state is BlockState.DATA else None)
            below.append(self._whole_leaf(new, offset if state is BlockState.DATA else None, part))
            above.append(self._directory_change(directory, leaf, new))
        return below, above

    def done(self) -> None:
        """The changes are durable: the leaf tables that new ones have replaced are given back."""
        replaced, self._replaced = self._replaced, []
        self._new_leaves.clear()
        for leaf in replaced:
            assert self._space is not None
            self._space.retire_leaf(leaf)

    def _new_leaf(self, leaf: int, old: int | None) -> int:
        if leaf not in self._new_leaves:
            assert self._space is not None
            self._new_leaves[leaf] = self._space.take_leaf()
            if old is not None:
                self._replaced.append(old)
        return self._new_leaves[leaf]

    def _whole_leaf(self, offset: int, old: int | None, values: Mapping[int, int]) -> Change:
        """A leaf table for ``offset``: as the one at ``old``, or empty, but for ``values``."""
        assert self._table.directory is not None
        count, step = self._table.directory.per_leaf, self._table.entry.step
        if old is None:
            content = self._encoded([self._plan.absent]) * count
        else:
            content = self._files.read(self._table.source, old, count * step)
        entries = np.frombuffer(bytearray(content), np.uint8).reshape(count, step)
        data = np.frombuffer(self._encoded(list(values.values())), np.uint8)
        entries[list(values)] = data.reshape(-1, step)
        return Change(self._table.source, offset, entries.tobytes())

    def _directory_change(self, directory: Directory, leaf: int, offset: int) -> Change:
        entry = directory.entry
        raw = entry.encode(offset) | self._plan.directory_flags
        data = raw.to_bytes(entry.width, "little" if entry.byte_order == "<" else "big")
        return Change(self._table.source, self._root + leaf * entry.step, data)

    def _in_place(self, root: int, values: Mapping[int, int]) -> Iterator[Change]:
        """Changes of the table at ``root``: what lies near each other is written together.

        The entries between changed ones are written as they are, which changes no byte of theirs.
        """
        places = [(position(self._table, root, index), values[index]) for index in sorted(values)]
        step = self._table.entry.step
        run: list[tuple[int, int]] = []
        for place in places:
            if run and (place[0] - run[-1][0] > _NEAR or place[0] - run[0][0] >= _LONGEST_RUN):
                yield self._together(run, step)
                run = []
            run.append(place)
        if run:
            yield self._together(run, step)

    def _together(self, run: list[tuple[int, int]], step: int) -> Change:
        begin, length = run[0][0], run[-1][0] + step - run[0][0]
        data = self._encoded([value for _, value in run])
        if length > len(data):
            content = bytearray(self._files.read(self._table.source, begin, length))
            for number, (place, _) in enumerate(run):
                content[place - begin : place - begin + step] = data[number * step : (number + 1) * step]
            data = bytes(content)
        return Change(self._table.source, begin, data)

    def _encoded(self, values: list[int]) -> bytes:
        entry = self._table.entry
        kind = f"{entry.byte_order}u{entry.width}"
        raws = np.array([value & _RAW for value in values], np.uint64).astype(kind)
        if entry.step == entry.width:
            return raws.tobytes()
        beside = np.array([value >> BESIDE_SHIFT for value in values], np.uint64).astype(kind)
        return np.stack([raws, beside], axis=1).astype(kind).tobytes()  # stacking makes them native
