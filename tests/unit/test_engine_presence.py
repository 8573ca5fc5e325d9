"""Presence bitmaps through the map: in the top layer and below another one."""

from __future__ import annotations

import os
import struct

import pytest

from drivebay.blockmap import (
    BlockState,
    Codec,
    Entry,
    Layer,
    Linear,
    PackedEntry,
    Presence,
    PresencePlace,
    Rule,
    Table,
)
from drivebay.engine.disk import Disk
from drivebay.engine.source import FileSource, OpenedLayer
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import ImageFacts

BLOCK = 256 << 10
SIZE = 4 * BLOCK
LEAD = 512
DATA_AT = 4096
ABSENT = Rule(0xFFFFFFFF, 0, BlockState.ABSENT)


def opened(layer: Layer, content: bytes) -> OpenedLayer:
    fd = os.memfd_create("image")
    os.pwrite(fd, content, 0)
    return OpenedLayer(layer, (FileSource(fd, "/memory", writable=False),))


def layer_of(table: Table) -> Layer:
    return Layer(ImageFacts("test", "test", SIZE, differencing=True), (table,))


def partly_present(sectors: range) -> OpenedLayer:
    """Block 1 is there, but only those of its sectors."""
    bits = sum(1 << (7 - number % 8) + 8 * (number // 8) for number in sectors)
    image = bytearray(DATA_AT + BLOCK)
    struct.pack_into("<I", image, 4, (DATA_AT - LEAD) // 512)
    image[DATA_AT - LEAD : DATA_AT] = bits.to_bytes(LEAD, "little")
    image[DATA_AT:] = b"here" * (BLOCK // 4)
    presence = Presence(PresencePlace.LEAD, 512, "msb", lead=LEAD)
    entry = Entry(4, "<", (ABSENT, Rule(0, 0, BlockState.SPLIT)), 0xFFFFFFFF, 512, LEAD)
    table = Table(0, SIZE, BLOCK, 0, 0, entry, presence=presence)
    return opened(layer_of(table), bytes(image))


def empty() -> OpenedLayer:
    entry = Entry(4, "<", (ABSENT,), 0xFFFFFFFF, 512)
    return opened(layer_of(Table(0, SIZE, BLOCK, 0, 0, entry)), bytes(4096))


def base() -> OpenedLayer:
    layer = Layer(ImageFacts("test", "test", SIZE), (Linear(0, SIZE, 0, 0),))
    return opened(layer, b"base" * (SIZE // 4))


@pytest.mark.parametrize("above", [0, 1, 3])
def test_parts_that_are_there_hide_the_parent(above: int) -> None:
    chain = [*(empty() for _ in range(above)), partly_present(range(3, 200)), base()]
    expected = bytearray(b"base" * (SIZE // 4))
    expected[BLOCK + 3 * 512 : BLOCK + 200 * 512] = b"here" * (197 * 128)
    with Disk(chain) as disk:
        assert disk.read(0, SIZE) == expected
        batch = [(BLOCK + at, memoryview(bytearray(4096))) for at in (0, 1024, 4096, 200 * 512 - 1024)]
        disk.read_batch(batch)
        assert all(view == expected[offset : offset + 4096] for offset, view in batch)
        assert [(e.start, e.depth) for e in disk.extents()] == [
            (0, above + 1),
            (BLOCK + 3 * 512, above),
            (BLOCK + 200 * 512, above + 1),
        ]


@pytest.mark.parametrize("where", [DATA_AT + BLOCK, 1 << 50, (1 << 61) - 1])
def test_a_packed_block_outside_of_the_file_is_corrupt(where: int) -> None:
    image = bytearray(DATA_AT + BLOCK)
    struct.pack_into("<Q", image, 0, where | 1 << 63)
    rules = (Rule(1 << 63, 1 << 63, BlockState.PACKED), Rule(0, 0, BlockState.ABSENT))
    packed = PackedEntry(Codec.ZLIB, (1 << 63) - 1, BLOCK)
    table = Table(0, SIZE, BLOCK, 0, 0, Entry(8, "<", rules, 0, 1), packed=packed)
    with Disk([opened(layer_of(table), bytes(image)), base()]) as disk:
        with pytest.raises(StorageError) as caught:
            disk.read(0, 512)
        assert caught.value.kind is ErrorKind.CORRUPT
        assert disk.read(BLOCK, 4) == b"base"
