"""The block tables of a DMG ("blkx", "mish"): found in the property list, and read chunk by chunk."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple
from xml.parsers.expat import ExpatError

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind
from drivebay.formats.dmg.trailer import Checksum, Trailer, refusal

_SIGNATURE = b"mish"
_VERSION = 1
_HEADER = struct.Struct(">4sI 3Q 2I 24s 2I 128s I")
_CHUNK = struct.Struct(">2I 4Q")
# What plistlib stumbles over in property lists that are none.
_NO_PLIST = (ExpatError, ValueError, TypeError, AttributeError, LookupError, OverflowError)


class ChunkType(enum.IntEnum):
    """How a chunk's bytes are stored."""

    ZERO = 0
    RAW = 1
    IGNORE = 2  # unused space: reads as zeros
    COMMENT = 0x7FFFFFFE
    ADC = 0x80000004
    ZLIB = 0x80000005
    BZIP2 = 0x80000006
    LZFSE = 0x80000007
    LZMA = 0x80000008
    TERMINATOR = 0xFFFFFFFF


class Chunk(NamedTuple):
    """A run of sectors, as stored; ``sector`` counts from the table's first, ``offset`` from its data."""

    type: int
    comment: int
    sector: int
    sectors: int
    offset: int
    size: int


class Table(NamedTuple):
    """The block table of one partition. ``sector`` is where that begins on the disk."""

    name: str
    version: int
    sector: int
    sectors: int
    data_offset: int
    checksum: Checksum
    packed_chunks: bytes

    def chunks(self) -> Iterator[Chunk]:
        """The chunks up to the terminator."""
        for values in _CHUNK.iter_unpack(self.packed_chunks):
            if values[0] == ChunkType.TERMINATOR:
                return
            yield Chunk(*values)


def read_tables(files: Files, trailer: Trailer) -> list[Table]:
    """The tables in the property list, each as long as it says; raises StorageError (D7 to D9)."""
    import plistlib  # slow to import, and most commands never see a DMG

    data = files.read(trailer.xml_offset, trailer.xml_length)
    try:
        entries = plistlib.loads(data, fmt=plistlib.FMT_XML)["resource-fork"]["blkx"]
    except _NO_PLIST as error:
        what = (
            "DMG property list: it has no block tables under resource-fork, blkx, or it is no property list"
        )
        raise refusal(files, ErrorKind.CORRUPT, trailer.xml_offset, what) from error
    if not isinstance(entries, list):
        what = f"DMG property list: blkx is a {type(entries).__name__}, but it must be an array"
        raise refusal(files, ErrorKind.CORRUPT, trailer.xml_offset, what)
    try:
        return [_table(entry, number) for number, entry in enumerate(entries)]
    except _TableError as error:
        raise refusal(files, error.kind, trailer.xml_offset, str(error)) from error


class _TableError(Exception):
    def __init__(self, kind: ErrorKind, number: int, what: str) -> None:
        super().__init__(f"DMG block table {number}: {what}")
        self.kind = kind


def _table(entry: Any, number: int) -> Table:
    data = entry.get("Data") if isinstance(entry, dict) else None
    if not isinstance(data, bytes) or len(data) < _HEADER.size:
        raise _TableError(ErrorKind.CORRUPT, number, f"it has no data of at least {_HEADER.size} bytes")
    values = _HEADER.unpack_from(data)
    signature, version, sector, sectors, data_offset, count = *values[:5], values[11]
    if signature != _SIGNATURE:
        raise _TableError(ErrorKind.CORRUPT, number, f"the signature is {signature!r}, but it must be 'mish'")
    if version != _VERSION:
        what = f"the version is {version}, but drivebay knows only {_VERSION}"
        raise _TableError(ErrorKind.UNSUPPORTED, number, what)
    end = _HEADER.size + count * _CHUNK.size
    if end > len(data):
        what = f"{count} chunks need {end} bytes, but it has {len(data)}"
        raise _TableError(ErrorKind.CORRUPT, number, what)
    checksum = Checksum(*values[8:11])
    packed = data[_HEADER.size : end]
    return Table(_name(entry), version, sector, sectors, data_offset, checksum, packed)


def _name(entry: dict[str, Any]) -> str:
    name = entry.get("CFName") or entry.get("Name")
    return name if isinstance(name, str) else ""
