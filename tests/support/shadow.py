"""A disk and what it must contain, side by side: every step is done to both and compared."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from drivebay.engine.batch import Outcome
from drivebay.engine.disk import Disk
from drivebay.model import Extent, ExtentState

MARK = 0xA5  # what views are filled with before a read, to see what was left untouched


class ShadowDisk:
    """Writes go to ``disk`` and to ``content``; reads are compared."""

    def __init__(self, disk: Disk, content: bytearray) -> None:
        self.disk = disk
        self.content = content
        assert disk.size == len(content)

    def write(self, offset: int, data: bytes, *, fua: bool = False) -> None:
        self.disk.write(offset, data, fua=fua)
        self.content[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int, *, unmap: bool = True, fua: bool = False) -> None:
        self.disk.zero(offset, length, unmap=unmap, fua=fua)
        self.content[offset : offset + length] = bytes(length)

    def discard(self, offset: int, length: int, *, fua: bool = False) -> None:
        self.disk.discard(offset, length, fua=fua)
        self.content[offset : offset + length] = bytes(length)

    def flush(self) -> None:
        self.disk.flush()

    def verify(self, offset: int = 0, length: int | None = None) -> None:
        """The range reads as it should."""
        length = len(self.content) - offset if length is None else length
        assert_same(self.disk.read(offset, length), self.content[offset : offset + length], offset)

    def write_batch(self, requests: list[tuple[int, bytes]]) -> list[Outcome]:
        """A batch of writes; what is left for later is written in the blocking form, in order."""
        outcomes = self.disk.write_batch([(offset, memoryview(data)) for offset, data in requests])
        for (offset, data), outcome in zip(requests, outcomes, strict=True):
            if outcome is Outcome.LATER:
                self.write(offset, data)
            else:
                assert outcome is Outcome.DONE
                self.content[offset : offset + len(data)] = data
        return outcomes

    def read_batch(self, ranges: list[tuple[int, int]]) -> list[Outcome]:
        """A batch of reads, each compared; a ZERO outcome must leave the view untouched."""
        views = [memoryview(bytearray([MARK]) * length) for _, length in ranges]
        requests = [(offset, view) for (offset, _), view in zip(ranges, views, strict=True)]
        outcomes = self.disk.read_batch(requests)
        for (offset, view), outcome in zip(requests, outcomes, strict=True):
            expected = self.content[offset : offset + len(view)]
            if outcome is Outcome.ZERO:
                assert all_zero(expected), f"ZERO at {offset}, but there are data"
                assert bytes(view) == bytes([MARK]) * len(view)
                continue
            if outcome is Outcome.LATER:
                self.disk.read_into(offset, view)
            assert_same(view, expected, offset)
        return outcomes


def assert_same(found: bytes | memoryview, expected: bytes | bytearray, offset: int) -> None:
    """Like ``assert found == expected``, but says where they differ rather than print megabytes."""
    if found != expected:
        at = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
        raise AssertionError(f"byte {offset + at} is {found[at]}, not {expected[at]}")


def all_zero(content: bytes | bytearray) -> bool:
    """Whether there is nothing but zeros."""
    return content.count(0) == len(content)


class RandomSteps:
    """Steps of a guest, drawn from a seeded source, over all blocks of a disk."""

    def __init__(self, seed: int, block: int) -> None:
        self.random = random.Random(seed)
        self.bytes = np.random.default_rng(seed).bytes
        self.block = block

    def extent(self, size: int) -> tuple[int, int]:
        """A range: sectors or odd bytes, within a block, across blocks, or whole blocks."""
        draw = self.random
        kind = draw.randrange(5)
        if kind == 0:  # whole blocks
            first = draw.randrange(-(-size // self.block)) * self.block
            return first, min(self.block * draw.choice((1, 1, 2)), size - first)
        if kind == 1:  # across the border of two blocks
            border = draw.randrange(1, -(-size // self.block)) * self.block
            offset = border - draw.randrange(1, 70_000)
            return offset, min(draw.randrange(70_000, 140_000), size - offset)
        if kind == 2:  # odd bytes
            offset = draw.randrange(size)
            return offset, min(draw.randrange(1, 3000), size - offset)
        if kind == 3:  # the disk's end
            length = draw.randrange(1, 40_000)
            return size - length, length
        offset = draw.randrange(size // 512) * 512
        return offset, min(draw.choice((512, 4096, 65536)), size - offset)

    def step(self, shadow: ShadowDisk) -> None:
        """One random step."""
        offset, length = self.extent(len(shadow.content))
        draw = self.random
        fua = draw.random() < 0.1
        name = draw.choices(("write", "zero", "discard", "batch", "flush"), (10, 3, 3, 4, 2))[0]
        if name == "write":
            shadow.write(offset, self.bytes(length), fua=fua)
        elif name == "zero":
            shadow.zero(offset, length, unmap=draw.random() < 0.5, fua=fua)
        elif name == "discard":
            shadow.discard(offset, length, fua=fua)
        elif name == "flush":
            shadow.flush()
        else:
            self._batch(shadow)
        shadow.verify(offset, length)

    def _batch(self, shadow: ShadowDisk) -> None:
        ranges = [self.extent(len(shadow.content)) for _ in range(4)]
        distinct = [ranges[0]] + [b for a, b in pairwise(sorted(ranges)) if a[0] + a[1] <= b[0]]
        if self.random.random() < 0.5:
            shadow.write_batch([(ranges[0][0], self.bytes(ranges[0][1]))])
        shadow.read_batch(distinct)


def check_extents(disk: Disk, content: bytes | bytearray, low: int = 0, high: int | None = None) -> None:
    """The extents cover the range exactly, are merged, and agree with the content."""
    high = len(content) if high is None else high
    position = low
    previous: Extent | None = None
    for extent in disk.extents(low, high - low):
        assert extent.start == position
        assert extent.length > 0
        assert previous is None or not _joins(previous, extent), f"{previous} and {extent} are one"
        _check_extent(extent, content)
        position += extent.length
        previous = extent
    assert position == high


def _joins(one: Extent, other: Extent) -> bool:
    alike = (one.state, one.depth, one.source) == (other.state, other.depth, other.source)
    return alike and (one.offset is None or one.offset + one.length == other.offset)


def _check_extent(extent: Extent, content: bytes | bytearray) -> None:
    expected = content[extent.start : extent.start + extent.length]
    if extent.state is ExtentState.DATA:
        assert extent.source is not None
        assert extent.offset is not None
        with Path(extent.source).open("rb") as file:
            file.seek(extent.offset)
            found = file.read(extent.length).ljust(extent.length, b"\0")
        assert_same(found, expected, extent.start)
        return
    assert all_zero(expected), f"{extent} over data"
    assert (extent.depth is None) == (extent.state is ExtentState.UNALLOCATED)


def states(disk: Disk) -> Iterator[tuple[int, int, ExtentState, int | None]]:
    """The extents without where the data lie: start, length, state, depth, neighbours joined."""
    held: tuple[int, int, ExtentState, int | None] | None = None
    for extent in disk.extents():
        if held is not None and held[2:] == (extent.state, extent.depth):
            held = (held[0], held[1] + extent.length, extent.state, extent.depth)
            continue
        if held is not None:
            yield held
        held = (extent.start, extent.length, extent.state, extent.depth)
    if held is not None:
        yield held
