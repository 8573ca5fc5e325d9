"""Repairing VDI: what is planned, what it loses, and that nothing is left to do afterwards."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from drivebay.blockmap import RepairStep
from drivebay.formats import vdi
from drivebay.formats.vdi.header import FREE, ZERO
from drivebay.model import Severity
from support.interpreter import read_layers
from support.memory_files import MemoryFiles, files_made_by
from support.vdi_images import BLOCK, make_image

MAP = 1 << 20
PARENT = UUID("11111111-2222-3333-4444-555555555555")


def plan(data: bytes) -> list[RepairStep]:
    files = MemoryFiles(data)
    assert vdi.FORMAT.repair is not None
    return list(vdi.FORMAT.repair(files, vdi.FORMAT.open(files)))


def done(data: bytes, steps: Sequence[RepairStep]) -> bytes:
    return files_made_by([change for step in steps for change in step.changes], {"": data})[""]


def faults(data: bytes) -> list[str]:
    files = MemoryFiles(data)
    assert vdi.FORMAT.check is not None
    found = vdi.FORMAT.check(files, vdi.FORMAT.open(files))
    return [one.code for one in found if one.severity is not Severity.NOTE]


def entries(data: bytes) -> tuple[int, ...]:
    return struct.unpack_from("<4I", data, MAP)


@pytest.mark.parametrize(
    "sound",
    [
        {},
        {"entries": (1, FREE, 0, ZERO), "units": 2, "blocks_allocated": 2},
        {"type": 4, "parent_uuid": PARENT},
        {"type": 4},  # without a parent, which no repair can find
    ],
)
def test_a_sound_image_needs_nothing(sound: dict[str, Any]) -> None:
    assert plan(make_image(**sound)) == []


@pytest.mark.parametrize(
    ("faulty", "after", "counter", "loses"),
    [
        ({"entries": (0, 1, FREE, ZERO), "units": 2, "blocks_allocated": 0}, (0, 1, FREE, ZERO), 2, False),
        ({"entries": (0, 1, FREE, ZERO), "units": 2, "blocks_allocated": 4}, (0, 1, FREE, ZERO), 2, False),
        ({"entries": (0, 9, FREE, ZERO), "units": 1, "blocks_allocated": 1}, (0, FREE, FREE, ZERO), 1, True),
        ({"entries": (0, 1, 0, 1), "units": 2, "blocks_allocated": 2}, (0, 1, FREE, FREE), 2, True),
        (
            {"entries": (0, 1, 2, 3), "units": 4, "blocks_allocated": 4, "size": 2 * BLOCK},
            (0, 1, FREE, FREE),
            2,
            False,
        ),
        (
            {"entries": (0, 0, 7, 1), "units": 2, "blocks_allocated": 1, "size": 3 * BLOCK},
            (0, FREE, FREE, FREE),
            1,
            True,
        ),
    ],
)
def test_faults_are_repaired(
    faulty: dict[str, Any], after: tuple[int, ...], counter: int, loses: bool
) -> None:
    data = make_image(**faulty)
    steps = plan(data)
    assert any(step.loses for step in steps) is loses
    repaired = done(data, steps)
    assert entries(repaired) == after
    assert struct.unpack_from("<I", repaired, 388) == (counter,)
    assert faults(repaired) == []
    assert plan(repaired) == []
    assert repaired[:388] == data[:388]
    assert repaired[MAP + 16 :] == data[MAP + 16 :]


def test_each_step_may_be_the_last_and_what_loses_nothing_keeps_the_content() -> None:
    data = make_image(entries=(0, 0, 7, 1), units=2, blocks_allocated=0, size=3 * BLOCK, parent_uuid=PARENT)
    steps = plan(data)
    assert len(steps) == 5
    for some in itertools.combinations(steps, 2):
        part = done(data, some)
        assert faults(done(part, plan(part))) == []
        if not any(step.loses for step in some):
            assert _first_blocks(part) == _first_blocks(data)
    assert _first_blocks(done(data, steps)) == b"\1" * BLOCK + bytes(BLOCK)


def _first_blocks(data: bytes) -> bytes:
    return read_layers([(vdi.FORMAT.open(MemoryFiles(data)), data)], 0, 2 * BLOCK)


def test_a_base_forgets_its_parent() -> None:
    data = make_image(parent_uuid=PARENT)
    (step,) = plan(data)
    assert (str(PARENT) in step.message, step.loses) == (True, False)
    assert faults(done(data, [step])) == []


def test_faults_far_apart_are_found_and_told_once() -> None:
    count = (1 << 18) + 300  # more entries than one chunk has
    table = [FREE] * count
    table[5] = table[200] = table[1 << 18] = table[count - 1] = 0xFFFF
    image = bytearray(make_image(blocks=count, map_offset=MAP, data_offset=4 << 20, size=count * BLOCK))
    image.extend(bytes((4 << 20) - len(image)))
    struct.pack_into(f"<{count}I", image, MAP, *table)
    (step,) = plan(bytes(image))
    assert step.message.startswith("free 4 map entries that point outside the file")
    assert step.message.endswith("that of block 5")
    assert [(change.offset - MAP) // 512 for change in step.changes] == [0, 1, 2048, 2050]
    assert plan(done(bytes(image), [step])) == []
