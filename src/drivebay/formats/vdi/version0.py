"""VDI headers of version 0, which the first VirtualBox wrote: other offsets, and no room between the parts.

The map follows the header, and the blocks follow the map: both may begin at any byte. So the blocks are
described like packed ones that are stored as they are, and such an image is never written.
"""

from __future__ import annotations

import struct
from uuid import UUID

from drivebay.blockmap import BlockState, Codec, Entry, PackedEntry, Table
from drivebay.blockmap import Rule as EntryRule
from drivebay.errors import ErrorKind
from drivebay.formats.headers import Rule, is_power
from drivebay.formats.vdi.header import (
    ENTRY_SIZE,
    FREE,
    MAX_BLOCK,
    MIN_BLOCK,
    ZERO,
    ZERO_EXPAND,
    Chs,
    Header,
    ImageType,
)
from drivebay.model import NULL_UUID, SECTOR

REFUSAL = "a VDI with a header of version 0 is only read; convert it"
_LAYOUT = struct.Struct("<64s II II 256s 4I Q 3I 16s16s16s")
_MOST_ROOM = 64 << 10  # what may lie in front of the first block, beside a block's length
_ALL_BITS = 0xFFFFFFFF


def unpack_version0(data: bytes) -> Header:
    """The header in the first bytes of a file, unchecked; what ``data`` lacks counts as zeros."""
    values = _LAYOUT.unpack(data[: _LAYOUT.size].ljust(_LAYOUT.size, b"\0"))
    text, signature, version, image_type, flags, comment = values[:6]
    size, block_size, blocks, allocated = values[10:14]
    uuid, modification, parent = (UUID(bytes_le=raw) for raw in values[14:])
    return Header(
        text=text,
        signature=signature,
        version=version,
        header_size=_LAYOUT.size - 72,
        type=image_type,
        flags=flags,
        comment=comment,
        map_offset=_LAYOUT.size,
        data_offset=_LAYOUT.size + blocks * ENTRY_SIZE,
        pchs=Chs(*values[6:10]),
        dummy=0,
        size=size,
        block_size=block_size,
        extra=0,
        blocks=blocks,
        blocks_allocated=allocated,
        uuid=uuid,
        modification_uuid=modification,
        parent_uuid=parent,
        parent_modification_uuid=NULL_UUID,
        lchs=Chs(0, 0, 0, 0),
    )


def table_of_version0(header: Header) -> Table:
    """The whole disk as one table."""
    states = {FREE: BlockState.ABSENT, ZERO: BlockState.ZERO}
    rules = [EntryRule(_ALL_BITS, value, state) for value, state in states.items()]
    block = header.block_size
    return Table(
        start=0,
        length=header.size,
        block=block,
        source=0,
        root=header.map_offset,
        entry=Entry(
            width=ENTRY_SIZE,
            byte_order="<",
            rules=(*rules, EntryRule(0, 0, BlockState.PACKED)),
            mask=_ALL_BITS,
            scale=block,
        ),
        packed=PackedEntry(Codec.STORED, _ALL_BITS, block, scale=block, header=header.data_offset),
    )


VERSION0_RULES: tuple[Rule[Header], ...] = (
    Rule("type", "image type", 72, lambda h, _: h.type in set(ImageType), "it must be from 1 to 4"),
    Rule(
        "flags",
        "flags field",
        76,
        lambda h, _: h.flags & ~ZERO_EXPAND == 0,
        f"drivebay knows only {ZERO_EXPAND}",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "size",
        "disk size",
        352,
        lambda h, _: h.size > 0 and h.size % SECTOR == 0,
        f"it must be a multiple of {SECTOR}, not 0",
    ),
    Rule(
        "block_size",
        "block size",
        360,
        lambda h, _: is_power(h.block_size, MIN_BLOCK, MAX_BLOCK),
        f"it must be a power of two from {MIN_BLOCK} to {MAX_BLOCK}",
    ),
    Rule(
        "blocks",
        "number of blocks",
        364,
        lambda h, _: h.blocks >= h.blocks_needed,
        "the disk size needs more",
    ),
    Rule(
        "blocks",
        "number of blocks",
        364,
        lambda h, size: h.map_end <= size,
        "a map of so many reaches beyond the file's end",
    ),
    Rule(
        "blocks",
        "number of blocks",
        364,
        lambda h, _: h.data_offset <= h.block_size + _MOST_ROOM,
        "drivebay reads no version 0 map that is longer than a block",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "blocks_allocated",
        "number of allocated blocks",
        368,
        lambda h, _: h.blocks_allocated <= h.blocks,
        "the image has fewer blocks",
    ),
    Rule("uuid", "image UUID", 372, lambda h, _: h.uuid != NULL_UUID, "every image must have one"),
)
