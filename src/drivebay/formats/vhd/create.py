"""New VHD images, laid out as VirtualBox and Hyper-V do: copy, header, table, locators, blocks, footer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from drivebay.blockmap import (
    CreateRequest,
    FileChange,
    FileExtent,
    FileWrite,
    FormatOptions,
    ParentLink,
)
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vhd import header as dynamic
from drivebay.formats.vhd.footer import (
    COOKIE,
    CREATOR,
    FOOTER_SIZE,
    NO_DATA_OFFSET,
    RESERVED_FEATURE,
    VERSION,
    WINDOWS,
    DiskType,
    Footer,
    file_time,
    timestamp,
)
from drivebay.formats.vhd.header import ABSENT, ENTRY_SIZE, HEADER_SIZE, NO_LOCATOR, Header, Locator
from drivebay.formats.vhd.locators import ABSOLUTE, RELATIVE, encoded, encoded_name
from drivebay.formats.vhd.rules import MAX_BLOCK, MIN_BLOCK
from drivebay.formats.vhd.sizes import MAX_SIZE, MAX_SPARSE, SizeRule, rounded, stored_geometry
from drivebay.model import NULL_UUID, SECTOR

DEFAULT_BLOCK = 2 << 20
HEADER_OFFSET = FOOTER_SIZE
TABLE_OFFSET = HEADER_OFFSET + HEADER_SIZE
LOCATOR_ROOM = 1024  # at least, so that a longer path can be put there later
_CHUNK_ENTRIES = (1 << 20) // ENTRY_SIZE
_TYPES = {"dynamic": DiskType.DYNAMIC, "fixed": DiskType.FIXED, "differencing": DiskType.DIFFERENCING}


@dataclass(frozen=True, slots=True)
class VhdOptions(FormatOptions):
    """What only a VHD can be asked for."""

    size_rule: SizeRule = field(
        default=SizeRule.EXACT,
        metadata={
            "help": "exact: the size as given (Hyper-V, VirtualBox). chs: rounded up to what a geometry "
            "spans (Virtual PC). azure: a fixed disk, rounded up to whole MiB."
        },
    )


@dataclass(frozen=True, slots=True)
class _Path:
    """A parent locator and its bytes."""

    locator: Locator
    data: bytes


def create(request: CreateRequest) -> Iterator[FileChange]:
    """The changes that make the image; the front comes last, so that half a sparse image isn't one.

    Raises StorageError (INVALID) at once for what a VHD can't be (docs/formats/vhd.md).
    """
    disk_type = _type(request)
    _require_identity(request)
    if request.comment:
        raise _invalid("a VHD has no place for a comment; leave it out")
    footer = _footer(disk_type, _size(request, disk_type), request)
    if disk_type == DiskType.FIXED:
        if request.options.block_size is not None:
            raise _invalid("a fixed VHD has no blocks; leave the block size out")
        return _fixed(footer)
    return _sparse(footer, _block_size(request), request.parent)


def _fixed(footer: Footer) -> Iterator[FileChange]:
    return iter(
        (
            FileExtent(0, footer.current_size, reserve=True),
            FileWrite(footer.current_size, footer.pack()),
        )
    )


def _sparse(footer: Footer, block_size: int, parent: ParentLink | None) -> Iterator[FileChange]:
    entries = -(-footer.current_size // block_size)
    table_end = TABLE_OFFSET + entries * ENTRY_SIZE
    paths = _paths(parent, table_end + -table_end % SECTOR) if parent else []
    header = _header(entries, block_size, parent, paths)
    return _sparse_changes(footer, header, paths)


def _sparse_changes(footer: Footer, header: Header, paths: list[_Path]) -> Iterator[FileChange]:
    end = header.table_end + -header.table_end % SECTOR
    end = max([end, *(path.locator.offset + path.locator.room for path in paths)])
    yield FileExtent(0, end)
    padded = header.entries + -header.entries % (SECTOR // ENTRY_SIZE)
    for first in range(0, padded, _CHUNK_ENTRIES):
        absent = ABSENT.to_bytes(ENTRY_SIZE, "big") * min(_CHUNK_ENTRIES, padded - first)
        yield FileWrite(header.table_offset + first * ENTRY_SIZE, absent)
    for path in paths:
        yield FileWrite(path.locator.offset, path.data)
    yield FileWrite(end, footer.pack())
    yield FileWrite(0, footer.pack() + header.pack())


def _footer(disk_type: DiskType, size: int, request: CreateRequest) -> Footer:
    geometry = stored_geometry(size)
    return Footer(
        cookie=COOKIE,
        features=RESERVED_FEATURE,
        version=VERSION,
        data_offset=NO_DATA_OFFSET if disk_type == DiskType.FIXED else HEADER_OFFSET,
        created=timestamp(datetime.now(UTC)),
        creator=CREATOR,
        creator_version=VERSION,
        creator_os=WINDOWS,
        original_size=size,
        current_size=size,
        cylinders=geometry.cylinders,
        heads=geometry.heads,
        sectors=geometry.sectors,
        type=disk_type,
        checksum=0,
        uuid=request.uuid,
        saved_state=0,
        reserved=bytes(427),
    )


def _header(entries: int, block_size: int, parent: ParentLink | None, paths: list[_Path]) -> Header:
    locators = [path.locator for path in paths]
    return Header(
        cookie=dynamic.COOKIE,
        next_offset=dynamic.NO_NEXT,
        table_offset=TABLE_OFFSET,
        version=dynamic.VERSION,
        entries=entries,
        block_size=block_size,
        checksum=0,
        parent_uuid=parent.uuid if parent else NULL_UUID,
        parent_modified=file_time(parent.modified if parent else None),
        reserved=0,
        parent_name=encoded_name(parent.path) if parent else bytes(dynamic.NAME_SIZE),
        locators=tuple(locators + [NO_LOCATOR] * (dynamic.LOCATORS - len(locators))),
        rest=bytes(256),
    )


def _paths(parent: ParentLink, offset: int) -> list[_Path]:
    """The parent's paths with their locators, from ``offset`` on."""
    paths = []
    for code, path in ((ABSOLUTE, parent.absolute), (RELATIVE, parent.path)):
        if path:
            data = encoded(path, code)
            room = max(LOCATOR_ROOM, len(data) + -len(data) % SECTOR)
            paths.append(_Path(Locator(code, room, len(data), 0, offset), data))
            offset += room
    return paths


def _type(request: CreateRequest) -> DiskType:
    variant = request.options.variant or _default_variant(request)
    if variant not in _TYPES:
        raise _invalid(f"VHD has no variant {variant!r}; use one of: {', '.join(_TYPES)}")
    if variant == "differencing" and request.parent is None:
        raise _invalid("a differencing image needs a parent; name it with --parent")
    if variant != "differencing" and request.parent is not None:
        raise _invalid(f"a {variant} image can't have a parent; leave the variant out, or the parent")
    if variant != "fixed" and _rule(request) is SizeRule.AZURE:
        raise _invalid(f"Azure takes fixed disks only, not a {variant} one; choose another size rule")
    return _TYPES[variant]


def _default_variant(request: CreateRequest) -> str:
    if request.parent:
        return "differencing"
    return "fixed" if _rule(request) is SizeRule.AZURE else "dynamic"


def _rule(request: CreateRequest) -> SizeRule:
    options = request.options
    return options.size_rule if isinstance(options, VhdOptions) else SizeRule.EXACT


def _require_identity(request: CreateRequest) -> None:
    if request.uuid == NULL_UUID or (request.parent and request.parent.uuid == NULL_UUID):
        raise _invalid("an image and its parent can't have the null UUID; give each one of its own")


def _size(request: CreateRequest, disk_type: DiskType) -> int:
    # A child is as large as its parent, so it may have what the parent has.
    most = MAX_SPARSE if disk_type == DiskType.DYNAMIC else MAX_SIZE
    if request.size <= 0 or request.size % SECTOR or request.size > most:
        raise _invalid(
            f"a {disk_type.name.lower()} VHD of {request.size} bytes is not possible; "
            f"give a multiple of {SECTOR} up to {most} ({most >> 30} GiB)"
        )
    size = rounded(request.size, _rule(request))
    if request.parent and size != request.size:
        raise _invalid("a child is as large as its parent, which the size rule forbids; leave the rule out")
    return size


def _block_size(request: CreateRequest) -> int:
    block_size = request.options.block_size or DEFAULT_BLOCK
    if not MIN_BLOCK <= block_size <= MAX_BLOCK or block_size & (block_size - 1):
        raise _invalid(
            f"a block size of {block_size} is not possible; use a power of two from 64 KiB to 64 MiB "
            "(512 KiB and 2 MiB are what Hyper-V takes)"
        )
    return block_size


def _invalid(message: str) -> StorageError:
    return StorageError(ErrorKind.INVALID, message, operation="create")
