"""Machines in the registry: made, renamed, deleted, and their drives with all that happens to files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import drivebay
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.document import document_path, from_document, from_text
from drivebay.machines.model import Machine, MachineState, Slot
from drivebay.machines.store import delete_machine, load, save
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home
from drivebay.registry.medium import DeviceType, MediaTree, MediumType
from drivebay.service import images
from drivebay.service.machines import hardware, lifecycle
from drivebay.service.machines.drives import attach, detach, eject
from drivebay.service.machines.removal import plan_removal, remove_machine
from drivebay.service.machines.request import AttachRequest, Place
from drivebay.service.machines.show import machine_info
from drivebay.service.snapshots import take_snapshot


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(str(tmp_path / "home"))


@pytest.fixture
def vm(home: Home) -> Machine:
    """A machine with a SATA controller."""
    lifecycle.create_machine(home, "vm")
    hardware.add_controller(home, "vm", "SATA", "AHCI", ports=2)
    return read(home, "vm")


def read(home: Home, name: str) -> Machine:
    with open_registry(home) as registry, registry.view() as view:
        return load(view, name)


def tree_of(home: Home) -> MediaTree:
    with open_registry(home) as registry, registry.view() as view:
        return view.tree


def image(folder: str | Path, name: str = "a.vdi") -> str:
    path = os.path.join(folder, name)
    images.create_image(path, size="1M")
    return path


def record(home: Home, machine: Machine) -> None:
    with open_registry(home, durable=False) as registry, registry.change() as change:
        save(change, machine)


def refusal(expected: ErrorKind, match: str, do: Callable[..., object], *arguments: Any) -> None:
    with pytest.raises(StorageError, match=match) as refused:
        do(*arguments)
    assert refused.value.kind is expected


def test_a_machine_is_made_with_its_file(home: Home) -> None:
    made = lifecycle.create_machine(home, "vm", settings={"memory_mib": 64}, description="test")
    text = Path(document_path(made)).read_text()
    assert from_document(from_text(text, made.folder), made.folder) == (made, [])
    assert lifecycle.list_machines(home) == [made] == [read(home, str(made.uuid))]


def test_a_failed_creation_leaves_nothing(home: Home, vm: Machine) -> None:
    refusal(ErrorKind.IN_USE, "already", lifecycle.create_machine, home, "vm")
    other = os.path.join(home.machines, "other")
    with pytest.raises(StorageError, match="already"):
        lifecycle.create_machine(home, "vm", folder=other)
    assert not os.path.exists(other)
    with pytest.raises(StorageError, match="folder of machine 'vm'"):
        lifecycle.create_machine(home, "x", folder=vm.folder)
    with pytest.raises(StorageError, match="no such file"):
        lifecycle.create_machine(home, "y", settings={"kernel": "/no/kernel"})
    assert [one.name for one in lifecycle.list_machines(home)] == ["vm"]


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "6f1c1b0e-52f6-4d55-9f5e-0a4f4c2f9d11", "ä" * 101])
def test_some_names_are_refused(home: Home, name: str) -> None:
    refusal(ErrorKind.INVALID, "can't be called", lifecycle.create_machine, home, name)


@pytest.mark.usefixtures("vm")
def test_settings_are_checked_and_kept(home: Home) -> None:
    edited = lifecycle.edit_machine(home, "vm", settings={"cpus": 2, "boot_order": ("disk",)})
    assert (edited.hardware.settings.cpus, edited.hardware.settings.boot_order) == (2, ("disk",))
    for wrong in ({"cpus": 0}, {"memory_mib": 1}, {"boot_order": ("disk", "disk")}, {"initrd": __file__}):
        with pytest.raises(StorageError) as refused:
            lifecycle.edit_machine(home, "vm", settings=wrong)
        assert refused.value.kind is ErrorKind.INVALID
    record(home, replace(edited, state=MachineState.SAVED, state_file="x.sav"))
    with pytest.raises(StorageError, match="machine discard"):
        lifecycle.edit_machine(home, "vm", settings={"cpus": 1})
    assert lifecycle.edit_machine(home, "vm", description="new").description == "new"


def test_a_saved_state_is_forgotten(home: Home, vm: Machine) -> None:
    refusal(ErrorKind.STATE, "no saved state", lifecycle.discard_state, home, "vm")
    state = Path(vm.folder, "x.sav")
    state.write_bytes(b"memory")
    record(home, replace(vm, state=MachineState.SAVED, state_file="x.sav"))
    assert lifecycle.discard_state(home, "vm").state is MachineState.POWERED_OFF
    assert not state.exists()


def test_a_machine_that_is_recorded_as_running_was_aborted_if_nothing_runs(home: Home, vm: Machine) -> None:
    record(home, replace(vm, state=MachineState.RUNNING))
    hardware.add_controller(home, "vm", "N", "NVMe")
    assert read(home, "vm").state is MachineState.ABORTED


def test_e65_renaming_takes_the_snapshot_folder_and_its_images_along(home: Home, vm: Machine) -> None:
    path = image(vm.folder)
    attach(home, "vm", AttachRequest(medium=path))
    take_snapshot(home, "vm", "one")
    renamed = lifecycle.rename_machine(home, "vm", "new")
    assert not os.path.exists(vm.folder)
    assert os.listdir(home.machines) == ["new"]
    assert {one.path.startswith(renamed.folder + "/") for one in tree_of(home).media.values()} == {True}
    assert all(os.path.exists(one.path) for one in tree_of(home).media.values())
    text = Path(document_path(renamed)).read_text()
    assert from_document(from_text(text, renamed.folder), renamed.folder)[0] == read(home, "new")
    assert sorted(os.listdir(renamed.folder)) == ["Snapshots", "a.vdi", "new.drivebay"]


def test_renaming_is_refused_where_a_name_is_taken(home: Home, vm: Machine) -> None:
    os.mkdir(os.path.join(home.machines, "there"))
    refusal(ErrorKind.IN_USE, "move that away", lifecycle.rename_machine, home, "vm", "there")
    lifecycle.create_machine(home, "other")
    refusal(ErrorKind.IN_USE, "called .other. already", lifecycle.rename_machine, home, "vm", "other")
    assert os.path.exists(document_path(vm))


def test_unknown_keys_of_a_machine_file_stay(home: Home, vm: Machine) -> None:
    with open_registry(home) as registry, registry.change() as change:
        text = change.connection.exec_driver_sql("SELECT document FROM machines").scalar()
        document = json.loads(str(text)) | {"x-note": "mine"}
        change.connection.exec_driver_sql("UPDATE machines SET document = ?", (json.dumps(document),))
    hardware.add_group(home, "vm", "slow", "1M")
    assert json.loads(Path(document_path(vm)).read_text())["x-note"] == "mine"


def test_e4_an_unknown_machine(home: Home) -> None:
    refusal(ErrorKind.NOT_FOUND, "machine list", lifecycle.edit_machine, home, "vm")


def test_e10_nothing_is_attached_to_a_machine_that_is_not_registered(home: Home, vm: Machine) -> None:
    path = image(vm.folder)
    with open_registry(home, durable=False) as registry, registry.change() as change:
        delete_machine(change, vm)
    refusal(ErrorKind.NOT_FOUND, "no machine", attach, home, "vm", AttachRequest(medium=path))
    assert not tree_of(home).media


def test_an_image_is_registered_and_attached_as_it_is(home: Home, vm: Machine) -> None:
    done = attach(home, "vm", AttachRequest(medium=image(vm.folder), flags={"discard": True}))
    assert (done.attachment.slot, done.attachment.discard, done.diff) == (Slot("SATA"), True, None)
    (use,) = tree_of(home).uses
    assert use.machine == vm.uuid


@pytest.mark.usefixtures("vm")
def test_an_immutable_disk_gets_a_diff_of_its_own_on_every_machine(home: Home, tmp_path: Path) -> None:
    base = image(tmp_path)
    first = attach(home, "vm", AttachRequest(medium=base, type=MediumType.IMMUTABLE))
    lifecycle.create_machine(home, "two")
    hardware.add_controller(home, "two", "SATA", "AHCI")
    second = attach(home, "two", AttachRequest(medium=base))
    assert first.diff is not None
    assert second.diff is not None
    assert first.diff.uuid != second.diff.uuid
    assert first.diff.auto_reset
    assert os.path.dirname(second.diff.path) == os.path.join(home.machines, "two", "Snapshots")
    assert os.path.exists(first.diff.path)


def test_a_failed_attach_leaves_no_diff(home: Home, vm: Machine, tmp_path: Path) -> None:
    base = image(tmp_path)
    request = AttachRequest(medium=base, type=MediumType.IMMUTABLE, flags={"bandwidth_group": "none"})
    refusal(ErrorKind.NOT_FOUND, "no bandwidth group", attach, home, "vm", request)
    (medium,) = tree_of(home).media.values()
    assert medium.type is MediumType.NORMAL
    assert not os.path.exists(vm.snapshot_folder)


@pytest.mark.usefixtures("vm")
def test_e32_a_write_mode_that_does_not_fit(home: Home, tmp_path: Path) -> None:
    request = AttachRequest(medium=image(tmp_path), type=MediumType.SHAREABLE)
    refusal(ErrorKind.STATE, "fixed", attach, home, "vm", request)


@pytest.mark.usefixtures("vm")
def test_e31_the_write_mode_of_an_image_in_use_stays(home: Home, tmp_path: Path) -> None:
    request = AttachRequest(medium=image(tmp_path), type=MediumType.IMMUTABLE)
    with drivebay.open(tmp_path / "a.vdi", writable=True):
        refusal(ErrorKind.IN_USE, "in use", attach, home, "vm", request)
    assert attach(home, "vm", request).diff is not None


@pytest.mark.usefixtures("vm")
def test_e6_a_disk_in_the_slot_stays(home: Home, tmp_path: Path) -> None:
    attach(home, "vm", AttachRequest(medium=image(tmp_path)))
    request = AttachRequest(Place("SATA", 0), medium=image(tmp_path, "b.vdi"))
    refusal(ErrorKind.IN_USE, "detach it first", attach, home, "vm", request)


@pytest.mark.usefixtures("vm")
def test_a_dvd_drive_is_filled_and_emptied(home: Home, tmp_path: Path) -> None:
    for name in ("a.iso", "b.iso"):
        Path(tmp_path, name).write_bytes(bytes(4096))
    drive = attach(home, "vm", AttachRequest(empty=True)).attachment
    assert (drive.device, drive.medium) == (DeviceType.DVD, None)
    place = Place(drive.slot.controller, drive.slot.port)
    first = attach(home, "vm", AttachRequest(place, medium=str(tmp_path / "a.iso"))).attachment
    second = attach(home, "vm", AttachRequest(place, medium=str(tmp_path / "b.iso"))).attachment
    assert first.medium != second.medium
    assert eject(home, "vm", Place()).attachment.medium is None
    refusal(ErrorKind.INVALID, "say which drive", eject, home, "vm", Place())


@pytest.mark.usefixtures("vm")
def test_e15_a_disk_is_not_ejected(home: Home, tmp_path: Path) -> None:
    attach(home, "vm", AttachRequest(medium=image(tmp_path)))
    refusal(ErrorKind.STATE, "can't be changed or ejected", eject, home, "vm", Place("SATA", 0))


@pytest.mark.usefixtures("vm")
def test_properties_of_a_drive_change(home: Home, tmp_path: Path) -> None:
    attach(home, "vm", AttachRequest(medium=image(tmp_path)))
    changed = attach(
        home, "vm", AttachRequest(Place("SATA", 0), flags={"serial": "S1", "nonrotational": True})
    )
    assert (changed.attachment.serial, changed.attachment.nonrotational) == ("S1", True)
    refusal(ErrorKind.INVALID, "say what to attach", attach, home, "vm", AttachRequest())


@pytest.mark.usefixtures("vm")
def test_detaching_leaves_the_medium(home: Home, tmp_path: Path) -> None:
    attach(home, "vm", AttachRequest(medium=image(tmp_path)))
    done = detach(home, "vm", Place())
    assert done.left is not None
    assert done.left.uuid in tree_of(home).media
    assert tree_of(home).uses == ()
    refusal(ErrorKind.NOT_FOUND, "nothing is attached", detach, home, "vm", Place("SATA", 0))


def test_deleting_a_machine_takes_what_is_its_own(home: Home, vm: Machine, tmp_path: Path) -> None:
    attach(home, "vm", AttachRequest(medium=image(vm.folder)))
    attach(home, "vm", AttachRequest(medium=image(tmp_path, "b.vdi")))
    take_snapshot(home, "vm", "one")
    plan = plan_removal(home, "vm")
    assert len(plan.media) == 3
    remove_machine(home, "vm", now=True)
    assert not os.path.exists(vm.folder)
    (left,) = tree_of(home).media.values()
    assert left.path == str(tmp_path / "b.vdi")
    assert lifecycle.list_machines(home) == []


def test_deleted_images_are_in_the_trash(home: Home, vm: Machine) -> None:
    attach(home, "vm", AttachRequest(medium=image(vm.folder)))
    remove_machine(home, "vm")
    assert len(os.listdir(home.trash)) == 1
    assert not os.path.exists(vm.folder)


def test_an_image_that_another_machine_uses_stays(home: Home, vm: Machine) -> None:
    base = image(vm.folder)
    attach(home, "vm", AttachRequest(medium=base, type=MediumType.MULTIATTACH))
    lifecycle.create_machine(home, "two")
    hardware.add_controller(home, "two", "SATA", "AHCI")
    attach(home, "two", AttachRequest(medium=base))
    done = remove_machine(home, "vm", now=True)
    assert [one.path for one in done.kept] == [base]
    assert os.listdir(vm.folder) == ["a.vdi"]


def test_p11_a_machine_that_linked_clones_build_on_is_kept(home: Home, vm: Machine) -> None:
    attach(home, "vm", AttachRequest(medium=image(vm.folder)))
    base = read(home, "vm").hardware.attachments[0].medium
    take_snapshot(home, "vm", "one")
    lifecycle.create_machine(home, "clone")
    hardware.add_controller(home, "clone", "SATA", "AHCI")
    attach(home, "clone", AttachRequest(medium=str(base)))
    refusal(ErrorKind.IN_USE, "'clone'", remove_machine, home, "vm")
    assert os.path.exists(document_path(vm))


@pytest.mark.usefixtures("vm")
def test_p14_a_machine_shows_its_chains_and_what_will_be_reset(home: Home, tmp_path: Path) -> None:
    attach(home, "vm", AttachRequest(medium=image(tmp_path), type=MediumType.IMMUTABLE))
    info = machine_info(home, "vm")
    (drive,) = info.controllers[0].drives
    assert [one.medium.parent is None for one in drive.chain] == [False, True]
    assert drive.reset is not None
    assert drive.reset.will_reset
    assert info.faults == ()


@pytest.mark.usefixtures("vm")
def test_e64_what_keeps_a_machine_from_starting_is_told(home: Home, tmp_path: Path) -> None:
    attach(home, "vm", AttachRequest(medium=image(tmp_path)))
    machine = read(home, "vm")
    (at,) = machine.hardware.attachments
    lost = replace(at, slot=Slot("SATA", 1), medium=uuid4())
    record(home, replace(machine, hardware=replace(machine.hardware, attachments=(at, lost))))
    (fault,) = machine_info(home, "vm").faults
    assert "not registered" in fault
