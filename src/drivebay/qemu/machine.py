"""A virtual machine's disks and kernel -> QEMU's arguments. Pure: nothing is looked up or started."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from drivebay.errors import ErrorKind, StorageError
from drivebay.qemu.controllers import Controller, controller

# Nothing that a headless guest would have to probe: no network card, no display, no default devices.
_BASE = (
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-no-reboot",
    "-monitor",
    "none",
    "-serial",
    "stdio",
)
_ACCELERATION = {
    "kvm": ("-accel", "kvm", "-cpu", "host"),
    # Five-level page tables cost the emulator time and such a guest has no use for them.
    "tcg": ("-accel", "tcg", "-cpu", "max,-la57"),
}


@dataclass(frozen=True, slots=True)
class NbdDisk:
    """One disk of a guest: an NBD export behind a Unix socket, on a controller of the table.

    ``reconnect_delay`` is the number of seconds for which the guest's requests wait when the server is
    away, before they fail.
    """

    socket: str | os.PathLike[str]
    export: str = ""
    controller: str = "ahci"
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
    command = [program, "-M", "q35", *_ACCELERATION[accelerator], "-m", str(memory_mib), *_BASE]
    command += ["-kernel", os.fspath(kernel.kernel), "-initrd", os.fspath(kernel.initramfs)]
    command += ["-append", kernel.command_line]
    for index, disk in enumerate(disks):
        command += ["-blockdev", json.dumps(blockdev(_node(index), disk), separators=(",", ":"))]
    for device in _devices(disks):
        command += ["-device", device]
    return command


def blockdev(node: str, disk: NbdDisk) -> dict[str, object]:
    """QEMU's description of the block node that reaches ``disk``; flushes are passed on, discards too."""
    return {
        "driver": "nbd",
        "node-name": node,
        "server": {"type": "unix", "path": os.fspath(disk.socket)},
        "export": disk.export,
        "reconnect-delay": disk.reconnect_delay,
        "discard": "unmap",
        "cache": {"direct": False, "no-flush": False},
    }


def serial(index: int) -> str:
    """The serial number that disk number ``index`` shows to the guest."""
    return f"drivebay{index}"


def _node(index: int) -> str:
    return f"disk{index}"


def _devices(disks: Sequence[NbdDisk]) -> Iterator[str]:
    """The devices in order: each controller once, before the first of its disks."""
    used: defaultdict[str, int] = defaultdict(int)
    for index, disk in enumerate(disks):
        row = controller(disk.controller)
        port = used[row.name]
        used[row.name] += 1
        names = {"id": row.name, "port": str(port), "node": _node(index), "serial": serial(index)}
        if port == 0 and row.adapter is not None:
            yield row.adapter.format(**names)
        _require_port(row, port)
        yield row.drive.format(**names)


def _require_port(row: Controller, port: int) -> None:
    if port >= row.ports:
        raise StorageError(
            ErrorKind.INVALID,
            f"the controller {row.name} has {row.ports} ports; put the other disks on another controller",
            operation="run QEMU",
        )
