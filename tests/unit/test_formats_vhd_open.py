"""Opening VHD: what the headers say becomes facts, segments and a plan."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from drivebay.blockmap import Allocator, BlockState, Layer, Linear, Match, Table
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import vhd
from drivebay.formats.vhd.footer import DiskType, probe
from drivebay.formats.vhd.header import ABSENT
from drivebay.model import NULL_UUID, Geometry
from support.interpreter import Image, read_layers
from support.memory_files import MemoryFiles
from support.vhd_images import BLOCK, FIRST, IMAGE, PARENT, PRESENT, UNIT, make_fixed, make_image, sector

DIFFERENCING = {"type": DiskType.DIFFERENCING}


def opened(data: bytes) -> Layer:
    return vhd.FORMAT.open(MemoryFiles(data, "image.vhd"))


def content(*images: bytes) -> bytes:
    chain: list[Image] = [(opened(data), data) for data in images]
    return read_layers(chain, 0, chain[0][0].facts.size)


def damaged(data: bytes, offset: int, patch: bytes) -> bytes:
    start = offset % len(data)
    return data[:start] + patch + data[start + len(patch) :]


def refusal(data: bytes) -> StorageError:
    with pytest.raises(StorageError) as caught:
        opened(data)
    assert caught.value.path == "image.vhd"
    assert caught.value.offset is not None
    return caught.value


def test_blocks_are_found_through_the_table() -> None:
    data = make_image(entries=(sector(1), ABSENT, sector(0), ABSENT), bitmaps=(PRESENT, PRESENT))
    assert content(data) == b"\2" * BLOCK + bytes(BLOCK) + b"\1" * BLOCK + bytes(BLOCK)


def test_the_bitmap_s_highest_bit_is_the_first_sector() -> None:
    data = make_image(entries=(sector(0), ABSENT, ABSENT, ABSENT), bitmaps=(b"\x81\x40",))
    read = content(data)
    present = [number for number in range(BLOCK // 512) if read[number * 512]]
    assert present == [0, 7, 9]


def test_a_clear_bit_is_a_zero_in_a_base_and_the_parent_s_in_a_child() -> None:
    base = make_image(entries=(sector(0),) + (ABSENT,) * 3, bitmaps=(PRESENT,))
    child = make_image(
        entries=(sector(0),) + (ABSENT,) * 3,
        bitmaps=(b"\x80",),
        footer=DIFFERENCING,
        header={"parent_uuid": IMAGE},
    )
    assert content(child, base)[:1024] == b"\1" * 1024
    for data, clear in ((base, BlockState.ZERO), (child, BlockState.ABSENT)):
        (table,) = opened(data).segments
        assert isinstance(table, Table)
        assert table.presence is not None
        assert table.presence.clear is clear


def test_the_plan_of_a_sparse_image() -> None:
    data = make_image()
    plan = opened(data).plan
    assert plan is not None
    assert (plan.allocator, plan.unit, plan.lead, plan.align) == (Allocator.BUMP_EOF, UNIT, 512, 512)
    assert (plan.lead_data, plan.tail, plan.zero) == (PRESENT, data[-512:], None)
    assert plan.first == 2048


def test_a_fixed_image_is_one_piece() -> None:
    layer = opened(make_fixed(b"\7" * 4096))
    assert layer.segments == (Linear(0, 4096, 0, 0),)
    assert layer.plan is not None
    assert layer.plan.allocator is Allocator.NONE
    assert (layer.facts.variant, layer.facts.block_size) == ("fixed", None)


def test_an_old_footer_of_511_bytes() -> None:
    data = make_fixed(b"\7" * 4096)[:-1]
    assert content(data) == b"\7" * 4096
    assert probe(data[:4096], data[-512:]) is Match.YES


def test_facts() -> None:
    footer = {
        **DIFFERENCING,
        "saved_state": 1,
        "created": 848646377,
        "cylinders": 30,
        "heads": 1,
        "sectors": 17,
    }
    facts = opened(make_image(footer=footer, header={"parent_uuid": PARENT})).facts
    assert (facts.format, facts.variant, facts.size) == ("vhd", "differencing", 4 * BLOCK)
    assert (facts.uuid, facts.parent_uuid, facts.differencing) == (IMAGE, PARENT, True)
    assert facts.pchs == Geometry(30, 1, 17)
    assert facts.details["saved state"] == "yes"
    assert facts.details["created"] == "2026-11-22 07:06:17 UTC"
    assert facts.details["creator's system"] == "Windows"


def test_a_base_names_no_parent() -> None:
    facts = opened(make_image(header={"parent_uuid": PARENT})).facts
    assert (facts.differencing, facts.parent_uuid, facts.parent_names) == (False, NULL_UUID, ())


def test_the_footer_counts_before_its_copy() -> None:
    data = damaged(make_image(), 0, make_image(footer={"uuid": UUID(int=5)})[:512])
    layer = opened(data)
    assert layer.facts.uuid == IMAGE
    assert layer.facts.details["footer"] == "at the end"
    assert layer.refusal is not None
    assert "crash" in layer.refusal


@pytest.mark.parametrize("patch", [(-512, b"x"), (-448, b"\0\0\0\0"), (-1, b"x"), (-452, b"\0\0\0\7")])
def test_the_copy_counts_where_the_footer_is_damaged(patch: tuple[int, bytes]) -> None:
    data = make_image(entries=(sector(0),) + (ABSENT,) * 3, bitmaps=(PRESENT,))
    layer = opened(damaged(data, *patch))
    assert layer.facts.details["footer"] == "the copy in front"
    assert layer.plan is not None
    assert content(damaged(data, *patch)) == content(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (damaged(damaged(make_image(), 64, b"\0"), -448, b"\0"), "checksum of its footer"),
        (damaged(make_image(), 548, b"\0"), "dynamic header"),
        (damaged(make_image(), 0, b"x"), "no equal copy"),
        (damaged(make_fixed(bytes(4096)), -448, b"\0"), "checksum of its footer"),
    ],
)
def test_what_is_damaged_but_readable_opens_read_only(data: bytes, reason: str) -> None:
    layer = opened(data)
    assert layer.plan is None
    assert layer.refusal is not None
    assert reason in layer.refusal


def test_a_guest_cannot_turn_its_fixed_disk_into_a_sparse_one() -> None:
    fake = make_image(footer=DIFFERENCING)
    disk = make_fixed(fake.ljust(8192, b"\0"))
    assert opened(disk).facts.variant == "fixed"
    assert opened(damaged(disk, -448, b"\0")).facts.variant == "fixed"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"footer": {"version": 0x20000}}, "version"),
        ({"footer": {"type": 6}}, "disk type is 6"),
        ({"footer": {"current_size": 3 << 40}}, "2 TiB"),
    ],
)
def test_what_drivebay_does_not_know_is_unsupported(fields: dict[str, Any], message: str) -> None:
    error = refusal(make_image(**fields))
    assert error.kind is ErrorKind.UNSUPPORTED
    assert message in error.message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"footer": {"current_size": 0}}, "current size"),
        ({"footer": {"current_size": 1000}}, "current size"),
        ({"footer": {"data_offset": 0xFFFFFFFFFFFFFFFF}}, "data offset"),
        ({"footer": {"data_offset": 0}}, "data offset"),
        ({"footer": {"data_offset": 513}}, "data offset"),
        ({"footer": {"data_offset": 4096}}, "data offset"),
        ({"header": {"cookie": b"cxsparsf"}}, "cookie"),
        ({"header": {"block_size": 0}}, "block size"),
        ({"header": {"block_size": 96 << 10}}, "block size"),
        ({"header": {"block_size": 1 << 31}}, "block size"),
        ({"header": {"entries": 3}}, "number of table entries"),
        ({"header": {"table_offset": 0}}, "table offset"),
        ({"header": {"table_offset": 1024}}, "table offset"),
        ({"header": {"table_offset": 1537}}, "table offset"),
        ({"header": {"table_offset": 1 << 40}}, "beyond the file's end"),
    ],
)
def test_what_cannot_be_is_corrupt(fields: dict[str, Any], message: str) -> None:
    error = refusal(make_image(**fields))
    assert error.kind is ErrorKind.CORRUPT
    assert message in error.message


def test_a_file_without_a_footer_is_refused() -> None:
    assert "no VHD footer" in refusal(bytes(4096)).message
    assert "no VHD footer" in refusal(b"").message


def test_a_fixed_disk_larger_than_its_file_is_refused() -> None:
    assert "holds only 4096" in refusal(make_fixed(bytes(4096), current_size=8192)).message


def test_a_header_beyond_its_shrunk_file_is_refused() -> None:
    data = make_image()
    files = MemoryFiles(data, "image.vhd")
    files.data = data[:520]  # shorter than when it was opened
    with pytest.raises(StorageError):
        vhd.FORMAT.open(files)


def test_the_probe_looks_at_both_ends() -> None:
    data = make_image()
    assert probe(data[:4096], data[-512:]) is Match.YES
    assert probe(data[:4096], bytes(512)) is Match.YES
    assert probe(bytes(4096), data[-512:]) is Match.YES
    assert probe(bytes(4096), bytes(512)) is Match.NO
    assert probe(b"", b"") is Match.NO


def test_the_first_block_lies_where_the_tests_think() -> None:
    assert sector(0) * 512 == FIRST
