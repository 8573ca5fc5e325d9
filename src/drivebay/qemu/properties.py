"""The properties of QEMU's devices: from the controller table's texts, and from what a drive has."""

from __future__ import annotations

from collections.abc import Mapping

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.kinds import QemuDrive
from drivebay.machines.model import Attachment
from drivebay.model import Geometry
from drivebay.qemu.drive import Drive
from drivebay.qemu.identity import default_model, vendor_and_product
from drivebay.registry.medium import DeviceType

Device = dict[str, object]

# QEMU's JSON is strict about types; all that is not here is text.
_NUMBERS = frozenset(
    {"unit", "scsi-id", "channel", "lun", "nsid", "wwn", "rotation_rate", "p2", "p3", "bootindex"}
    | {"chassis", "slot", "io-reserve"}
    | {"cyls", "heads", "secs", "lcyls", "lheads", "lsecs"}
)
_FLAGS = frozenset({"share-rw"})

_MOST_CYLINDERS, _MOST_HEADS, _MOST_SECTORS = 16383, 16, 63  # of a physical geometry (2.5)


def filled(text: str, values: Mapping[str, str]) -> Device:
    """A row's text, filled. Values may hold commas: the text is taken apart before they are filled in."""
    driver, *properties = text.split(",")
    pairs = (each.partition("=") for each in properties)
    return {"driver": driver, **_typed({name: value.format(**values) for name, _, value in pairs})}


def optional_properties(row: QemuDrive, drive: Drive, bootindex: int | None) -> Device:
    """The properties that this drive has and its device takes."""
    attachment = drive.attachment
    wanted = _strings(attachment) | _geometry("", drive.pchs) | _geometry("l", drive.lchs)
    if attachment.device is DeviceType.FLOPPY:
        wanted["drive-type"] = floppy_type(drive.size)
    if bootindex is not None:
        wanted["bootindex"] = bootindex
    if attachment.nonrotational:
        wanted["rotation_rate"] = 1
    if drive.shared:
        wanted["share-rw"] = True
    if attachment.device is DeviceType.DISK and drive.writable:
        # A full host disk pauses the guest (9.3); all else is the guest's to see, as a real disk's fault is.
        wanted |= {"write-cache": "on", "werror": "enospc", "rerror": "report"}
    return _typed({name: value for name, value in wanted.items() if name in row.takes})


def floppy_type(size: int) -> str:
    """QEMU's least floppy drive for a medium of ``size`` bytes; one of 1.44 MB for none (11.2)."""
    if size == 1200 << 10:
        return "120"
    if size <= 1440 << 10:
        return "144"
    if size <= 2880 << 10:
        return "288"
    raise StorageError(
        ErrorKind.UNSUPPORTED,
        f"QEMU has no floppy drive for a medium of {size} bytes; insert one of 2.88 MB or less",
        operation="run QEMU",
    )


def _strings(attachment: Attachment) -> Device:
    model = attachment.model or default_model(attachment.device)
    vendor, product = vendor_and_product(model)
    return {"model": model[:40], "ver": "1.0", "vendor": vendor, "product": product}


def _geometry(prefix: str, geometry: Geometry) -> Device:
    """A stored geometry, where it is decided. QEMU makes up its own for one that no drive could have."""
    real = prefix or (
        geometry.cylinders <= _MOST_CYLINDERS
        and geometry.heads <= _MOST_HEADS
        and geometry.sectors <= _MOST_SECTORS
    )
    if not geometry or not real:
        return {}
    values = (geometry.cylinders, geometry.heads, geometry.sectors)
    return {f"{prefix}{name}": value for name, value in zip(("cyls", "heads", "secs"), values, strict=True)}


def _typed(properties: Mapping[str, object]) -> Device:
    return {name: _value(name, value) for name, value in properties.items()}


def _value(name: str, value: object) -> object:
    if name in _NUMBERS:
        return int(str(value), 0)
    return value in ("on", True) if name in _FLAGS else value
