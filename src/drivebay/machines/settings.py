"""What of a machine is not storage: memory, processors, firmware, how it boots. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Machine, Settings
from drivebay.machines.mutability import require_off, with_hardware

BOOT_DEVICES = ("floppy", "dvd", "disk", "network")
_MEMORY = range(4, (4 << 20) + 1)  # MiB, as VirtualBox has it
_CPUS = range(1, 65)
LONGEST_SCRIPT = 64 << 10  # bytes: it is kept in the machine's file


def edit_settings(machine: Machine, **changes: Any) -> Machine:
    """The machine with these fields of its settings changed. Raises StorageError: INVALID; STATE (E9)."""
    require_off(machine, "change settings")
    new = dataclasses.replace(machine.hardware.settings, **changes)
    for fault in _faults(new):
        raise StorageError(ErrorKind.INVALID, fault, operation="change settings")
    return with_hardware(machine, settings=new)


def _faults(settings: Settings) -> Iterator[str]:
    if settings.memory_mib not in _MEMORY:
        yield f"{settings.memory_mib} MiB of memory can't be; give {_MEMORY[0]} to {_MEMORY[-1]}"
    if settings.cpus not in _CPUS:
        yield f"{settings.cpus} processors can't be; give {_CPUS[0]} to {_CPUS[-1]}"
    order = settings.boot_order
    if not set(order) <= set(BOOT_DEVICES) or len(set(order)) < len(order):
        known = ", ".join(BOOT_DEVICES)
        yield f"the boot order can't be {','.join(order)[:80]!r}; name each of {known} at most once"
    if not settings.kernel and (settings.initrd or settings.command_line):
        yield "an initrd and a command line are for a kernel that is booted directly; name that with --kernel"
    if settings.kernel and settings.guest_script:
        yield "a kernel and the tiny guest can't both boot; take one away: --kernel '' or --guest-script ''"
    if len(settings.guest_script.encode()) > LONGEST_SCRIPT:
        yield f"a guest's script has at most {LONGEST_SCRIPT} bytes; have it read the rest from a disk"
