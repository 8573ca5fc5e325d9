"""Controllers of a machine: section 1.2 of the virtual-storage specification, and E1 to E4, E9."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.controllers import (
    add_controller,
    edit_controller,
    find_controller,
    remove_controller,
    rename_controller,
    used_kind,
)
from drivebay.machines.model import Machine, MachineState, Slot
from support.machines import disk, machine


def with_sata(**fields: Any) -> Machine:
    return add_controller(machine(**fields), "SATA", "IntelAhci", ports=4)


def refusal(
    expected: ErrorKind, match: str, do: Callable[..., object], *arguments: Any, **fields: Any
) -> None:
    with pytest.raises(StorageError, match=match) as refused:
        do(*arguments, **fields)
    assert refused.value.kind is expected


def test_a_new_controller_is_as_the_table_says() -> None:
    made = find_controller(add_controller(machine(), "IDE", "piix3"), "IDE")
    assert (made.kind, made.ports, made.instance) == ("PIIX3", 2, 0)
    assert made.host_io_cache
    assert made.bootable


def test_e1_names_are_keys() -> None:
    refusal(ErrorKind.IN_USE, "choose another name", add_controller, with_sata(), "SATA", "NVMe")
    two = add_controller(with_sata(), "N", "NVMe")
    refusal(ErrorKind.IN_USE, "choose another name", rename_controller, two, "N", "SATA")


def test_e2_a_bus_has_room_for_so_many_controllers() -> None:
    one = add_controller(machine(), "IDE", "PIIX4")
    refusal(ErrorKind.INVALID, "1 ide controllers already", add_controller, one, "IDE 2", "PIIX3")
    many = machine()
    for number in range(8):
        many = add_controller(many, f"S{number}", "IntelAhci")
    assert [one.instance for one in many.hardware.controllers] == list(range(8))
    refusal(ErrorKind.INVALID, "8 sata controllers", add_controller, many, "S8", "IntelAhci")


def test_e3_ports_are_within_the_range_and_the_kind_stays_on_its_bus() -> None:
    refusal(ErrorKind.INVALID, "1 to 30", add_controller, machine(), "S", "AHCI", ports=31)
    refusal(ErrorKind.INVALID, "always has 16", add_controller, machine(), "S", "LsiLogic", ports=8)
    refusal(ErrorKind.INVALID, "is on the sata bus", edit_controller, with_sata(), "SATA", kind="NVMe")


def test_a_kind_of_the_same_bus_keeps_what_it_can() -> None:
    ide = add_controller(machine(), "IDE", "PIIX4")
    assert find_controller(edit_controller(ide, "IDE", kind="ICH6"), "IDE").kind == "ICH6"
    scsi = add_controller(machine(), "SCSI", "pvscsi", ports=40)
    assert find_controller(edit_controller(scsi, "SCSI", kind="LsiLogic"), "SCSI").ports == 16


def test_e4_an_unknown_controller_is_told_with_those_there_are() -> None:
    for do in (find_controller, remove_controller, edit_controller):
        refusal(ErrorKind.NOT_FOUND, "'SATA'", do, with_sata(), "IDE")
    refusal(ErrorKind.NOT_FOUND, "none at all", find_controller, machine(), "IDE")


@pytest.mark.parametrize("state", [MachineState.SAVED, MachineState.RUNNING, MachineState.PAUSED])
def test_e9_controllers_change_only_while_the_machine_is_off(state: MachineState) -> None:
    busy = replace(with_sata(), state=state)
    refusal(ErrorKind.STATE, "machine 'vm'", add_controller, busy, "N", "NVMe")
    refusal(ErrorKind.STATE, "machine 'vm'", remove_controller, busy, "SATA")
    refusal(ErrorKind.STATE, "machine 'vm'", rename_controller, busy, "SATA", "S")
    refusal(ErrorKind.STATE, "machine 'vm'", edit_controller, busy, "SATA", ports=2)


def test_an_aborted_machine_is_off() -> None:
    assert (
        remove_controller(replace(with_sata(), state=MachineState.ABORTED), "SATA").hardware.controllers == ()
    )


def test_ports_that_drives_need_are_not_taken_away() -> None:
    filled = with_sata()
    filled = replace(filled, hardware=replace(filled.hardware, attachments=(disk("a", 3),)))
    refusal(ErrorKind.IN_USE, "SATA:3:0", edit_controller, filled, "SATA", ports=3)
    assert find_controller(edit_controller(filled, "SATA", ports=10), "SATA").ports == 10


def test_removing_detaches_and_renaming_takes_the_drives_along() -> None:
    filled = with_sata()
    filled = replace(filled, hardware=replace(filled.hardware, attachments=(disk("a", 3),)))
    assert remove_controller(filled, "SATA").hardware.attachments == ()
    (moved,) = rename_controller(filled, "SATA", "disks").hardware.attachments
    assert moved.slot == Slot("disks", 3)


def test_one_controller_of_a_kind_is_bootable() -> None:
    two = add_controller(with_sata(), "SATA 2", "AHCI")
    assert [one.bootable for one in two.hardware.controllers] == [True, False]
    swapped = edit_controller(two, "SATA 2", bootable=True)
    assert [one.bootable for one in swapped.hardware.controllers] == [False, True]
    assert find_controller(add_controller(two, "N", "NVMe"), "N").bootable


def test_a_substitute_is_one_of_the_closest_kinds() -> None:
    ide = add_controller(machine(), "IDE", "ICH6", substitute="piix4")
    assert used_kind(find_controller(ide, "IDE")).name == "PIIX4"
    refusal(ErrorKind.INVALID, "PIIX4, PIIX3", edit_controller, ide, "IDE", substitute="NVMe")
    refusal(ErrorKind.INVALID, "no substitute", edit_controller, with_sata(), "SATA", substitute="PIIX4")
    cleared = edit_controller(ide, "IDE", substitute="")
    assert used_kind(find_controller(cleared, "IDE")).name == "ICH6"
    assert find_controller(edit_controller(ide, "IDE", kind="PIIX3"), "IDE").substitute == ""


@pytest.mark.parametrize("name", ["", " x", "x ", "a\nb", "x" * 101])
def test_a_name_is_short_and_printable(name: str) -> None:
    refusal(ErrorKind.INVALID, "can't be called", add_controller, machine(), name, "NVMe")
