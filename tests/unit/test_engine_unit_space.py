"""The allocator of numbered units: what it counts, what it refuses, what it hands out."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

import pytest

from drivebay.blockmap import Table
from drivebay.engine.source import FileSource
from drivebay.engine.unit_space import UnitSpace
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vdi import FORMAT
from drivebay.formats.vdi.header import FREE, ZERO
from support.memory_files import MemoryFiles
from support.vdi_images import BLOCK, make_image

FIRST = 2 << 20
NEVER = 0  # no operation is older than that
ALWAYS = 1 << 60


def space_of(entries: Sequence[int], units: int, *, tail: bytes = b"", recount: bool = True) -> UnitSpace:
    """The space of a VDI with this map and so many units in the file, each full of its number plus 1."""
    data = make_image(entries=entries, units=units, blocks=len(entries), size=len(entries) * BLOCK) + tail
    layer = FORMAT.open(MemoryFiles(data))
    table = layer.segments[0]
    assert isinstance(table, Table)
    assert layer.plan is not None
    fd = os.memfd_create("image")
    os.pwrite(fd, data, 0)
    space = UnitSpace(FileSource(fd, "/memory.vdi", writable=True), table, layer.plan)
    if recount:
        space.recount()
    return space


def place(unit: int) -> int:
    return FIRST + unit * BLOCK


def take(space: UnitSpace, oldest: int) -> int | None:
    """The number of the unit that `UnitSpace.take` gives."""
    offset = space.take(oldest, 0)
    return None if offset is None else (offset - FIRST) // BLOCK


def counter_of(space: UnitSpace) -> int:
    ((change,),) = space.reservations()
    return int.from_bytes(change.data, "little")


def content(space: UnitSpace, unit: int) -> bytes:
    return os.pread(space._source.fd, BLOCK, place(unit))


@pytest.mark.parametrize(
    ("entries", "units", "counter", "free"),
    [
        ([FREE] * 4, 0, 0, []),
        ([FREE] * 4, 3, 0, []),
        ([ZERO, 0, FREE, FREE], 1, 1, []),
        ([2, FREE, 0, FREE], 3, 3, [1]),
        ([3, FREE, FREE, FREE], 4, 4, [0, 1, 2]),
    ],
)
def test_what_is_used_and_what_is_free(entries: list[int], units: int, counter: int, free: list[int]) -> None:
    space = space_of(entries, units)
    assert counter_of(space) == counter
    taken = [take(space, ALWAYS) for _ in range(4 - (counter - len(free)))]
    assert taken == free + list(range(counter, 4))
    assert take(space, ALWAYS) is None


@pytest.mark.parametrize(
    ("entries", "units", "reason"),
    [
        ([0, 1, 0, FREE], 2, "another one points to"),
        ([0, 2, FREE, FREE], 2, "outside the file"),
        ([0, 0xFFFFFFFD, FREE, FREE], 2, "outside the file"),
        ([4, FREE, FREE, FREE], 5, "beyond the blocks"),
    ],
)
def test_tables_that_a_write_would_damage_are_refused(entries: list[int], units: int, reason: str) -> None:
    with pytest.raises(StorageError, match=reason) as caught:
        space_of(entries, units)
    assert caught.value.kind is ErrorKind.CORRUPT
    assert caught.value.path == "/memory.vdi"


def test_a_pair_far_apart_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivebay.engine.space._CHUNK", 2)
    with pytest.raises(StorageError, match="another one points to"):
        space_of([0, FREE, FREE, FREE, FREE, 0], 1)


def test_counting_again_hands_nothing_out_twice() -> None:
    space = space_of([3, FREE, FREE, FREE], 4)
    space.recount()
    assert [take(space, ALWAYS) for _ in range(4)] == [0, 1, 2, None]


def test_every_unit_reads_as_zeros() -> None:
    space = space_of([1, FREE, FREE, FREE], 3)
    for _ in range(3):
        unit = take(space, ALWAYS)
        assert unit is not None
        assert content(space, unit) == bytes(BLOCK)


@pytest.mark.parametrize("length", [1, 512, BLOCK // 2, BLOCK - 1, BLOCK, BLOCK + 700])
def test_bytes_behind_the_last_unit_do_not_show_up(length: int) -> None:
    """Another tool may have died while it appended a block."""
    space = space_of([0, FREE, FREE, FREE], 1, tail=b"\xee" * length)
    for expected in (1, 2, 3):
        assert take(space, ALWAYS) == expected
        assert content(space, expected) == bytes(BLOCK)


def test_a_unit_comes_back_when_no_older_operation_is_left() -> None:
    space = space_of([0, 1, 2, 3], 4)
    space.retire([1], newest_operation=7)
    assert content(space, 1) == bytes(BLOCK)
    assert take(space, 7) is None
    os.pwrite(space._source.fd, b"late", place(1))  # operation 7 was still writing
    assert take(space, 8) == 1
    assert content(space, 1) == bytes(BLOCK)
    assert take(space, ALWAYS) is None


def test_a_unit_that_was_not_used_comes_back_at_once() -> None:
    space = space_of([0, 1, FREE, FREE], 2)
    unit = take(space, NEVER)
    assert unit == 2
    os.pwrite(space._source.fd, b"half a copy", place(unit))
    space.give_back(place(unit))
    assert take(space, NEVER) == 2
    assert content(space, 2) == bytes(BLOCK)
    assert counter_of(space) == 3


def test_the_file_reaches_over_what_was_taken() -> None:
    space = space_of([FREE] * 4, 0)
    for unit in range(4):
        assert take(space, NEVER) == unit
        assert os.fstat(space._source.fd).st_size == FIRST + (unit + 1) * BLOCK


def test_a_unit_may_have_a_lead() -> None:
    data = make_image(entries=[FREE] * 4, extra=512)
    header = bytearray(data)
    struct.pack_into("<I", header, 380, 512)
    layer = FORMAT.open(MemoryFiles(bytes(header)))
    table = layer.segments[0]
    assert isinstance(table, Table)
    assert layer.plan is not None
    fd = os.memfd_create("image")
    os.pwrite(fd, header, 0)
    space = UnitSpace(FileSource(fd, "/memory.vdi", writable=True), table, layer.plan)
    space.recount()
    second = FIRST + (BLOCK + 512) + 512
    assert (space.take(NEVER, 0), space.take(NEVER, 0)) == (FIRST + 512, second)
    assert table.entry.encode(second) == 1
    space.give_back(second)
    assert space.take(NEVER, 0) == second
