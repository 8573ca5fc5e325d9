"""Whole pages decoded with numpy, held against the slow interpreter, on random descriptions."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest

from drivebay.blockmap import BlockState, Entry, Layer, Linear, Rule, Segment, Table, Zeros
from drivebay.engine.disk import Disk
from drivebay.engine.mapentry import offset_of, source_of, state_of
from drivebay.engine.pagemap import PageMap, Piece
from drivebay.engine.source import FileSource, OpenedLayer
from drivebay.engine.tables import distinct
from drivebay.errors import StorageError
from drivebay.model import ExtentState, ImageFacts
from support.interpreter import CorruptPointerError, Image, state_at

KIB = 1 << 10
STATES = {ExtentState.UNALLOCATED: BlockState.ABSENT, ExtentState.ZERO: BlockState.ZERO}


def opened(layer: Layer, *files: bytes) -> OpenedLayer:
    return OpenedLayer(layer, tuple(memory_source(file) for file in files))


def memory_source(data: bytes) -> FileSource:
    fd = os.memfd_create("source")
    os.pwrite(fd, data, 0)
    return FileSource(fd, "/memory", writable=True)


class RandomTable:
    """A table segment with random entries of all states, and the file that it lies in."""

    def __init__(self, draw: random.Random, start: int, length: int, block: int, units: int) -> None:
        width: Literal[4, 8] = draw.choice((4, 8))
        order: Literal["<", ">"] = draw.choice(("<", ">"))
        lead = draw.choice((0, 512, 4096))
        root = draw.randrange(0, 4096)
        count = -(-length // block)
        base = -(-(root + count * width) // 512) * 512 + draw.choice((0, 512, 1536))
        rules = (Rule(0xFF00_0000, 0, BlockState.ABSENT), Rule(0xFFFF_FFFF, 1 << 24, BlockState.ZERO))
        entry = Entry(width, order, rules, mask=0xFFFF, scale=block + lead, base=base + lead)
        raws = [
            draw.choice((0, 1 << 24, 2 << 24 | draw.randrange(units), 2 << 24 | draw.randrange(units + 2)))
            for _ in range(count)
        ]
        name: Literal["little", "big"] = "little" if order == "<" else "big"
        table = b"".join(raw.to_bytes(width, name) for raw in raws)
        self.segment = Table(start, length, block, 0, root, entry)
        self.file = (bytes(root) + table).ljust(base, b"\0") + bytes(units * (block + lead))


def random_image(draw: random.Random, size: int) -> tuple[Image, OpenedLayer]:
    block = draw.choice((64, 128, 512)) * KIB
    table = RandomTable(draw, 0, size, block, units=6)
    kind = draw.randrange(3)
    segments: tuple[Segment, ...] = (table.segment,)
    files: tuple[bytes, ...] = (table.file,)
    if kind == 1:  # a table, then linear data in a second file
        cut = draw.randrange(1, size // block) * block
        table = RandomTable(draw, 0, cut, block, units=4)
        segments = (table.segment, Linear(cut, size - cut, 1, 1024))
        files = (table.file, bytes(1024 + size - cut))
    elif kind == 2:  # three segments, none of them where a granule begins
        one, two = sorted(draw.sample(range(512, size, 512), 2))
        segments = (Linear(0, one, 0, 512), Zeros(one, two - one), Linear(two, size - two, 0, 8192))
        files = (bytes(8192 + size),)
    layer = Layer(ImageFacts("test", "test", size, block), segments)
    return (layer, *files), opened(layer, *files)


@pytest.mark.parametrize("seed", range(25))
def test_pages_say_what_the_interpreter_says(seed: int) -> None:
    draw = random.Random(seed)
    sizes = [draw.randrange(3000, 12_000) * 512 for _ in range(draw.randrange(1, 4))]
    pairs = [random_image(draw, size) for size in sizes]
    images = [image for image, _ in pairs]
    page_map = PageMap([layer for _, layer in pairs], sizes[0], 1 << 20)
    for index in page_map.span(0, sizes[0]):
        page_map.install(index, *page_map.build(range(index, index + 1))[0], range(0))
    position = 0
    for piece in page_map.pieces(0, sizes[0]):
        assert piece.start == position
        position += piece.length
        _compare(page_map, piece, images)
    assert position == sizes[0]
    _compare_extents([layer for _, layer in pairs], list(page_map.pieces(0, sizes[0])))


def _compare_extents(layers: Sequence[OpenedLayer], pieces: list[Piece]) -> None:
    with Disk(layers) as disk:
        for piece in pieces:
            if piece.state is BlockState.CORRUPT:
                continue
            (extent,) = disk.extents(piece.start, piece.length)
            assert STATES.get(extent.state, BlockState.DATA) is piece.state
            assert extent.offset in (None, piece.offset)
        sound = [piece for piece in pieces if piece.state is not BlockState.CORRUPT]
        if len(sound) == len(pieces):
            assert sum(extent.length for extent in disk.extents()) == disk.size


def _compare(page_map: PageMap, piece: Piece, images: Sequence[Image]) -> None:
    position = piece.start
    while position < piece.start + piece.length:
        if piece.state is BlockState.CORRUPT:
            with pytest.raises(CorruptPointerError) as caught:
                state_at(images, position)
            assert page_map.depth_of(piece.source) == caught.value.depth
            position += 64 * KIB - position % (64 * KIB)
            continue
        wanted = state_at(images, position)
        assert piece.state is STATES.get(wanted.state, BlockState.DATA)
        if wanted.state is ExtentState.DATA:
            source = sum(len(image) - 1 for image in images[: wanted.depth]) + (wanted.source or 0)
            assert (piece.source, piece.offset + position - piece.start) == (source, wanted.offset)
        elif wanted.state is ExtentState.ZERO:
            assert page_map.depth_of(piece.source) == wanted.depth
        position += wanted.length


def test_a_block_at_the_files_end_is_whole_or_corrupt() -> None:
    block = 64 * KIB
    entry = Entry(4, "<", (), mask=0xFFFF_FFFF, scale=block, base=512)
    layer = Layer(ImageFacts("test", "test", 2 * block), (Table(0, 2 * block, block, 0, 0, entry),))
    table = (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
    for length, states in (
        (512 + 2 * block, [BlockState.DATA, BlockState.DATA]),
        (512 + 2 * block - 1, [BlockState.DATA, BlockState.CORRUPT]),
        (512 + block - 1, [BlockState.CORRUPT, BlockState.CORRUPT]),
        (512, [BlockState.CORRUPT, BlockState.CORRUPT]),
    ):
        page_map = PageMap([opened(layer, table.ljust(length, b"\0"))], 2 * block, 4096)
        assert [state_of(entry) for entry in page_map.build(range(1))[0][0]] == states


def test_the_highest_entries_do_not_wrap_around() -> None:
    block = 64 << 20
    entry = Entry(4, "<", (), mask=0xFFFF_FFFF, scale=block + block, base=0xFFFF_FE00)
    layer = Layer(ImageFacts("test", "test", block), (Table(0, block, block, 0, 0, entry),))
    page_map = PageMap([opened(layer, b"\xff" * 4 + bytes(508))], block, 4096)
    assert {state_of(entry) for entry in page_map.build(range(1))[0][0]} == {BlockState.CORRUPT}


def test_a_table_that_was_truncated_is_an_error() -> None:
    block = 64 * KIB
    entry = Entry(4, "<", (), mask=0xFFFF_FFFF, scale=block, base=4096)
    layer = Layer(ImageFacts("test", "test", 900 * block), (Table(0, 900 * block, block, 0, 0, entry),))
    chain = opened(layer, bytes(4096))
    os.ftruncate(chain.sources[0].fd, 1024)
    page_map = PageMap([chain], 900 * block, 4096)
    with pytest.raises(StorageError, match="ends here"):
        page_map.build(range(1, 2))[0]


def test_data_of_several_files_are_numbered_through_the_chain() -> None:
    layers = [
        Layer(ImageFacts("test", "test", 1 << 20), (Zeros(0, 512 * KIB), Linear(512 * KIB, 512 * KIB, n, 0)))
        for n in range(2)
    ]
    layers.append(Layer(ImageFacts("test", "test", 1 << 20), (Linear(0, 1 << 20, 0, 4096),)))
    chain = [opened(layer, bytes(1 << 20), bytes(1 << 20)) for layer in layers]
    page_map = PageMap(chain, 1 << 20, 4096)
    page_map.install(0, *page_map.build(range(1))[0], range(1))
    pieces = list(page_map.pieces(0, 1 << 20))
    assert [(p.state, p.source, p.offset) for p in pieces] == [
        (BlockState.ZERO, 0, 0),
        (BlockState.DATA, 0, 0),
    ]
    assert [page_map.depth_of(n) for n in range(6)] == [0, 0, 1, 1, 2, 2]
    runs = page_map.splits[0][0]
    assert [(run.start, offset_of(run.entry), source_of(run.entry)) for run in runs] == [
        (0, 0, 0),
        (512 * KIB, 0, 0),
    ]


def test_distinct_values_are_counted() -> None:
    values, times = distinct(np.array([7, 1, 7, 7, 3], np.uint64))
    assert (values.tolist(), times.tolist()) == ([1, 3, 7], [1, 1, 3])
    assert [len(found) for found in distinct(np.zeros(0, np.int64))] == [0, 0]
