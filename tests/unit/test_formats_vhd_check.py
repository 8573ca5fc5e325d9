"""Checking and repairing VHD: each fault is found and mended, and sound images have none."""

from __future__ import annotations

from typing import Any

import pytest

from drivebay.blockmap import Layer, RepairStep
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import vhd
from drivebay.formats.vhd.footer import DiskType
from drivebay.formats.vhd.header import ABSENT, NO_LOCATOR, Locator
from drivebay.model import Finding
from support.interpreter import read_layers
from support.memory_files import MemoryFiles
from support.vhd_images import (
    BLOCK,
    FIRST,
    PARENT,
    PRESENT,
    TABLE,
    UNIT,
    applied,
    make_fixed,
    make_footer,
    make_image,
    sector,
)

FULL: dict[str, Any] = {
    "entries": (sector(2), ABSENT, sector(0), sector(1)),
    "bitmaps": (PRESENT, PRESENT, b"\x0f"),
}
LENGTH = FIRST + 3 * UNIT + 512
OLD = make_footer(uuid=PARENT).pack()


def opened(data: bytes) -> tuple[MemoryFiles, Layer]:
    files = MemoryFiles(data, "image.vhd")
    return files, vhd.FORMAT.open(files)


def findings(data: bytes) -> list[Finding]:
    assert vhd.FORMAT.check is not None
    return list(vhd.FORMAT.check(*opened(data)))


def told(data: bytes) -> list[tuple[str, str, int | None]]:
    return [(found.severity.value, found.code, found.offset) for found in findings(data)]


def steps(data: bytes) -> list[RepairStep]:
    assert vhd.FORMAT.repair is not None
    return list(vhd.FORMAT.repair(*opened(data)))


def repaired(data: bytes) -> bytes:
    for step in steps(data):
        data = applied(data, step.changes)
        opened(data)  # whole after each step
    return data


def content(data: bytes) -> bytes:
    _, layer = opened(data)
    return read_layers([(layer, data)], 0, layer.facts.size)


def damaged(data: bytes, offset: int, patch: bytes) -> bytes:
    start = offset % len(data)
    return data[:start] + patch + data[start + len(patch) :]


def with_entries(*entries: int) -> bytes:
    return make_image(**FULL | {"entries": entries})


@pytest.mark.parametrize(
    "sound",
    [
        make_image(),
        make_image(**FULL),
        make_fixed(b"\7" * 4096),
        make_image(
            footer={"type": DiskType.DIFFERENCING},
            header={"parent_uuid": PARENT, "locators": (NO_LOCATOR,) * 8},
        ),
    ],
)
def test_a_sound_image(sound: bytes) -> None:
    assert findings(sound) == []
    assert steps(sound) == []


@pytest.mark.parametrize(
    ("faulty", "expected"),
    [
        (damaged(make_image(**FULL), -512, b"x"), ("warning", "footer-lost", LENGTH - 512)),
        (make_image(**FULL) + b"\0", ("warning", "footer-lost", LENGTH - 511)),
        (make_image(**FULL)[:-512], ("warning", "footer-lost", LENGTH - 1024)),
        (make_image(**FULL)[:-1], ("warning", "footer-old", LENGTH - 512)),
        (make_fixed(bytes(4096))[:-1], ("warning", "footer-old", 4096)),
        (damaged(make_image(**FULL), -448, b"\0"), ("warning", "footer-checksum", LENGTH - 448)),
        (damaged(make_image(**FULL), 0, b"x"), ("warning", "copy-lost", 0)),
        (damaged(make_image(**FULL), 64, b"\0"), ("warning", "footer-checksum", 64)),
        (damaged(make_image(**FULL), 0, OLD), ("error", "copy-differs", 0)),
        (damaged(make_image(**FULL), 548, b"\0"), ("error", "header-checksum", 548)),
        (make_image(**FULL, header={"entries": 2000}), ("error", "table-length", TABLE + 8)),
        (damaged(make_fixed(bytes(4096)), -448, b"\0"), ("error", "footer-checksum", 4096 + 64)),
    ],
)
def test_faults_of_the_headers_are_found_and_mended_without_loss(
    faulty: bytes, expected: tuple[str, str, int]
) -> None:
    assert expected in told(faulty)
    assert not any(step.loses for step in steps(faulty))
    mended = repaired(faulty)
    assert [found for found in told(mended) if found[0] != "note"] == []
    assert content(mended) == content(faulty)
    assert opened(mended)[1].plan is not None
    assert steps(mended) == []


@pytest.mark.parametrize(
    ("faulty", "expected"),
    [
        (with_entries(sector(2), ABSENT, sector(0), sector(3)), ("error", "outside", TABLE + 12)),
        (with_entries(sector(2), 0xFFFFFFFE, sector(0), ABSENT), ("error", "outside", TABLE + 4)),
        (with_entries(sector(2), 0, sector(0), ABSENT), ("error", "inside-headers", TABLE + 4)),
        (with_entries(sector(2), 3, sector(0), ABSENT), ("error", "inside-headers", TABLE + 4)),
        (with_entries(sector(2), sector(0), sector(0), ABSENT), ("error", "overlapping", TABLE + 8)),
        (with_entries(sector(2), sector(0) + 1, sector(0), ABSENT), ("error", "overlapping", TABLE + 4)),
        (with_entries(sector(0), sector(1) - 1, ABSENT, ABSENT), ("error", "overlapping", TABLE + 4)),
    ],
)
def test_faults_of_the_table_are_found_and_mended_at_a_price(
    faulty: bytes, expected: tuple[str, str, int]
) -> None:
    assert expected in told(faulty)
    (step,) = steps(faulty)
    assert step.loses
    mended = repaired(faulty)
    assert [found for found in told(mended) if found[0] != "note"] == []
    assert len(content(mended)) == 4 * BLOCK


def test_a_block_over_the_footer_moves_the_footer() -> None:
    """The last block was written, but the footer not moved behind it."""
    data = bytearray(make_image(**FULL))
    data[TABLE + 4 : TABLE + 8] = (sector(3) - 0).to_bytes(4, "big")
    data[-512:] = bytes(512)
    data += bytes(UNIT - 512 - 512) + make_footer().pack()  # one sector short
    faulty = bytes(data)
    assert ("error", "footer-in-block", FIRST + 4 * UNIT - 512) in told(faulty)
    mended = repaired(faulty)
    assert [found for found in told(mended) if found[0] != "note"] == []
    assert len(mended) == FIRST + 4 * UNIT + 512


def test_more_blocks_than_the_file_has_room_for() -> None:
    many = make_image(
        entries=(sector(0),) * 512,
        bitmaps=(PRESENT,),
        footer={"current_size": 512 * BLOCK},
        header={"entries": 512},
    )
    (found,) = [found for found in findings(many) if found.severity.value == "error"]
    assert (found.code, "another one's block: 511" in found.message) == ("overlapping", True)
    assert content(repaired(many))[BLOCK:] == bytes(511 * BLOCK)


def test_entries_behind_the_disk_s_end() -> None:
    data = make_image(entries=(ABSENT,) * 4 + (sector(0),), bitmaps=(PRESENT,), header={"entries": 5})
    assert ("warning", "unreachable", TABLE + 16) in told(data)


def test_a_child_without_a_parent_and_a_locator_outside() -> None:
    lost = Locator(b"W2ru", 512, 20, 0, 1 << 40)
    data = make_image(
        footer={"type": DiskType.DIFFERENCING}, header={"locators": (lost,) + (NO_LOCATOR,) * 7}
    )
    assert told(data) == [("error", "no-parent", 552), ("warning", "locator", 512 + 576)]


def test_notes() -> None:
    data = make_image(footer={"saved_state": 1, "cylinders": 7, "heads": 4, "sectors": 17})
    assert [code for _, code, _ in told(data)] == ["geometry-size", "saved-state"]
    gap = make_image(entries=(sector(0),) + (ABSENT,) * 3, bitmaps=(PRESENT, PRESENT))
    assert told(gap) == [("note", "trailing", FIRST + UNIT)]


def test_a_file_that_shrinks_while_it_is_checked() -> None:
    data = make_image(**FULL)
    files, layer = opened(data)
    files.data = data[: TABLE + 8]
    assert vhd.FORMAT.check is not None
    with pytest.raises(StorageError, match="shorter") as caught:
        list(vhd.FORMAT.check(files, layer))
    assert caught.value.kind is ErrorKind.IO
