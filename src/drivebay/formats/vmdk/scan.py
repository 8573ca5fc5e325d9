"""The grain tables of one extent, read whole and held against the file and their redundant copies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from drivebay.blockmap import BlockState, Entry, Files, Table
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vmdk import cowd, header
from drivebay.model import SECTOR

Entries = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]
Sizes = npt.NDArray[np.int64]
_CHUNK = 1 << 17


class Leaf(NamedTuple):
    """Grain table ``number``: where it lies, and where its directory entry does; 0 where it is missing."""

    number: int
    offset: int
    entry: int


@dataclass
class Fault:
    """How many entries have one fault, and where in the file the first of them lies."""

    count: int = 0
    first: int = 0

    def add(self, places: list[int]) -> None:
        """Take in the places of entries."""
        if places and not self.count:
            self.first = places[0]
        self.count += len(places)


class Wrong(NamedTuple):
    """A table (and its redundant copy) and the numbers of those of its entries that can't stay."""

    main: Leaf
    copy: Leaf | None
    indices: Sizes


@dataclass
class Scan:
    """What is wrong in an extent's tables.

    ``lost`` are tables that lie outside of the file or are another entry's, too; ``differing`` are pairs
    of a table and its copy; ``end`` is where the last table or grain ends, in bytes of the file.
    """

    end: int = 0

    outside: Fault = field(default_factory=Fault)
    doubled: Fault = field(default_factory=Fault)
    overlapping: int = 0
    wrong: list[Wrong] = field(default_factory=list)
    lost: list[Leaf] = field(default_factory=list)
    lost_copies: list[Leaf] = field(default_factory=list)
    differing: list[tuple[Leaf, Leaf]] = field(default_factory=list)


class Tables:
    """The tables of one extent. Memory: 3 bytes for each sector of the file, 8 for each grain."""

    def __init__(self, files: Files, table: Table) -> None:
        assert table.directory is not None
        self.files = files
        self.table = table
        self.entry = table.entry
        self.directory = table.directory
        self.directory_size = self.directory.count * self.directory.entry.step
        self.leaf_size = self.directory.per_leaf * self.entry.step
        sectors = -(-files.size // SECTOR)
        self._used = np.zeros(sectors, np.bool_)  # a grain begins there
        self._taken = np.zeros(sectors, np.bool_)  # headers, directories and tables
        self._taken_sectors = np.zeros(0, np.int64)  # where ``_taken`` is set, once all tables are known
        self._grains: Sizes | None = None  # read where a table and its copy differ

    def scan(self) -> Scan:
        """Read everything once. Raises StorageError if the file can't be read."""
        found = Scan()
        self._used[:] = self._taken[:] = False
        self._grains = None
        for offset, length in reserved(self.files, self.table):
            self._taken[offset // SECTOR : -(-(offset + length) // SECTOR)] = True
        whole, copied = (np.zeros(self.directory.count, np.bool_) for _ in range(2))
        for main, copy in self.pairs():
            foreign = copy is not None and self._differ(main, copy)
            whole[main.number] = self._is_free(main, found.lost, foreign)
            if copy is not None:
                copied[main.number] = self._is_free(copy, found.lost_copies, foreign)
                self._compare_existence(main, copy, found)
        self._taken_sectors = np.flatnonzero(self._taken)
        self._judge_all(whole, copied, found)
        grain = self.table.block // SECTOR if self.table.packed is None else 1
        starts = np.flatnonzero(self._used)
        found.overlapping = int((np.diff(starts) < grain).sum())
        ends = (np.flatnonzero(self._taken)[-1:] + 1, starts[-1:] + grain)
        found.end = int(np.concatenate(ends).max()) * SECTOR
        return found

    def _grain_starts(self) -> Sizes:
        """The sectors where grains begin, if either directory is believed."""
        if self._grains is not None:
            return self._grains
        starts = np.zeros(len(self._used), np.bool_)
        for leaf in (leaf for pair in self.pairs() if pair[1] is not None for leaf in pair):
            if leaf is not None and self.is_inside(leaf):
                raw = self.read(leaf)
                offsets = self.offsets(raw[self._points(raw) & ~self._beyond(leaf, raw)])
                starts[offsets // SECTOR] = True
        self._grains = np.flatnonzero(starts)
        return self._grains

    def _differ(self, main: Leaf, copy: Leaf) -> bool:
        """Whether two entries or more differ: one may be a slip, more aren't a table and its copy."""
        inside = self.is_inside(main) and self.is_inside(copy)
        return inside and int(np.count_nonzero(self.read(main) != self.read(copy))) > 1

    def _is_on_grain(self, leaf: Leaf) -> bool:
        grain = self.table.block // SECTOR
        first = max(leaf.offset // SECTOR - grain + 1, 0)
        last = -(-(leaf.offset + self.leaf_size) // SECTOR)
        low, high = np.searchsorted(self._grain_starts(), [first, last])
        return bool(high > low)

    def _compare_existence(self, main: Leaf, copy: Leaf, found: Scan) -> None:
        """Note a table that only the other directory has, unless it is empty."""
        if main.offset == 0 and 0 < copy.offset <= self.files.size - self.leaf_size and self.read(copy).any():
            found.lost.append(main)
        if copy.offset == 0 and main.offset > 0:
            found.lost_copies.append(copy)

    def _judge_all(self, whole: Flags, copied: Flags, found: Scan) -> None:
        """Hold the tables that are there against their copies, and their entries against everything."""
        for main, other in self.pairs():
            if not whole[main.number]:
                continue
            copy = other if copied[main.number] else None
            if copy is not None and self.read(main).tobytes() != self.read(copy).tobytes():
                found.differing.append((main, copy))
            self._judge(main, copy, found)

    def pairs(self) -> Iterator[tuple[Leaf, Leaf | None]]:
        """Each grain table with its redundant copy, if there are copies."""
        mirror = self.table.mirrors[0] if self.table.mirrors else None
        for first in range(0, self.directory.count, _CHUNK):
            count = min(_CHUNK, self.directory.count - first)
            main = self._leaves(self.table.root, first, count)
            copies = self._leaves(mirror, first, count) if mirror is not None else iter([None] * count)
            yield from zip(main, copies, strict=True)

    def _leaves(self, root: int, first: int, count: int) -> Iterator[Leaf]:
        entry = self.directory.entry
        begin = root + first * entry.step
        raw = numbers(entry, read(self.files, begin, count * entry.step))
        states = states_of(entry, raw)
        for number, (value, state) in enumerate(zip(raw.tolist(), states.tolist(), strict=True)):
            offset = {int(BlockState.ABSENT): 0, int(BlockState.DATA): entry.offset(value)}.get(state, -1)
            yield Leaf(first + number, offset, begin + number * entry.step)

    def _is_free(self, leaf: Leaf, lost: list[Leaf], foreign: bool) -> bool:
        """Whether the table exists, in the file, where nothing else is; notes one that should but doesn't.

        What lies on a grain and is ``foreign`` is the guest's, and its directory is wrong.
        """
        if leaf.offset == 0:
            return False
        sectors = slice(leaf.offset // SECTOR, -(-(leaf.offset + self.leaf_size) // SECTOR))
        if not self.is_inside(leaf) or self._taken[sectors].any() or (foreign and self._is_on_grain(leaf)):
            lost.append(leaf)
            return False
        self._taken[sectors] = True
        return True

    def is_inside(self, leaf: Leaf) -> bool:
        """Whether the whole table lies in the file."""
        return 0 < leaf.offset <= self.files.size - self.leaf_size

    def read(self, leaf: Leaf) -> Entries:
        """The raw entries that the disk needs of a table."""
        per_leaf = self.directory.per_leaf
        count = min(per_leaf, self.table.count - leaf.number * per_leaf)
        return numbers(self.entry, read(self.files, leaf.offset, count * self.entry.step))

    def _judge(self, leaf: Leaf, copy: Leaf | None, found: Scan) -> None:
        raw = self.read(leaf)
        if not raw.any():  # as most tables of a large thin disk are: nothing to judge
            return
        bad = self.bad(leaf, raw)
        placed = np.flatnonzero(self._points(raw) & ~bad)
        sectors = self.offsets(raw[placed]) // SECTOR
        again = np.ones(len(sectors), np.bool_)
        again[np.unique(sectors, return_index=True)[1]] = False
        again |= self._used[sectors]
        self._used[sectors] = True
        outside, doubled = np.flatnonzero(bad), placed[again]
        found.outside.add(self._places(leaf, outside))
        found.doubled.add(self._places(leaf, doubled))
        if len(outside) or len(doubled):
            found.wrong.append(Wrong(leaf, copy, np.union1d(outside, doubled)))

    def unclaimed(self, leaf: Leaf, raw: Entries) -> Flags:
        """Which entries are for grains that can be, and that no table has which the scan found whole."""
        sound = self._points(raw) & ~self.bad(leaf, raw)
        used = self._used[np.where(sound, self.offsets(raw) // SECTOR, 0)]
        unclaimed: Flags = sound & ~used
        return unclaimed

    def bad(self, leaf: Leaf, raw: Entries) -> Flags:
        """Which entries can't be: no entries at all, or for grains outside of the file or on its tables."""
        beyond = self._beyond(leaf, raw)
        offsets = np.where(beyond, 0, self.offsets(raw))
        starts = offsets // SECTOR
        ends = np.where(beyond, 0, -(-(offsets + self._lengths(leaf, raw)) // SECTOR))
        low, high = np.searchsorted(self._taken_sectors, [starts, ends])
        on_tables = high > low
        corrupt = states_of(self.entry, raw) == int(BlockState.CORRUPT)
        bad: Flags = corrupt | (self._points(raw) & (beyond | on_tables))
        return bad

    def _beyond(self, leaf: Leaf, raw: Entries) -> Flags:
        """Which entries are for grains that end outside of the file, if they are for grains."""
        coarse: Flags = (raw & np.uint64(self.entry.mask)) > np.uint64(self.files.size // self.entry.scale)
        offsets = np.where(coarse, 0, self.offsets(raw))
        ends = offsets + self._lengths(leaf, raw)
        beyond: Flags = np.logical_or(coarse, ends > self.files.size)
        return beyond

    def _lengths(self, leaf: Leaf, raw: Entries) -> Sizes:
        """How long grains are: the disk's last one may be shorter."""
        grain = self.table.block if self.table.packed is None else SECTOR
        lengths: Sizes = np.full(len(raw), grain, np.int64)
        if (leaf.number + 1) * self.directory.per_leaf >= self.table.count:
            last = self.table.span(self.table.count - 1)[1]
            lengths[-1] = min(last, int(lengths[-1]))
        return lengths

    def _points(self, raw: Entries) -> Flags:
        points: Flags = states_of(self.entry, raw) >= int(BlockState.PACKED)
        return points

    def offsets(self, raw: Entries) -> Sizes:
        """Where grains begin in the file."""
        coarse = (raw & np.uint64(self.entry.mask)).astype(np.int64) * self.entry.scale
        fine = (raw & np.uint64(self.entry.fine_mask)) >> np.uint64(self.entry.fine_shift)
        offsets: Sizes = coarse + fine.astype(np.int64) * self.entry.fine_scale + self.entry.base
        return offsets

    def _places(self, leaf: Leaf, indices: Sizes) -> list[int]:
        return [leaf.offset + index * self.entry.step for index in indices.tolist()]


def reserved(files: Files, table: Table) -> Iterator[tuple[int, int]]:
    """Offset and length of what lies at fixed places in an extent: header, descriptor, directories."""
    assert table.directory is not None
    size = table.directory.count * table.directory.entry.step
    yield 0, cowd.HEADER_SIZE if files.read(0, 4) == cowd.MAGIC else SECTOR
    yield from ((root, size) for root in (table.root, *table.mirrors))
    if files.read(0, 4) == header.MAGIC:
        found = header.unpack(files.read(0, header.HEADER_SIZE))
        yield found.descriptor_offset * SECTOR, found.descriptor_size * SECTOR


def states_of(entry: Entry, raw: Entries) -> Entries:
    """The state of each raw entry: the first rule that matches, else DATA."""
    states = np.full(len(raw), int(BlockState.DATA), np.uint64)
    for rule in reversed(entry.rules):
        states[(raw & np.uint64(rule.mask)) == rule.value] = int(rule.state)
    return states


def numbers(entry: Entry, data: bytes) -> Entries:
    """Raw entries from the bytes of a table."""
    return np.frombuffer(data, f"{entry.byte_order}u{entry.width}").astype(np.uint64)


def read(files: Files, offset: int, length: int) -> bytes:
    """Exactly ``length`` bytes; raises StorageError where the file has become shorter."""
    data = files.read(offset, length)
    if len(data) < length:
        message = (
            "the file became shorter while its tables were read; check it again when nothing writes to it"
        )
        raise StorageError(ErrorKind.IO, message, path=files.path, offset=offset, operation="check")
    return data
