"""Small VDI images in memory, with any header field made wrong."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from drivebay.formats.vdi.header import FREE, Chs, Header
from drivebay.model import NULL_UUID

BLOCK = 1 << 20

_SOUND = Header(
    text=b"<<< test image >>>\n",
    signature=0xBEDA107F,
    version=0x00010001,
    header_size=400,
    type=1,
    flags=0,
    comment=b"",
    map_offset=1 << 20,
    data_offset=2 << 20,
    pchs=Chs(0, 0, 0, 512),
    dummy=0,
    size=4 * BLOCK,
    block_size=BLOCK,
    extra=0,
    blocks=4,
    blocks_allocated=0,
    uuid=UUID("7af70a11-f976-4c15-a644-ba3ddd4e8e3b"),
    modification_uuid=UUID("dce2b878-c0d8-4340-b4cb-a2f7c1e9433c"),
    parent_uuid=NULL_UUID,
    parent_modification_uuid=NULL_UUID,
    lchs=Chs(0, 0, 0, 512),
)


def make_header(**fields: Any) -> Header:
    """The header of an empty dynamic image of four 1 MiB blocks, with ``fields`` changed."""
    return dataclasses.replace(_SOUND, **fields)


def make_image(*, entries: Sequence[int] = (FREE,) * 4, units: int = 0, **fields: Any) -> bytes:
    """An image with the map ``entries`` and ``units`` blocks of data, block n filled with byte n + 1.

    The map and the data lie where a sound header says, whatever ``fields`` claim.
    """
    header = make_header(**fields)
    data = bytearray(_SOUND.data_offset)
    data[: len(header.pack())] = header.pack()
    struct.pack_into(f"<{len(entries)}I", data, _SOUND.map_offset, *entries)
    for unit in range(units):
        data += bytes(header.extra) + bytes([unit + 1]) * header.block_size
    return bytes(data)
