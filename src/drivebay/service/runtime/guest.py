"""A machine that runs the tiny guest (`drivebay.qemu.TinyGuest`) on a script of its user."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from drivebay.machines.kinds import Bus, place
from drivebay.machines.model import Firmware, Hardware, Machine
from drivebay.qemu.devices import controller_of, qemu_kind, serial_of
from drivebay.qemu.drive import Drive
from drivebay.qemu.initramfs import GuestDrive
from drivebay.qemu.tiny_guest import INITRAMFS, TinyGuest
from drivebay.registry.medium import DeviceType


def with_guest(machine: Machine, drives: Sequence[Drive], folder: str) -> Machine:
    """The machine with the kernel and the initrd that its script needs, if it has one.

    The initrd is written into ``folder``. Raises StorageError where a part of the guest is missing.
    """
    settings = machine.hardware.settings
    if not settings.guest_script:
        return machine
    kinds = [one.substitute or one.kind for one in machine.hardware.controllers]
    wanted = list(guest_drives(machine.hardware, drives))
    efi = settings.firmware is Firmware.EFI
    files = TinyGuest.prepare().files(Path(folder), settings.guest_script, kinds, wanted, efi=efi)
    booted = replace(
        settings, kernel=str(files.kernel), initrd=str(files.initramfs), command_line=files.command_line
    )
    return replace(machine, hardware=replace(machine.hardware, settings=booted))


def forget_guest(folder: str) -> None:
    """Remove the initrd from ``folder``, if there is one: a QEMU that has started has mapped it."""
    Path(folder, INITRAMFS).unlink(missing_ok=True)


def guest_drives(hardware: Hardware, drives: Sequence[Drive]) -> Iterable[GuestDrive]:
    """How the guest tells its disks and floppies; it has each as ``/dev/slot/<slot>``."""
    first: dict[str, Drive] = {}
    for drive in drives:
        at = drive.attachment
        if at.device is DeviceType.DVD or drive.export is None:
            continue
        kind, qemu = qemu_kind(controller_of(hardware, at.slot))
        link = f"slot/{str(at.slot).replace('/', '_')}"
        if kind.bus is Bus.FLOPPY:
            yield GuestDrive(link, unit=at.slot.device)
        elif kind.bus is Bus.PCIE:
            owner = first.setdefault(at.slot.controller, drive)
            yield GuestDrive(link, serial_of(hardware, owner), place(qemu, at.slot).unit + 1)
        else:
            yield GuestDrive(link, serial_of(hardware, drive))
