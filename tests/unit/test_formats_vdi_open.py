"""Opening VDI: the description that comes out, and a refusal for each field that can be wrong."""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

import pytest

from drivebay.blockmap import Allocator, BlockState, Table
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import vdi
from drivebay.formats.vdi.header import Chs
from drivebay.model import NULL_UUID, Geometry, physical_geometry
from support.memory_files import MemoryFiles
from support.vdi_images import BLOCK, make_header, make_image

PARENT = UUID("11111111-2222-3333-4444-555555555555")


def opened(**fields: Any) -> Any:
    return vdi.FORMAT.open(MemoryFiles(make_image(**fields)))


def test_a_dynamic_image_becomes_one_table() -> None:
    layer = opened()
    (table,) = layer.segments
    assert table == Table(0, 4 * BLOCK, BLOCK, 0, 1 << 20, table.entry)
    assert (table.entry.scale, table.entry.base, table.entry.mask) == (BLOCK, 2 << 20, 0xFFFFFFFF)
    states = {rule.value: rule.state for rule in table.entry.rules}
    assert states == {0xFFFFFFFF: BlockState.ABSENT, 0xFFFFFFFE: BlockState.ZERO}


def test_the_write_plan_of_a_dynamic_image() -> None:
    plan = opened().plan
    assert plan.allocator is Allocator.BUMP_COUNTER
    assert (plan.unit, plan.lead, plan.first, plan.limit) == (BLOCK, 0, 2 << 20, 4)
    assert (plan.zero, plan.punch) == (0xFFFFFFFE, True)
    assert plan.counter.offset == 388
    assert [mark.offset for mark in plan.marks] == [408]


def test_a_fixed_image_keeps_its_space() -> None:
    plan = opened(type=2).plan
    assert (plan.zero, plan.punch) == (None, False)


def test_extra_data_precedes_each_block() -> None:
    layer = opened(extra=512)
    entry = layer.segments[0].entry
    assert (entry.scale, entry.base) == (BLOCK + 512, (2 << 20) + 512)
    assert (layer.plan.unit, layer.plan.lead, layer.plan.first) == (BLOCK + 512, 512, 2 << 20)


@pytest.mark.parametrize(
    ("image_type", "parent", "variant", "differencing"),
    [
        (1, NULL_UUID, "dynamic", False),
        (1, PARENT, "dynamic", False),
        (2, NULL_UUID, "fixed", False),
        (3, NULL_UUID, "undo", False),
        (3, PARENT, "undo", True),
        (4, PARENT, "differencing", True),
    ],
)
def test_the_type_decides_the_variant(
    image_type: int, parent: UUID, variant: str, differencing: bool
) -> None:
    facts = opened(type=image_type, parent_uuid=parent).facts
    assert (facts.variant, facts.differencing, facts.parent_uuid) == (variant, differencing, parent)


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (b"", ""),
        ("größer".encode(), "größer"),
        (b"cut\0rest", "cut"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"x" * 256, "x" * 256),
    ],
)
def test_a_comment_is_always_text(stored: bytes, shown: str) -> None:
    assert opened(comment=stored).facts.comment == shown


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        (Chs(8, 16, 63, 512), Geometry(8, 16, 63)),
        (Chs(8, 16, 63, 0), Geometry(8, 16, 63)),
        (Chs(0, 0, 0, 512), physical_geometry(4 * BLOCK)),
        (Chs(9, 16, 63, 512), physical_geometry(4 * BLOCK)),
        (Chs(8, 17, 60, 512), physical_geometry(4 * BLOCK)),
        (Chs(8, 15, 64, 512), physical_geometry(4 * BLOCK)),
        (Chs(8, 0, 63, 512), physical_geometry(4 * BLOCK)),
        (Chs(2**32 - 1, 16, 63, 512), physical_geometry(4 * BLOCK)),
    ],
)
def test_an_impossible_physical_geometry_is_computed_again(stored: Chs, read: Geometry) -> None:
    assert opened(pchs=stored).facts.pchs == read


def test_cylinders_are_clipped() -> None:
    assert opened(size=1 << 34, blocks=1 << 14, pchs=Chs(20000, 16, 63, 512)).facts.pchs.cylinders == 16383


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        (Chs(8, 16, 63, 512), Geometry(8, 16, 63)),
        (Chs(1024, 255, 63, 512), Geometry(1024, 255, 63)),
        (Chs(32610, 30, 0, 512), Geometry(0, 0, 0)),
        (Chs(1025, 255, 63, 512), Geometry(0, 0, 0)),
        (Chs(8, 256, 63, 512), Geometry(0, 0, 0)),
        (Chs(8, 16, 64, 512), Geometry(0, 0, 0)),
    ],
)
def test_an_impossible_logical_geometry_is_undecided(stored: Chs, read: Geometry) -> None:
    assert opened(lchs=stored).facts.lchs == read


def test_a_header_without_logical_geometry() -> None:
    facts = opened(header_size=384, lchs=Chs(8, 16, 63, 0)).facts
    assert facts.lchs == Geometry(0, 0, 0)


def test_the_details_show_the_header() -> None:
    details = opened(blocks_allocated=2).facts.details
    assert details["blocks allocated"] == 2
    assert details["header version"] == "1.1"
    assert details["creator"] == "test image"


REFUSED = [
    ("version", 0x00020001, 68, ErrorKind.UNSUPPORTED),
    ("header_size", 383, 72, ErrorKind.CORRUPT),
    ("header_size", 0, 72, ErrorKind.CORRUPT),
    ("header_size", 0xFFFFFFFF, 340, ErrorKind.CORRUPT),
    ("type", 0, 76, ErrorKind.CORRUPT),
    ("type", 5, 76, ErrorKind.CORRUPT),
    ("flags", 0x200, 80, ErrorKind.UNSUPPORTED),
    ("map_offset", 0, 340, ErrorKind.CORRUPT),
    ("map_offset", 471, 340, ErrorKind.CORRUPT),
    ("map_offset", 1000, 340, ErrorKind.CORRUPT),
    ("map_offset", 0x80000000, 384, ErrorKind.CORRUPT),
    ("data_offset", (2 << 20) + 100, 344, ErrorKind.CORRUPT),
    ("data_offset", 1 << 20, 384, ErrorKind.CORRUPT),
    ("data_offset", 0, 384, ErrorKind.CORRUPT),
    ("size", 0, 368, ErrorKind.CORRUPT),
    ("size", 1000, 368, ErrorKind.CORRUPT),
    ("size", 4 * BLOCK + 512, 384, ErrorKind.CORRUPT),
    ("size", 2**64 - 512, 384, ErrorKind.CORRUPT),
    ("block_size", 0, 376, ErrorKind.CORRUPT),
    ("block_size", 256 << 10, 376, ErrorKind.CORRUPT),
    ("block_size", 128 << 20, 376, ErrorKind.CORRUPT),
    ("block_size", 3 << 20, 376, ErrorKind.CORRUPT),
    ("extra", 1, 380, ErrorKind.CORRUPT),
    ("extra", BLOCK + 512, 380, ErrorKind.CORRUPT),
    ("blocks", 3, 384, ErrorKind.CORRUPT),
    ("blocks", 0xFFFFFFFF, 384, ErrorKind.CORRUPT),
    ("blocks", (1 << 18) + 1, 384, ErrorKind.CORRUPT),
    ("blocks_allocated", 5, 388, ErrorKind.CORRUPT),
    ("uuid", NULL_UUID, 392, ErrorKind.CORRUPT),
    ("lchs", Chs(0, 0, 0, 0), 456, ErrorKind.CORRUPT),
]


@pytest.mark.parametrize(("field", "value", "offset", "kind"), REFUSED)
def test_a_bad_field_is_refused(field: str, value: Any, offset: int, kind: ErrorKind) -> None:
    with pytest.raises(StorageError) as caught:
        opened(**{field: value})
    error = caught.value
    assert (error.kind, error.offset, error.path) == (kind, offset, "image.vdi")
    shown = make_header(**{field: value})
    blamed = {384: shown.blocks, 340: shown.map_offset}.get(offset, value)
    assert str(blamed) in error.message
    assert "; " in error.message


def test_a_map_beyond_the_end_of_the_file_is_refused() -> None:
    data = make_image()[: (1 << 20) + 15]
    with pytest.raises(StorageError, match="beyond the file's end") as caught:
        vdi.FORMAT.open(MemoryFiles(data))
    assert caught.value.offset == 384


@pytest.mark.parametrize("length", [68, 72, 100, 455])
def test_a_file_that_ends_within_the_header_is_refused(length: int) -> None:
    with pytest.raises(StorageError, match="ends within the VDI header") as caught:
        vdi.FORMAT.open(MemoryFiles(make_image()[:length]))
    assert caught.value.offset == length


@pytest.mark.parametrize(
    "allowed",
    [
        {"version": 0x00010000},
        {"header_size": 512},
        {"flags": 0x100},
        {"dummy": 7},
        {"size": 512},
        {"blocks": 1 << 18},
        {"blocks_allocated": 4},
        {"text": b""},
        {"map_offset": 512, "data_offset": 1024},
    ],
)
def test_odd_but_harmless_fields_are_accepted(allowed: dict[str, Any]) -> None:
    assert opened(**allowed).facts.format == "vdi"


def test_opening_reads_only_the_header() -> None:
    class HeaderOnly(MemoryFiles):
        def read(self, offset: int, length: int) -> bytes:
            assert offset + length <= 512
            return super().read(offset, length)

    assert vdi.FORMAT.open(HeaderOnly(make_image())).facts.size == 4 * BLOCK


def test_the_layout_is_the_published_one() -> None:
    header = make_header(size=0x1122334455667788, blocks_allocated=77, modification_uuid=PARENT)
    data = header.pack()
    assert struct.unpack_from("<I", data, 64) == (0xBEDA107F,)
    assert struct.unpack_from("<Q", data, 368) == (0x1122334455667788,)
    assert struct.unpack_from("<I", data, 388) == (77,)
    assert data[408:424] == PARENT.bytes_le
    assert len(data) == 472
