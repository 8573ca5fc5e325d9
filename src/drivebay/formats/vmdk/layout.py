"""Where things lie in new sparse extents; as VirtualBox lays them out, so that its tools are at home."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from drivebay.blockmap import FileChange, FileExtent, FileWrite
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vmdk import cowd, header
from drivebay.formats.vmdk.header import ENTRY_SIZE, FOOTER_MARKER, Header, tables_for
from drivebay.model import SECTOR

DESCRIPTOR_SECTORS = 20
GTES = 512
_DIRECTORY_MARKER = 2
_CHUNK = (1 << 20) // ENTRY_SIZE


def fitted(text: bytes) -> bytes:
    """The descriptor, filled up to the room that an embedded one has. Raises StorageError (INVALID)."""
    room = DESCRIPTOR_SECTORS * SECTOR
    if len(text) > room:
        message = (
            f"the descriptor has {len(text)} bytes, but there is room for {room}; shorten names and comment"
        )
        raise StorageError(ErrorKind.INVALID, message, operation="create")
    return text.ljust(room, b"\0")


def hosted(
    size: int, grain_size: int, *, zeroed: bool = False, text: bytes = b"", file: str = ""
) -> Iterator[FileChange]:
    """A sparse extent of ``size`` bytes without a grain, all of whose tables exist; the header comes last.

    ``text`` is the embedded descriptor, filled up; empty for an extent of a split image.
    """
    made = _hosted_header(size, grain_size, zeroed=zeroed, descriptor_sectors=len(text) // SECTOR)
    yield FileExtent(0, made.overhead * SECTOR, file=file)
    if text:
        yield FileWrite(made.descriptor_offset * SECTOR, text, file)
    yield from _directory(made, made.redundant, file)
    yield from _directory(made, made.directory, file)
    yield FileWrite(0, made.pack(), file)


def _hosted_header(size: int, grain_size: int, *, zeroed: bool, descriptor_sectors: int) -> Header:
    grain, capacity = grain_size // SECTOR, size // SECTOR
    tables = tables_for(capacity, grain, GTES)
    redundant = 1 + descriptor_sectors
    directory = redundant + _directory_sectors(tables) + tables * (GTES * ENTRY_SIZE // SECTOR)
    end = 2 * directory - redundant
    flags = header.VALID_NEWLINES | header.REDUNDANT | (header.ZEROED_GRAINS if zeroed else 0)
    return Header(
        magic=header.MAGIC,
        version=2 if zeroed else 1,
        flags=flags,
        capacity=capacity,
        grain=grain,
        descriptor_offset=1 if descriptor_sectors else 0,
        descriptor_size=descriptor_sectors,
        gtes=GTES,
        redundant=redundant,
        directory=directory,
        overhead=end + -end % grain,
        unclean=0,
        newlines=header.NEWLINES,
        compression=0,
    )


def _directory_sectors(tables: int) -> int:
    return -(-tables * ENTRY_SIZE // SECTOR)


def _directory(made: Header, place: int, file: str) -> Iterator[FileChange]:
    """A directory at sector ``place`` with its tables right behind it."""
    step = made.leaf // SECTOR
    start = place + _directory_sectors(made.tables)
    for first in range(0, made.tables, _CHUNK):
        last = min(first + _CHUNK, made.tables)
        entries = range(start + first * step, start + last * step, step)
        data = struct.pack(f"<{last - first}I", *entries)
        yield FileWrite(place * SECTOR + first * ENTRY_SIZE, data, file)


def cow(size: int, grain_size: int, file: str) -> Iterator[FileChange]:
    """A COWD extent without a grain; its tables are made when they are needed."""
    grain, capacity = grain_size // SECTOR, size // SECTOR
    tables = tables_for(capacity, grain, cowd.GTES)
    place = cowd.HEADER_SIZE // SECTOR
    free = place + _directory_sectors(tables)
    yield FileExtent(0, free * SECTOR, file=file)
    yield FileWrite(
        0, cowd.Header(cowd.MAGIC, 1, cowd.FLAGS, capacity, grain, place, tables, free).pack(), file
    )


def stream(size: int, grain_size: int, text: bytes) -> Iterator[FileChange]:
    """A streamOptimized image without a grain: header, directory, footer and end of stream."""
    grain, capacity = grain_size // SECTOR, size // SECTOR
    tables = tables_for(capacity, grain, GTES)
    begin = 1 + len(text) // SECTOR
    overhead = begin + -begin % grain
    sectors = _directory_sectors(tables)
    footer = Header(
        magic=header.MAGIC,
        version=3,
        flags=header.VALID_NEWLINES | header.COMPRESSED | header.MARKERS,
        capacity=capacity,
        grain=grain,
        descriptor_offset=1,
        descriptor_size=len(text) // SECTOR,
        gtes=GTES,
        redundant=0,
        directory=overhead + 1,
        overhead=overhead,
        unclean=0,
        newlines=header.NEWLINES,
        compression=header.DEFLATE,
    )
    end = overhead + 1 + sectors
    yield FileExtent(0, (end + 3) * SECTOR)
    yield FileWrite(SECTOR, text)
    yield FileWrite(overhead * SECTOR, _marker(sectors, _DIRECTORY_MARKER))
    yield FileWrite(end * SECTOR, _marker(1, FOOTER_MARKER) + footer.pack())
    yield FileWrite(0, footer.at_end().pack())


def _marker(sectors: int, kind: int) -> bytes:
    return struct.pack("<QII", sectors, 0, kind).ljust(SECTOR, b"\0")
