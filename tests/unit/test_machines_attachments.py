"""Drives of a machine: sections 1.2 to 1.4, 1.8 of the virtual-storage specification, and E4 to E15."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.attachments import attach, change_flags, detach, insert
from drivebay.machines.bandwidth import add_group
from drivebay.machines.controllers import add_controller, find_controller
from drivebay.machines.model import Attachment, Machine, MachineState, Slot
from drivebay.machines.slots import choose_slot, find_attachment
from drivebay.registry.medium import DeviceType, MediumType
from support.machines import disk, machine, medium, named, tree_of

TREE = tree_of(
    [
        *(medium(name) for name in "abc"),
        medium("cd", device=DeviceType.DVD, type=MediumType.READONLY),
        medium("cd2", device=DeviceType.DVD, type=MediumType.READONLY),
        medium("fd", device=DeviceType.FLOPPY, type=MediumType.WRITETHROUGH),
    ]
)
CD = Attachment(Slot("SATA", 1), DeviceType.DVD, named("cd"))


def equipped(*drives: Attachment, state: MachineState = MachineState.POWERED_OFF) -> Machine:
    """A machine with a controller of each of these kinds, and these drives."""
    made = machine()
    for name, kind in {
        "SATA": "AHCI",
        "IDE": "PIIX4",
        "USB": "USB",
        "V": "VirtioSCSI",
        "F": "I82078",
    }.items():
        made = add_controller(made, name, kind, ports=4 if name == "SATA" else None)
    made = add_controller(made, "N", "NVMe")
    for drive in drives:
        made = attach(made, TREE, drive)
    return replace(made, state=state)


def running(*drives: Attachment) -> Machine:
    return equipped(*drives, state=MachineState.RUNNING)


def on(controller: str, port: int = 0, unit: int = 0, **fields: Any) -> Attachment:
    return Attachment(Slot(controller, port, unit), medium=named("a"), **fields)


def refusal(
    expected: ErrorKind, match: str, do: Callable[..., object], *arguments: Any, **fields: Any
) -> None:
    with pytest.raises(StorageError, match=match) as refused:
        do(*arguments, **fields)
    assert refused.value.kind is expected


def test_a_drive_is_attached_and_detached() -> None:
    made = equipped(disk("a"), CD)
    assert find_attachment(made, Slot("SATA", 1)) == CD
    assert detach(made, CD).hardware.attachments == (disk("a"),)


def test_e4_the_controller_is_there() -> None:
    refusal(ErrorKind.NOT_FOUND, "no controller 'SCSI'", attach, equipped(), TREE, on("SCSI"))


@pytest.mark.parametrize(("port", "unit"), [(30, 0), (-1, 0), (0, 1)])
def test_e5_slots_are_within_the_range(port: int, unit: int) -> None:
    refusal(ErrorKind.INVALID, "there is no slot", attach, equipped(), TREE, on("SATA", port, unit))


def test_e5_an_ide_port_has_a_master_and_a_slave() -> None:
    attach(equipped(), TREE, on("IDE", 1, 1))
    refusal(ErrorKind.INVALID, "devices 0 to 1", attach, equipped(), TREE, on("IDE", 0, 2))
    refusal(ErrorKind.INVALID, "ports 0 to 1", attach, equipped(), TREE, on("IDE", 2))


def test_ports_grow_as_far_as_the_kind_has_them() -> None:
    grown = attach(equipped(), TREE, on("SATA", 29))
    assert find_controller(grown, "SATA").ports == 30


def test_e6_a_slot_and_a_disk_are_taken_once() -> None:
    taken = equipped(disk("a"))
    refusal(ErrorKind.IN_USE, "detach it first", attach, taken, TREE, disk("b"))
    refusal(ErrorKind.IN_USE, "at SATA:0:0", attach, taken, TREE, disk("a", 1))


def test_one_cd_may_be_in_several_drives() -> None:
    attach(equipped(CD), TREE, replace(CD, slot=Slot("SATA", 2)))


@pytest.mark.parametrize("controller", ["SATA", "IDE", "N"])
def test_e7_no_drive_comes_or_goes_where_qemu_cannot(controller: str) -> None:
    refusal(ErrorKind.STATE, "stop the machine first", attach, running(), TREE, on(controller))
    busy = running(on(controller))
    refusal(ErrorKind.STATE, "stop the machine first", detach, busy, on(controller))


@pytest.mark.parametrize("controller", ["USB", "V"])
def test_drives_come_and_go_while_the_machine_runs(controller: str) -> None:
    busy = attach(running(), TREE, on(controller))
    made = find_attachment(busy, Slot(controller))
    assert made.hotpluggable
    assert detach(busy, made).hardware.attachments == ()


def test_a_running_machine_gets_no_further_ports() -> None:
    refusal(ErrorKind.INVALID, "no further ports", attach, running(), TREE, on("V", 1))


def test_e8_a_drive_goes_only_if_it_is_marked() -> None:
    refusal(ErrorKind.UNSUPPORTED, "not marked hot-pluggable", detach, running(on("V")), on("V"))
    marked = on("V", hotpluggable=True)
    assert detach(running(marked), marked).hardware.attachments == ()
    assert detach(running(on("USB")), on("USB")).hardware.attachments == ()


def test_e9_a_saved_machine_stays_as_it_is() -> None:
    saved = equipped(disk("a"), CD, state=MachineState.SAVED)
    refusal(ErrorKind.STATE, "is saved", attach, saved, TREE, disk("b", 2))
    refusal(ErrorKind.STATE, "is saved", detach, saved, CD)
    refusal(ErrorKind.STATE, "is saved", insert, saved, TREE, CD, None)
    refusal(ErrorKind.STATE, "is saved", change_flags, saved, disk("a"), discard=True)


def test_e11_a_controller_takes_its_kinds_of_drives_only() -> None:
    refusal(
        ErrorKind.INVALID, "takes disk drives only", attach, equipped(), TREE, replace(CD, slot=Slot("N"))
    )
    refusal(ErrorKind.INVALID, "takes floppy drives only", attach, equipped(), TREE, on("F"))


def test_e24_a_medium_is_for_one_kind_of_drive() -> None:
    refusal(ErrorKind.INVALID, "--type dvd", attach, equipped(), TREE, replace(disk("a"), medium=named("cd")))


@pytest.mark.parametrize("flag", ["nonrotational", "discard"])
def test_e12_flags_of_disks_are_for_disks(flag: str) -> None:
    refusal(ErrorKind.INVALID, f"--{flag} is for disk", attach, equipped(), TREE, replace(CD, **{flag: True}))


def test_e12_flags_of_dvd_drives_are_for_dvd_drives() -> None:
    refusal(
        ErrorKind.INVALID, "--temp-eject is for dvd", attach, equipped(), TREE, disk("a", temp_eject=True)
    )


def test_e12_there_is_nothing_to_change_in_an_empty_slot() -> None:
    refusal(
        ErrorKind.NOT_FOUND, "nothing is attached at SATA:2:0", find_attachment, equipped(), Slot("SATA", 2)
    )


def test_e13_hot_pluggable_where_the_kind_allows_it() -> None:
    refusal(ErrorKind.UNSUPPORTED, "PIIX4", attach, equipped(), TREE, on("IDE", hotpluggable=True))
    attach(equipped(), TREE, on("SATA", hotpluggable=True))
    floppy = Attachment(Slot("F"), DeviceType.FLOPPY, named("fd"), hotpluggable=True)
    refusal(ErrorKind.INVALID, "for disk and dvd", attach, equipped(), TREE, floppy)


def test_e15_a_disk_is_no_removable_medium() -> None:
    refusal(
        ErrorKind.STATE, "can't be changed or ejected", insert, equipped(disk("a")), TREE, disk("a"), None
    )


def test_media_change_while_the_machine_runs() -> None:
    changed = insert(running(CD), TREE, CD, named("cd2"))
    assert find_attachment(changed, CD.slot).medium == named("cd2")
    assert find_attachment(insert(running(CD), TREE, CD, None), CD.slot).medium is None
    refusal(ErrorKind.INVALID, "no dvd drive", insert, running(CD), TREE, CD, named("a"))


def test_a_disk_is_never_empty() -> None:
    refusal(ErrorKind.INVALID, "can't be empty", attach, equipped(), TREE, replace(disk("a"), medium=None))


def test_flags_change_as_the_state_allows() -> None:
    made = add_group(equipped(disk("a"), CD), "slow", 1)
    saved, busy = replace(made, state=MachineState.SAVED), replace(made, state=MachineState.RUNNING)
    assert find_attachment(change_flags(made, disk("a"), serial="X1"), Slot("SATA")).serial == "X1"
    assert find_attachment(change_flags(busy, CD, temp_eject=True), CD.slot).temp_eject
    grouped = change_flags(saved, disk("a"), bandwidth_group="slow")
    assert find_attachment(grouped, Slot("SATA")).bandwidth_group == "slow"
    refusal(ErrorKind.STATE, "is running", change_flags, busy, disk("a"), bandwidth_group="slow")
    refusal(ErrorKind.STATE, "is running", change_flags, busy, disk("a"), nonrotational=True)
    assert change_flags(busy, disk("a"), nonrotational=False) == busy


def test_e4_a_drive_joins_a_group_that_is_there() -> None:
    refusal(
        ErrorKind.NOT_FOUND, "no bandwidth group", attach, equipped(), TREE, disk("a", bandwidth_group="x")
    )


@pytest.mark.parametrize(
    "fields", [{"serial": "x" * 21}, {"serial": "ä"}, {"model": "y" * 41}, {"model": " m"}]
)
def test_serials_and_models_fit_into_their_fields(fields: dict[str, str]) -> None:
    refusal(ErrorKind.INVALID, "printable ASCII", attach, equipped(), TREE, disk("a", **fields))


def test_the_first_free_slot_is_taken() -> None:
    made = equipped(disk("a"))
    assert choose_slot(made, DeviceType.DISK) == Slot("SATA", 1)
    assert choose_slot(made, DeviceType.FLOPPY) == Slot("F")
    assert choose_slot(made, DeviceType.DISK, "IDE") == Slot("IDE")
    assert choose_slot(made, DeviceType.DISK, "IDE", 1, 1) == Slot("IDE", 1, 1)
    assert choose_slot(attach(made, TREE, disk("b", 1)), DeviceType.DISK, "SATA") == Slot("SATA", 2)


def test_e6_when_all_slots_are_taken() -> None:
    one = attach(add_controller(machine(), "F", "I82078"), TREE, Attachment(Slot("F"), DeviceType.FLOPPY))
    both = attach(one, TREE, Attachment(Slot("F", 0, 1), DeviceType.FLOPPY))
    refusal(ErrorKind.IN_USE, "all slots", choose_slot, both, DeviceType.FLOPPY)


def test_e11_when_no_controller_takes_such_a_drive() -> None:
    refusal(ErrorKind.INVALID, "controller add", choose_slot, machine(), DeviceType.DISK)


def test_an_image_that_waits_to_be_merged_is_not_attached() -> None:
    tree = tree_of([medium("old", merging=True)])
    refusal(ErrorKind.STATE, "medium tidy", attach, equipped(), tree, disk("old"))
