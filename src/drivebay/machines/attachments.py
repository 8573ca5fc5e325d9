"""Drives of a machine: attached, detached, changed, filled, emptied. Pure.

Rules and refusals: virtual-storage specification, 1.2 to 1.4, 1.8, 11 and 16. The state that ``machine``
carries must be its real one. Which medium is to be attached in place of the one that was asked for is told
by `drivebay.machines.write_modes`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.bandwidth import find_group
from drivebay.machines.controllers import find_controller, used_kind
from drivebay.machines.kinds import Bus, ControllerKind, kind_of
from drivebay.machines.model import Attachment, Machine, MachineState
from drivebay.machines.mutability import RUNNING, require_not_running, require_off, with_hardware
from drivebay.machines.slots import attachment_at, with_slot
from drivebay.registry.medium import DeviceType, MediaTree

_LONGEST_SERIAL = 20  # characters (1.6)
_LONGEST_MODEL = 40
# Who may have each flag, besides its controller.
_FLAGS = {
    "nonrotational": {DeviceType.DISK},
    "discard": {DeviceType.DISK},
    "hotpluggable": {DeviceType.DISK, DeviceType.DVD},
    "temp_eject": {DeviceType.DVD},
    "bandwidth_group": {DeviceType.DISK, DeviceType.DVD},
    "serial": {DeviceType.DISK, DeviceType.DVD},
    "model": {DeviceType.DISK, DeviceType.DVD},
}


def attach(machine: Machine, tree: MediaTree, wanted: Attachment) -> Machine:
    """The machine with one drive more. A drive that comes while the machine runs is hot-pluggable (1.4).

    Raises StorageError: NOT_FOUND (E4), INVALID (E5, E11, E12, E13, wrong kind of medium), IN_USE (E6), STATE
    (E7, E9).
    """
    _require_unsaved(machine, "attach a drive")
    grown = with_slot(machine, wanted.slot)
    row = kind_of(find_controller(grown, wanted.slot.controller).kind)
    _require_accepted(row, wanted)
    require_vacant(machine, wanted)
    _require_medium(machine, tree, wanted)
    if machine.state in RUNNING:
        _require_ports(machine, grown, wanted)
        require_hot_plug(machine, wanted)
        wanted = dataclasses.replace(wanted, hotpluggable=True)
    _require_flags(machine, wanted)
    attachments = sorted((*grown.hardware.attachments, wanted), key=lambda at: at.slot)
    return with_hardware(grown, attachments=tuple(attachments))


def detach(machine: Machine, at: Attachment) -> Machine:
    """The machine without this drive. Raises StorageError: STATE (E7, E9), UNSUPPORTED (E8)."""
    _require_unsaved(machine, "detach a drive")
    if machine.state in RUNNING:
        require_hot_plug(machine, at)
        if not is_hotpluggable(machine, at):
            raise StorageError(
                ErrorKind.UNSUPPORTED,
                f"{at.slot} is not marked hot-pluggable, and machine {machine.name!r} is running; stop it "
                "first, "
                "and mark it for the next time: drivebay attach ... --hotpluggable",
                operation="detach a drive",
            )
    return _without(machine, at)


def insert(machine: Machine, tree: MediaTree, at: Attachment, medium: UUID | None) -> Machine:
    """The machine with another medium in this DVD or floppy drive, or with none: allowed while it runs (1.8).

    Raises StorageError: STATE for a disk (E15) and for a saved machine (E9), INVALID for the wrong kind of
    medium, IN_USE (E6).
    """
    _require_unsaved(machine, "change a medium")
    if at.device is DeviceType.DISK:
        raise StorageError(
            ErrorKind.STATE,
            f"{at.slot} is a disk, whose medium can't be changed or ejected; detach it, and attach another",
            operation="change a medium",
        )
    new = dataclasses.replace(at, medium=medium)
    _require_medium(_without(machine, at), tree, new)
    return with_drive(machine, at, new)


def change_flags(machine: Machine, at: Attachment, **changes: Any) -> Machine:
    """The machine with these fields of a drive changed, as the state allows (1.4).

    Raises StorageError: INVALID (E12, E13), NOT_FOUND for an unknown group (E4), STATE.
    """
    real = {name: value for name, value in changes.items() if getattr(at, name) != value}
    if set(real) - {"temp_eject", "bandwidth_group"}:
        require_off(machine, "change a drive")
    if "bandwidth_group" in real:
        require_not_running(machine, "move a drive to another bandwidth group")
    new = dataclasses.replace(at, **real)
    _require_flags(machine, new)
    return with_drive(machine, at, new) if real else machine


def is_hotpluggable(machine: Machine, at: Attachment) -> bool:
    """Whether a drive may be taken away while the machine runs; on USB always."""
    row = kind_of(find_controller(machine, at.slot.controller).kind)
    return at.hotpluggable or row.bus is Bus.USB


def require_hot_plug(machine: Machine, at: Attachment) -> None:
    """Whether drives come and go in this slot while the machine runs. Raises StorageError (STATE, E7)."""
    row = used_kind(find_controller(machine, at.slot.controller))
    if at.device is DeviceType.FLOPPY or row.qemu is None or not row.qemu.hotplug:
        raise StorageError(
            ErrorKind.STATE,
            f"machine {machine.name!r} is running, and QEMU can't add or take away drives on {row.name} "
            "then; "
            "stop the machine first, or use a controller that can (USB, VirtioSCSI, virtio-blk, pvscsi)",
            operation="change a drive",
        )


def _require_ports(before: Machine, grown: Machine, wanted: Attachment) -> None:
    """A running machine's controllers stay as they are, unless each drive is a device of its own."""
    row = used_kind(find_controller(before, wanted.slot.controller))
    if grown != before and row.qemu is not None and row.qemu.adapter:
        raise _invalid(
            f"there is no slot {wanted.slot}, and a running machine gets no further ports; stop it first, or "
            "choose a free slot that it has"
        )


def _require_unsaved(machine: Machine, what: str) -> None:
    if machine.state is MachineState.SAVED:
        require_off(machine, what)


def _require_accepted(row: ControllerKind, wanted: Attachment) -> None:
    if wanted.device not in row.accepts:
        taken = " and ".join(sorted(device.value for device in row.accepts))
        raise _invalid(
            f"a {wanted.device.value} drive can't be on {row.name}, which takes {taken} drives only; attach "
            "it "
            f"to another controller than {wanted.slot.controller!r}"
        )


def require_vacant(machine: Machine, wanted: Attachment) -> None:
    """Whether nothing is in the slot. Raises StorageError (IN_USE, E6)."""
    there = attachment_at(machine, wanted.slot)
    if there is not None:
        raise StorageError(
            ErrorKind.IN_USE,
            f"there is a {there.device.value} drive at {wanted.slot} of machine {machine.name!r} already; "
            "detach it first, or leave the slot out to get the first free one",
            operation="attach a drive",
        )


def _require_medium(machine: Machine, tree: MediaTree, wanted: Attachment) -> None:
    if wanted.medium is None:
        if wanted.device is DeviceType.DISK:
            raise _invalid("a disk can't be empty, as DVD and floppy drives can; name its medium")
        return
    medium = tree.get(wanted.medium)
    if medium.device is not wanted.device:
        raise StorageError(
            ErrorKind.INVALID,
            f"this is a {medium.device.value} medium, and goes into no {wanted.device.value} drive; attach "
            "it "
            f"with --type {medium.device.value}",
            path=medium.path,
            operation="attach a drive",
        )
    if medium.merging:
        raise StorageError(
            ErrorKind.STATE,
            "no state uses this image any more, and it waits to be merged with its child, or removed; run "
            "drivebay medium tidy and attach what is left",
            path=medium.path,
            operation="attach a drive",
        )
    there = [at.slot for at in machine.hardware.attachments if at.medium == wanted.medium]
    if there and medium.device is not DeviceType.DVD:
        raise StorageError(
            ErrorKind.IN_USE,
            f"this medium is attached to machine {machine.name!r} already, at {there[0]}; detach it there "
            "first",
            path=medium.path,
            operation="attach a drive",
        )


def _require_flags(machine: Machine, at: Attachment) -> None:
    for name, devices in _FLAGS.items():
        if getattr(at, name) and at.device not in devices:
            fitting = " and ".join(sorted(device.value for device in devices))
            raise _invalid(
                f"--{name.replace('_', '-')} is for {fitting} drives, and {at.slot} is a {at.device.value} "
                "drive; "
                "leave it out"
            )
    row = kind_of(find_controller(machine, at.slot.controller).kind)
    if at.hotpluggable and not row.hotplug:
        raise StorageError(
            ErrorKind.UNSUPPORTED,
            f"drives on {row.name} can't be hot-pluggable; leave --hotpluggable out, or use another "
            "controller",
            operation="attach a drive",
        )
    if at.bandwidth_group:
        find_group(machine, at.bandwidth_group)
    for fault in _text_faults(at):
        raise _invalid(fault)


def _text_faults(at: Attachment) -> Iterator[str]:
    for name, longest in (("serial", _LONGEST_SERIAL), ("model", _LONGEST_MODEL)):
        text: str = getattr(at, name)
        if len(text) > longest or not (text.isascii() and text.isprintable()) or text != text.strip():
            yield f"{text[:60]!r} can't be a {name}; give at most {longest} printable ASCII characters"


def _without(machine: Machine, at: Attachment) -> Machine:
    return with_hardware(machine, attachments=tuple(one for one in machine.hardware.attachments if one != at))


def with_drive(machine: Machine, old: Attachment, new: Attachment) -> Machine:
    """The machine with ``new`` in the place of ``old``; no rule is held."""
    return with_hardware(
        machine, attachments=tuple(new if one == old else one for one in machine.hardware.attachments)
    )


def _invalid(message: str) -> StorageError:
    return StorageError(ErrorKind.INVALID, message, operation="attach a drive")
