"""Block tables as they lie in the files: entries by block number, in one level or two.

Whole ranges are read and judged at once with numpy; everything is driven by the description.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from drivebay.blockmap import BlockState, Entry, Table
from drivebay.engine.source import FileSource
from drivebay.model import SECTOR

Entries = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]
_Number = TypeVar("_Number", bound=np.integer[Any])
_DATA = int(BlockState.DATA)
_CORRUPT = int(BlockState.CORRUPT)
_SPLIT = int(BlockState.SPLIT)
_PACKED = int(BlockState.PACKED)


class Blocks(NamedTuple):
    """Neighbouring blocks of a table: parallel arrays.

    ``beside`` is the word behind each entry (0 where there is none); ``owned`` tells which may be
    written in place. Entries of a leaf table that isn't there have the raw value 0.
    """

    raw: Entries
    beside: Entries
    states: Entries
    owned: Flags


def position(table: Table, root: int, index: int) -> int:
    """Where entry ``index`` of the table (or leaf table) at ``root`` lies in the file."""
    foreign = index // table.interleave if table.interleave else 0
    return root + (index + foreign) * table.entry.step


def states_of(entry: Entry, raw: Entries) -> Entries:
    """The state of each raw entry: the first rule that matches, else DATA."""
    states = np.full(len(raw), _DATA, np.uint64)
    for rule in reversed(entry.rules):
        states[(raw & np.uint64(rule.mask)) == rule.value] = int(rule.state)
    return states


def offsets_of(entry: Entry, raw: Entries) -> Entries:
    """Where the bytes of each entry, taken as DATA, begin in the source."""
    numbers = (raw & np.uint64(entry.mask)) >> np.uint64(entry.shift)
    offsets: Entries = numbers * np.uint64(entry.scale) + np.uint64(entry.base)
    if entry.fine_mask:
        fine = (raw & np.uint64(entry.fine_mask)) >> np.uint64(entry.fine_shift)
        offsets += fine * np.uint64(entry.fine_scale)
    return offsets


def outside(entry: Entry, source: FileSource, raw: Entries, length: int) -> Flags:
    """Which raw entries, taken as DATA, point to ``length`` bytes that do not lie within the file."""
    last = source.size - length
    if last < entry.base:
        return np.ones(len(raw), np.bool_)
    numbers = (raw & np.uint64(entry.mask)) >> np.uint64(entry.shift)
    beyond: Flags = numbers > (last - entry.base) // entry.scale  # first: their offsets might overflow
    return beyond | (offsets_of(entry, raw) > last)


def distinct(values: npt.NDArray[_Number]) -> tuple[npt.NDArray[_Number], npt.NDArray[np.int64]]:
    """The values that there are, in order, and how often each is.

    As `numpy.unique`, which would import a part of numpy first that takes 60 ms.
    """
    ordered = np.sort(values)
    firsts = np.ones(len(ordered), np.bool_)
    firsts[1:] = ordered[1:] != ordered[:-1]
    return ordered[firsts], np.diff(np.append(np.flatnonzero(firsts), len(ordered)))


def read_entries(
    table: Table, source: FileSource, root: int, first: int, count: int
) -> tuple[Entries, Entries]:
    """Raw entries ``first .. first+count`` of the table at ``root``, and the words beside them."""
    begin = position(table, root, first)
    buffer = bytearray(position(table, root, first + count - 1) + table.entry.step - begin)
    source.read_into(memoryview(buffer), begin)
    words = np.frombuffer(buffer, f"{table.entry.byte_order}u{table.entry.width}")
    per_step = table.entry.step // table.entry.width
    columns = words.reshape(-1, per_step)
    if table.interleave:
        places = np.arange(first, first + count)
        columns = columns[places + places // table.interleave - (first + first // table.interleave)]
    raw = columns[:, 0].astype(np.uint64)
    return raw, columns[:, 1].astype(np.uint64) if per_step > 1 else np.zeros(count, np.uint64)


def read_blocks(table: Table, source: FileSource, data: FileSource, first: int, count: int) -> Blocks:
    """The blocks ``first .. first+count``; ``source`` has the table, ``data`` the blocks' bytes."""
    if table.directory is None:
        raw, beside = read_entries(table, source, table.root, first, count)
        return _judged(table, data, first, raw, beside, states_of(table.entry, raw))
    return _two_levels(table, source, data, first, count)


def read_directory(table: Table, source: FileSource, root: int, first: int, count: int) -> Entries:
    """Raw entries ``first .. first+count`` of the directory at ``root``."""
    assert table.directory is not None
    entry = table.directory.entry
    buffer = bytearray(count * entry.step)
    source.read_into(memoryview(buffer), root + first * entry.step)
    return np.frombuffer(buffer, f"{entry.byte_order}u{entry.width}").astype(np.uint64)


def leaf_states(table: Table, source: FileSource, raw: Entries) -> Entries:
    """The states of directory entries; those that point outside of the file are CORRUPT."""
    assert table.directory is not None
    states = states_of(table.directory.entry, raw)
    size = table.directory.per_leaf * table.entry.step
    beyond = outside(table.directory.entry, source, raw, size)
    states[(states == _DATA) & beyond] = _CORRUPT
    return states


def _two_levels(table: Table, source: FileSource, data: FileSource, first: int, count: int) -> Blocks:
    assert table.directory is not None
    per_leaf, entry = table.directory.per_leaf, table.directory.entry
    low = first // per_leaf
    raw_leaves = read_directory(table, source, table.root, low, (first + count - 1) // per_leaf - low + 1)
    states_of_leaves = leaf_states(table, source, raw_leaves)
    raw, beside, states = (np.zeros(count, np.uint64) for _ in range(3))
    shared = np.zeros(count, np.bool_)
    for number, (leaf, state) in enumerate(zip(raw_leaves.tolist(), states_of_leaves.tolist(), strict=True)):
        begin = max((low + number) * per_leaf, first)
        end = min((low + number + 1) * per_leaf, first + count)
        part = slice(begin - first, end - first)
        if state != _DATA:
            states[part] = state
            continue
        root = entry.offset(leaf)
        raw[part], beside[part] = read_entries(table, source, root, begin % per_leaf, end - begin)
        states[part] = states_of(table.entry, raw[part])
        shared[part] = leaf & entry.owned != entry.owned
    blocks = _judged(table, data, first, raw, beside, states)
    return blocks._replace(owned=blocks.owned & ~shared)


def _beyond(table: Table, data: FileSource, first: int, raw: Entries) -> Flags:
    """Which entries, taken as DATA, point to blocks that do not lie within their file."""
    beyond = outside(table.entry, data, raw, SECTOR if table.short_tail else table.block)
    last = table.count - 1 - first
    if 0 <= last < len(raw) and not table.short_tail:
        beyond[last] = outside(table.entry, data, raw[last : last + 1], table.span(table.count - 1)[1])[0]
    return beyond


def _judged(
    table: Table, data: FileSource, first: int, raw: Entries, beside: Entries, states: Entries
) -> Blocks:
    if not states.any():  # of an empty disk's blocks none is anywhere
        return Blocks(raw, beside, states, np.zeros(len(raw), np.bool_))
    pointing = (states == _DATA) | ((states == _SPLIT) & (offsets_of(table.entry, raw) != 0))
    if pointing.any():
        states[pointing & _beyond(table, data, first, raw)] = _CORRUPT
    if table.packed is not None:
        where = (raw & np.uint64(table.packed.mask)) >= -(-data.size // table.packed.scale)
        states[(states == _PACKED) & where] = _CORRUPT
    owned = np.uint64(table.entry.owned)
    return Blocks(raw, beside, states, (raw & owned) == owned)
