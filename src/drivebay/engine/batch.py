"""The batch forms of reading and writing: what a serving loop can do without waiting.

These loops are the product's speed (design, section 6): one look-up and one system call a request,
the disk's lock once a batch, nothing allocated that is not needed. Measure after every change.
"""

from __future__ import annotations

import enum
from array import array
from collections.abc import Callable, Sequence

from drivebay.blockmap import BlockState
from drivebay.engine.decode import SPLIT_ENTRY
from drivebay.engine.mapentry import DATA_FLOOR, OFFSET_MASK, SOURCE_LIMIT, STATE_SHIFT, TAG_SHIFT, UNIT_SHIFT
from drivebay.engine.pagemap import PAGE_ENTRIES, PAGE_SHIFT, PageMap


class Outcome(enum.IntEnum):
    """What became of one request of a batch."""

    DONE = 0
    ZERO = 1  # all of it reads as zeros; the view was not touched
    LATER = 2  # it would wait, or needs the blocking form's care


DONE, ZERO, LATER = Outcome
LoadPage = Callable[[int], "array[int] | None"]
_UNREADABLE = BlockState.CORRUPT << STATE_SHIFT
_PAGE_MASK = PAGE_ENTRIES - 1
_SOURCE_MASK = SOURCE_LIMIT - 1


def read_batch(page_map: PageMap, requests: Sequence[tuple[int, memoryview]]) -> list[Outcome]:
    """Read what can be read at once; the disk's lock is held."""
    shift, granule, size = page_map.shift, page_map.granule, page_map.size
    mask = granule - 1
    page_of = page_map.pages.get
    load: LoadPage = page_map.load_at_once
    readers, flags = page_map.readers, page_map.read_flags
    outcomes: list[Outcome] = []
    add = outcomes.append
    for offset, view in requests:
        length = len(view)
        within = offset & mask
        page = page_of(offset >> shift >> PAGE_SHIFT)
        if page is None and (page := load(offset >> shift >> PAGE_SHIFT)) is None:
            load = _nothing  # what would wait is not tried again for each request
        if page is None or offset + length > size:
            add(LATER)
            continue
        if within + length > granule:
            add(_read_across(page_map, offset, view))
            continue
        entry = page[offset >> shift & _PAGE_MASK]
        if entry >= DATA_FLOOR:
            position = ((entry & OFFSET_MASK) << UNIT_SHIFT) + within
            try:
                done = readers[entry >> TAG_SHIFT & _SOURCE_MASK]((view,), position, flags)
            except OSError:
                add(LATER)
            else:
                add(DONE if done == length else LATER)
        elif entry < _UNREADABLE:
            add(ZERO)
        else:
            add(_read_across(page_map, offset, view) if entry == SPLIT_ENTRY else LATER)
    return outcomes


def _read_across(page_map: PageMap, offset: int, view: memoryview) -> Outcome:
    """One request over several granules."""
    if any(index not in page_map.pages for index in page_map.span(offset, len(view))):
        return LATER
    pieces = list(page_map.pieces(offset, len(view)))
    if all(piece.state <= BlockState.ZERO for piece in pieces):
        return ZERO
    for piece in pieces:
        at = piece.start - offset
        part = view[at : at + piece.length]
        if piece.state <= BlockState.ZERO:
            part[:] = bytes(piece.length)
            continue
        if piece.state != BlockState.DATA:
            return LATER
        try:
            if page_map.readers[piece.source]((part,), piece.offset, page_map.read_flags) != piece.length:
                return LATER
        except OSError:
            return LATER
    return DONE


def write_batch(
    page_map: PageMap,
    tags: frozenset[int],
    first_write: Callable[[int, memoryview], bool],
    requests: Sequence[tuple[int, memoryview]],
) -> list[Outcome]:
    """Write in place what lies in blocks tagged with one of ``tags``; the disk's lock is held.

    ``first_write`` writes a block that has no place yet, if it can.
    """
    shift, granule, size = page_map.shift, page_map.granule, page_map.size
    mask = granule - 1
    page_of = page_map.pages.get
    load: LoadPage = page_map.load_at_once
    writers = page_map.writers
    outcomes: list[Outcome] = []
    add = outcomes.append
    for offset, view in requests:
        length = len(view)
        within = offset & mask
        page = page_of(offset >> shift >> PAGE_SHIFT)
        if page is None and (page := load(offset >> shift >> PAGE_SHIFT)) is None:
            load = _nothing  # what would wait is not tried again for each request
        if page is None or offset + length > size:
            add(LATER)
            continue
        if within + length > granule:
            add(_write_across(page_map, tags, offset, view))
            continue
        entry = page[offset >> shift & _PAGE_MASK]
        tag = entry >> TAG_SHIFT
        if tag not in tags:
            across = entry == SPLIT_ENTRY and _write_across(page_map, tags, offset, view) is DONE
            add(DONE if across or first_write(offset, view) else LATER)
            continue
        position = ((entry & OFFSET_MASK) << UNIT_SHIFT) + within
        try:
            done = writers[tag & _SOURCE_MASK](view, position)
        except OSError:
            add(LATER)
        else:
            add(DONE if done == length else LATER)
    return outcomes


def _nothing(_index: int) -> array[int] | None:
    return None


def _write_across(page_map: PageMap, tags: frozenset[int], offset: int, view: memoryview) -> Outcome:
    """One request over several granules."""
    if any(index not in page_map.pages for index in page_map.span(offset, len(view))):
        return LATER
    pieces = list(page_map.pieces(offset, len(view)))
    if any(piece.tag not in tags for piece in pieces):
        return LATER
    for piece in pieces:
        at = piece.start - offset
        part = view[at : at + piece.length]
        try:
            if page_map.writers[piece.source](part, piece.offset) != piece.length:
                return LATER
        except OSError:
            return LATER
    return DONE
