"""The interpreter itself, on descriptions small enough to read."""

from __future__ import annotations

import struct

import pytest

from drivebay.blockmap import BlockState, Entry, Layer, Linear, Rule, Segment, Table, Zeros
from drivebay.model import ExtentState, ImageFacts
from support.interpreter import CorruptPointerError, Piece, read_layers, state_at

UNIT = 512
RULES = (
    Rule(0xFFFF, 0, BlockState.ABSENT),
    Rule(0xFFFF, 1, BlockState.ZERO),
    Rule(0xF000, 0xF000, BlockState.CORRUPT),
)


def layer(size: int, *segments: Segment) -> Layer:
    return Layer(ImageFacts("test", "test", size), segments)


def table(entries: list[int], blocks: bytes) -> tuple[Layer, bytes]:
    """A table of 512-byte blocks at offset 0; raw entry n >= 2 is the n-2nd block after it."""
    entry = Entry(8, ">", RULES, mask=0xFF, scale=UNIT, base=-UNIT)
    data = struct.pack(f">{len(entries)}Q", *entries).ljust(UNIT, b"\0") + blocks
    return layer(len(entries) * UNIT, Table(0, len(entries) * UNIT, UNIT, 0, 0, entry)), data


def fill(value: int, count: int = 1) -> bytes:
    return bytes([value]) * UNIT * count


def test_linear_and_zero_segments_with_two_files() -> None:
    both = layer(4 * UNIT, Linear(0, UNIT, 1, UNIT), Zeros(UNIT, UNIT), Linear(2 * UNIT, 2 * UNIT, 0, 0))
    image = (both, fill(1) + fill(2), fill(3) + fill(4))
    assert read_layers([image], 0, 4 * UNIT) == fill(4) + fill(0) + fill(1) + fill(2)
    assert state_at([image], 100) == Piece(412, ExtentState.DATA, 0, 1, 612)
    assert state_at([image], UNIT) == Piece(UNIT, ExtentState.ZERO, 0)


def test_the_first_layer_that_says_something_decides() -> None:
    top = table([2, 0, 1, 0], fill(9))
    base = table([2, 3, 4, 0], fill(1) + fill(2) + fill(3))
    assert read_layers([top, base], 0, 4 * UNIT) == fill(9) + fill(2) + fill(0, 2)
    states = [state_at([top, base], n * UNIT)[1:3] for n in range(4)]
    assert states == [
        (ExtentState.DATA, 0),
        (ExtentState.DATA, 1),
        (ExtentState.ZERO, 0),
        (ExtentState.UNALLOCATED, None),
    ]


def test_requests_need_no_alignment() -> None:
    image = table([2, 3], fill(1) + fill(2))
    assert read_layers([image], 500, 24) == b"\1" * 12 + b"\2" * 12


def test_a_shorter_layer_ends_the_chain_at_its_end() -> None:
    top, middle, base = table([0, 0], b""), table([0], b""), table([2, 3], fill(1) + fill(2))
    assert read_layers([top, middle, base], 0, 2 * UNIT) == fill(1) + fill(0)


def test_the_rest_of_a_last_sector_is_zero() -> None:
    image = (layer(UNIT, Linear(0, UNIT, 0, 0)), b"abc")
    assert read_layers([image], 0, UNIT) == b"abc".ljust(UNIT, b"\0")


@pytest.mark.parametrize("entry", [0xF002, 3])
def test_a_corrupt_pointer_is_told(entry: int) -> None:
    top, base = table([0, 0], b""), table([2, entry], fill(1))
    assert read_layers([top, base], 0, UNIT) == fill(1)
    with pytest.raises(CorruptPointerError) as caught:
        read_layers([top, base], UNIT, 1)
    assert (caught.value.depth, caught.value.block) == (1, 1)


def test_a_position_outside_the_disk_is_refused() -> None:
    with pytest.raises(ValueError, match="not on the disk"):
        state_at([table([0], b"")], UNIT)
