"""Opening expanding Parallels images: the description that comes out, and what is refused."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from drivebay.blockmap import Allocator
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import parallels
from drivebay.model import Geometry
from support.interpreter import CorruptPointerError, read_layers
from support.memory_files import MemoryFiles
from support.parallels_images import BLOCK, SECTORS, make_image, make_old

TRACK = 63 * 512


def opened(data: bytes) -> Any:
    return parallels.FORMAT.open(MemoryFiles(data, "image.hdd"))


def read(data: bytes, offset: int, length: int) -> bytes:
    return read_layers([(opened(data), data)], offset, length)


def marks_of(data: bytes) -> dict[int, tuple[bytes, bytes]]:
    return {mark.offset: (mark.opened, mark.closed) for mark in opened(data).plan.marks}


def test_entries_of_the_newer_layout_count_blocks() -> None:
    data = make_image([2, 0, 1])
    assert read(data, 0, 4 * BLOCK) == b"\2" * BLOCK + bytes(BLOCK) + b"\1" * BLOCK + bytes(BLOCK)


def test_entries_of_the_older_layout_count_sectors_and_blocks_may_be_odd() -> None:
    data = make_old([1 + 63, 0, 1])
    assert read(data, 0, 4 * TRACK) == b"\2" * TRACK + bytes(TRACK) + b"\1" * TRACK + bytes(TRACK)


def test_a_disk_may_end_within_a_block() -> None:
    data = make_image([0, 1], sectors=SECTORS + 3, blocks=0) + b"\7" * 3 * 512
    assert read(data, BLOCK, 3 * 512) == b"\7" * 3 * 512


def test_only_the_newer_layout_has_more_than_32_bits_of_sectors() -> None:
    assert opened(make_old(sectors=(1 << 32) + 63, entries=1)).facts.size == TRACK
    with pytest.raises(StorageError, match="needs more"):
        opened(make_image(sectors=(1 << 32) + 8))


def test_an_entry_outside_cannot_be_read() -> None:
    with pytest.raises(CorruptPointerError):
        read(make_image([4]), 0, 512)


def test_the_write_plan_of_the_newer_layout() -> None:
    plan = opened(make_image()).plan
    assert plan.allocator is Allocator.BUMP_EOF
    assert (plan.unit, plan.align, plan.first, plan.zero) == (BLOCK, BLOCK, BLOCK, None)
    assert marks_of(make_image()) == {44: (b"Ynot", b"v2.1")}


def test_the_write_plan_of_the_older_layout_goes_on_where_the_blocks_end() -> None:
    plan = opened(make_old()).plan
    assert (plan.unit, plan.align, plan.first) == (TRACK, 512, 512)


def test_new_blocks_never_begin_in_the_table() -> None:
    assert opened(make_image(data_offset=0)).plan.first == BLOCK
    assert opened(make_old(data_offset=0, entries=100, sectors=63)).plan.first == 512


def test_the_empty_flag_goes_with_the_first_write() -> None:
    assert marks_of(make_image(flags=3))[52] == (b"\2\0\0\0", b"")


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"tracks": 63, "sectors": 16384, "heads": 16, "cylinders": 16, "entries": 261}, (16, 16, 63)),
        ({"tracks": 2048, "sectors": 8192, "heads": 16, "cylinders": 16}, (16, 16, 32)),
        ({"heads": 0, "cylinders": 0, "sectors": 32}, (1, 16, 63)),
        ({"heads": 17, "cylinders": 1, "sectors": 32}, (1, 16, 63)),
    ],
)
def test_the_geometry(fields: dict[str, int], shown: tuple[int, int, int]) -> None:
    assert opened(make_image(**fields, first=2048)).facts.pchs == Geometry(*shown)


REFUSED = [
    ({"version": 1}, 16, ErrorKind.UNSUPPORTED),
    ({"version": 3}, 16, ErrorKind.UNSUPPORTED),
    ({"tracks": 0}, 28, ErrorKind.CORRUPT),
    ({"tracks": 131073}, 28, ErrorKind.CORRUPT),
    ({"tracks": 0xFFFFFFFF}, 28, ErrorKind.CORRUPT),
    ({"sectors": 0}, 36, ErrorKind.CORRUPT),
    ({"entries": 3}, 32, ErrorKind.CORRUPT),
    ({"entries": 0xFFFFFFFF}, 32, ErrorKind.CORRUPT),
    ({"sectors": (1 << 64) - 1}, 32, ErrorKind.CORRUPT),
]


@pytest.mark.parametrize(("fields", "offset", "kind"), REFUSED)
def test_a_bad_field_is_refused(fields: dict[str, int], offset: int, kind: ErrorKind) -> None:
    data = make_image(blocks=0, **fields)
    with pytest.raises(StorageError) as caught:
        opened(data)
    assert (caught.value.kind, caught.value.offset) == (kind, offset)
    assert "; " in caught.value.message


@pytest.mark.parametrize("length", [16, 63])
def test_a_short_file_is_refused(length: int) -> None:
    with pytest.raises(StorageError, match="ends within") as caught:
        opened(make_image()[:length])
    assert caught.value.offset == length


DIRTY, OTHER = 0x20385FAE252CB34A, 0x1122334455667788
NECESSARY, TRANSIT = 1, 2


def with_extension(*features: tuple[int, int], end: bool = True, magic: int = 0xAB234CEF23DCEA87) -> bytes:
    """An image whose third block holds a format extension with these features (magic, flags)."""
    data = bytearray(make_image([1], blocks=2, extension=2 * SECTORS))
    area = struct.pack("<Q16x", magic)
    for feature, flags in features:
        area += struct.pack("<QQII", feature, flags, 5, 0) + bytes(8)
    area += bytes(24) if end else b"\1" * (BLOCK - len(area))
    data[2 * BLOCK : 2 * BLOCK + len(area)] = area
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "dropped"),
    [
        (with_extension(), False),
        (with_extension((OTHER, TRANSIT)), False),
        (with_extension((DIRTY, 0)), True),
        (with_extension((DIRTY, TRANSIT)), True),
        (with_extension((OTHER, 0), (DIRTY, 0)), True),
        (with_extension((OTHER, NECESSARY), magic=1), True),
    ],
)
def test_an_extension_is_kept_or_dropped_when_the_image_is_written(data: bytes, dropped: bool) -> None:
    assert marks_of(data).get(56) == ((bytes(8), b"") if dropped else None)


@pytest.mark.parametrize(
    "data",
    [
        with_extension((OTHER, NECESSARY)),
        with_extension((DIRTY, 0), (OTHER, TRANSIT)),
        with_extension(end=False),
        with_extension((DIRTY, 0), end=False)[: 2 * BLOCK + 70],
    ],
)
def test_an_extension_may_forbid_to_write(data: bytes) -> None:
    layer = opened(data)
    assert layer.plan is None
    assert layer.refusal is not None
    assert "extension" in layer.refusal


def test_an_extension_that_an_old_program_left_is_no_extension() -> None:
    data = bytearray(with_extension((OTHER, NECESSARY)))
    data[44:48] = bytes(4)
    assert marks_of(bytes(data))[56] == (bytes(8), b"")
