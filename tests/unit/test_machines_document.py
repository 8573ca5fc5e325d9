"""Machine files that can't be: E64 of the specification's error table, and files of others."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.checks import faults
from drivebay.machines.controllers import add_controller
from drivebay.machines.document import from_document, from_text, to_document
from drivebay.machines.model import BandwidthGroup, Machine
from drivebay.registry.medium import MediumType
from support.machines import disk, machine, medium, named, snapshot, tree_of


def sound() -> Machine:
    made = add_controller(machine(), "SATA", "AHCI")
    hardware = replace(made.hardware, attachments=(disk("a"),), bandwidth_groups=(BandwidthGroup("g"),))
    return replace(made, hardware=hardware, snapshots=(snapshot("s1", None), snapshot("s2", "s1")))


def read(machine: Machine) -> Machine:
    return from_document(json.loads(json.dumps(to_document(machine, []))), machine.folder)[0]


def refused(
    damaged: Machine | dict[str, Any] | object, match: str, kind: ErrorKind = ErrorKind.CORRUPT
) -> None:
    with pytest.raises(StorageError, match=match) as found:
        read(damaged) if isinstance(damaged, Machine) else from_document(damaged, "/m")
    assert found.value.kind is kind


def test_a_sound_machine_is_read() -> None:
    assert read(sound()) == sound()


def test_e64_two_drives_in_a_slot() -> None:
    hardware = replace(sound().hardware, attachments=(disk("a"), disk("b")))
    refused(replace(sound(), hardware=hardware), "two drives are in slot SATA:0:0")


def test_e64_a_bandwidth_group_that_is_not_there() -> None:
    hardware = replace(sound().hardware, attachments=(disk("a", bandwidth_group="x"),))
    refused(replace(sound(), hardware=hardware), "bandwidth group 'x'")


def test_e64_a_current_snapshot_that_is_not_there() -> None:
    refused(replace(sound(), current=named("other")), "current snapshot")


def test_e64_a_controller_that_is_not_there_or_unknown() -> None:
    refused(replace(sound(), hardware=replace(sound().hardware, controllers=())), "isn't there")
    (controller,) = sound().hardware.controllers
    strange = replace(sound().hardware, controllers=(replace(controller, kind="IDE-9000"),))
    refused(replace(sound(), hardware=strange), "IDE-9000")
    refused(
        replace(sound(), hardware=replace(strange, controllers=(controller, controller))), "two controllers"
    )


def test_e64_faults_in_a_snapshot_are_found_too() -> None:
    bad = snapshot("s1", None, disk("a"))
    refused(replace(sound(), snapshots=(bad,)), "in snapshot 's1'")


def test_snapshots_descend_from_others() -> None:
    circle = (snapshot("s1", "s2"), snapshot("s2", "s1"))
    refused(replace(sound(), snapshots=circle), "descends from itself")
    refused(replace(sound(), snapshots=(snapshot("s1", "s0"),)), "the parent")
    refused(replace(sound(), snapshots=(snapshot("s1", None),) * 2), "two snapshots")


@pytest.mark.parametrize(
    ("document", "match"),
    [
        ([], "no JSON object"),
        ({}, "no version"),
        ({"drivebay": True}, "no version"),
        ({"drivebay": 1}, "no 'machine'"),
        ({"drivebay": 1, "machine": {}}, "no 'uuid'"),
        ({"drivebay": 1, "machine": to_document(sound(), [])["machine"], "media": [1]}, "no list of objects"),
    ],
)
def test_what_is_no_machine_file(document: object, match: str) -> None:
    refused(document, match)


def test_damage_is_told_by_its_place() -> None:
    document = to_document(sound(), [])
    document["machine"]["hardware"]["controllers"][0]["ports"] = "many"
    refused(document, r"machine.hardware.controllers\[0\].ports can't be 'many'")


def test_a_newer_file_is_not_touched() -> None:
    refused({**to_document(sound(), []), "drivebay": 2}, "newer drivebay", ErrorKind.STATE)


@pytest.mark.parametrize("text", ["", "{", "[" * 100000, "[]"])
def test_text_that_is_no_document(text: str) -> None:
    with pytest.raises(StorageError) as found:
        from_text(text, "/m")
    assert found.value.kind is ErrorKind.CORRUPT


def test_e64_media_that_must_not_be_written() -> None:
    immutable = tree_of([medium("a", type=MediumType.IMMUTABLE)])
    assert "without a differencing image" in faults(sound(), immutable)[0]
    assert "other images build on it" in faults(sound(), tree_of([medium("a"), medium("b", "a")]))[0]
    assert "not registered" in faults(sound(), tree_of([]))[0]
    twice = replace(sound().hardware, attachments=(disk("a"), disk("a", 1)))
    assert "the same medium" in faults(replace(sound(), hardware=twice), tree_of([medium("a")]))[0]
    assert faults(sound(), tree_of([medium("a")])) == []
