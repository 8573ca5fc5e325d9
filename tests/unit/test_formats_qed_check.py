"""What check says about QED tables, and that a repair leaves a sound image that reads as before."""

from __future__ import annotations

from typing import Any

import pytest

from drivebay.blockmap import RepairStep
from drivebay.formats import qed
from drivebay.model import Finding, Severity
from support.interpreter import read_layers
from support.memory_files import MemoryFiles, files_made_by
from support.qed_images import CLUSTER, DATA, L1, L2, make_image

SIZE = 8 * CLUSTER


def findings(data: bytes) -> list[Finding]:
    files = MemoryFiles(data, "image.qed")
    assert qed.FORMAT.check is not None
    return list(qed.FORMAT.check(files, qed.FORMAT.open(files)))


def codes(data: bytes) -> list[str]:
    return [finding.code for finding in findings(data)]


def steps(data: bytes) -> list[RepairStep]:
    files = MemoryFiles(data, "image.qed")
    assert qed.FORMAT.repair is not None
    return list(qed.FORMAT.repair(files, qed.FORMAT.open(files)))


def repaired(data: bytes) -> bytes:
    for step in steps(data):
        assert not step.loses
        data = files_made_by(step.changes, {"": data})[""]
    return data


def content(data: bytes) -> bytes:
    layer = qed.FORMAT.open(MemoryFiles(data, "image.qed"))
    return read_layers([(layer, data)], 0, SIZE)


SOUND: list[dict[str, Any]] = [
    {"clusters": 0},
    {"entries": {0: 1, 3: DATA}, "clusters": 1},
    {"entries": {n: DATA + n * CLUSTER for n in range(4)}},
]


@pytest.mark.parametrize("fields", SOUND)
def test_a_sound_image(fields: dict[str, Any]) -> None:
    data = make_image(**fields)
    assert findings(data) == []
    assert steps(data) == []


@pytest.mark.parametrize(
    ("fields", "code", "offset"),
    [
        ({"entries": {2: DATA + 4 * CLUSTER}}, "outside", L2 + 16),
        ({"entries": {2: DATA + 512}}, "outside", L2 + 16),
        ({"entries": {2: 2}}, "outside", L2 + 16),
        ({"entries": {0: DATA, 5: DATA}}, "doubled", L2 + 40),
        ({"entries": {0: L1}}, "doubled", L2),
        ({"entries": {0: L2}}, "doubled", L2),
        ({"tables": {0: 1}}, "outside-table", L1),
        ({"tables": {1: L2}, "size": 600 * CLUSTER}, "doubled-table", L1 + 8),
        ({"tables": {0: L1}}, "doubled-table", L1),
    ],
)
def test_a_fault_is_an_error(fields: dict[str, Any], code: str, offset: int) -> None:
    (fault, *_) = [finding for finding in findings(make_image(**fields)) if finding.code == code]
    assert (fault.severity, fault.offset) == (Severity.ERROR, offset)


def test_what_wastes_space_is_a_note() -> None:
    data = make_image(entries={0: DATA}, clusters=3) + bytes(100)
    assert [(found.code, found.severity) for found in findings(data)] == [
        ("unused", Severity.NOTE),
        ("trailing", Severity.NOTE),
    ]


def test_the_flags_are_told() -> None:
    assert codes(make_image(clusters=0, features=2, autoclear_features=1)) == ["needs-check", "autoclear"]


def test_a_repair_parts_what_two_entries_share() -> None:
    data = make_image(entries={0: DATA, 5: DATA, 6: DATA, 7: L1}, clusters=1)
    sound = repaired(data)
    assert codes(sound) == []
    assert content(sound) == content(data)


def test_a_repair_drops_what_points_nowhere() -> None:
    data = make_image(entries={0: DATA, 1: DATA + 100 * CLUSTER, 2: 77}, clusters=1)
    sound = repaired(data)
    assert codes(sound) == []
    assert content(sound) == b"\1" * CLUSTER + bytes(7 * CLUSTER)


def test_a_repair_of_many_entries_takes_several_steps() -> None:
    junk = {1: DATA, 2: DATA + CLUSTER, 3: DATA + 2 * CLUSTER}  # leaf tables full of bad entries
    data = make_image(tables=junk, size=4 * 512 * CLUSTER, clusters=3)
    assert [len(step.changes) for step in steps(data)] == [1024, 512]
    assert codes(repaired(data)) == []


def test_a_repair_clears_the_flag_when_all_is_well() -> None:
    data = make_image(features=2, entries={0: DATA, 1: DATA}, clusters=1)
    assert codes(repaired(data)) == []


def test_a_shared_table_is_left_alone_and_so_is_the_flag() -> None:
    data = make_image(features=2, tables={1: L2}, size=600 * CLUSTER, clusters=0)
    assert steps(data) == []
