"""The map as extents: merged runs in order, found page by page with numpy."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

import numpy as np

from drivebay.blockmap import BlockState
from drivebay.engine.mapentry import offset_of, source_of, state_of
from drivebay.engine.pagemap import PAGE_SHIFT, PageMap
from drivebay.engine.reader import corrupt_block
from drivebay.engine.runs import Run, run_starts
from drivebay.model import Extent, ExtentState


def page_extents(
    page_map: PageMap, index: int, page: array[int], splits: dict[int, list[Run]], low: int, high: int
) -> Iterator[Extent]:
    """Extents of the part of a page that lies in ``low .. high``, in order, not yet merged across pages."""
    first = index << PAGE_SHIFT
    begin = max(low >> page_map.shift, first) - first
    end = min(-(-high >> page_map.shift), first + len(page)) - first
    entries = np.frombuffer(page, np.uint64)[begin:end]
    starts = run_starts(entries, page_map.granule)
    for start, stop in zip(starts, [*starts[1:], len(entries)], strict=True):
        granule = first + begin + start
        position = granule << page_map.shift
        length = ((stop - start) << page_map.shift) if stop > start else 0
        entry = int(entries[start])
        runs = splits[granule] if state_of(entry) == BlockState.SPLIT else [Run(0, length, entry)]
        for run in runs:
            run_start = position + run.start
            cut_low, cut_high = max(run_start, low), min(run_start + run.length, high)
            if cut_low < cut_high:
                yield _extent(page_map, run.entry, run_start, cut_low, cut_high)


def _extent(page_map: PageMap, entry: int, begin: int, low: int, high: int) -> Extent:
    state = state_of(entry)
    if state == BlockState.ABSENT:
        return Extent(low, high - low, ExtentState.UNALLOCATED)
    source = page_map.sources[source_of(entry)]
    if state == BlockState.CORRUPT:
        raise corrupt_block(source.path, low)
    depth = page_map.depth_of(source_of(entry))
    if state == BlockState.ZERO:
        return Extent(low, high - low, ExtentState.ZERO, depth)
    if state == BlockState.PACKED:
        return Extent(low, high - low, ExtentState.DATA, depth, source.path)
    return Extent(low, high - low, ExtentState.DATA, depth, source.path, offset_of(entry) + low - begin)


def merged(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbours that continue each other."""
    held: Extent | None = None
    for extent in extents:
        if held is not None and _continues(held, extent):
            held = Extent(
                held.start, held.length + extent.length, held.state, held.depth, held.source, held.offset
            )
            continue
        if held is not None:
            yield held
        held = extent
    if held is not None:
        yield held


def _continues(held: Extent, extent: Extent) -> bool:
    if (held.state, held.depth, held.source) != (extent.state, extent.depth, extent.source):
        return False
    return held.offset is None or held.offset + held.length == extent.offset
