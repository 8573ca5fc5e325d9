"""New VDI images, laid out as VirtualBox 7 does: header, map and data on boundaries of 1 MiB."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from drivebay.blockmap import CreateRequest, FileChange, FileExtent, FileWrite
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vdi.fields import MOST_LCHS, MOST_PCHS, chs_field, comment_field
from drivebay.formats.vdi.header import (
    ENTRY_SIZE,
    FREE,
    HEADER_SIZE,
    MAX_BLOCK,
    MIN_BLOCK,
    SIGNATURE,
    VERSION,
    Header,
    ImageType,
)
from drivebay.model import NULL_UUID, SECTOR

TEXT = b"<<< drivebay Virtual Disk Image >>>\n"
ALIGNMENT = 1 << 20
DEFAULT_BLOCK = 1 << 20
MIN_SIZE = 1 << 20
MAX_SIZE = (4 << 50) - (3 << 20)  # exclusive
_CHUNK_ENTRIES = (1 << 20) // ENTRY_SIZE
_TYPES = {
    "dynamic": ImageType.DYNAMIC,
    "fixed": ImageType.FIXED,
    "differencing": ImageType.DIFFERENCING,
}


def create(request: CreateRequest) -> Iterator[FileChange]:
    """The changes that make the image; the header comes last, so that half an image isn't one.

    Raises StorageError (INVALID) at once for what VDI can't be (specification, 2.3).
    """
    header = _header(request)
    return _changes(header)


def _changes(header: Header) -> Iterator[FileChange]:
    fixed = header.type == ImageType.FIXED
    yield FileExtent(0, header.data_offset)
    if fixed:
        yield FileExtent(header.data_offset, header.blocks * header.block_size, reserve=True)
    for first in range(0, header.blocks, _CHUNK_ENTRIES):
        entries = _entries(first, min(_CHUNK_ENTRIES, header.blocks - first), fixed=fixed)
        yield FileWrite(header.map_offset + first * ENTRY_SIZE, entries)
    yield FileWrite(0, header.pack())


def _entries(first: int, count: int, *, fixed: bool) -> bytes:
    if fixed:
        return struct.pack(f"<{count}I", *range(first, first + count))
    return FREE.to_bytes(ENTRY_SIZE, "little") * count


def _header(request: CreateRequest) -> Header:
    image_type = _type(request)
    block_size = _block_size(request)
    blocks = -(-_size(request) // block_size)
    link = request.parent
    return Header(
        text=TEXT,
        signature=SIGNATURE,
        version=VERSION,
        header_size=HEADER_SIZE,
        type=image_type,
        flags=0,
        comment=comment_field(request.comment),
        map_offset=ALIGNMENT,
        data_offset=_data_offset(blocks),
        pchs=chs_field(request.pchs, MOST_PCHS),
        dummy=0,
        size=request.size,
        block_size=block_size,
        extra=0,
        blocks=blocks,
        blocks_allocated=blocks if image_type == ImageType.FIXED else 0,
        uuid=request.uuid,
        modification_uuid=request.modification_uuid,
        parent_uuid=link.uuid if link else NULL_UUID,
        parent_modification_uuid=link.modification_uuid if link else NULL_UUID,
        lchs=chs_field(request.lchs, MOST_LCHS),
    )


def _type(request: CreateRequest) -> ImageType:
    variant = request.options.variant or ("differencing" if request.parent else "dynamic")
    if variant not in _TYPES:
        raise _invalid(f"VDI has no variant {variant!r}; use one of: {', '.join(_TYPES)}")
    if variant == "differencing" and request.parent is None:
        raise _invalid("a differencing image needs a parent; name it with --parent")
    if variant != "differencing" and request.parent is not None:
        raise _invalid(f"a {variant} image can't have a parent; leave the variant out, or the parent")
    if request.uuid == NULL_UUID or (request.parent and request.parent.uuid == NULL_UUID):
        raise _invalid("an image and its parent can't have the null UUID; give each one of its own")
    return _TYPES[variant]


def _block_size(request: CreateRequest) -> int:
    block_size = request.options.block_size or DEFAULT_BLOCK
    if not MIN_BLOCK <= block_size <= MAX_BLOCK or block_size & (block_size - 1):
        raise _invalid(
            f"a block size of {block_size} is not possible; use a power of two from 512 KiB to 64 MiB"
        )
    return block_size


def _size(request: CreateRequest) -> int:
    # A child is as large as its parent, and that may be a raw disk of any size.
    least = SECTOR if request.parent else MIN_SIZE
    if request.size % SECTOR or not least <= request.size < MAX_SIZE:
        raise _invalid(
            f"a VDI of {request.size} bytes is not possible; "
            f"give a multiple of {SECTOR} from {least} to below {MAX_SIZE}"
        )
    return request.size


def _data_offset(blocks: int) -> int:
    map_end = ALIGNMENT + blocks * ENTRY_SIZE
    data_offset = map_end + -map_end % ALIGNMENT
    if data_offset > 0xFFFFFFFF:
        raise _invalid(f"the map of {blocks} blocks ends above 4 GiB; use larger blocks")
    return data_offset


def _invalid(message: str) -> StorageError:
    return StorageError(ErrorKind.INVALID, message, operation="create")
