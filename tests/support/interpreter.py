"""A slow, obvious interpreter of the descriptions: what an image means, one entry at a time.

It shares nothing with the engine but the vocabulary, and the engine is held against it. A chain is a
list of images, top first; an image is a tuple of its layer and the bytes of the layer's files:
``(layer, data)``, or ``(layer, data0, data1)`` for a layer with two sources.

The rules it spells out: the first layer that says anything decides; a zero hides the parent; a layer
that is shorter than the disk ends the chain where it ends (its own content is then "nothing", whatever
lies below it); a block that doesn't lie in its file (the last one: the part that the disk has) is
corrupt, and so are a table, a leaf table or a bitmap outside of it.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from drivebay.blockmap import (
    BlockState,
    Codec,
    Entry,
    Layer,
    Linear,
    Packed,
    PackedEntry,
    Presence,
    PresencePlace,
    Segment,
    Table,
    Zeros,
)
from drivebay.model import SECTOR, ExtentState
from support.unpacking import UnpackError, unpack

File = bytes | bytearray | memoryview
Image = tuple[Layer, *tuple[File, ...]]


class CorruptPointerError(Exception):
    """A table entry points where it must not; ``depth`` and ``block`` (or segment) tell which."""

    def __init__(self, depth: int, block: int) -> None:
        super().__init__(f"corrupt entry of block {block} in the layer at depth {depth}")
        self.depth = depth
        self.block = block


class Record(NamedTuple):
    """A packed record: up to ``size`` bytes at ``offset`` of ``source`` hold ``length`` bytes.

    ``skip`` of them come before the position that was asked for.
    """

    codec: Codec
    source: int
    offset: int
    size: int
    length: int
    skip: int
    block: int


class Piece(NamedTuple):
    """What ``length`` bytes of the disk are; ``source`` and ``offset`` say where data lie.

    Packed data have a ``record`` instead.
    """

    length: int
    state: ExtentState
    depth: int | None = None
    source: int | None = None
    offset: int | None = None
    record: Record | None = None


class _Answer(NamedTuple):
    """What one layer says of a position, and up to which position it holds."""

    state: BlockState
    end: int
    source: int = 0
    offset: int = 0
    record: Record | None = None


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
        if answer.record is not None:
            return Piece(end - position, ExtentState.DATA, depth, record=answer.record)
        if answer.state is BlockState.DATA:
            return Piece(end - position, ExtentState.DATA, depth, answer.source, answer.offset)
    return Piece(end - position, ExtentState.UNALLOCATED)


def _bytes_of(images: Sequence[Image], piece: Piece, count: int) -> bytes:
    if piece.state is not ExtentState.DATA:
        return bytes(count)
    assert piece.depth is not None
    _, *files = images[piece.depth]
    if piece.record is not None:
        return _unpacked(files, piece.record, piece.depth)[:count]
    assert piece.source is not None
    assert piece.offset is not None
    stored = bytes(files[piece.source][piece.offset : piece.offset + count])
    return stored.ljust(count, b"\0")  # a file may end within its last sector, or block (`short_tail`)


def _unpacked(files: Sequence[File], record: Record, depth: int) -> bytes:
    packed = bytes(files[record.source][record.offset : record.offset + record.size])
    try:
        return unpack(record.codec, packed, record.length)[record.skip :]
    except UnpackError as error:
        raise CorruptPointerError(depth, record.block) from error


def _ask(image: Image, depth: int, position: int) -> _Answer:
    segment = next(s for s in image[0].segments if s.start <= position < s.start + s.length)
    return _ask_segment(image, segment, depth, position)


def _ask_segment(image: Image, segment: Segment, depth: int, position: int) -> _Answer:
    end = segment.start + segment.length
    match segment:
        case Zeros():
            return _Answer(BlockState.ZERO, end)
        case Linear():
            return _ask_linear(image, segment, depth, position)
        case Packed():
            return _ask_packed(segment, position)
        case Table():
            return _Asked(image, segment, depth, position).answer()


def _ask_linear(image: Image, segment: Linear, depth: int, position: int) -> _Answer:
    _, *files = image
    where = segment.offset + position - segment.start
    file_end = -(-len(files[segment.source]) // SECTOR) * SECTOR
    if where >= file_end:
        raise CorruptPointerError(depth, image[0].segments.index(segment))
    end = segment.start + min(segment.length, file_end - segment.offset)
    return _Answer(BlockState.DATA, end, segment.source, where)


def _ask_packed(segment: Packed, position: int) -> _Answer:
    number = bisect.bisect_right(segment.runs, position, key=lambda run: run.start) - 1
    following = segment.runs[number + 1 : number + 2]
    end = following[0].start if following else segment.start + segment.length
    run = segment.runs[number] if number >= 0 else None
    if run is None or position >= run.start + run.length:
        return _Answer(BlockState.ZERO, end)
    skip = position - run.start
    record = Record(run.codec, segment.source, run.offset, run.size, run.length, skip, number)
    return _Answer(BlockState.PACKED, run.start + run.length, record=record)


@dataclass
class _Asked:
    """A position in a table's segment, and the block that it is in."""

    image: Image
    table: Table
    depth: int
    position: int

    def __post_init__(self) -> None:
        self.files = self.image[1:]
        self.block = (self.position - self.table.start) // self.table.block
        self.begin, self.length = self.table.span(self.block)

    def corrupt(self) -> CorruptPointerError:
        return CorruptPointerError(self.depth, self.block)

    def answer(self) -> _Answer:
        place, found = self._entry_place()
        if place is None:
            return _Answer(found, self.begin + self.length)
        raw = self._number(place, self.table.entry)
        state = self.table.entry.state(raw)
        offset = self.table.entry.offset(raw)
        match state:
            case BlockState.DATA:
                return self._data(offset)
            case BlockState.SPLIT:
                return self._split(place, offset)
            case BlockState.PACKED:
                return self._packed(raw)
            case BlockState.CORRUPT:
                raise self.corrupt()
        return _Answer(state, self.begin + self.length)

    def _entry_place(self) -> tuple[int | None, BlockState]:
        """Where the block's entry lies; ``None`` and a state where the directory has the answer."""
        table, directory = self.table, self.table.directory
        if directory is None:
            foreign = self.block // table.interleave if table.interleave else 0
            return table.root + (self.block + foreign) * table.entry.step, BlockState.DATA
        upper, lower = divmod(self.block, directory.per_leaf)
        if upper >= directory.count:
            raise self.corrupt()
        raw = self._number(table.root + upper * directory.entry.step, directory.entry)
        state = directory.entry.state(raw)
        if state is BlockState.CORRUPT:
            raise self.corrupt()
        if state is not BlockState.DATA:
            return None, state
        return directory.entry.offset(raw) + lower * table.entry.step, state

    def _number(self, place: int, entry: Entry) -> int:
        stored = self._stored(self.table.source, place, entry.width)
        return int.from_bytes(stored, "little" if entry.byte_order == "<" else "big")

    def _stored(self, source: int, place: int, length: int) -> bytes:
        stored = bytes(self.files[source][place : place + length]) if place >= 0 else b""
        if len(stored) < length:
            raise self.corrupt()
        return stored

    def _data(self, offset: int) -> _Answer:
        self._check_inside(offset)
        where = offset + self.position - self.begin
        return _Answer(BlockState.DATA, self.begin + self.length, self.table.data, where)

    def _check_inside(self, offset: int) -> None:
        needed = 1 if self.table.short_tail else self.length
        if offset < 0 or offset + needed > len(self.files[self.table.data]):
            raise self.corrupt()

    def _packed(self, raw: int) -> _Answer:
        packed = self.table.packed
        assert packed is not None
        start = (raw & packed.mask) * packed.scale
        offset = start + packed.header
        size = _packed_size(packed, raw, start) - packed.header
        if start >= len(self.files[self.table.data]):
            raise self.corrupt()
        skip = self.position - self.begin
        record = Record(packed.codec, self.table.data, offset, size, self.length, skip, self.block)
        return _Answer(BlockState.PACKED, self.begin + self.length, record=record)

    def _split(self, place: int, offset: int) -> _Answer:
        presence = self.table.presence
        assert presence is not None
        unit = presence.unit
        states = _SPLIT[presence.place](self, presence, place, offset)
        first = (self.position - self.begin) // unit
        end = next((n for n in range(first, len(states)) if states[n] is not states[first]), len(states))
        if states[first] is BlockState.CORRUPT:
            raise self.corrupt()
        border = min(self.begin + end * unit, self.begin + self.length)
        return _Answer(states[first], border, self.table.data, offset + self.position - self.begin)

    def lead(self, presence: Presence, _place: int, offset: int) -> list[BlockState]:
        """The units' states by the bitmap in front of the block."""
        self._check_inside(offset)
        bitmap = self._bitmap(offset - presence.lead, 0)
        return _by_bits(presence, bitmap)

    def interleaved(self, presence: Presence, _place: int, offset: int) -> list[BlockState]:
        """The units' states by the bitmap block that a foreign entry points to."""
        self._check_inside(offset)
        table, entry = self.table, presence.entry or self.table.entry
        group, number = divmod(self.block, table.interleave)
        foreign = group * (table.interleave + 1) + table.interleave
        raw = self._number(table.root + foreign * table.entry.step, entry)
        if entry.state(raw) is not BlockState.DATA:
            raise self.corrupt()
        bitmap = self._bitmap(entry.offset(raw), number * (table.block // presence.unit))
        return _by_bits(presence, bitmap)

    def beside(self, presence: Presence, place: int, offset: int) -> list[BlockState]:
        """The units' states by the bits behind the entry."""
        behind = place + self.table.entry.width
        stored = self._stored(self.table.source, behind, 8)
        bits = int.from_bytes(stored, "little" if self.table.entry.byte_order == "<" else "big")
        data, zero = bits & 0xFFFFFFFF, bits >> 32
        if offset:
            self._check_inside(offset)
        elif self.table.data == self.table.source:
            zero |= data  # nothing can lie where the header is
        return [_by_two_bits(data >> n & 1, zero >> n & 1, presence.clear) for n in range(32)]

    def _bitmap(self, offset: int, first: int) -> list[int]:
        """One bit for each unit of the block, in the order of the units, from number ``first`` on."""
        presence = self.table.presence
        assert presence is not None
        count = self.table.block // presence.unit
        low, high = first // 8, -(-(first + count) // 8)
        stored = self._stored(self.table.data, offset + low, high - low)
        order = range(8) if presence.bit_order == "lsb" else range(7, -1, -1)
        bits = [byte >> n & 1 for byte in stored for n in order]
        return bits[first % 8 : first % 8 + count]


def _by_bits(presence: Presence, bits: list[int]) -> list[BlockState]:
    return [BlockState.DATA if bit else presence.clear for bit in bits]


def _by_two_bits(data: int, zero: int, clear: BlockState) -> BlockState:
    if zero:
        return BlockState.CORRUPT if data else BlockState.ZERO
    return BlockState.DATA if data else clear


def _packed_size(packed: PackedEntry, raw: int, start: int) -> int:
    """How many bytes from ``start`` on may belong to the record."""
    if not packed.sectors_mask:
        return packed.longest + packed.header
    sectors = (raw >> packed.sectors_shift & packed.sectors_mask) + 1
    return min((start // SECTOR + sectors) * SECTOR - start, packed.longest + packed.header)


_SPLIT: dict[PresencePlace, Callable[[_Asked, Presence, int, int], list[BlockState]]] = {
    PresencePlace.LEAD: _Asked.lead,
    PresencePlace.BESIDE: _Asked.beside,
    PresencePlace.INTERLEAVED: _Asked.interleaved,
}
