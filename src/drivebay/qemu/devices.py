"""A machine's controllers and drives -> QEMU's devices and block nodes, as it takes them in JSON.

The same values are arguments (``-device``, ``-blockdev``) and commands (``device_add``, ``blockdev-add``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import NAMESPACE_OID, uuid5

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.kinds import Bus, ControllerKind, QemuController, adapters, kind_of, place
from drivebay.machines.kinds import unit_number as unit_of
from drivebay.machines.model import Controller, Hardware, Slot
from drivebay.qemu.drive import Drive
from drivebay.qemu.identity import LONGEST_SERIAL, default_serial, world_wide_name
from drivebay.qemu.properties import Device, filled, optional_properties

# Slot 0 is the host bridge, 31 the ISA bridge; 1 is the display's and 2 the guest's other devices'.
_FIRST_PCI_SLOT, _LAST_PCI_SLOT, _FUNCTIONS = 3, 30, 8
_OPERATION = "run QEMU"


@dataclass(frozen=True, slots=True)
class Names:
    """The ids of a slot's block node and device: the same for as long as the machine has its controllers."""

    node: str
    device: str


def names_of(hardware: Hardware, slot: Slot) -> Names:
    """The ids for ``slot``."""
    number = [controller.name for controller in hardware.controllers].index(slot.controller)
    place_text = f"{number}-{slot.port}-{slot.device}"
    return Names(f"node-{place_text}", f"dev-{place_text}")


def qemu_kind(controller: Controller) -> tuple[ControllerKind, QemuController]:
    """The row of the table that QEMU uses for ``controller``; UNSUPPORTED where it has no such device."""
    kind = kind_of(controller.substitute or controller.kind)
    if kind.qemu is None:
        choices = " or ".join(kind.closest)
        raise StorageError(
            ErrorKind.UNSUPPORTED,
            f"QEMU has no {kind.name}, which the controller {controller.name!r} is; the closest is "
            f"{kind.closest[0]}: start with --substitute to use it and remember that, or choose "
            f"another kind ({choices}; the guest may need another driver)",
            operation=_OPERATION,
        )
    return kind, kind.qemu


def node(names: Names, drive: Drive) -> Device:
    """The block node that reaches a drive's medium. What to cache is the server's matter."""
    return {
        "driver": "nbd",
        "node-name": names.node,
        "server": {"type": "unix", "path": os.fspath(drive.socket)},
        "export": drive.export,
        "read-only": not drive.writable,
        "reconnect-delay": drive.reconnect_delay,
        "discard": "unmap" if drive.attachment.discard else "ignore",
        "cache": {"direct": False, "no-flush": False},
    }


def controller_devices(hardware: Hardware, drives: Sequence[Drive]) -> Iterator[tuple[Controller, Device]]:
    """The adapters of all controllers, each at an address that other controllers' drives do not move."""
    slot = _FIRST_PCI_SLOT
    for controller in hardware.controllers:
        _, qemu = qemu_kind(controller)
        made = list(_adapters(hardware, controller, qemu, drives))
        if made and made[0]["driver"] != "isa-fdc":
            _give_addresses(made, slot, controller)
            slot += -(-len(made) // _FUNCTIONS)
        yield from ((controller, device) for device in made)


def _give_addresses(devices: Sequence[Device], slot: int, controller: Controller) -> None:
    """PCI addresses: eight adapters of a controller share a slot, as its functions."""
    if slot + (len(devices) - 1) // _FUNCTIONS > _LAST_PCI_SLOT:
        raise StorageError(
            ErrorKind.UNSUPPORTED,
            f"QEMU's machine has no PCI slot left for the controller {controller.name!r}; remove one, or "
            "attach its drives to lower ports",
            operation=_OPERATION,
        )
    for index, device in enumerate(devices):
        device["bus"] = "pcie.0"
        device["addr"] = f"{slot + index // _FUNCTIONS:x}.{index % _FUNCTIONS}"
        if index % _FUNCTIONS == 0 and len(devices) - index > 1:
            device["multifunction"] = True


def _adapters(
    hardware: Hardware, controller: Controller, qemu: QemuController, drives: Sequence[Drive]
) -> Iterator[Device]:
    """The adapters that the drives need; all of them where drives may come while the guest runs."""
    mine = [drive for drive in drives if drive.attachment.slot.controller == controller.name]
    numbers = adapters(qemu, (drive.attachment.slot for drive in mine))
    if qemu.hotplug:
        numbers = list(range(-(-controller.ports // qemu.ports)))
    serial = serial_of(hardware, mine[0]) if mine else default_serial(None, controller.instance)
    for number in numbers:
        values = {
            "adapter": adapter_id(hardware, controller, number),
            "serial": serial,
            "chassis": str(hardware.controllers.index(controller) + 1),
            "adapter_number": str(number),
        }
        yield filled(qemu.adapter, values)


def adapter_id(hardware: Hardware, controller: Controller, number: int) -> str:
    """The id of a controller's adapter."""
    return f"adapter-{hardware.controllers.index(controller)}-{number}"


def serial_of(hardware: Hardware, drive: Drive) -> str:
    """The serial number that a guest sees on ``drive``: the attachment's own, or VirtualBox's."""
    attachment = drive.attachment
    controller = controller_of(hardware, attachment.slot)
    unit = unit_of(kind_of(controller.kind), attachment.slot)
    return (attachment.serial or default_serial(drive.base, unit))[:LONGEST_SERIAL]


def controller_of(hardware: Hardware, slot: Slot) -> Controller:
    """The controller that has ``slot``."""
    for controller in hardware.controllers:
        if controller.name == slot.controller:
            return controller
    raise StorageError(
        ErrorKind.NOT_FOUND,
        f"the machine has no controller {slot.controller!r}; drivebay machine show lists those it has",
        operation=_OPERATION,
    )


def drive_devices(hardware: Hardware, drive: Drive, bootindex: int | None = None) -> list[Device]:
    """The devices of one drive: itself, and before it what carries it."""
    controller = controller_of(hardware, drive.attachment.slot)
    kind, qemu = qemu_kind(controller)
    row = qemu.drives.get(drive.attachment.device)
    if row is None:
        raise StorageError(
            ErrorKind.INVALID,
            f"{drive.attachment.slot}: a {kind.name} takes no {drive.attachment.device.value}; attach it to "
            "another controller",
            operation=_OPERATION,
        )
    values = _values(hardware, controller, qemu, drive)
    device = filled(row.device if drive.export is not None else row.without_node, values)
    device |= optional_properties(row, drive, bootindex)
    carrier = [filled(row.carrier, values)] if row.carrier else []
    return [*carrier, device]


def _values(hardware: Hardware, controller: Controller, qemu: QemuController, drive: Drive) -> dict[str, str]:
    slot = drive.attachment.slot
    where = place(qemu, slot)
    names = names_of(hardware, slot)
    uuid = drive.base or uuid5(NAMESPACE_OID, str(slot))
    return {
        "adapter": adapter_id(hardware, controller, where.adapter),
        "id": names.device,
        "node": names.node,
        "unit": str(where.unit),
        "number": str(where.unit + 1),
        "device": str(where.device),
        "serial": serial_of(hardware, drive),
        "uuid": str(uuid),
        "wwn": str(world_wide_name(uuid5(uuid, str(slot)))),
    }


def saves_state(hardware: Hardware) -> str | None:
    """The name of a controller that keeps QEMU from saving a running guest; None where there is none."""
    for controller in hardware.controllers:
        _, qemu = qemu_kind(controller)
        if not qemu.saves_state:
            return controller.name
    return None


def is_hot_pluggable(controller: Controller) -> bool:
    """Whether QEMU lets disks come and go on ``controller`` while the guest runs."""
    kind, qemu = qemu_kind(controller)
    return qemu.hotplug and kind.bus is not Bus.FLOPPY
