"""Raw images and block devices: the file is the disk. See docs/formats/raw.md."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from drivebay.blockmap import (
    Allocator,
    CreateRequest,
    FileChange,
    FileExtent,
    Files,
    Format,
    FormatOptions,
    Layer,
    Linear,
    Match,
    WritePlan,
)
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import SECTOR, ImageFacts, physical_geometry

# The namespace (RFC 9562, 5.5) of the UUIDs that stand for raw files; changing it breaks every chain on one.
NAMESPACE = uuid.UUID("8ab18157-79ce-4b1a-a001-6652c620c3dd")
_VARIANTS = ("dynamic", "fixed")
_SECTOR_SIZES = (512, 4096)
_GPT = b"EFI PART"  # what the partition table in sector 1 begins with (UEFI specification, 5.3.2)


@dataclass(frozen=True, slots=True)
class RawOptions(FormatOptions):
    """What a raw image can be asked for; the file holds none of it."""

    sector_size: int = field(
        default=SECTOR,
        metadata={"help": "the guest's logical sectors, 512 or 4096 bytes: the size is a multiple of it"},
    )


def identity(path: str) -> uuid.UUID:
    """The UUID by which a child names a raw parent: made from the file's name, for the file holds none."""
    name = os.path.basename(path).encode("utf-8", "backslashreplace").decode()
    return uuid.uuid5(NAMESPACE, f"raw:{name}")


def _probe(_head: bytes, _tail: bytes) -> Match:
    return Match.MAYBE


def _open(files: Files) -> Layer:
    if files.size == 0:
        raise StorageError(
            ErrorKind.CORRUPT,
            "the file is empty, so it is no disk; restore it from a copy, or create it with a size",
            path=files.path,
            offset=0,
            operation="open",
        )
    size = files.size + -files.size % SECTOR
    facts = ImageFacts(
        format="raw",
        variant="flat",
        size=size,
        uuid=identity(files.path),
        pchs=physical_geometry(size),
        sector_size=_sector_size(files),
    )
    return Layer(facts, (Linear(0, size, source=0, offset=0),), WritePlan(Allocator.NONE))


def _sector_size(files: Files) -> int:
    """The file doesn't tell; but a partition table of 4,096-byte sectors lies where no other one does."""
    large = files.read(4096, len(_GPT)) == _GPT and files.read(512, len(_GPT)) != _GPT
    return 4096 if large and files.size % 4096 == 0 else SECTOR


def _create(request: CreateRequest) -> Iterator[FileChange]:
    variant = request.options.variant or _VARIANTS[0]
    _require(request.parent is None, "a raw image cannot have a parent; create a vdi child instead")
    _require(
        variant in FORMAT.variants, f"raw has no variant {variant!r}; use {' or '.join(FORMAT.variants)}"
    )
    _require(request.options.block_size is None, "raw has no blocks; leave the block size out")
    options = request.options
    sector = options.sector_size if isinstance(options, RawOptions) else SECTOR
    _require(sector in _SECTOR_SIZES, f"sectors of {sector} bytes are not possible; use 512 or 4096")
    _require(
        request.size > 0 and request.size % sector == 0,
        f"a disk of {request.size} bytes is not possible; give a size that is a multiple of {sector}",
    )
    return iter((FileExtent(0, request.size, reserve=variant == "fixed"),))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise StorageError(ErrorKind.INVALID, message, operation="create")


FORMAT = Format(
    name="raw",
    extensions=("raw", "img", "iso", "dd", "bin", "cdr", "ima", "dsk", "flp", "vfd"),
    probe=_probe,
    open=_open,
    create=_create,
    variants=_VARIANTS,
    options=RawOptions,
)
