"""Tables and linear segments -> map entries, a whole page at a time.

Everything here is driven by the description; no format is named.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from drivebay.blockmap import BlockState, Entry, Linear, Segment, Table, Zeros
from drivebay.engine.mapentry import DATA_FLOOR, IN_PLACE, STATE_SHIFT, TAG_SHIFT, UNIT_SHIFT, pack
from drivebay.engine.placed import PlacedLayer
from drivebay.engine.source import FileSource

Entries = npt.NDArray[np.uint64]


def read_raw_entries(table: Table, source: FileSource, first: int, count: int) -> Entries:
    """The raw table entries ``first .. first+count``."""
    buffer = bytearray(count * table.entry.width)
    source.read_into(memoryview(buffer), table.root + first * table.entry.width)
    return np.frombuffer(buffer, f"{table.entry.byte_order}u{table.entry.width}").astype(np.uint64)


def states_of(entry: Entry, raw: Entries) -> npt.NDArray[np.uint64]:
    """The state of each raw entry: the first rule that matches, else DATA."""
    states = np.full(len(raw), int(BlockState.DATA), np.uint64)
    for rule in reversed(entry.rules):
        states[(raw & np.uint64(rule.mask)) == rule.value] = int(rule.state)
    return states


def outside(table: Table, source: FileSource, raw: Entries) -> npt.NDArray[np.bool_]:
    """Which raw entries, taken as DATA, point to a block that does not lie within the file."""
    entry = table.entry
    last = (source.size - entry.base - table.block) // entry.scale
    numbers: Entries = raw & np.uint64(entry.mask)
    return numbers > last if last >= 0 else np.ones(len(raw), np.bool_)


def layer_entries(layer: PlacedLayer, granule: int, first: int, count: int) -> Entries:
    """Map entries of the granules ``first .. first+count`` as this layer alone sees them.

    Granules that a segment cuts in two get the entry of what covers their beginning.
    """
    result = np.zeros(count, np.uint64)
    for segment in layer.segments:
        low = max(-(-segment.start // granule), first)
        end = min(segment.start + segment.length, layer.reach)
        high = min(-(-end // granule), first + count)
        if low < high:
            result[low - first : high - first] = _segment_entries(layer, segment, granule, low, high)
    return result


def entry_at(layer: PlacedLayer, segment: Segment, position: int) -> tuple[int, int]:
    """The map entry for virtual byte ``position`` (a multiple of 512), and how far it holds."""
    end = min(segment.start + segment.length, layer.reach)
    match segment:
        case Table():
            block = (position - segment.start) // segment.block
            raw = read_raw_entries(segment, layer.source(segment.source), block, 1)
            entry = int(_block_entries(layer, segment, raw)[0])
            begin = segment.start + block * segment.block
            if entry >= DATA_FLOOR:
                entry += (position - begin) >> UNIT_SHIFT
            return entry, min(end, begin + segment.block)
        case Linear():
            source = layer.first_source + segment.source
            offset = segment.offset + position - segment.start
            return pack(BlockState.DATA, source, offset, in_place=layer.owned), end
        case Zeros():
            return layer.zero_entry(), end


def _segment_entries(layer: PlacedLayer, segment: Segment, granule: int, low: int, high: int) -> Entries:
    match segment:
        case Table():
            return _table_entries(layer, segment, granule, low, high)
        case Linear():
            return _linear_entries(layer, segment, granule, low, high)
        case Zeros():
            return np.full(high - low, layer.zero_entry(), np.uint64)


def _linear_entries(layer: PlacedLayer, segment: Linear, granule: int, low: int, high: int) -> Entries:
    source = layer.first_source + segment.source
    start = segment.offset + low * granule - segment.start
    base = pack(BlockState.DATA, source, start, in_place=layer.owned)
    return np.uint64(base) + np.arange(high - low, dtype=np.uint64) * np.uint64(granule >> UNIT_SHIFT)


def _table_entries(layer: PlacedLayer, table: Table, granule: int, low: int, high: int) -> Entries:
    per_block = table.block // granule
    origin = table.start // granule
    first = (low - origin) // per_block
    last = (high - origin - 1) // per_block
    raw = read_raw_entries(table, layer.source(table.source), first, last - first + 1)
    blocks = _block_entries(layer, table, raw)
    if per_block == 1:
        return blocks
    skip = low - origin - first * per_block
    return _spread(blocks, per_block, granule)[skip : skip + high - low]


def _block_entries(layer: PlacedLayer, table: Table, raw: Entries) -> Entries:
    entry = table.entry
    states = states_of(entry, raw)
    data = states == int(BlockState.DATA)
    broken = data & outside(table, layer.source(table.source), raw)
    data &= ~broken
    states[broken] = int(BlockState.CORRUPT)
    tags = np.uint64((layer.first_source + table.source) << TAG_SHIFT)
    result = (states << np.uint64(STATE_SHIFT)) | tags
    offsets = (raw & np.uint64(entry.mask)) * np.uint64(entry.scale) + np.uint64(entry.base)
    in_place = np.uint64(IN_PLACE if layer.owned else 0)
    result[data] |= (offsets[data] >> np.uint64(UNIT_SHIFT)) | in_place
    result[states == int(BlockState.ABSENT)] = 0
    return result


def _spread(blocks: Entries, per_block: int, granule: int) -> Entries:
    steps = np.arange(per_block, dtype=np.uint64) * np.uint64(granule >> UNIT_SHIFT)
    moves = (blocks >> np.uint64(STATE_SHIFT)) == int(BlockState.DATA)
    spread: Entries = np.repeat(blocks, per_block)
    spread += np.repeat(moves.astype(np.uint64), per_block) * np.tile(steps, len(blocks))
    return spread
