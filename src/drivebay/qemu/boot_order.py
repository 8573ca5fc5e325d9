"""The order in which firmware tries a machine's drives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drivebay.machines.model import Attachment, Hardware, Slot
from drivebay.qemu.drive import Drive
from drivebay.qemu.properties import Device


def boot_indexes(hardware: Hardware, drives: Sequence[Drive]) -> dict[Slot, int]:
    """Each slot's boot index: by the boot order's classes; bootable controllers first, then ports (1.5)."""
    ranks = {name: rank for rank, name in enumerate(hardware.settings.boot_order)}
    controllers = {each.name: (not each.bootable, n) for n, each in enumerate(hardware.controllers)}

    def rank(attachment: Attachment) -> tuple[object, ...]:
        slot = attachment.slot
        return ranks[attachment.device.value], controllers[slot.controller], slot.port, slot.device

    candidates = [drive.attachment for drive in drives if drive.attachment.device.value in ranks]
    return {each.slot: number for number, each in enumerate(sorted(candidates, key=rank), 1)}


def floppy_boot_indexes(indexes: Mapping[Slot, int], controller: str) -> Device:
    """Those of a floppy controller's drives: QEMU has them as properties of the controller."""
    return {
        f"bootindex{'AB'[slot.device]}": n for slot, n in indexes.items() if slot.controller == controller
    }
