"""Any machine is what its document says, wherever its folder is; damage gives a machine or a refusal."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from drivebay.errors import StorageError
from drivebay.machines.controllers import add_controller
from drivebay.machines.document import from_document, from_text, media_of, to_document, to_text
from drivebay.machines.kinds import KINDS
from drivebay.machines.model import (
    Attachment,
    BandwidthGroup,
    Firmware,
    Hardware,
    Machine,
    MachineState,
    Network,
    Settings,
    Slot,
    Snapshot,
)
from drivebay.registry.medium import DeviceType, MediaTree, Medium, MediumType

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8)
settings = st.builds(
    Settings,
    memory_mib=st.integers(4, 1 << 20),
    firmware=st.sampled_from(Firmware),
    boot_order=st.lists(st.sampled_from(["dvd", "disk"]), unique=True).map(tuple),
    network=st.sampled_from(Network),
    kernel=names,
    serial_log=st.booleans(),
)


@st.composite
def hardwares(draw: st.DrawFn, media: list[Medium]) -> Hardware:
    """Any controllers, with drives in some of their slots."""
    made = Machine(draw(st.uuids()), "m", "/m", Hardware(settings=draw(settings)))
    for name in draw(st.lists(names, unique=True, max_size=3)):
        kind = draw(st.sampled_from(["IntelAhci", "NVMe", "VirtioSCSI", "LsiLogic"]))
        made = add_controller(made, name.strip() or "x", kind) if _is_free(made, name) else made
    groups = tuple(BandwidthGroup(name, draw(st.integers(0))) for name in draw(st.sets(names, max_size=2)))
    slots = [Slot(one.name, port) for one in made.hardware.controllers for port in range(min(one.ports, 3))]
    chosen = draw(st.lists(st.sampled_from(slots), unique=True)) if slots else []
    attachments = tuple(draw(drives(slot, media, groups)) for slot in chosen)
    return replace(made.hardware, bandwidth_groups=groups, attachments=attachments)


def _is_free(machine: Machine, name: str) -> bool:
    return (
        all(one.name != (name.strip() or "x") for one in machine.hardware.controllers) and name.isprintable()
    )


@st.composite
def drives(
    draw: st.DrawFn, slot: Slot, media: list[Medium], groups: tuple[BandwidthGroup, ...]
) -> Attachment:
    """A drive, with or without one of the media."""
    medium = draw(st.sampled_from([None, *(medium.uuid for medium in media)]))
    group = draw(st.sampled_from(["", *(group.name for group in groups)]))
    flag = draw(st.booleans())
    return Attachment(
        slot, draw(st.sampled_from(DeviceType)), medium, flag, bandwidth_group=group, serial="S"
    )


@st.composite
def media(draw: st.DrawFn) -> list[Medium]:
    """Chains of images, in the machine's folder and elsewhere."""
    made: list[Medium] = []
    for uuid in draw(st.lists(st.uuids(), unique=True, max_size=5)):
        parent = draw(st.sampled_from([None, *(one.uuid for one in made)]))
        folder = draw(
            st.sampled_from(["/machines/vm", "/machines/vm/Snapshots", "/elsewhere", "/machines/vm2"])
        )
        kind = draw(st.sampled_from(MediumType))
        made.append(
            Medium(uuid, f"{folder}/{uuid}.vdi", "vdi", type=kind, parent=parent, size=draw(st.integers(0)))
        )
    return made


@st.composite
def machines(draw: st.DrawFn, known: list[Medium]) -> Machine:
    """A machine with a tree of snapshots."""
    snapshots: list[Snapshot] = []
    for uuid in draw(st.lists(st.uuids(), unique=True, max_size=3)):
        parent = draw(st.sampled_from([None, *(one.uuid for one in snapshots)]))
        taken = draw(st.datetimes(timezones=st.just(UTC), min_value=datetime(1980, 1, 1)))
        snapshots.append(
            Snapshot(uuid, draw(names), taken, draw(hardwares(known)), parent, state_file=draw(names))
        )
    return Machine(
        draw(st.uuids()),
        "vm",
        "/machines/vm",
        draw(hardwares(known)),
        tuple(snapshots),
        draw(st.sampled_from([None, *(one.uuid for one in snapshots)])),
        draw(st.sampled_from(MachineState)),
        modified=draw(st.booleans()),
        description=draw(names),
    )


@given(st.data())
def test_a_machine_is_what_its_document_says(data: st.DataObject) -> None:
    known = data.draw(media())
    machine = data.draw(machines(known))
    listed = media_of(machine, MediaTree.of(known))
    text = to_text(to_document(machine, listed))
    assert from_document(from_text(text, "/machines/vm"), "/machines/vm") == (machine, listed)


@given(st.data())
def test_a_folder_may_be_moved(data: st.DataObject) -> None:
    known = data.draw(media())
    machine = data.draw(machines(known))
    listed = media_of(machine, MediaTree.of(known))
    moved, found = from_document(to_document(machine, listed), "/new/place")
    assert moved == replace(machine, folder="/new/place")
    for before, after in zip(listed, found, strict=True):
        assert after.path == before.path.replace("/machines/vm/", "/new/place/")


@given(st.data(), names)
def test_unknown_keys_survive(data: st.DataObject, key: str) -> None:
    known = data.draw(media())
    machine = data.draw(machines(known))
    document = to_document(machine, media_of(machine, MediaTree.of(known)))
    _add_everywhere(document, f"x-{key}")
    again = to_document(machine, media_of(machine, MediaTree.of(known)), document)
    assert again == document
    assert from_document(again, machine.folder)[0] == machine


def _add_everywhere(value: Any, key: str) -> None:
    if isinstance(value, dict):
        for one in value.values():
            _add_everywhere(one, key)
        value[key] = {"kept": True}
    elif isinstance(value, list):
        for one in value:
            _add_everywhere(one, key)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | names | st.sampled_from([*KINDS, "SATA:0:0", "disk"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_a_damaged_document_gives_a_machine_or_a_refusal(data: st.DataObject) -> None:
    known = data.draw(media())
    machine = data.draw(machines(known))
    document = to_document(machine, known)
    places = list(_places(document))
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(json_values)
    assert _outcome(json.loads(json.dumps(document))) in ("a machine", "corrupt", "state")


def _outcome(document: Any) -> str:
    try:
        from_document(document, "/machines/vm")
    except StorageError as refused:
        return refused.kind.value
    return "a machine"


def _places(value: Any) -> Any:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])
