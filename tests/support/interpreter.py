"""A slow, obvious interpreter of the descriptions: what an image means, one entry at a time.

It shares nothing with the engine but the vocabulary, and the engine is held against it. A chain is a
list of images, top first; an image is a tuple of its layer and the bytes of the layer's files:
``(layer, data)``, or ``(layer, data0, data1)`` for a layer with two sources.

The rules it spells out: the first layer that says anything decides; a zero hides the parent; a layer
that is shorter than the disk ends the chain where it ends (its own content is then "nothing", whatever
lies below it); a block that doesn't lie wholly in its file is corrupt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from drivebay.blockmap import BlockState, Layer, Linear, Segment, Table, Zeros
from drivebay.model import ExtentState

File = bytes | bytearray | memoryview
Image = tuple[Layer, *tuple[File, ...]]


class CorruptPointerError(Exception):
    """A table entry points where it must not; ``depth`` and ``block`` tell which."""

    def __init__(self, depth: int, block: int) -> None:
        super().__init__(f"corrupt entry of block {block} in the layer at depth {depth}")
        self.depth = depth
        self.block = block


class Piece(NamedTuple):
    """What ``length`` bytes of the disk are; ``source`` and ``offset`` say where data lie."""

    length: int
    state: ExtentState
    depth: int | None = None
    source: int | None = None
    offset: int | None = None


class _Answer(NamedTuple):
    """What one layer says of a position, and up to which position it holds."""

    state: BlockState
    end: int
    source: int = 0
    offset: int = 0


def read_layers(images: Sequence[Image], offset: int, length: int) -> bytes:
    """The bytes ``offset .. offset+length`` of the disk; raises `CorruptPointerError`."""
    result = bytearray()
    while len(result) < length:
        piece = state_at(images, offset + len(result))
        count = min(piece.length, length - len(result))
        result += _bytes_of(images, piece, count)
    return bytes(result)


def state_at(images: Sequence[Image], position: int) -> Piece:
    """What the disk is at ``position``, and for how many bytes at least; raises `CorruptPointerError`."""
    end = images[0][0].facts.size
    if not 0 <= position < end:
        raise ValueError(f"position {position} is not on the disk of {end} bytes")
    for depth, image in enumerate(images):
        if position >= image[0].facts.size:
            break
        answer = _ask(image, depth, position)
        end = min(end, answer.end)
        if answer.state is BlockState.ZERO:
            return Piece(end - position, ExtentState.ZERO, depth)
        if answer.state is BlockState.DATA:
            return Piece(end - position, ExtentState.DATA, depth, answer.source, answer.offset)
    return Piece(end - position, ExtentState.UNALLOCATED)


def _bytes_of(images: Sequence[Image], piece: Piece, count: int) -> bytes:
    if piece.state is not ExtentState.DATA:
        return bytes(count)
    assert piece.depth is not None
    assert piece.source is not None
    assert piece.offset is not None
    _, *files = images[piece.depth]
    stored = bytes(files[piece.source][piece.offset : piece.offset + count])
    return stored.ljust(count, b"\0")  # a raw file may end within its last sector


def _ask(image: Image, depth: int, position: int) -> _Answer:
    segment = next(s for s in image[0].segments if s.start <= position < s.start + s.length)
    return _ask_segment(image, segment, depth, position)


def _ask_segment(image: Image, segment: Segment, depth: int, position: int) -> _Answer:
    end = segment.start + segment.length
    match segment:
        case Zeros():
            return _Answer(BlockState.ZERO, end)
        case Linear():
            return _Answer(BlockState.DATA, end, segment.source, segment.offset + position - segment.start)
        case Table():
            return _ask_table(image, segment, depth, position)


def _ask_table(image: Image, table: Table, depth: int, position: int) -> _Answer:
    _, *files = image
    file = files[table.source]
    block = (position - table.start) // table.block
    begin = table.start + block * table.block
    end = min(begin + table.block, table.start + table.length)
    raw = _raw_entry(table, file, block)
    state = _state_of(table, raw)
    where = table.entry.base + (raw & table.entry.mask) * table.entry.scale
    outside = where + table.block > len(file)
    if state is BlockState.CORRUPT or (state is BlockState.DATA and outside):
        raise CorruptPointerError(depth, block)
    return _Answer(state, end, table.source, where + position - begin)


def _raw_entry(table: Table, file: File, block: int) -> int:
    where = table.root + block * table.entry.width
    stored = bytes(file[where : where + table.entry.width])
    return int.from_bytes(stored, "little" if table.entry.byte_order == "<" else "big")


def _state_of(table: Table, raw: int) -> BlockState:
    for rule in table.entry.rules:
        if raw & rule.mask == rule.value:
            return rule.state
    return BlockState.DATA
