"""The names by which a guest knows its drives (virtual-storage specification, 1.6)."""

from __future__ import annotations

from uuid import UUID

from drivebay.registry.medium import DeviceType

LONGEST_SERIAL = 20

_MODELS = {DeviceType.DISK: "VBOX HARDDISK", DeviceType.DVD: "VBOX CD-ROM"}


def default_serial(base: UUID | None, unit: int) -> str:
    """VirtualBox's serial number of a disk, by its chain's base; ``unit`` is its number in the guest.

    The UUID's first and last 32 bits as they are stored, read as little-endian numbers.
    """
    if base is None:
        return f"VB{unit}-1a2b3c4d"
    stored = base.bytes_le
    words = (int.from_bytes(part, "little") for part in (stored[:4], stored[12:]))
    return "VB" + "-".join(f"{word:08x}" for word in words)


def default_model(device: DeviceType) -> str:
    """VirtualBox's name of a drive's model; "" where it has none."""
    return _MODELS.get(device, "")


def vendor_and_product(model: str) -> tuple[str, str]:
    """A model's name as SCSI has it: 8 and 16 characters, the first word being the vendor."""
    vendor, _, product = model.partition(" ")
    return vendor[:8], (product or vendor)[:16]


def world_wide_name(uuid: UUID) -> int:
    """A 64-bit name of SAS for a drive, always the same for one UUID."""
    return 0x5 << 60 | uuid.int & (1 << 60) - 1
