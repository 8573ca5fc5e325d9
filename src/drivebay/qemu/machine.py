"""The tiny guest's disks and kernel -> QEMU's arguments. Pure: nothing is looked up or started."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.kinds import Bus, ControllerKind, kind_of
from drivebay.machines.model import Attachment, Controller, Hardware, Settings, Slot
from drivebay.qemu.arguments import ACCELERATION, BARE, MACHINE_TYPE, storage_arguments
from drivebay.qemu.drive import Drive


@dataclass(frozen=True, slots=True)
class NbdDisk:
    """One disk of a guest: an NBD export behind a Unix socket, on a kind of controller of the table.

    ``reconnect_delay`` is the number of seconds for which the guest's requests wait when the server is
    away, before they fail.
    """

    socket: str | os.PathLike[str]
    export: str = ""
    controller: str = "IntelAhci"
    reconnect_delay: int = 60


@dataclass(frozen=True, slots=True)
class DirectKernel:
    """A Linux kernel that QEMU starts itself, without firmware or boot loader."""

    kernel: Path
    initramfs: Path
    command_line: str


def arguments(
    disks: Sequence[NbdDisk],
    kernel: DirectKernel,
    *,
    program: str = "qemu-system-x86_64",
    accelerator: str = "tcg",
    memory_mib: int = 256,
) -> list[str]:
    """The command that runs a guest with ``disks``, its serial line on standard output.

    Disk number N has the serial number ``drivebayN`` (see `serial`). Raises `StorageError` (INVALID) for an
    unknown controller or more disks than a controller has ports.
    """
    command = [program, "-M", f"{MACHINE_TYPE},sata=off", *ACCELERATION[accelerator], "-m", str(memory_mib)]
    command += [*BARE, "-no-reboot", "-serial", "stdio"]
    command += ["-kernel", os.fspath(kernel.kernel), "-initrd", os.fspath(kernel.initramfs)]
    command += ["-append", kernel.command_line]
    return command + storage_arguments(*_hardware(disks))


def serial(index: int) -> str:
    """The serial number that disk number ``index`` shows to the guest."""
    return f"drivebay{index}"


def _hardware(disks: Sequence[NbdDisk]) -> tuple[Hardware, list[Drive]]:
    """A controller for each kind that is asked for, with a port for each of its disks."""
    slots = list(_slots(disks))
    ports: dict[str, int] = {}
    for slot, _ in slots:
        ports[slot.controller] = max(ports.get(slot.controller, 0), slot.port + 1)
    kinds = {slot.controller: kind for slot, kind in slots}
    controllers = tuple(Controller(name, kinds[name].name, count) for name, count in ports.items())
    drives = [
        Drive(
            Attachment(slot, medium=UUID(int=index + 1), discard=True, serial=serial(index)),
            disk.socket,
            disk.export,
            reconnect_delay=disk.reconnect_delay,
        )
        for index, (disk, (slot, _)) in enumerate(zip(disks, slots, strict=True))
    ]
    # What QEMU starts itself needs no boot order.
    settings = replace(Settings(), boot_order=())
    return Hardware(settings, controllers, tuple(drive.attachment for drive in drives)), drives


def _slots(disks: Sequence[NbdDisk]) -> Iterator[tuple[Slot, ControllerKind]]:
    used: defaultdict[str, int] = defaultdict(int)
    for disk in disks:
        kind = kind_of(disk.controller)
        number = used[kind.name]
        used[kind.name] += 1
        _require_port(kind, number)
        if kind.bus is Bus.PCIE:  # its serial number is the controller's: each disk has one of its own
            yield Slot(f"{kind.name}{number}"), kind
        else:
            yield Slot(kind.name, *divmod(number, kind.devices)), kind


def _require_port(kind: ControllerKind, number: int) -> None:
    most = kind.max_instances if kind.bus is Bus.PCIE else kind.ports[1] * kind.devices
    if number >= most:
        raise StorageError(
            ErrorKind.INVALID,
            f"the controller {kind.name} takes {most} disks; put the others on another controller",
            operation="run QEMU",
        )
