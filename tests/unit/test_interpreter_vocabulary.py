"""The interpreter on the vocabulary beyond one plain table, each description small enough to read."""

from __future__ import annotations

import bz2
import dataclasses
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from drivebay.blockmap import (
    BlockState,
    Codec,
    Directory,
    Entry,
    Layer,
    Packed,
    PackedEntry,
    PackedRun,
    Presence,
    PresencePlace,
    Rule,
    Segment,
    Table,
)
from drivebay.model import ExtentState, ImageFacts
from support.interpreter import CorruptPointerError, Image, read_layers, state_at
from support.packing import pack
from support.unpacking import UnpackError, unpack

UNIT = 512
ABSENT = Rule(0xFF, 0, BlockState.ABSENT)
ZERO = Rule(0xFF, 1, BlockState.ZERO)
IN_UNITS = Entry(4, "<", (ABSENT, ZERO), mask=0xFF, scale=UNIT)


def layer(size: int, *segments: Segment) -> Layer:
    return Layer(ImageFacts("test", "test", size), segments)


def fill(value: int, count: int = 1) -> bytes:
    return bytes([value]) * UNIT * count


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def sectors(*parts: bytes) -> bytes:
    """Each part in sectors of its own."""
    return b"".join(part.ljust(-(-len(part) // UNIT) * UNIT, b"\0") for part in parts)


def image(data: bytes, *more: bytes, blocks: int, entry: Entry = IN_UNITS, **fields: Any) -> Image:
    table = Table(
        **{"start": 0, "length": blocks * UNIT, "block": UNIT, "source": 0, "root": 0} | fields, entry=entry
    )
    return (layer(table.length, table), data, *more)


def states_of(chain: list[Image]) -> list[tuple[int, ExtentState, int | None]]:
    """Length, state and depth of all pieces."""
    found, position = [], 0
    while position < chain[0][0].facts.size:
        piece = state_at(chain, position)
        found.append((piece.length, piece.state, piece.depth))
        position += piece.length
    return found


def assert_corrupt(chain: list[Image], position: int, depth: int = 0) -> None:
    with pytest.raises(CorruptPointerError) as caught:
        read_layers(chain, position, 1)
    assert caught.value.depth == depth


def test_two_levels() -> None:
    directory = Directory(dataclasses.replace(IN_UNITS, base=UNIT), per_leaf=2, count=4)
    upper, leaf, other = words(0, 3, 1, 2), words(4, 1), words(0, 5)  # raw 2 is at offset 3 * UNIT
    data = sectors(upper, fill(0), fill(0), other, leaf, fill(5))
    chain = [image(data, blocks=8, directory=directory)]
    expected = bytearray(8 * UNIT)
    expected[2 * UNIT : 3 * UNIT] = data[4 * UNIT : 5 * UNIT]
    expected[7 * UNIT :] = fill(5)
    assert read_layers(chain, 0, 8 * UNIT) == expected
    assert [state for _, state, _ in states_of(chain)][3:6] == [ExtentState.ZERO] * 3


@pytest.mark.parametrize("upper", [(9, 0), (2, 0)], ids=["outside", "cut"])
def test_a_leaf_table_outside_of_the_file(upper: tuple[int, int]) -> None:
    data = sectors(words(*upper), fill(1)) + words(1)
    chain = [image(data, blocks=4, directory=Directory(IN_UNITS, per_leaf=2, count=2))]
    assert_corrupt(chain, UNIT)
    assert read_layers(chain, 2 * UNIT, UNIT) == fill(0)


def test_a_directory_that_is_too_short() -> None:
    chain = [image(words(0, 0), blocks=4, directory=Directory(IN_UNITS, per_leaf=1, count=2))]
    assert read_layers(chain, 0, UNIT) == fill(0)
    assert_corrupt(chain, 2 * UNIT)


def test_a_foreign_entry_follows_every_three() -> None:
    data = sectors(words(1, 2, 1, 0xEE, 1, 3), fill(0), fill(7), fill(8))
    assert read_layers([image(data, blocks=5, interleave=3)], 0, 5 * UNIT) == (
        fill(0) + fill(7) + fill(0, 2) + fill(8)
    )


def test_shift_base_and_stride() -> None:
    entry = Entry(4, ">", (ABSENT,), mask=0xFF00, scale=2 * UNIT, base=UNIT, shift=8, stride=8)
    data = sectors(struct.pack(">IIII", 0x1_0013, 0, 0x0213, 0)) + fill(0, 2) + fill(3) + fill(0) + fill(4)
    chain = [image(data, blocks=2, entry=dataclasses.replace(entry, rules=()))]
    assert read_layers(chain, 0, 2 * UNIT) == data[UNIT : 2 * UNIT] + data[5 * UNIT : 6 * UNIT]


def test_blocks_in_another_file() -> None:
    chain = [image(words(2, 1, 0), fill(0) + b"\x09" * 5, fill(6, 3), blocks=3, data_source=2)]
    assert read_layers(chain, 0, 3 * UNIT) == fill(6) + fill(0, 2)
    assert state_at(chain, 3)[:5] == (UNIT - 3, ExtentState.DATA, 0, 2, 2 * UNIT + 3)


def test_the_disk_may_end_within_its_last_block() -> None:
    data = sectors(words(0, 2), fill(1)) + b"half"
    chain = [image(data, blocks=2, length=UNIT + 4)]
    assert read_layers(chain, UNIT, 4) == b"half"


@pytest.mark.parametrize("short_tail", [False, True])
def test_a_file_that_ends_within_a_block(short_tail: bool) -> None:
    data = sectors(words(2, 3), b"") + fill(0) + b"cut"
    chain = [image(data, blocks=2, short_tail=short_tail)]
    if short_tail:
        assert read_layers(chain, 0, UNIT) == b"cut".ljust(UNIT, b"\0")
    else:
        assert_corrupt(chain, 0)
    assert_corrupt(chain, UNIT)  # this one doesn't even begin in the file


SPLIT = Entry(4, "<", (ABSENT, ZERO, Rule(0, 0, BlockState.SPLIT)), mask=0xFF, scale=UNIT)
BLOCK = 16 * UNIT
BELOW = (
    layer(BLOCK, Packed(0, BLOCK, 0, (PackedRun(0, BLOCK, 0, 99, Codec.ZLIB),))),
    zlib.compress(b"b" * BLOCK),
)


def in_lead(bitmap: bytes, order: Any, clear: BlockState = BlockState.ABSENT) -> Image:
    presence = Presence(PresencePlace.LEAD, UNIT, order, clear, lead=UNIT)
    entry = dataclasses.replace(SPLIT, base=UNIT)
    data = sectors(words(2), fill(0), bitmap.ljust(UNIT, b"\0")) + b"d" * BLOCK
    return image(data, blocks=16, block=BLOCK, entry=entry, presence=presence)


def only(*present: int) -> bytes:
    """What a block with these units shows over `BELOW`."""
    return b"".join((b"d" if unit in present else b"b") * UNIT for unit in range(16))


def test_a_bitmap_in_front_of_the_block() -> None:
    assert read_layers([in_lead(b"\x81\x40", "msb"), BELOW], 0, BLOCK) == only(0, 7, 9)
    assert read_layers([in_lead(b"\x81\x40", "lsb"), BELOW], 0, BLOCK) == only(0, 7, 14)
    assert states_of([in_lead(b"\x80\x01", "msb"), BELOW]) == [
        (UNIT, ExtentState.DATA, 0),
        (14 * UNIT, ExtentState.DATA, 1),
        (UNIT, ExtentState.DATA, 0),
    ]


def test_a_clear_bit_can_mean_zeros() -> None:
    top = in_lead(b"\xff\x00", "msb", BlockState.ZERO)
    assert read_layers([top, BELOW], 0, BLOCK) == b"d" * (BLOCK // 2) + bytes(BLOCK // 2)
    assert state_at([top, BELOW], BLOCK // 2)[:3] == (BLOCK // 2, ExtentState.ZERO, 0)


def test_a_bitmap_outside_of_the_file() -> None:
    top = in_lead(b"\xff\xff", "msb")
    assert_corrupt([(top[0], top[1][: 2 * UNIT + 1]), BELOW], 0)
    assert_corrupt([(top[0], top[1][:-1]), BELOW], 0)  # and a block


def beside(data: int, zeros: int, order: Any = "<") -> Image:
    bits = (zeros << 32 | data).to_bytes(8, "little" if order == "<" else "big")
    first = (2).to_bytes(8, "little" if order == "<" else "big")
    entry = Entry(8, order, (Rule(0, 0, BlockState.SPLIT),), mask=0xFF, scale=UNIT, stride=16)
    presence = Presence(PresencePlace.BESIDE, UNIT // 2)
    file = sectors(first + bits, fill(0)) + b"d" * BLOCK
    return image(file, blocks=16, block=BLOCK, entry=entry, presence=presence)


@pytest.mark.parametrize("order", ["<", ">"])
def test_bits_beside_the_entry(order: str) -> None:
    content = read_layers([beside(0b0011, 1 << 31, order), BELOW], 0, BLOCK)
    assert content == b"d" * UNIT + b"b" * (BLOCK - UNIT - UNIT // 2) + bytes(UNIT // 2)


def test_bits_beside_that_contradict_each_other() -> None:
    assert_corrupt([beside(0b011, 0b110), BELOW], UNIT // 2)
    assert read_layers([beside(0b011, 0b110), BELOW], UNIT, UNIT // 2) == bytes(UNIT // 2)


def interleaved(bitmaps: bytes, foreign: int) -> Image:
    entry = Entry(4, "<", (ABSENT, ZERO), mask=0xFF, scale=UNIT)
    presence = Presence(PresencePlace.INTERLEAVED, UNIT, entry=entry)
    data = sectors(words(3, 0, 2, 3, 3, foreign), fill(0), bitmaps) + b"d" * BLOCK
    return image(data, blocks=64, block=BLOCK, entry=SPLIT, interleave=2, presence=presence)


def test_bitmaps_behind_every_two_entries() -> None:
    (_, below) = BELOW
    chain = [interleaved(b"\x01\x80\x02\x00\x0f", 2), (layer(4 * BLOCK, BELOW[0].segments[0]), below)]
    assert read_layers(chain, 0, BLOCK) == only(0, 15)
    assert read_layers(chain[:1], 3 * BLOCK, BLOCK) == only(1).replace(b"b", b"\0")
    assert read_layers(chain[:1], 2 * BLOCK, BLOCK) == only(0, 15).replace(b"b", b"\0")


@pytest.mark.parametrize("foreign", [0, 1 << 6])
def test_a_bitmap_block_that_is_not_there(foreign: int) -> None:
    chain = [interleaved(b"\xff", foreign)]
    assert_corrupt(chain, 2 * BLOCK)
    assert read_layers(chain, 0, UNIT) == b"d" * UNIT


PACKED = Rule(0x80, 0x80, BlockState.PACKED)
TEXT = b"packed away " * 43


def packed_image(packed: bytes, raw: int, **fields: Any) -> Image:
    entry = Entry(4, "<", (ABSENT, PACKED), mask=0x7F, scale=UNIT)
    follow = PackedEntry(**{"codec": Codec.DEFLATE, "mask": 0x7F, "longest": 600} | fields)
    return image(sectors(words(0, raw)) + packed, blocks=2, entry=entry, packed=follow)


def deflated(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-15)


def test_packed_blocks() -> None:
    chain = [packed_image(b"12chars long" + deflated(TEXT) + b"junk", 0x81, scale=UNIT, header=12)]
    assert read_layers(chain, 0, 2 * UNIT) == fill(0) + TEXT[:UNIT]
    assert read_layers(chain, UNIT + 5, 7) == TEXT[5:12]
    assert states_of(chain)[1] == (UNIT, ExtentState.DATA, 0)


def test_packed_bytes_end_with_their_sectors() -> None:
    noise = b"".join(i.to_bytes(2, "big") for i in range(UNIT // 2))
    record = bytes(300) + deflated(noise)
    assert len(record) > UNIT
    fields = {"scale": 4, "longest": 2 * UNIT, "sectors_shift": 16, "sectors_mask": 3}
    raw = 0x80 | 75  # bytes 300: in the table's own sector
    both = packed_image(record, raw | 2 << 16, header=UNIT, **fields)
    one = packed_image(record, raw, header=UNIT, **fields)
    assert read_layers([both], UNIT, UNIT) == noise
    assert_corrupt([one], UNIT)


@pytest.mark.parametrize("packed", [b"", b"\xff\xff\xff", deflated(TEXT[:100])], ids=["none", "bad", "short"])
def test_damaged_packed_blocks(packed: bytes) -> None:
    assert_corrupt([packed_image(packed, 0x81, scale=UNIT)], UNIT)
    assert_corrupt([packed_image(packed, 0xBF, scale=UNIT)], UNIT)


def test_packed_segments() -> None:
    first, second = zlib.compress(b"1" * 700), bz2.compress(b"2" * 324)
    runs = (
        PackedRun(0, 700, 3, len(first), Codec.ZLIB),
        PackedRun(700, 324, 3 + len(first), len(second), Codec.BZIP2),
        PackedRun(2000, 3, 0, 3, Codec.STORED),
    )
    chain = [(layer(2048, Packed(0, 2048, 1, runs)), b"", b"abc" + first + second)]
    content = b"1" * 700 + b"2" * 324
    assert read_layers(chain, 0, 2048) == content + bytes(976) + b"abc" + bytes(45)
    assert states_of(chain)[2] == (976, ExtentState.ZERO, 0)
    assert read_layers(chain, 699, 2) == b"12"


PACKERS: dict[Codec, Callable[[bytes], bytes]] = {
    Codec.DEFLATE: deflated,
    Codec.ZLIB: zlib.compress,
    Codec.BZIP2: bz2.compress,
    Codec.LZMA: lzma.compress,
    Codec.ZSTD: lambda data: pack(Codec.ZSTD, data),
    Codec.LZFSE: lambda data: pack(Codec.LZFSE, data),
    Codec.ADC: lambda data: bytes([0x80 | 11]) + data[:12] + bytes([0x7F, 0, 11]) * 7 + bytes([0x3C, 11]) * 3,
}


@pytest.mark.parametrize("codec", PACKERS)
def test_codecs(codec: Codec) -> None:
    packed = PACKERS[codec](TEXT)
    assert unpack(codec, packed, len(TEXT)) == TEXT
    assert unpack(codec, packed, 500) == TEXT[:500]
    with pytest.raises(UnpackError):
        unpack(codec, packed[: len(packed) // 2], len(TEXT))
    with pytest.raises(UnpackError):
        unpack(codec, b"", 1)
