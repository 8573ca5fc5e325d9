"""Checking VDI: each fault of a map is found, and sound images have none."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import vdi
from drivebay.formats.vdi.header import FREE, ZERO
from drivebay.model import Finding
from support.memory_files import MemoryFiles
from support.vdi_images import make_image

MAP = 1 << 20
PARENT = UUID("11111111-2222-3333-4444-555555555555")


def findings(data: bytes) -> list[Finding]:
    files = MemoryFiles(data)
    assert vdi.FORMAT.check is not None
    return list(vdi.FORMAT.check(files, vdi.FORMAT.open(files)))


def told(data: bytes) -> list[tuple[str, str, int | None]]:
    return [(found.severity.value, found.code, found.offset) for found in findings(data)]


@pytest.mark.parametrize(
    "sound",
    [
        {},
        {"entries": (ZERO, ZERO, FREE, FREE)},
        {"entries": (1, FREE, 0, ZERO), "units": 2, "blocks_allocated": 2},
        {"entries": (3, 2, 1, 0), "units": 4, "blocks_allocated": 4, "extra": 512},
        {"type": 4, "parent_uuid": PARENT},
        {"type": 3},
        {"entries": (FREE,) * 6, "blocks": 6},
    ],
)
def test_a_sound_image(sound: dict[str, Any]) -> None:
    assert findings(make_image(**sound)) == []


@pytest.mark.parametrize(
    ("faulty", "expected"),
    [
        (
            {"entries": (0, 1, 7, 9), "units": 2, "blocks_allocated": 2},
            ("error", "outside", MAP + 8),
        ),
        (
            {"entries": (0, FREE, 5, FREE), "units": 6, "blocks_allocated": 1},
            ("error", "outside", MAP + 8),
        ),
        (
            {"entries": (0, 1, 0, FREE), "units": 2, "blocks_allocated": 2},
            ("error", "doubled", MAP + 8),
        ),
        (
            {"entries": (FREE, FREE, FREE, FREE, 0), "blocks": 5},
            ("warning", "unreachable", MAP + 16),
        ),
        (
            {"entries": (1, 0, FREE, FREE), "units": 2, "blocks_allocated": 1},
            ("warning", "counter-low", 388),
        ),
        (
            {"entries": (0, FREE, FREE, FREE), "units": 2, "blocks_allocated": 2},
            ("note", "counter-high", 388),
        ),
        (
            {"entries": (1, FREE, FREE, FREE), "units": 2, "blocks_allocated": 2},
            ("note", "unused", None),
        ),
        (
            {"entries": (0, FREE, FREE, FREE), "units": 2, "blocks_allocated": 1},
            ("note", "trailing", 3 << 20),
        ),
        ({"type": 4}, ("error", "no-parent", 424)),
        ({"type": 1, "parent_uuid": PARENT}, ("warning", "parent-of-base", 424)),
        ({"type": 2, "parent_uuid": PARENT}, ("warning", "parent-of-base", 424)),
    ],
)
def test_a_fault_is_found(faulty: dict[str, Any], expected: tuple[str, str, int | None]) -> None:
    assert expected in told(make_image(**faulty))


def test_a_truncated_block_is_outside() -> None:
    data = make_image(entries=(0, 1, FREE, FREE), units=2, blocks_allocated=2)
    assert ("error", "outside", MAP + 4) in told(data[:-512])


def test_many_faults_are_one_finding() -> None:
    (found,) = findings(make_image(entries=range(100, 104)))
    assert "4" in found.message
    assert "block 0: 100" in found.message


def test_doubled_pointers_are_found_across_the_pieces_of_a_long_map() -> None:
    blocks = 1 << 18
    entries = [FREE] * blocks
    entries[5] = entries[blocks - 1] = 0
    data = make_image(entries=entries, units=1, blocks=blocks, size=blocks << 20, blocks_allocated=1)
    assert told(data) == [("error", "doubled", MAP + 4 * (blocks - 1))]


def test_a_file_that_shrinks_meanwhile_is_an_error() -> None:
    class Shrinking(MemoryFiles):
        def read(self, offset: int, length: int) -> bytes:
            return super().read(offset, length if offset < MAP else 2)

    files = Shrinking(make_image())
    assert vdi.FORMAT.check is not None
    with pytest.raises(StorageError, match="became shorter") as caught:
        list(vdi.FORMAT.check(files, vdi.FORMAT.open(files)))
    assert caught.value.kind is ErrorKind.IO
