"""Presence bitmaps: which parts of a block in state SPLIT its layer has."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from drivebay.blockmap import BlockState, Presence, PresencePlace, Table
from drivebay.engine.source import FileSource
from drivebay.engine.tables import Entries, Flags, offsets_of, position, states_of

_DATA = int(BlockState.DATA)
_CORRUPT = int(BlockState.CORRUPT)
_BESIDE_UNITS = 32


class SplitBlock(NamedTuple):
    """One block in state SPLIT: its number, raw entry, and the word beside that."""

    number: int
    raw: int
    beside: int


def unit_states(table: Table, source: FileSource, data: FileSource, block: SplitBlock) -> Entries:
    """The state of each presence unit of the block: DATA, ZERO, ABSENT or CORRUPT."""
    presence = table.presence
    if presence is None:
        return np.full(1, _CORRUPT, np.uint64)
    if presence.place is PresencePlace.BESIDE:
        return _beside(table, block)
    count = table.block // presence.unit
    if presence.place is PresencePlace.LEAD:
        where = table.entry.offset(block.raw) - presence.lead
        bits = _bits(data, where, 0, count, presence)
    else:
        bits = _interleaved(table, presence, source, data, block.number)
    if bits is None:
        return np.full(count, _CORRUPT, np.uint64)
    return np.where(bits, np.uint64(_DATA), np.uint64(int(presence.clear)))


def _beside(table: Table, block: SplitBlock) -> Entries:
    numbers = np.arange(_BESIDE_UNITS, dtype=np.uint64)
    word = np.uint64(block.beside)
    here = (word >> numbers) & np.uint64(1) == 1
    zero = (word >> (numbers + np.uint64(_BESIDE_UNITS))) & np.uint64(1) == 1
    states = np.where(here, np.uint64(_DATA), np.uint64(0))
    states[zero] = int(BlockState.ZERO)
    states[here & zero] = _CORRUPT
    if table.entry.offset(block.raw) == 0 and table.data_source is None:
        states[here] = _CORRUPT
    return states


def _bits(file: FileSource, where: int, first: int, count: int, presence: Presence) -> Flags | None:
    """Bits ``first .. first+count`` (multiples of 8) of the bitmap at ``where``, if it lies in the file."""
    begin, length = where + first // 8, -(-count // 8)
    if where < 0 or begin + length > file.size:
        return None
    buffer = bytearray(length)
    file.read_into(memoryview(buffer), begin)
    packed = np.frombuffer(buffer, np.uint8)
    lsb = presence.bit_order == "lsb"
    bits = np.unpackbits(packed, bitorder="little") if lsb else np.unpackbits(packed, bitorder="big")
    return bits[:count].astype(np.bool_)


def _foreign_entry(table: Table, source: FileSource, group: int) -> Entries:
    """The raw entry, in an array of one, that says where the bitmap block of a group of blocks is."""
    where = position(table, table.root, (group + 1) * table.interleave) - table.entry.step
    buffer = bytearray(table.entry.width)
    source.read_into(memoryview(buffer), where)
    return np.frombuffer(buffer, f"{table.entry.byte_order}u{table.entry.width}").astype(np.uint64)


def bitmap_blocks(table: Table, source: FileSource) -> tuple[Entries, int]:
    """Where the bitmap blocks of an INTERLEAVED table begin, and the length of each; else there are none."""
    presence = table.presence
    if presence is None or presence.place is not PresencePlace.INTERLEAVED:
        return np.zeros(0, np.uint64), 0
    groups = range(-(-table.count // table.interleave))
    raw = np.concatenate([_foreign_entry(table, source, group) for group in groups])
    entry = presence.entry or table.entry
    placed = states_of(entry, raw) == _DATA
    return offsets_of(entry, raw[placed]), table.interleave * table.block // presence.unit // 8


def _interleaved(
    table: Table, presence: Presence, source: FileSource, data: FileSource, number: int
) -> Flags | None:
    """The bits of block ``number``, from the bitmap block that the next foreign entry points to."""
    group, within = divmod(number, table.interleave)
    raw = _foreign_entry(table, source, group)
    entry = presence.entry or table.entry
    if int(states_of(entry, raw)[0]) != _DATA:
        return None
    count = table.block // presence.unit
    return _bits(data, int(offsets_of(entry, raw)[0]), within * count, count, presence)
