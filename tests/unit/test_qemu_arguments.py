"""Machines -> QEMU's arguments: places, names, flags, refusals."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Attachment, Controller, Hardware, Machine, Network, Settings, Slot
from drivebay.model import Geometry
from drivebay.qemu.arguments import Launch, machine_arguments
from drivebay.qemu.devices import drive_devices, is_hot_pluggable, names_of, saves_state
from drivebay.qemu.drive import Drive
from drivebay.qemu.firmware import Efi, efi_of
from drivebay.qemu.identity import default_serial, vendor_and_product
from drivebay.registry.medium import DeviceType

BASE = UUID("12345678-9abc-def0-1122-33445566aabb")
RUN = Launch("/run/m")


def machine(*controllers: Controller, drives: Sequence[Drive] = (), **settings: Any) -> Machine:
    attachments = tuple(drive.attachment for drive in drives)
    return Machine(
        UUID(int=7), "a,b", "/machines/a", Hardware(Settings(**settings), controllers, attachments)
    )


def drive(slot: Slot, device: DeviceType = DeviceType.DISK, *, empty: bool = False, **fields: Any) -> Drive:
    flags = fields.pop("flags", {})
    attachment = Attachment(slot, device, None if empty else BASE, **flags)
    return Drive(attachment, "/run/m/nbd.sock", None if empty else str(slot), base=BASE, **fields)


def devices(made: Machine, drives: Sequence[Drive], launch: Launch = RUN) -> list[dict[str, Any]]:
    return [json.loads(text) for text in values(machine_arguments(made, drives, launch), "-device")]


def values(command: Sequence[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(command) if name == option]


def one(made: Machine, drives: Sequence[Drive], driver: str) -> dict[str, Any]:
    (found,) = [each for each in devices(made, drives) if each["driver"] == driver]
    return found


def test_the_default_serial_is_virtualboxs() -> None:
    # The first group of the text, and its last eight digits with their bytes in reverse order (1.6).
    assert default_serial(BASE, 3) == "VB12345678-bbaa6655"
    assert default_serial(None, 3) == "VB3-1a2b3c4d"


def test_vendor_and_product_fit_into_scsis_fields() -> None:
    assert vendor_and_product("VBOX HARDDISK") == ("VBOX", "HARDDISK")
    assert vendor_and_product("A" * 30) == ("A" * 8, "A" * 16)


def test_thirty_sata_ports_are_five_adapters_in_one_slot() -> None:
    drives = [drive(Slot("SATA", port)) for port in range(30)]
    made = devices(machine(Controller("SATA", "IntelAhci", 30), drives=drives), drives)
    adapters = [each for each in made if each["driver"] == "ich9-ahci"]
    assert [each["addr"] for each in adapters] == [f"3.{function}" for function in range(5)]
    assert [each.get("multifunction", False) for each in adapters] == [True, *[False] * 4]
    buses = [each["bus"] for each in made if each["driver"] == "ide-hd"]
    assert buses == [f"adapter-0-{port // 6}.{port % 6}" for port in range(30)]


def test_a_drive_on_one_controller_moves_no_other_controller() -> None:
    controllers = (Controller("SAS", "LsiLogicSas", 255), Controller("SATA", "IntelAhci", 30))
    few, many = [drive(Slot("SAS", 0))], [drive(Slot("SAS", port)) for port in range(0, 64, 8)]
    first, second = (
        one(machine(*controllers, drives=drives), drives, "ich9-ahci")["addr"] for drives in (few, many)
    )
    assert first == second == "4.0"


def test_too_many_adapters_are_refused() -> None:
    drives = [drive(Slot(f"S{n}", port)) for n in range(8) for port in range(0, 255, 8)]
    controllers = [Controller(f"S{n}", "LsiLogicSas", 255) for n in range(8)]
    with pytest.raises(StorageError, match="no PCI slot left for the controller 'S7'") as caught:
        machine_arguments(machine(*controllers, drives=drives), drives, RUN)
    assert caught.value.kind is ErrorKind.UNSUPPORTED


@pytest.mark.parametrize("kind", ["PIIX3", "PIIX4"])
def test_ide_has_two_units_on_each_of_two_channels(kind: str) -> None:
    drives = [drive(Slot("IDE", port, device)) for port in (0, 1) for device in (0, 1)]
    made = devices(machine(Controller("IDE", kind, 2), drives=drives), drives)
    assert [each["driver"] for each in made].count(f"{kind.lower()}-ide") == 1
    places = [(each["bus"], each["unit"]) for each in made if each["driver"] == "ide-hd"]
    assert places == [
        ("adapter-0-0.0", 0),
        ("adapter-0-0.0", 1),
        ("adapter-0-0.1", 0),
        ("adapter-0-0.1", 1),
    ]


def test_flags_geometry_and_names_reach_the_device() -> None:
    flags = {"nonrotational": True, "serial": "s,1", "model": "ACME Fast Disk"}
    disk = drive(
        Slot("SATA"), flags=flags, shared=True, pchs=Geometry(100, 16, 63), lchs=Geometry(50, 255, 63)
    )
    found = one(machine(Controller("SATA", "IntelAhci", 1), drives=[disk]), [disk], "ide-hd")
    assert (found["rotation_rate"], found["share-rw"], found["serial"]) == (1, True, "s,1")
    assert (found["model"], found["werror"], found["write-cache"]) == ("ACME Fast Disk", "enospc", "on")
    assert (found["cyls"], found["heads"], found["secs"]) == (100, 16, 63)
    assert (found["lcyls"], found["lheads"], found["lsecs"]) == (50, 255, 63)


def test_a_geometry_that_no_drive_has_is_left_to_qemu() -> None:
    disk = drive(Slot("SATA"), pchs=Geometry(65535, 255, 63))
    found = one(machine(Controller("SATA", "IntelAhci", 1), drives=[disk]), [disk], "ide-hd")
    assert "cyls" not in found


@pytest.mark.parametrize(("discard", "mode"), [(True, "unmap"), (False, "ignore")])
def test_block_nodes_pass_flushes_on_and_wait_for_a_new_worker(discard: bool, mode: str) -> None:
    disk = drive(Slot("SATA"), flags={"discard": discard}, writable=False)
    command = machine_arguments(machine(Controller("SATA", "IntelAhci", 1), drives=[disk]), [disk], RUN)
    (node,) = map(json.loads, values(command, "-blockdev"))
    assert (node["discard"], node["read-only"], node["export"]) == (mode, True, "SATA:0:0")
    assert node["cache"]["no-flush"] is False
    assert node["reconnect-delay"] > 60


def test_empty_drives_have_no_node() -> None:
    drives = [
        drive(Slot("SATA", 1), DeviceType.DVD, empty=True),
        drive(Slot("USB", 1), DeviceType.DVD, empty=True),
    ]
    made = machine(Controller("SATA", "IntelAhci", 2), Controller("USB", "USB", 8), drives=drives)
    command = machine_arguments(made, drives, RUN)
    assert values(command, "-blockdev") == []
    assert "drive" not in one(made, drives, "ide-cd")
    assert one(made, drives, "scsi-cd")["bus"] == "dev-1-1-0-carrier.0"
    assert one(made, drives, "usb-bot")["port"] == "2"


def test_namespaces_are_numbered_by_port_and_keep_their_identity() -> None:
    disk = drive(Slot("NVMe", 3))
    found = one(machine(Controller("NVMe", "NVMe", 4), drives=[disk]), [disk], "nvme-ns")
    assert (found["nsid"], found["uuid"]) == (4, str(BASE))


@pytest.mark.parametrize(
    ("size", "kind"),
    [(0, "144"), (360 << 10, "144"), (1200 << 10, "120"), (1440 << 10, "144"), (2880 << 10, "288")],
)
def test_floppy_drives_fit_their_media(size: int, kind: str) -> None:
    disk = drive(Slot("F"), DeviceType.FLOPPY, size=size)
    found = one(machine(Controller("F", "I82078", 1), drives=[disk]), [disk], "floppy")
    assert found["drive-type"] == kind


def test_a_floppy_that_no_drive_takes_is_refused() -> None:
    disk = drive(Slot("F"), DeviceType.FLOPPY, size=16 << 20)
    with pytest.raises(StorageError, match="no floppy drive"):
        machine_arguments(machine(Controller("F", "I82078", 1), drives=[disk]), [disk], RUN)


def test_the_boot_order_counts_classes_then_controllers_then_ports() -> None:
    drives = [
        drive(Slot("A", 1)),
        drive(Slot("A", 0)),
        drive(Slot("B", 0)),
        drive(Slot("A", 2), DeviceType.DVD),
        drive(Slot("F"), DeviceType.FLOPPY),
    ]
    controllers = (
        Controller("A", "IntelAhci", 30),
        Controller("B", "VirtioSCSI", 1, bootable=True),
        Controller("F", "I82078", 1),
    )
    made = machine(*controllers, drives=drives, boot_order=("dvd", "disk", "floppy"))
    found = devices(made, drives)
    indexes = {each["id"]: each["bootindex"] for each in found if "bootindex" in each}
    assert indexes == {"dev-0-2-0": 1, "dev-1-0-0": 2, "dev-0-0-0": 3, "dev-0-1-0": 4}
    assert one(made, drives, "isa-fdc")["bootindexA"] == 5


@pytest.mark.parametrize(
    ("kind", "closest"), [("ICH6", "PIIX4"), ("LsiLogic", "LsiLogicSas"), ("BusLogic", "Lsi53c895a")]
)
def test_what_qemu_lacks_names_the_closest_and_takes_a_substitute(kind: str, closest: str) -> None:
    controller = Controller("C", kind, 2)
    disk = drive(Slot("C"))
    with pytest.raises(StorageError, match=f"no {kind}.*closest is {closest}.*--substitute") as caught:
        machine_arguments(machine(controller, drives=[disk]), [disk], RUN)
    assert caught.value.kind is ErrorKind.UNSUPPORTED
    accepted = replace(controller, substitute=closest)
    assert devices(machine(accepted, drives=[disk]), [disk])


def test_e11_a_device_that_the_controller_cannot_take_is_refused() -> None:
    disk = drive(Slot("N"), DeviceType.DVD)
    with pytest.raises(StorageError, match="a NVMe takes no dvd"):
        machine_arguments(machine(Controller("N", "NVMe", 1), drives=[disk]), [disk], RUN)


def test_the_machine_waits_for_its_monitor_and_has_its_sockets() -> None:
    command = machine_arguments(machine(network=Network.USER), [], replace(RUN, vnc="127.0.0.1:5907"))
    assert "-S" in command
    assert values(command, "-name") == ["guest=a,,b"]
    assert values(command, "-machine") == ["q35,sata=off"]
    assert values(command, "-vnc") == ["unix:/run/m/vnc.sock", "127.0.0.1:7"]
    assert any("path=/run/m/qmp.sock,server=on,wait=off" in each for each in values(command, "-chardev"))
    assert any("logfile=/machines/a/serial.log" in each for each in values(command, "-chardev"))
    assert "e1000" in [each["driver"] for each in devices(machine(network=Network.USER), [])]


def test_a_direct_kernel_needs_no_display_and_no_boot_order() -> None:
    disk = drive(Slot("S"))
    made = machine(
        Controller("S", "IntelAhci", 1), drives=[disk], kernel="/k", initrd="/i", command_line="a b"
    )
    command = machine_arguments(made, [disk], RUN)
    assert [values(command, name) for name in ("-kernel", "-initrd", "-append")] == [["/k"], ["/i"], ["a b"]]
    assert values(command, "-vnc") == []
    assert "bootindex" not in one(made, [disk], "ide-hd")


def test_a_saved_state_brings_its_machine_type_and_accelerator() -> None:
    command = machine_arguments(machine(), [], RUN.for_state("pc-q35-7.2", "tcg"))
    assert values(command, "-machine") == ["pc-q35-7.2,sata=off"]
    assert values(command, "-incoming") == ["defer"]


def test_efi_needs_its_package_and_keeps_a_machines_variables(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="package ovmf") as caught:
        efi_of(str(tmp_path), [("/nowhere/code.fd", "/nowhere/vars.fd")])
    assert caught.value.kind is ErrorKind.NOT_FOUND
    code, template = tmp_path / "code.fd", tmp_path / "vars.fd"
    code.write_bytes(b"code")
    template.write_bytes(b"what a new machine has")
    efi = efi_of(str(tmp_path), [(str(code), str(template))])
    assert Path(efi.variables).read_bytes() == b"what a new machine has"
    Path(efi.variables).write_bytes(b"changed by the guest!!")
    assert efi_of(str(tmp_path), [(str(code), str(template))]) == efi
    assert Path(efi.variables).read_bytes() == b"changed by the guest!!"
    command = machine_arguments(machine(), [], replace(RUN, efi=Efi("/c", "/v")))
    assert values(command, "-machine") == ["q35,sata=off,pflash0=efi-code,pflash1=efi-variables"]
    flash = [json.loads(each) for each in values(command, "-blockdev")]
    assert [(each["filename"], each["read-only"]) for each in flash] == [("/c", True), ("/v", False)]


def test_what_is_plugged_later_is_called_as_at_the_start() -> None:
    controllers = (Controller("SATA", "IntelAhci", 1), Controller("USB", "USB", 8))
    hardware = Hardware(controllers=controllers)
    disk = drive(Slot("USB", 2))
    (device,) = drive_devices(hardware, disk)
    names = names_of(hardware, disk.attachment.slot)
    assert (device["id"], device["drive"]) == (names.device, names.node) == ("dev-1-2-0", "node-1-2-0")
    assert [is_hot_pluggable(each) for each in controllers] == [False, True]


def test_states_with_nvme_cannot_be_saved() -> None:
    assert saves_state(Hardware(controllers=(Controller("N", "NVMe", 1),))) == "N"
    assert saves_state(Hardware(controllers=(Controller("S", "IntelAhci", 1),))) is None
