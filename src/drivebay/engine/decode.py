"""Segments -> map entries, a whole range of units at a time.

A unit is a granule of the map, or something finer where a granule needs a closer look. Everything here
is driven by the description; no format is named.
"""

from __future__ import annotations

import numpy as np

from drivebay.blockmap import BlockState, Linear, Packed, Segment, Table, Zeros
from drivebay.engine.mapentry import IN_PLACE, STATE_SHIFT, TAG_SHIFT, UNIT_SHIFT, pack
from drivebay.engine.placed import PlacedLayer
from drivebay.engine.presence import SplitBlock, unit_states
from drivebay.engine.tables import Blocks, Entries, Flags, offsets_of, read_blocks

_DATA = int(BlockState.DATA)
_SPLIT = int(BlockState.SPLIT)
_PACKED = int(BlockState.PACKED)
SPLIT_ENTRY = pack(BlockState.SPLIT, 0)


def layer_entries(layer: PlacedLayer, unit: int, first: int, count: int) -> Entries:
    """Map entries of the units ``first .. first+count`` of ``unit`` bytes, as this layer alone sees them.

    A unit that the layer cuts in pieces is SPLIT. One that a segment's end cuts in two gets the entry of
    what covers its beginning: the caller knows those places.
    """
    result = np.zeros(count, np.uint64)
    for segment in layer.segments_between(first * unit, (first + count) * unit):
        low = max(-(-segment.start // unit), first)
        end = min(segment.start + segment.length, layer.reach)
        high = min(-(-end // unit), first + count)
        if low < high:
            result[low - first : high - first] = _segment_entries(layer, segment, unit, low, high)
    return result


def _segment_entries(layer: PlacedLayer, segment: Segment, unit: int, low: int, high: int) -> Entries:
    match segment:
        case Table():
            return _table_entries(layer, segment, unit, low, high)
        case Linear():
            return _linear_entries(layer, segment, unit, low, high)
        case Zeros():
            return np.full(high - low, layer.zero_entry(), np.uint64)
        case Packed():
            return _packed_entries(layer, segment, unit, low, high)


def _linear_entries(layer: PlacedLayer, segment: Linear, unit: int, low: int, high: int) -> Entries:
    source = layer.first_source + segment.source
    start = segment.offset + low * unit - segment.start
    base = pack(BlockState.DATA, source, start, in_place=layer.owned)
    return np.uint64(base) + np.arange(high - low, dtype=np.uint64) * np.uint64(unit >> UNIT_SHIFT)


def _packed_entries(layer: PlacedLayer, segment: Packed, unit: int, low: int, high: int) -> Entries:
    starts, ends = layer.packed_bounds(segment)
    if not len(starts):
        return np.full(high - low, layer.zero_entry(), np.uint64)
    begin = np.arange(low, high, dtype=np.uint64) * np.uint64(unit)
    end = begin + np.uint64(unit)
    which = np.searchsorted(starts, begin, "right").astype(np.int64) - 1
    held = np.maximum(which, 0)
    inside = (which >= 0) & (begin < ends[held])
    nearest = np.append(starts, np.uint64(1 << 63))[which + 1]
    base = pack(BlockState.PACKED, layer.first_source + segment.source)
    result = np.where(inside, np.uint64(base) + held.astype(np.uint64), np.uint64(layer.zero_entry()))
    whole = np.where(inside, np.minimum(end, np.uint64(layer.reach)) <= ends[held], end <= nearest)
    result[~whole] = SPLIT_ENTRY
    return result


def _table_entries(layer: PlacedLayer, table: Table, unit: int, low: int, high: int) -> Entries:
    if table.start % unit or max(table.block, unit) % min(table.block, unit):
        return np.full(high - low, SPLIT_ENTRY, np.uint64)
    origin = table.start // unit
    first = (low - origin) * unit // table.block
    last = min(((high - origin) * unit - 1) // table.block, table.count - 1)
    source, data = layer.source(table.source), layer.source(table.data)
    blocks = read_blocks(table, source, data, first, last - first + 1)
    entries = _block_entries(layer, table, blocks)
    if table.block < unit:
        return _gathered(entries, unit // table.block, table.block)[: high - low]
    per_block = table.block // unit
    skip = low - origin - first * per_block
    spread = _spread(entries, per_block, unit)
    if table.presence is not None:
        _apply_presence(layer, table, blocks, first, spread)
    return spread[skip : skip + high - low]


def _block_entries(layer: PlacedLayer, table: Table, blocks: Blocks) -> Entries:
    """The map entry of each block's beginning; SPLIT ones know nothing more yet."""
    if not blocks.states.any():
        return np.zeros(len(blocks.states), np.uint64)
    data = blocks.states == _DATA
    tag = np.uint64((layer.first_source + table.data) << TAG_SHIFT)
    result = (blocks.states << np.uint64(STATE_SHIFT)) | tag
    result[data] |= offsets_of(table.entry, blocks.raw[data]) >> np.uint64(UNIT_SHIFT)
    if layer.owned:
        result[data & blocks.owned] |= np.uint64(IN_PLACE)
    if table.packed is not None:
        packed = blocks.states == _PACKED
        where = (blocks.raw[packed] & np.uint64(table.packed.mask)) * np.uint64(table.packed.scale)
        result[packed] |= where
    result[blocks.states == int(BlockState.ABSENT)] = 0
    result[blocks.states == _SPLIT] = SPLIT_ENTRY
    return result


def _spread(blocks: Entries, per_block: int, unit: int) -> Entries:
    """One entry for each unit of the blocks."""
    if per_block == 1:
        return blocks
    steps = np.arange(per_block, dtype=np.uint64) * np.uint64(unit >> UNIT_SHIFT)
    moves = (blocks >> np.uint64(STATE_SHIFT)) == _DATA
    spread: Entries = np.repeat(blocks, per_block)
    spread += np.repeat(moves.astype(np.uint64), per_block) * np.tile(steps, len(blocks))
    return spread


def _gathered(blocks: Entries, per_unit: int, block: int) -> Entries:
    """One entry for each unit of several blocks: SPLIT where they do not continue each other."""
    missing = -len(blocks) % per_unit
    rows = np.append(blocks, np.zeros(missing, np.uint64)).reshape(-1, per_unit)
    moves = (rows >> np.uint64(STATE_SHIFT)) == _DATA
    steps = np.arange(per_unit, dtype=np.uint64) * np.uint64(block >> UNIT_SHIFT)
    base = rows - moves * steps
    alike: Flags = base == base[:, :1]
    if missing:
        alike[-1, per_unit - missing :] = True
    states = rows[:, 0] >> np.uint64(STATE_SHIFT)
    same = alike.all(axis=1) & (states != _PACKED)
    return np.where(same, rows[:, 0], np.uint64(SPLIT_ENTRY))


def _apply_presence(layer: PlacedLayer, table: Table, blocks: Blocks, first: int, spread: Entries) -> None:
    """Enter what the bitmaps of SPLIT blocks say, unit by unit."""
    per_block = len(spread) // len(blocks.raw)
    source, data = layer.source(table.source), layer.source(table.data)
    for index in np.flatnonzero(blocks.states == _SPLIT).tolist():
        block = SplitBlock(first + index, int(blocks.raw[index]), int(blocks.beside[index]))
        states = unit_states(table, source, data, block)
        part = slice(index * per_block, (index + 1) * per_block)
        # A block with parts missing is written as a whole, or a copy could miss what is written meanwhile.
        here = -(-table.span(block.number)[1] * len(states) // table.block)
        whole = bool((states[:here] == _DATA).all())
        in_place = layer.owned and whole and bool(blocks.owned[index])
        spread[part] = _unit_entries(layer, table, block, states, per_block, in_place=in_place)


def _unit_entries(
    layer: PlacedLayer, table: Table, block: SplitBlock, states: Entries, per_block: int, *, in_place: bool
) -> Entries:
    if len(states) <= per_block:
        states = np.repeat(states, per_block // len(states))
    else:
        rows = states.reshape(per_block, -1)
        states = np.where((rows == rows[:, :1]).all(axis=1), rows[:, 0], np.uint64(_SPLIT))
    data = states == _DATA
    tag = np.uint64((layer.first_source + table.data) << TAG_SHIFT)
    entries = (states << np.uint64(STATE_SHIFT)) | tag
    begin = table.entry.offset(block.raw) >> UNIT_SHIFT
    step = (table.block // per_block) >> UNIT_SHIFT
    places = np.uint64(begin) + np.arange(per_block, dtype=np.uint64) * np.uint64(step)
    entries[data] |= places[data] | np.uint64(IN_PLACE if in_place else 0)
    entries[states == int(BlockState.ABSENT)] = 0
    entries[states == _SPLIT] = SPLIT_ENTRY
    return entries
