"""A machine's tiny guest: how it tells the machine's drives, and which scripts are refused."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Attachment, Controller, Hardware, Machine, Slot
from drivebay.machines.settings import LONGEST_SCRIPT, edit_settings
from drivebay.qemu.drive import Drive
from drivebay.qemu.initramfs import GuestDrive
from drivebay.qemu.tiny_guest import INITRAMFS
from drivebay.registry.medium import DeviceType
from drivebay.service.machines.guest_script import read_guest_script
from drivebay.service.runtime.guest import forget_guest, guest_drives, with_guest

MACHINE = Machine(UUID(int=1), "m", "/m")


def _drive(slot: Slot, device: DeviceType = DeviceType.DISK, **flags: str) -> Drive:
    return Drive(Attachment(slot, device, UUID(int=9), **flags), "socket", str(slot))  # type: ignore[arg-type]


def test_drives_are_told_by_what_a_guest_sees_of_them() -> None:
    hardware = Hardware(
        controllers=(
            Controller("a/b", "IntelAhci", 2),
            Controller("NVMe", "NVMe", 9),
            Controller("F", "I82078", 1),
        )
    )
    drives = [
        _drive(Slot("a/b", 1), serial="mine"),
        _drive(Slot("a/b", 0), DeviceType.DVD),
        _drive(Slot("NVMe", 3), serial="first"),
        _drive(Slot("NVMe", 7), serial="second"),
        _drive(Slot("F", 0, 1), DeviceType.FLOPPY),
        Drive(Attachment(Slot("F", 0, 0), DeviceType.FLOPPY)),
    ]
    assert list(guest_drives(hardware, drives)) == [
        GuestDrive("slot/a_b:1:0", "mine"),
        GuestDrive("slot/NVMe:3:0", "first", 4),
        GuestDrive("slot/NVMe:7:0", "first", 8),
        GuestDrive("slot/F:0:1", unit=1),
    ]


def test_a_machine_without_a_script_stays_as_it_is() -> None:
    assert with_guest(MACHINE, (), "/nowhere") is MACHINE


def test_what_a_guest_started_from_is_removed_once(tmp_path: Path) -> None:
    (tmp_path / INITRAMFS).write_bytes(b"initrd")
    forget_guest(str(tmp_path))
    forget_guest(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_kernel_and_a_script_exclude_each_other() -> None:
    with pytest.raises(StorageError, match="can't both boot; take one away"):
        edit_settings(MACHINE, kernel="/k", guest_script="true")


def test_a_script_has_a_limit(tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text("x" * (LONGEST_SCRIPT + 1000))
    with pytest.raises(StorageError, match="at most 65536 bytes"):
        edit_settings(MACHINE, guest_script=read_guest_script(str(file)))


def test_a_script_is_a_text_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_bytes(b"echo \xff\n")
    with pytest.raises(StorageError, match=r"no text .* at byte 5\b.*; name a shell script"):
        read_guest_script(str(file))
    with pytest.raises(StorageError) as caught:
        read_guest_script(str(tmp_path / "missing"))
    assert caught.value.kind is ErrorKind.NOT_FOUND
