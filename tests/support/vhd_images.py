"""Small VHD images in memory, with any field of footer and header made wrong."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from drivebay.blockmap import FileEdit
from drivebay.formats.vhd import footer as footers
from drivebay.formats.vhd import header as headers
from drivebay.formats.vhd.footer import DiskType, Footer
from drivebay.formats.vhd.header import ABSENT, NO_LOCATOR, Header
from drivebay.model import NULL_UUID
from support.memory_files import files_made_by

BLOCK = 64 << 10  # the smallest: 128 sectors, a bitmap of 16 bytes in its sector
UNIT = 512 + BLOCK
TABLE = 1536
FIRST = 4096  # where the blocks begin
PRESENT = b"\xff" * 512
IMAGE = UUID("7af70a11-f976-4c15-a644-ba3ddd4e8e3b")
PARENT = UUID("dce2b878-c0d8-4340-b4cb-a2f7c1e9433c")

_FOOTER = Footer(
    cookie=footers.COOKIE,
    features=2,
    version=footers.VERSION,
    data_offset=512,
    created=0,
    creator=b"test",
    creator_version=footers.VERSION,
    creator_os=b"Wi2k",
    original_size=4 * BLOCK,
    current_size=4 * BLOCK,
    cylinders=65535,
    heads=16,
    sectors=255,
    type=DiskType.DYNAMIC,
    checksum=0,
    uuid=IMAGE,
    saved_state=0,
    reserved=bytes(427),
)
_HEADER = Header(
    cookie=headers.COOKIE,
    next_offset=headers.NO_NEXT,
    table_offset=TABLE,
    version=headers.VERSION,
    entries=4,
    block_size=BLOCK,
    checksum=0,
    parent_uuid=NULL_UUID,
    parent_modified=0,
    reserved=0,
    parent_name=bytes(512),
    locators=(NO_LOCATOR,) * 8,
    rest=bytes(256),
)


def make_footer(**fields: Any) -> Footer:
    """The footer of a dynamic disk of four 64 KiB blocks, with ``fields`` changed."""
    return dataclasses.replace(_FOOTER, **fields)


def make_header(**fields: Any) -> Header:
    """The dynamic header that belongs to it, with ``fields`` changed."""
    return dataclasses.replace(_HEADER, **fields)


def sector(unit: int) -> int:
    """The table entry of the block that lies in the file as number ``unit``."""
    return (FIRST + unit * UNIT) // 512


def make_image(
    *,
    entries: Sequence[int] = (ABSENT,) * 4,
    bitmaps: Sequence[bytes] = (),
    footer: dict[str, Any] | None = None,
    header: dict[str, Any] | None = None,
) -> bytes:
    """A sparse image with the table ``entries`` and a block for each bitmap, number n filled with byte n + 1.

    Table and blocks lie where sound headers say, whatever the fields claim.
    """
    end = make_footer(**(footer or {})).pack()
    data = bytearray(end + make_header(**(header or {})).pack())
    data += struct.pack(f">{len(entries)}I", *entries)
    data += bytes(FIRST - len(data))
    for number, bitmap in enumerate(bitmaps):
        data += bitmap.ljust(512, b"\0") + bytes([number + 1]) * BLOCK
    return bytes(data) + end


def make_fixed(content: bytes, **fields: Any) -> bytes:
    """A fixed image of ``content``."""
    sizes = {"original_size": len(content), "current_size": len(content)}
    wanted = {"type": DiskType.FIXED, "data_offset": footers.NO_DATA_OFFSET} | sizes | fields
    return content + make_footer(**wanted).pack()


def applied(data: bytes, changes: Iterable[FileEdit]) -> bytes:
    """The image after ``changes``."""
    return files_made_by(changes, {"": data})[""]
