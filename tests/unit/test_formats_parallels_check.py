"""What check says about Parallels tables, and that a repair leaves a sound image that reads as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import drivebay
from drivebay.blockmap import FileWrite, RepairStep
from drivebay.formats import parallels
from drivebay.model import Finding, Severity
from support.interpreter import read_layers
from support.memory_files import MemoryFiles, files_made_by
from support.parallels_images import BLOCK, ROOT, SECTORS, TOP, bundle, make_descriptor, make_image, make_old


def findings(files: MemoryFiles) -> list[Finding]:
    assert parallels.FORMAT.check is not None
    return list(parallels.FORMAT.check(files, parallels.FORMAT.open(files)))


def codes(data: bytes) -> list[str]:
    return [finding.code for finding in findings(MemoryFiles(data, "image.hdd"))]


def steps(files: MemoryFiles) -> list[RepairStep]:
    assert parallels.FORMAT.repair is not None
    return list(parallels.FORMAT.repair(files, parallels.FORMAT.open(files)))


def repaired(data: bytes) -> bytes:
    for step in steps(MemoryFiles(data, "image.hdd")):
        data = files_made_by(step.changes, {"": data})[""]
    return data


def content(data: bytes) -> bytes:
    layer = parallels.FORMAT.open(MemoryFiles(data, "image.hdd"))
    return read_layers([(layer, data)], 0, layer.facts.size)


@pytest.mark.parametrize(
    "data", [make_image(blocks=0), make_image([3, 0, 1, 2]), make_old([1, 0, 64, 127]), make_old(blocks=0)]
)
def test_a_sound_image(data: bytes) -> None:
    assert codes(data) == []
    assert steps(MemoryFiles(data, "image.hdd")) == []


@pytest.mark.parametrize(
    ("data", "code", "offset"),
    [
        (make_image([0, 4]), "outside", 68),
        (make_image([0xFFFFFFFF]), "outside", 64),
        (make_old([0, 0, 0xFFFFFFFF]), "outside", 72),
        (make_image([2, 1, 2]), "doubled", 72),
        (make_old([1, 10]), "doubled", 68),
        (make_image([1, 2, 3], entries=9, sectors=2 * SECTORS), "unreachable", 72),
        (make_image(in_use=0x746F6E59), "in-use", 44),
        (make_image(in_use=5), "in-use-unknown", 44),
        (make_image([1], flags=1), "not-empty", 52),
        (make_image(data_offset=0), "data-offset", 48),
        (make_image(data_offset=9), "data-offset", 48),
        (make_image([1], blocks=3), "trailing", 2 * BLOCK),
        (make_image([3]), "unused", None),
    ],
)
def test_a_fault(data: bytes, code: str, offset: int | None) -> None:
    assert {(found.code, found.offset) for found in findings(MemoryFiles(data))} >= {(code, offset)}


def test_a_table_that_is_too_long_costs_no_block_that_lies_in_it() -> None:
    """One wrong number in the header: what looks like entries behind the disk's end is the guest's."""
    data = make_image([1], entries=BLOCK // 4, first=BLOCK)
    (found,) = (found for found in findings(MemoryFiles(data)) if found.severity is Severity.ERROR)
    assert (found.code, found.offset) == ("table-length", 64)
    after = repaired(data)
    assert steps(MemoryFiles(after, "image.hdd")) == []
    assert content(after) == content(data)
    assert content(data)[:BLOCK] == data[BLOCK : 2 * BLOCK]


@pytest.mark.parametrize(
    ("data", "begin"),
    [
        (make_image([1, 2, 3], data_offset=5 * SECTORS), BLOCK),
        (make_old([4, 1], data_offset=600), 512),
        (make_image([1], entries=BLOCK // 4, first=BLOCK, data_offset=5 * SECTORS), BLOCK),
    ],
)
def test_a_data_offset_behind_blocks_is_put_right(data: bytes, begin: int) -> None:
    """Writing would take those blocks for the image's own tables."""
    assert "early" in codes(data) or "table-length" in codes(data)
    after = repaired(data)
    assert int.from_bytes(after[48:52], "little") * 512 == begin
    assert steps(MemoryFiles(after, "image.hdd")) == []
    assert content(after) == content(data)


def test_shared_blocks_are_copied_piece_by_piece(tmp_path: Path) -> None:
    """A plan holds no blocks: a small file may ask for more copies than there is memory for."""
    path = tmp_path / "disk.hds"
    block = 3 << 20
    drivebay.create(path, size=5 * block, block_size=block)
    with drivebay.open(path, writable=True) as disk:
        disk.write(0, bytes(range(1, 256)) * (block // 255))
        before = disk.read(0, block)
    data = bytearray(path.read_bytes())
    data[64:84] = data[64:68] * 5
    path.write_bytes(data)
    changes = [change for step in drivebay.repair(path).steps for change in step.changes]
    assert sum(len(change.data) for change in changes if isinstance(change, FileWrite)) == 4 * 4
    drivebay.repair(path, apply=True)
    assert [found for found in drivebay.check(path) if found.severity is Severity.ERROR] == []
    with drivebay.open(path, writable=True) as disk:
        disk.write(block, b"only here")
        assert [disk.read(block * number, block) == before for number in range(5)] == [
            True,
            False,
            True,
            True,
            True,
        ]


def test_the_blocks_of_an_extension_are_not_unused() -> None:
    assert "unused" not in codes(make_image([3], extension=SECTORS))


@pytest.mark.parametrize(
    "data",
    [
        make_image([1, 1, 2, 2], blocks=2),
        make_old([1, 1, 64, 64], blocks=2),
        make_old([1, 1, 64, 64], blocks=2) + bytes(700),
        make_image([1, 1, 2], blocks=2) + bytes(100),
    ],
)
def test_a_repair_parts_what_two_entries_share(data: bytes) -> None:
    sound = repaired(data)
    assert "doubled" not in codes(sound)
    assert content(sound) == content(data)


def test_a_repair_keeps_to_the_places_where_blocks_may_be() -> None:
    sound = repaired(make_old([1, 1], blocks=1) + bytes(700))
    assert int.from_bytes(sound[68:72], "little") % 63 == 1


def test_a_repair_frees_what_points_nowhere_and_clears_the_mark() -> None:
    data = make_image([9, 1, 0, 0, 7], entries=5, in_use=0x746F6E59, blocks=1)
    assert set(codes(data)) == {"in-use", "outside", "unreachable"}
    sound = repaired(data)
    assert codes(sound) == []
    assert content(sound) == bytes(BLOCK) + b"\1" * BLOCK + bytes(2 * BLOCK)


def test_findings_and_repairs_of_a_bundle_name_the_file() -> None:
    half: dict[str, Any] = {"sectors": 2 * SECTORS, "entries": 2}
    files = {"a.hds": make_image([1], blocks=1, **half), "b.hds": make_image([1, 9], blocks=1, **half)}
    gate = bundle(make_descriptor([{TOP: "a.hds"}, {TOP: "b.hds"}], {TOP: ROOT}), files)
    (found,) = findings(gate)
    assert found.message.startswith("b.hds: ")
    assert [change.file for step in steps(gate) for change in step.changes] == ["b.hds"]
