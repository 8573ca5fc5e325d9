"""A machine and the registry's media -> what its worker is to serve, and what QEMU is told of each drive."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from drivebay.chain.resolve import open_layer
from drivebay.errors import StorageError
from drivebay.machines.model import Attachment, Firmware, Machine
from drivebay.machines.write_modes import Locking, access
from drivebay.model import CacheMode, ImageFacts
from drivebay.qemu.devices import controller_of
from drivebay.qemu.drive import Drive
from drivebay.registry.medium import DeviceType, MediaTree, Medium
from drivebay.service.worker import NBD_SOCKET, DiskSpec

_EFI_MEMORY = 192  # MiB: with less, OVMF (Debian 12's) was not seen to start anything


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What runs: a spec for each medium, a drive for each attachment.

    ``warnings`` name what was left out, and what may keep the guest from starting.
    """

    specs: tuple[DiskSpec, ...]
    drives: tuple[Drive, ...]
    warnings: tuple[str, ...]


def plan_run(machine: Machine, tree: MediaTree, run_folder: str) -> RunPlan:
    """What the machine needs now, by the registry. Raises StorageError for a disk that can't be read (E62).

    A CD or floppy that can't be read is left out, with a warning (11.1).
    """
    specs: list[DiskSpec] = []
    drives: list[Drive] = []
    warnings = _too_little_memory(machine)
    for attachment in machine.hardware.attachments:
        try:
            spec = disk_spec(machine, tree, attachment)
            drive = drive_of(attachment, spec, run_folder, _base(tree, attachment))
        except StorageError as error:
            if attachment.device is DeviceType.DISK:
                raise
            warnings.append(f"{attachment.slot}: the drive is empty, as its medium can't be read: {error}")
            spec, drive = None, Drive(attachment)
        specs += [spec] if spec is not None else []
        drives.append(drive)
    return RunPlan(tuple(specs), tuple(drives), tuple(warnings))


def _too_little_memory(machine: Machine) -> list[str]:
    settings = machine.hardware.settings
    if settings.firmware is not Firmware.EFI or settings.memory_mib >= _EFI_MEMORY:
        return []
    return [
        f"EFI firmware needs about {_EFI_MEMORY} MiB of memory and this machine has {settings.memory_mib}; "
        "if it does not start, give it more (drivebay machine edit --memory)"
    ]


def disk_spec(machine: Machine, tree: MediaTree, attachment: Attachment) -> DiskSpec | None:
    """How the worker serves an attachment's medium: its exact chain; None for an empty drive."""
    if attachment.medium is None:
        return None
    chain = list(tree.chain(attachment.medium))
    locking = access(tree, attachment.medium)
    cached = controller_of(machine.hardware, attachment.slot).host_io_cache
    return DiskSpec(
        str(attachment.slot),
        tuple(medium.path for medium in chain),
        tuple(medium.format for medium in chain),
        writable=locking is not Locking.READ and _may_write(chain[0]),
        cache=CacheMode.WRITEBACK if cached else CacheMode.DIRECT,
        shared=locking is Locking.SHARED,
        group=attachment.bandwidth_group,
        discard=attachment.discard,
    )


def _may_write(medium: Medium) -> bool:
    """A floppy may be write-protected; a disk that can't be written is refused by the worker (E63)."""
    return medium.device is DeviceType.DISK or os.access(medium.path, os.W_OK)


def drive_of(
    attachment: Attachment, spec: DiskSpec | None, run_folder: str, base: UUID | None = None
) -> Drive:
    """What QEMU is told of a drive. ``base`` is the base's UUID if the image has none of its own."""
    if spec is None:
        return Drive(attachment)
    facts = facts_of(spec.paths[0], spec.formats[0] if spec.formats else "")
    return Drive(
        attachment,
        os.path.join(run_folder, NBD_SOCKET),
        spec.export,
        base=base,
        size=facts.size,
        writable=spec.writable,
        shared=spec.shared,
        pchs=facts.pchs,
        lchs=facts.lchs,
    )


def facts_of(path: str, format_name: str) -> ImageFacts:
    """What an image's header says. Raises StorageError."""
    opened = open_layer(path, format_name or None, lock=False)
    for source in opened.sources:
        source.close()
    return opened.layer.facts


def _base(tree: MediaTree, attachment: Attachment) -> UUID | None:
    return None if attachment.medium is None else tree.base(attachment.medium).uuid


def identities(specs: tuple[DiskSpec, ...]) -> dict[str, list[object]]:
    """For each disk that is written, its image and what tells whether that has changed since (3.4)."""
    return dict(_identities(specs))


def _identities(specs: tuple[DiskSpec, ...]) -> Iterator[tuple[str, list[object]]]:
    for spec in specs:
        facts = facts_of(spec.paths[0], spec.formats[0] if spec.formats else "")
        if facts.modification_uuid.int:
            yield spec.export, [spec.paths[0], str(facts.modification_uuid)]
        elif spec.writable:
            status = os.stat(spec.paths[0])
            yield spec.export, [spec.paths[0], f"{status.st_size} {status.st_mtime_ns}"]
