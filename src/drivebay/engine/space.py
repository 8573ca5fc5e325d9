"""Where space for new blocks comes from: what every allocator offers, and what they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from drivebay.blockmap import BlockState, Field, Table
from drivebay.engine.change import Change
from drivebay.engine.source import FileSource, OpenedLayer
from drivebay.engine.tables import (
    Blocks,
    Entries,
    leaf_states,
    offsets_of,
    position,
    read_blocks,
    read_directory,
)
from drivebay.errors import ErrorKind, StorageError

_CHUNK = 1 << 20


class Space(Protocol):
    """An allocator; safe for many threads. Methods that touch files raise OSError or StorageError."""

    def recount(self) -> None:
        """Once, before the first write: find what is used and free. CORRUPT where writing is unsafe."""

    def take(self, oldest_operation: int, block: int) -> int | None:
        """Where new ``block`` may lie: within the file, where it reads as zeros; ``None``: nowhere.

        What operations from number ``oldest_operation`` on can still touch is not handed out.
        """

    def give_back(self, offset: int) -> None:
        """What `take` gave was never entered in a table."""

    def retire(self, raws: Sequence[int], newest_operation: int) -> None:
        """These raw entries are durably gone from the tables.

        Operations up to ``newest_operation`` may still use the bytes that they pointed to.
        """

    def clear(self, raws: Sequence[int]) -> None:
        """Nobody uses any more what these retired entries pointed to: the host gets the bytes back."""

    def shorten(self) -> None:
        """After the last commit: cut off what the file has ahead for further blocks, if that can be done."""

    def reservations(self) -> list[list[Change]]:
        """Stages of changes that must be durable before an entry may use what was taken."""

    def reserved(self) -> None:
        """What `reservations` said last is durable."""


class LeafSpace(Protocol):
    """An allocator that has room for leaf tables, too; as safe as `Space`."""

    def take_leaf(self) -> int:
        """Where a new leaf table may lie; only within a commit."""

    def retire_leaf(self, offset: int) -> None:
        """The leaf table at ``offset`` is durably gone from the directory."""


def used_offsets(table: Table, source: FileSource, data: FileSource) -> Iterator[Entries]:
    """Where the blocks of all entries lie that point to bytes of their own, chunk by chunk.

    Raises CORRUPT for entries that point outside of the file: a write would make them point to new data.
    """
    for _, blocks in stored_blocks(table, source, data):
        placed = blocks.states == int(BlockState.DATA)
        offsets = offsets_of(table.entry, blocks.raw)
        placed |= (blocks.states == int(BlockState.SPLIT)) & (offsets != 0)
        yield offsets[placed]


def stored_blocks(table: Table, source: FileSource, data: FileSource) -> Iterator[tuple[int, Blocks]]:
    """All blocks that have entries, chunk by chunk: number of the first, and what the file says of them.

    Raises CORRUPT as `used_offsets`.
    """
    for first, count in _stretches(table, source):
        blocks = read_blocks(table, source, data, first, count)
        if (blocks.states == int(BlockState.CORRUPT)).any():
            raise unsafe_table(source.path, table, "points outside the file")
        yield first, blocks


def ranges_with_tables(opened: OpenedLayer) -> Iterator[tuple[int, int]]:
    """The parts (offset, length) of the disk that a layer may have bytes for: no leaf table, no bytes."""
    for segment in opened.layer.segments:
        if not isinstance(segment, Table):
            yield segment.start, segment.length
            continue
        for first, count in _stretches(segment, opened.sources[segment.source]):
            begin = first * segment.block
            yield segment.start + begin, min(count * segment.block, segment.length - begin)


def _stretches(table: Table, source: FileSource) -> Iterator[tuple[int, int]]:
    """Ranges of blocks (first, count) with all entries: there are none where there is no leaf table."""
    if table.directory is None:
        yield from _chunks(0, table.count)
        return
    per_leaf = table.directory.per_leaf
    for number, _, states in _directory(table, source, table.root):
        present = np.flatnonzero(states == int(BlockState.DATA)) + number
        for run in np.split(present, np.flatnonzero(np.diff(present) > 1) + 1):
            if len(run):
                yield from _chunks(int(run[0]) * per_leaf, min((int(run[-1]) + 1) * per_leaf, table.count))


def _chunks(first: int, end: int) -> Iterator[tuple[int, int]]:
    return ((start, min(_CHUNK, end - start)) for start in range(first, end, _CHUNK))


def _directory(table: Table, source: FileSource, root: int) -> Iterator[tuple[int, Entries, Entries]]:
    """The entries of the directory at ``root``, chunk by chunk: number of the first, raw ones, states."""
    assert table.directory is not None
    for first, count in _chunks(0, -(-table.count // table.directory.per_leaf)):
        raw = read_directory(table, source, root, first, count)
        states = leaf_states(table, source, raw)
        if (states == int(BlockState.CORRUPT)).any():
            raise unsafe_table(source.path, table, "lies in a table that points outside the file")
        yield first, raw, states


def table_places(table: Table, source: FileSource) -> list[tuple[Entries, int]]:
    """What the table itself takes in its file: (beginnings, length of each) of its parts.

    Raises CORRUPT for a directory or mirror that points outside of the file.
    """
    if table.directory is None:
        end = position(table, table.root, table.count)
        return [(np.array([table.root], np.uint64), end - table.root)]
    places: list[tuple[Entries, int]] = []
    directory = table.directory
    count = -(-table.count // directory.per_leaf)
    for root in (table.root, *table.mirrors):
        for _, raw, states in _directory(table, source, root):
            leaves = offsets_of(directory.entry, raw[states == int(BlockState.DATA)])
            places.append((leaves, directory.per_leaf * table.entry.step))
        places.append((np.array([root], np.uint64), count * directory.entry.step))
    return places


def unsafe_table(path: str, table: Table, fault: str) -> StorageError:
    """The error for a table that must not be written."""
    return StorageError(
        ErrorKind.CORRUPT,
        f"an entry of its block table {fault}, so writing could destroy data; run 'drivebay check' on it, "
        "and open it read-only to save what can be saved",
        path=path,
        offset=table.root,
        operation="write",
    )


def encode(target: Field, value: int) -> bytes:
    """The bytes of a header field."""
    return value.to_bytes(target.width, "little" if target.byte_order == "<" else "big")
