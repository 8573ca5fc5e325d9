"""Persistent bitmaps: listed and counted, never interpreted; a writer marks them stale."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from drivebay.blockmap import Files
from drivebay.formats.qcow2.extensions import BITMAPS, Extension, extension_of
from drivebay.formats.qcow2.header import Header
from drivebay.formats.qcow2.rules import refusal

_EXTENSION = struct.Struct(">IIQQ")
_ENTRY = struct.Struct(">QIIBBHI")
_MAX_BITMAPS = 65535
_MAX_DIRECTORY = 64 << 20


@dataclass(frozen=True, slots=True)
class Bitmap:
    """A directory entry: the bitmap's table has ``table_size`` 64-bit entries at ``table_offset``."""

    name: str
    table_offset: int
    table_size: int


@dataclass(frozen=True, slots=True)
class BitmapDirectory:
    """Where the directory of ``count`` bitmaps lies."""

    count: int
    offset: int
    length: int


def find_directory(files: Files, header: Header, extensions: tuple[Extension, ...]) -> BitmapDirectory | None:
    """The directory that the header extension names. Raises CORRUPT where it can't be there."""
    extension = extension_of(extensions, BITMAPS)
    if extension is None:
        return None
    count, _, length, offset = _EXTENSION.unpack(
        extension.data[: _EXTENSION.size].ljust(_EXTENSION.size, b"\0")
    )
    possible = count <= _MAX_BITMAPS and length <= _MAX_DIRECTORY and offset % header.cluster == 0
    if not possible or offset + length > files.size:
        what = f"QCOW2 bitmaps: {count} of them in a directory of {length} bytes at offset {offset} can't be"
        raise refusal(files, what, extension.offset)
    return BitmapDirectory(count, offset, length)


def read_bitmaps(files: Files, directory: BitmapDirectory) -> Iterator[Bitmap]:
    """The bitmaps in the directory. Raises CORRUPT where an entry reaches out of it."""
    position, end = directory.offset, directory.offset + directory.length
    for _ in range(directory.count):
        fixed = files.read(position, _ENTRY.size)
        if position + _ENTRY.size > end:
            raise refusal(files, "QCOW2 bitmaps: the directory ends within an entry", position)
        table_offset, table_size, _, _, _, name_length, extra = _ENTRY.unpack(fixed)
        length = _ENTRY.size + extra + name_length
        if position + length > end:
            raise refusal(files, "QCOW2 bitmaps: an entry reaches out of the directory", position)
        name = files.read(position + _ENTRY.size + extra, name_length).decode("utf-8", "replace")
        yield Bitmap(name, table_offset, table_size)
        position += length + -length % 8
