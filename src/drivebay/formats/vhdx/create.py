"""New VHDX images: header section, log, metadata, BAT, then the blocks, each on a boundary of 1 MiB."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID, uuid4

from drivebay.blockmap import CreateRequest, FileChange, FileExtent, FileWrite, FormatOptions
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vhdx import metadata, regions
from drivebay.formats.vhdx.header import (
    CREATOR_SIZE,
    HEADER_OFFSETS,
    MIB,
    SIGNATURE,
    VERSION,
    Header,
)
from drivebay.formats.vhdx.image import ENTRY_SIZE
from drivebay.formats.vhdx.locator import LINKAGE, RELATIVE, pack_locator
from drivebay.formats.vhdx.metadata import MAX_BLOCK, MAX_SIZE, MIN_BLOCK, SECTOR_SIZES, Metadata
from drivebay.formats.vhdx.regions import TABLE_OFFSETS, Region
from drivebay.model import NULL_UUID

CREATOR = "drivebay"
VARIANTS = ("dynamic", "fixed", "differencing")
DYNAMIC_BLOCK = 32 * MIB  # Hyper-V's: first writes cost nothing where there is no parent
DIFFERENCING_BLOCK = 2 * MIB  # Hyper-V's: the first write into a block copies all of it from the parent
MAX_LOG = (4 << 30) - MIB
_LOG_OFFSET = MIB
_FULLY_PRESENT = 6
_CHUNK_ENTRIES = MIB // ENTRY_SIZE


@dataclass(frozen=True, slots=True)
class VhdxOptions(FormatOptions):
    """VHDX's own create options."""

    logical_sector_size: int = field(
        default=0,
        metadata={"help": "the sector size that the guest sees: 512 or 4096; 0: the parent's, or 512"},
    )
    physical_sector_size: int = field(
        default=4096, metadata={"help": "the physical sector size that the guest is told: 512 or 4096"}
    )
    log_size: int = field(default=MIB, metadata={"help": "the size of the log: a multiple of 1 MiB"})


class _Plan(NamedTuple):
    """Where everything goes."""

    metadata: Metadata
    items: bytes
    log_length: int
    regions: tuple[Region, Region]
    data_offset: int


def create(request: CreateRequest) -> Iterator[FileChange]:
    """The changes that make the image; the file type identifier comes last, so that half an image isn't one.

    Raises StorageError (INVALID) at once for what VHDX can't be.
    """
    return _changes(_plan(request), request)


def _changes(plan: _Plan, request: CreateRequest) -> Iterator[FileChange]:
    yield FileExtent(0, plan.data_offset)
    bat, items = plan.regions
    if plan.metadata.fixed:
        blocks = plan.metadata.blocks
        yield FileExtent(plan.data_offset, blocks * plan.metadata.block_size, reserve=True)
        for first in range(0, plan.metadata.bat_entries, _CHUNK_ENTRIES):
            yield FileWrite(bat.offset + first * ENTRY_SIZE, _fixed_entries(plan, first))
    yield FileWrite(items.offset, plan.items)
    for offset in TABLE_OFFSETS:
        yield FileWrite(offset, regions.pack(plan.regions))
    for sequence, offset in enumerate(HEADER_OFFSETS):
        yield FileWrite(offset, _header(plan, request.modification_uuid, sequence).pack())
    yield FileWrite(0, SIGNATURE + CREATOR.encode("utf-16-le").ljust(CREATOR_SIZE, b"\0"))


def _header(plan: _Plan, data_write: UUID, sequence: int) -> Header:
    return Header(
        sequence=sequence,
        file_write=uuid4(),
        data_write=data_write,
        log_guid=NULL_UUID,
        log_version=0,
        version=VERSION,
        log_length=plan.log_length,
        log_offset=_LOG_OFFSET,
    )


def _fixed_entries(plan: _Plan, first: int) -> bytes:
    """The BAT's entries from number ``first`` on: all blocks in order, no sector bitmap."""
    count = min(_CHUNK_ENTRIES, plan.metadata.bat_entries - first)
    return struct.pack(f"<{count}Q", *(_fixed_entry(plan, n) for n in range(first, first + count)))


def _fixed_entry(plan: _Plan, number: int) -> int:
    group, within = divmod(number, plan.metadata.chunk_ratio + 1)
    if within == plan.metadata.chunk_ratio:
        return 0
    block = group * plan.metadata.chunk_ratio + within
    return plan.data_offset + block * plan.metadata.block_size | _FULLY_PRESENT


def _plan(request: CreateRequest) -> _Plan:
    options = request.options
    if not isinstance(options, VhdxOptions):
        options = VhdxOptions(options.variant, options.block_size)
    _require_supported(request)
    found = _metadata(request, options)
    _require(
        0 < options.log_size <= MAX_LOG and options.log_size % MIB == 0,
        f"a log of {options.log_size} bytes is not possible; give a multiple of 1 MiB below 4 GiB",
    )
    place = _LOG_OFFSET + options.log_size
    items = Region(regions.METADATA, place, MIB)
    length = found.bat_entries * ENTRY_SIZE
    bat = Region(regions.BAT, items.end, length + -length % MIB)
    return _Plan(found, _items(found, request), options.log_size, (bat, items), bat.end)


def _require_supported(request: CreateRequest) -> None:
    variant = request.options.variant
    _require(
        variant in (None, *VARIANTS), f"VHDX has no variant {variant!r}; use one of: {', '.join(VARIANTS)}"
    )
    _require(
        variant != "differencing" or request.parent is not None,
        "a differencing image needs a parent; name it with --parent",
    )
    _require(
        variant in (None, "differencing") or request.parent is None,
        f"a {variant} image can't have a parent; leave the variant out, or the parent",
    )
    _require(not request.comment, "a VHDX image has no place for a comment; leave it out")
    _require(request.uuid != NULL_UUID, "a VHDX disk can't have the null UUID as its id; give another one")


def _metadata(request: CreateRequest, options: VhdxOptions) -> Metadata:
    parent = request.parent
    logical = options.logical_sector_size or (parent.sector_size if parent else 512)
    block = options.block_size or (DIFFERENCING_BLOCK if parent else DYNAMIC_BLOCK)
    for size, name in ((logical, "logical"), (options.physical_sector_size, "physical")):
        _require(size in SECTOR_SIZES, f"a {name} sector size of {size} is not possible; use 512 or 4096")
    _require(
        parent is None or logical == parent.sector_size,
        f"the parent has sectors of {parent.sector_size if parent else 0} bytes, so the child can't have "
        f"{logical}; leave the logical sector size out",
    )
    _require(
        MIN_BLOCK <= block <= MAX_BLOCK and block & (block - 1) == 0,
        f"a block size of {block} is not possible; use a power of two from 1 MiB to 256 MiB",
    )
    _require(
        0 < request.size <= MAX_SIZE and request.size % logical == 0,
        f"a VHDX of {request.size} bytes is not possible; give a multiple of {logical} up to 64 TiB",
    )
    fixed = metadata.LEAVE_ALLOCATED if options.variant == "fixed" else 0
    return Metadata(
        items=(),
        block_size=block,
        flags=metadata.HAS_PARENT if parent else fixed,
        size=request.size,
        disk_id=_disk_id(request),
        logical_sector=logical,
        physical_sector=options.physical_sector_size,
    )


def _disk_id(request: CreateRequest) -> UUID:
    """The parent's: a child shows the same disk to the guest, so it keeps its id (MS-VHDX 2.6.1.2)."""
    parent = request.parent
    if parent is not None and parent.format == "vhdx" and parent.uuid != NULL_UUID:
        return parent.uuid
    return request.uuid


def _items(found: Metadata, request: CreateRequest) -> bytes:
    items = [
        (metadata.FILE_PARAMETERS, struct.pack("<II", found.block_size, found.flags)),
        (metadata.DISK_SIZE, struct.pack("<Q", found.size)),
        (metadata.LOGICAL_SECTOR, struct.pack("<I", found.logical_sector)),
        (metadata.PHYSICAL_SECTOR, struct.pack("<I", found.physical_sector)),
        (metadata.DISK_ID, found.disk_id.bytes_le),
    ]
    if request.parent is not None:
        values = locator_values(request.parent.path, request.parent.modification_uuid, "create")
        items.append((metadata.PARENT_LOCATOR, pack_locator(values)))
    return metadata.pack(items)


def locator_values(path: str, linkage: UUID, operation: str) -> dict[str, str]:
    """What a locator says of a parent at ``path``. This host has no Windows paths, so it is relative.

    Raises StorageError (INVALID) for a path that can't be said in Windows' way.
    """
    if not path or "\\" in path or "\0" in path or len(path.encode("utf-16-le", "surrogatepass")) > 0xFFFF:
        raise _invalid(
            f"a VHDX can't record the parent's path {path!r}; give the parent another name", operation
        )
    try:
        path.encode("utf-16-le")
    except UnicodeEncodeError as error:
        what = f"a VHDX can't record the parent's path {path!r}, which is no text; rename the parent"
        raise _invalid(what, operation) from error
    relative = path if path.startswith(("/", "../")) else f"./{path}"
    return {LINKAGE: f"{{{linkage}}}", RELATIVE: relative.replace("/", "\\")}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise _invalid(message, "create")


def _invalid(message: str, operation: str) -> StorageError:
    return StorageError(ErrorKind.INVALID, message, operation=operation)
