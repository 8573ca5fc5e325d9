"""Blocks that are there in part only, as other programs leave them: ours are wholly present."""

from __future__ import annotations

import random
from pathlib import Path

from drivebay.blockmap import BlockState, Presence, PresencePlace, Table
from support.images import read_layer

_MIB = 1 << 20


def can_be_thinned(path: Path) -> bool:
    """Whether the image's blocks have presence bitmaps."""
    return any(isinstance(segment, Table) and segment.presence for segment in read_layer(path).segments)


def thin_out(path: Path, seed: int) -> int:
    """Take parts of the blocks away from the image; returns from how many blocks."""
    layer = read_layer(path)
    data = bytearray(path.read_bytes())
    thinned = 0
    for segment in layer.segments:
        if isinstance(segment, Table) and segment.presence is not None:
            thinned += _Thinner(data, segment, segment.presence, random.Random(seed)).run()
    path.write_bytes(data)
    return thinned


class _Thinner:
    def __init__(self, data: bytearray, table: Table, presence: Presence, draw: random.Random) -> None:
        self._data = data
        self._table = table
        self._presence = presence
        self._draw = draw
        self._order = "little" if table.entry.byte_order == "<" else "big"

    def run(self) -> int:
        return sum(self._thin(block) for block in range(self._table.count))

    def _number(self, place: int, width: int) -> int:
        return int.from_bytes(self._data[place : place + width], self._order)  # type: ignore[arg-type]

    def _put(self, place: int, width: int, value: int) -> None:
        self._data[place : place + width] = value.to_bytes(width, self._order)  # type: ignore[arg-type]

    def _place(self, block: int) -> int | None:
        table, directory = self._table, self._table.directory
        if directory is None:
            foreign = block // table.interleave if table.interleave else 0
            return table.root + (block + foreign) * table.entry.step
        upper, lower = divmod(block, directory.per_leaf)
        raw = self._number(table.root + upper * directory.entry.step, directory.entry.width)
        if directory.entry.state(raw) is not BlockState.DATA:
            return None
        return directory.entry.offset(raw) + lower * table.entry.step

    def _thin(self, block: int) -> bool:
        place = self._place(block)
        if place is None:
            return False
        entry = self._table.entry
        raw = self._number(place, entry.width)
        if entry.state(raw) not in (BlockState.DATA, BlockState.SPLIT):
            return False
        match self._presence.place:
            case PresencePlace.LEAD:
                self._thin_bitmap(entry.offset(raw) - self._presence.lead)
            case PresencePlace.BESIDE:
                return self._thin_beside(place + entry.width)
            case PresencePlace.INTERLEAVED:
                self._thin_interleaved(block, place, raw)
        return True

    def _bits(self, count: int) -> list[int]:
        """Runs of many lengths, so that some units stay whole and some are mixed."""
        bits: list[int] = []
        while len(bits) < count:
            bits += [self._draw.randrange(2)] * self._draw.choice((1, 2, 7, 64, 300))
        return bits[:count]

    def _packed(self, bits: list[int]) -> bytes:
        packed = bytearray(-(-len(bits) // 8))
        for number, bit in enumerate(bits):
            shift = number % 8 if self._presence.bit_order == "lsb" else 7 - number % 8
            packed[number // 8] |= bit << shift
        return bytes(packed)

    def _thin_bitmap(self, place: int) -> None:
        packed = self._packed(self._bits(self._table.block // self._presence.unit))
        self._data[place : place + len(packed)] = packed

    def _thin_beside(self, place: int) -> bool:
        word = self._number(place, 8)
        if not word & 0xFFFFFFFF:
            return False
        gone = sum(bit << number for number, bit in enumerate(self._bits(32)))
        zero = gone & self._draw.getrandbits(32)
        self._put(place, 8, word & ~gone & 0xFFFFFFFF | zero << 32)
        return True

    def _thin_interleaved(self, block: int, place: int, raw: int) -> None:
        table = self._table
        entry = table.entry
        group, number = divmod(block, table.interleave)
        foreign = table.root + (group * (table.interleave + 1) + table.interleave) * entry.step
        how = self._presence.entry or entry
        bitmap_raw = self._number(foreign, entry.width)
        if how.state(bitmap_raw) is not BlockState.DATA:
            self._data += bytes(-len(self._data) % _MIB)
            data_flags = raw & ~entry.mask  # what says "there" of a block says so of a bitmap, too
            bitmap_raw = how.encode(len(self._data)) | data_flags
            self._data += bytes(_MIB)
            self._put(foreign, entry.width, bitmap_raw)
        count = table.block // self._presence.unit
        at = how.offset(bitmap_raw) + number * count // 8
        packed = self._packed(self._bits(count))
        self._data[at : at + len(packed)] = packed
        split = next(rule for rule in entry.rules if rule.state is BlockState.SPLIT)
        self._put(place, entry.width, raw & ~split.mask | split.value)
