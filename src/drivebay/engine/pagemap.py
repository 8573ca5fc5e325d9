"""The flattened map: pages of 512 entries, built on first touch from all layers at once.

Opening costs the same whatever the size, and a look-up costs the same whatever the depth. Pages are a
cache with a byte budget; those that hold changes not yet in a table stay.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from drivebay.blockmap import BlockState, Table
from drivebay.engine.cached import CachedSource
from drivebay.engine.decode import SPLIT_ENTRY, layer_entries
from drivebay.engine.mapentry import (
    DATA_FLOOR,
    OFFSET_MASK,
    SOURCE_LIMIT,
    STATE_SHIFT,
    TAG_SHIFT,
    UNIT_SHIFT,
    source_of,
    state_of,
)
from drivebay.engine.placed import PlacedLayer, finest_block, require_addressable
from drivebay.engine.runs import Run, replaced, resolve_runs
from drivebay.engine.source import AT_ONCE, FileSource, OpenedLayer, TryRead, TryWrite
from drivebay.engine.tables import Entries
from drivebay.errors import ErrorKind, StorageError

PAGE_SHIFT = 9
PAGE_ENTRIES = 1 << PAGE_SHIFT
PAGE_BYTES = PAGE_ENTRIES * 8
_GRANULE_MIN = 64 << 10
_GRANULE_MAX = 1 << 20
_PAGES_TOGETHER = 16
_RUN_BYTES = 150  # what a run takes in memory


Splits = dict[int, list[Run]]


class Piece(NamedTuple):
    """``length`` bytes of the disk in one state; ``offset`` is where they begin in source ``source``.

    For PACKED, the offset is that of the packed block, or the number of the packed run.
    """

    start: int
    length: int
    state: BlockState
    source: int
    offset: int
    tag: int


class PageMap:
    """Map pages over ``layers`` (top first). Not thread-safe but for `build`: callers hold the disk's lock.

    ``pages[i]`` are the entries of granules ``i * 512 ...``, ``splits[i]`` the runs of those of them that
    are SPLIT, and ``bytes`` is what they take; ``changes`` counts what makes a page that was built before
    it stale. ``sources``, ``readers`` (called with ``read_flags``) and
    ``writers`` go by source number.
    """

    def __init__(self, layers: Sequence[OpenedLayer], size: int, budget: int) -> None:
        self.size = size
        self.budget = budget
        self.layers: list[PlacedLayer] = []
        self.sources: list[FileSource] = []
        self.readers: list[TryRead] = []
        self.writers: list[TryWrite] = []
        for opened in layers:
            self._place(opened, len(self.layers))
        self.pages: dict[int, array[int]] = {}
        self.splits: dict[int, Splits] = {}
        self.bytes = 0
        self.pinned: set[int] = set()
        self.changes = 0
        self._choose_granule()

    def _place(self, opened: OpenedLayer, position: int) -> None:
        first = len(self.sources)
        if first + len(opened.sources) > SOURCE_LIMIT:
            raise StorageError(
                ErrorKind.UNSUPPORTED,
                f"the chain has more than {SOURCE_LIMIT} files; merge some of its images",
                path=opened.sources[0].path,
            )
        require_addressable(opened)
        above = [layer.reach for layer in self.layers[:position]]
        reach = min([opened.layer.facts.size, *above])
        self.layers.insert(position, PlacedLayer(opened, first, reach))
        for segment in opened.layer.segments:
            if isinstance(segment, Table) and segment.short_tail:
                opened.sources[segment.data].padding = segment.block
        self.sources += opened.sources
        self._choose_readers()
        self.writers += [source.try_write for source in opened.sources]

    def _choose_readers(self) -> None:
        """Reads do not wait, unless no file system at all can do that."""
        self.read_flags = AT_ONCE if any(source.reads_at_once for source in self.sources) else 0
        self.readers = [
            source.try_read if source.reads_at_once or not self.read_flags else _waiting(source)
            for source in self.sources
        ]

    def _choose_granule(self) -> None:
        block = finest_block(self.layers) or _GRANULE_MAX
        self.granule = min(max(1 << block.bit_length() - 1, _GRANULE_MIN), _GRANULE_MAX)
        simple = block >= self.granule and not any(layer.has_presence for layer in self.layers)
        self._together = self._most_together() if simple else 1
        self.unit = min([self.granule, *(layer.finest() for layer in self.layers)])
        self.shift = self.granule.bit_length() - 1
        self._cut = set().union(*(layer.boundaries(self.granule, self.size) for layer in self.layers))

    def _most_together(self) -> int:
        """Pages whose building costs little more than that of one: fewer where many layers take part."""
        return max(min(_PAGES_TOGETHER // len(self.layers), self.budget // PAGE_BYTES // 4), 1)

    def push(self, opened: OpenedLayer) -> None:
        """Make an empty layer the top: entries stay as they are, unless the granule gets finer."""
        self._place(opened, 0)
        before = self.granule
        self._choose_granule()
        self.changes += 1
        if self.granule != before:
            self.pages.clear()
            self.splits.clear()
            self.bytes = 0

    def forget(self, offset: int, length: int) -> None:
        """The tables say something else of a range now; none of its pages holds what waits for a commit."""
        for index in self.span(offset, length):
            if self.pages.pop(index, None) is not None:
                self.bytes -= _size_of(self.splits.pop(index))
        self.changes += 1

    def layer_of(self, source: int) -> PlacedLayer:
        """The layer that a source belongs to."""
        return self.layers[self.depth_of(source)]

    def depth_of(self, source: int) -> int:
        """How far below the top the layer of a source lies."""
        for depth, layer in enumerate(self.layers):
            if layer.owns(source):
                return depth
        raise IndexError(source)

    def together(self, index: int) -> range:
        """The pages that are built with page ``index``, as that costs little more than it alone."""
        first = index - index % self._together
        pages = -(-self.size // self.page_span)
        return range(first, min(first + self._together, pages))

    def build(self, pages: range) -> list[tuple[array[int], Splits]]:
        """Neighbouring pages made anew from the tables: entries, and the granules of several runs."""
        return self._build(pages, self.layers)

    def load_at_once(self, index: int) -> array[int] | None:
        """Page ``index``, built and kept; ``None`` where that would wait for a device, or fails."""
        pages = self.together(index)
        if index < 0 or index not in pages:
            return None
        try:
            built = self._build(pages, [self._cached(layer) for layer in self.layers])
        except (OSError, StorageError):
            return None
        for number, (page, splits) in zip(pages, built, strict=True):
            if number not in self.pages:
                self.install(number, page, splits, range(index, index + 1))
        return self.pages[index]

    def _cached(self, layer: PlacedLayer) -> PlacedLayer:
        sources = enumerate(layer.opened.sources, layer.first_source)
        return layer.through(
            tuple(CachedSource(source, self.readers[number], self.read_flags) for number, source in sources)
        )

    def _build(self, pages: range, layers: Sequence[PlacedLayer]) -> list[tuple[array[int], Splits]]:
        first = pages.start << PAGE_SHIFT
        count = min(len(pages) << PAGE_SHIFT, -(-self.size // self.granule) - first)
        result = layer_entries(layers[0], self.granule, first, count)
        for layer in layers[1:]:
            open_ones = result == 0
            if not open_ones.any():
                break
            result[open_ones] = layer_entries(layer, self.granule, first, count)[open_ones]
        result[[cut - first for cut in self._cut if first <= cut < first + count]] = SPLIT_ENTRY
        parts = [result[low : low + PAGE_ENTRIES] for low in range(0, count, PAGE_ENTRIES)]
        if not (result == SPLIT_ENTRY).any():
            return [(array("Q", part.tobytes()), {}) for part in parts]
        return [self._page(index, part, layers) for index, part in zip(pages, parts, strict=True)]

    def _page(self, index: int, entries: Entries, layers: Sequence[PlacedLayer]) -> tuple[array[int], Splits]:
        page = array("Q", entries.tobytes())
        split = entries == SPLIT_ENTRY
        if not split.any():
            return page, {}
        cut = (np.flatnonzero(split) + (index << PAGE_SHIFT)).tolist()
        splits = resolve_runs(layers, self.granule, self.unit, cut, self.size)
        return page, _joined(page, splits)

    def install(self, index: int, page: array[int], splits: Splits, needed: range) -> None:
        """Keep a built page, and drop old ones beyond the budget, but none of those ``needed`` now."""
        self.pages[index] = page
        self.splits[index] = splits
        self.bytes += _size_of(splits)
        while self.bytes > self.budget and self._evict_one(needed):
            pass

    def _evict_one(self, needed: range) -> bool:
        for index in self.pages:
            if index not in needed and index not in self.pinned:
                del self.pages[index]
                self.bytes -= _size_of(self.splits.pop(index))
                self.changes += 1
                return True
        return False

    @property
    def page_span(self) -> int:
        """The bytes of the disk that one page covers."""
        return self.granule << PAGE_SHIFT

    def span(self, offset: int, length: int) -> range:
        """The numbers of the pages that a range needs."""
        bits = self.shift + PAGE_SHIFT
        return range(offset >> bits, ((offset + length - 1) >> bits) + 1)

    def entry(self, granule: int) -> int:
        """The entry of a granule whose page is there."""
        return self.pages[granule >> PAGE_SHIFT][granule & (PAGE_ENTRIES - 1)]

    def is_bare(self, offset: int, length: int, states: int) -> bool:
        """Whether the pages of a range are there, and all of it is in states below ``states``."""
        limit = states << STATE_SHIFT
        for granule in range(offset >> self.shift, (offset + length - 1 >> self.shift) + 1):
            page = self.pages.get(granule >> PAGE_SHIFT)
            if page is None:
                return False
            entry = page[granule & (PAGE_ENTRIES - 1)]
            if entry >= limit and not (
                entry == SPLIT_ENTRY and self._is_bare_part(granule, offset, length, limit)
            ):
                return False
        return True

    def _is_bare_part(self, granule: int, offset: int, length: int, limit: int) -> bool:
        begin = granule << self.shift
        runs = self.splits[granule >> PAGE_SHIFT][granule]
        low, high = offset - begin, offset + length - begin
        return all(run.entry < limit for run in runs if run.start < high and run.start + run.length > low)

    def set_block(self, offset: int, length: int, entry: int) -> None:
        """Enter a block of the top layer; its pages are there, and stay until `unpin`."""
        self.pin(offset, length)
        if length == self.granule and not offset & (length - 1):
            self._set_entry(offset >> self.shift, entry)
            return
        position, end = offset, offset + length
        while position < end:
            granule = position >> self.shift
            begin = granule << self.shift
            stop = min(end, begin + self.granule)
            if position == begin and stop == min(begin + self.granule, self.size):
                self._set_entry(granule, entry)
            else:
                self._set_part(granule, position - begin, stop - begin, entry)
            if entry >= DATA_FLOOR:
                entry += (stop - position) >> UNIT_SHIFT
            position = stop

    def are_bare(self, offset: int, count: int, states: int) -> bool:
        """As `is_bare`, for ``count`` granules of one page; false also where one of them is SPLIT."""
        granule = offset >> self.shift
        page, first = self.pages[granule >> PAGE_SHIFT], granule & (PAGE_ENTRIES - 1)
        highest = page[first] if count == 1 else max(page[first : first + count])
        return highest < states << STATE_SHIFT

    def set_granules(self, offset: int, count: int, entry: int) -> None:
        """As `set_block`, for ``count`` granules of one page that are bare (see `are_bare`)."""
        granule = offset >> self.shift
        index, first = granule >> PAGE_SHIFT, granule & (PAGE_ENTRIES - 1)
        page = self.pages[index]
        self.pinned.add(index)
        if count == 1:
            page[first] = entry
            return
        count = min(count, len(page) - first)  # the disk may end within the block
        step = self.granule >> UNIT_SHIFT
        page[first : first + count] = array("Q", range(entry, entry + count * step, step))

    def _set_entry(self, granule: int, entry: int) -> None:
        index = granule >> PAGE_SHIFT
        self.pages[index][granule & (PAGE_ENTRIES - 1)] = entry
        runs = self.splits[index].pop(granule, None)
        self.bytes -= _RUN_BYTES * len(runs) if runs else 0

    def _set_part(self, granule: int, low: int, high: int, entry: int) -> None:
        """Enter what covers ``low .. high`` of a granule, and leave the rest of it as it is."""
        index = granule >> PAGE_SHIFT
        length = min(self.granule, self.size - (granule << self.shift))
        known = self.splits[index].get(granule)
        old = known or [Run(0, length, self.entry(granule))]
        runs = replaced(old, Run(low, high - low, entry))
        if len(runs) == 1:
            self._set_entry(granule, runs[0].entry)
            return
        self.pages[index][granule & (PAGE_ENTRIES - 1)] = SPLIT_ENTRY
        self.splits[index][granule] = runs
        self.bytes += _RUN_BYTES * (len(runs) - (len(old) if known else 0))

    def pin(self, offset: int, length: int) -> None:
        """Keep the pages of a range."""
        self.pinned.update(self.span(offset, length))

    def unpin(self) -> None:
        """All entered blocks are in their tables: their pages may go again."""
        self.pinned.clear()

    def pieces(self, offset: int, length: int) -> Iterator[Piece]:
        """What covers a range whose pages are there, in order; neighbours in a file are joined."""
        held: Piece | None = None
        for piece in self._granule_pieces(offset, offset + length):
            if held is not None and _continues(held, piece):
                held = held._replace(length=held.length + piece.length)
                continue
            if held is not None:
                yield held
            held = piece
        if held is not None:
            yield held

    def _granule_pieces(self, position: int, end: int) -> Iterator[Piece]:
        while position < end:
            granule = position >> self.shift
            begin = granule << self.shift
            stop = min(end, begin + self.granule)
            entry = self.entry(granule)
            if state_of(entry) == BlockState.SPLIT:
                for run in self.splits[granule >> PAGE_SHIFT][granule]:
                    low = max(position, begin + run.start)
                    high = min(stop, begin + run.start + run.length)
                    if low < high:
                        yield _piece(low, high, run.entry, begin + run.start)
            else:
                yield _piece(position, stop, entry, begin)
            position = stop


def _waiting(source: FileSource) -> TryRead:
    """A source's reads, on a file system that has none that don't wait."""
    return lambda views, offset, _flags: source.try_read(views, offset, 0)


def _piece(low: int, high: int, entry: int, begin: int) -> Piece:
    state = state_of(entry)
    offset = entry & OFFSET_MASK
    if state == BlockState.DATA:
        offset = (offset << UNIT_SHIFT) + low - begin
    return Piece(low, high - low, state, source_of(entry), offset, entry >> TAG_SHIFT)


def part_of(piece: Piece, start: int, length: int) -> Piece:
    """The part of a piece from ``start`` on."""
    moved = start - piece.start if piece.state == BlockState.DATA else 0
    return piece._replace(start=start, length=length, offset=piece.offset + moved)


def _continues(held: Piece, piece: Piece) -> bool:
    if held.tag != piece.tag:
        return False
    if held.state == BlockState.DATA:
        return held.offset + held.length == piece.offset
    return held.offset == piece.offset


def _joined(page: array[int], splits: Splits) -> Splits:
    """Granules that turn out to be one run need no list."""
    kept: Splits = {}
    for granule, runs in splits.items():
        if len(runs) == 1:
            page[granule & (PAGE_ENTRIES - 1)] = runs[0].entry
        else:
            kept[granule] = runs
    return kept


def _size_of(splits: Splits) -> int:
    return PAGE_BYTES + _RUN_BYTES * sum(len(runs) for runs in splits.values())
