"""What check says about a VHDX image, and that a repair leaves one that it is content with."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from drivebay.blockmap import RepairStep
from drivebay.formats import vhdx
from drivebay.model import Finding, Severity
from support.interpreter import read_layers
from support.memory_files import MemoryFiles, files_made_by
from support.vhdx_images import (
    BAT,
    DATA,
    GUIDS,
    LINKAGE,
    LOG,
    METADATA,
    MIB,
    PARTIAL,
    PRESENT,
    RATIO,
    ZERO,
    child,
    dirty,
    header,
    items,
    locator,
    log_entry,
    make_image,
    metadata_region,
    region_table,
    ring,
)

K = 1 << 10


def findings(data: bytes) -> list[Finding]:
    files = MemoryFiles(data, "image.vhdx")
    assert vhdx.FORMAT.check is not None
    return list(vhdx.FORMAT.check(files, vhdx.FORMAT.open(files)))


def codes(data: bytes) -> list[str]:
    return [finding.code for finding in findings(data)]


def steps(data: bytes) -> list[RepairStep]:
    files = MemoryFiles(data, "image.vhdx")
    assert vhdx.FORMAT.repair is not None
    return list(vhdx.FORMAT.repair(files, vhdx.FORMAT.open(files)))


def repaired(data: bytes) -> bytes:
    for step in steps(data):
        data = files_made_by(step.changes, {"": data})[""]
    return data


@pytest.mark.parametrize(
    ("entries", "units"),
    [
        ({}, 0),
        ({0: DATA | PRESENT, 3: DATA + MIB | PRESENT}, 2),
        ({0: DATA | ZERO, 1: 1 << 40 | 3, 2: 1 << 40, 3: DATA | PRESENT}, 1),
    ],
)
def test_a_sound_image(entries: Mapping[int, int], units: int) -> None:
    data = make_image(entries=entries, units=units)
    assert findings(data) == []
    assert steps(data) == []


def test_a_sound_child() -> None:
    data = child(entries={0: DATA | PARTIAL, RATIO: DATA + MIB | PRESENT}, units=2)
    assert findings(data) == []
    assert steps(data) == []


BAD_ENTRIES = [
    ({1: DATA | 4}, 1, "state", 1),
    ({2: DATA | 5}, 1, "state", 2),
    ({1: DATA | PARTIAL}, 1, "state", 1),
    ({3: PRESENT}, 0, "state", 3),
    ({1: DATA + MIB | PRESENT}, 1, "outside", 1),
    ({1: 1 << 60 | PRESENT}, 0, "outside", 1),
    ({1: 2**64 - MIB | PRESENT}, 0, "outside", 1),
    ({0: DATA | PRESENT, 3: DATA | PRESENT}, 1, "overlap", 3),
    ({1: LOG | PRESENT}, 0, "overlap", 1),
    ({1: BAT | PRESENT}, 0, "overlap", 1),
    ({1: METADATA | PRESENT}, 0, "overlap", 1),
]


@pytest.mark.parametrize(("entries", "units", "code", "number"), BAD_ENTRIES)
def test_bad_entries(entries: Mapping[int, int], units: int, code: str, number: int) -> None:
    data = make_image(entries=entries, units=units)
    (found,) = [finding for finding in findings(data) if finding.severity is not Severity.NOTE]
    assert (found.code, found.severity, found.offset) == (code, Severity.ERROR, BAT + 8 * number)
    assert f"number {number}" in found.message
    (step,) = steps(data)
    assert step.loses
    assert set(codes(repaired(data))) <= {"unused"}


def test_a_repair_keeps_the_first_of_two_blocks_in_one_place() -> None:
    data = repaired(make_image(entries={0: DATA | PRESENT, 3: DATA | PRESENT}, units=1))
    layer = vhdx.FORMAT.open(MemoryFiles(data))
    content = read_layers([(layer, data)], 0, 4 * MIB)
    assert content == b"\x01" * MIB + bytes(3 * MIB)


def test_blocks_that_overlap_in_part() -> None:
    region = metadata_region(items(8 * MIB, block=2 * MIB))
    data = make_image(entries={0: DATA | PRESENT, 2: DATA + MIB | PRESENT}, units=3, metadata=region)
    assert codes(data) == ["overlap"]


def test_the_disk_s_last_block_may_be_cut_short() -> None:
    region = metadata_region(items(5 * MIB, block=2 * MIB))
    assert findings(make_image(entries={2: DATA | PRESENT}, units=1, metadata=region)) == []
    assert codes(make_image(entries={1: DATA | PRESENT}, units=1, metadata=region)) == ["outside", "unused"]


CHILDREN = [
    ({0: DATA | PARTIAL}, ["no-bitmap"]),
    ({0: DATA | PARTIAL, RATIO: DATA | PRESENT}, ["overlap"]),
    ({0: DATA | PRESENT, RATIO: 1 << 40 | PRESENT}, ["outside"]),
    ({0: DATA | PRESENT, RATIO: 3}, ["bitmap"]),
    ({0: DATA | PARTIAL, RATIO: 3}, ["no-bitmap", "bitmap"]),
]


@pytest.mark.parametrize(("entries", "expected"), CHILDREN)
def test_bitmaps(entries: Mapping[int, int], expected: list[str]) -> None:
    data = child(entries=entries, units=1)
    assert codes(data) == expected
    assert set(codes(repaired(data))) <= {"unused"}


def test_entries_for_bitmaps_mean_nothing_in_a_base() -> None:
    region = metadata_region(items((RATIO + 1) * MIB))
    data = make_image(entries={RATIO: DATA | PRESENT, 0: DATA | PRESENT}, units=1, metadata=region)
    assert findings(data) == []


def test_reserved_bits_are_noted() -> None:
    assert codes(make_image(entries={0: DATA | 8 | PRESENT}, units=1)) == ["reserved"]


def test_unused_space_is_noted() -> None:
    (found,) = findings(make_image(units=3))
    assert (found.code, found.severity) == ("unused", Severity.NOTE)
    assert str(3 * MIB) in found.message


COPIES = [
    ({"headers": (header(7), b"")}, "header-copy", 128 * K),
    ({"headers": (b"", header(7))}, "header-copy", 64 * K),
    ({"tables": (region_table(), b"")}, "region-copy", 256 * K),
    ({"tables": (b"", region_table())}, "region-copy", 192 * K),
]


@pytest.mark.parametrize(("fields", "code", "offset"), COPIES)
def test_a_damaged_copy(fields: dict[str, tuple[bytes, bytes]], code: str, offset: int) -> None:
    data = make_image(**fields)  # type: ignore[arg-type]
    (found,) = findings(data)
    assert (found.code, found.offset, found.severity) == (code, offset, Severity.WARNING)
    assert [step.loses for step in steps(data)] == [False]
    assert findings(repaired(data)) == []


def test_region_tables_that_differ() -> None:
    base = vhdx.FORMAT.open(MemoryFiles(make_image())).facts
    other = region_table(
        [(uuid, offset, MIB, 0) for uuid, offset in ((GUIDS["bat"], BAT), (GUIDS["metadata"], METADATA))]
    )
    data = make_image(tables=(region_table(), other))
    assert codes(data) == ["region-copy"]
    assert repaired(data)[256 * K : 320 * K] == region_table()
    assert vhdx.FORMAT.open(MemoryFiles(repaired(data))).facts == base


def test_a_dirty_log_is_replayed_first() -> None:
    entry = (DATA | PRESENT).to_bytes(8, "little").ljust(4096, b"\0")
    data = dirty(ring({0: log_entry([(BAT, entry)])}), entries={1: DATA + MIB | PRESENT}, units=1)
    found = findings(data)
    assert [finding.code for finding in found] == ["dirty-log"]
    assert found[0].severity is Severity.WARNING
    assert [step.loses for step in steps(data)] == [False, False]
    assert findings(repaired(data)) == []


def test_parents() -> None:
    link = {"parent_linkage": f"{{{LINKAGE}}}"}
    assert codes(child(values=link)) == ["no-parent"]
    base = make_image(metadata=metadata_region(items(locator=locator(link))))
    assert codes(base) == ["parent-of-base"]
