"""What opening a DMG leaves unverified: its checksums, and where its chunks lie."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from drivebay.blockmap import Files, Layer
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.dmg.layer import Extent, read_extents
from drivebay.formats.dmg.tables import Table, read_tables
from drivebay.formats.dmg.trailer import CRC32, SIZE, Checksum, Trailer, read_trailer
from drivebay.model import SECTOR, Finding, Severity

_STEP = 1 << 20
_DATA_CHECKSUM = 80  # where the checksums begin in the trailer
_MASTER_CHECKSUM = 352


def check(files: Files, _layer: Layer) -> Iterator[Finding]:
    """Findings about a DMG image that opens; raises StorageError if it can't be read.

    The data fork is read once; what it unpacks to isn't compared with the tables' own checksums.
    """
    trailer = read_trailer(files)
    tables = read_tables(files, trailer)
    extents = read_extents(files, trailer, tables)
    yield from _check_data(files, trailer)
    yield from _check_master(files, trailer, tables)
    yield from _check_fork(trailer, extents)
    yield from _check_coverage(trailer, extents)


def _check_data(files: Files, trailer: Trailer) -> Iterator[Finding]:
    if trailer.data_checksum.type == CRC32:
        found = _crc_of_file(files, trailer.data_offset, trailer.data_length)
        yield from _compare("data", trailer.data_checksum, found, files.size - SIZE + _DATA_CHECKSUM)


def _crc_of_file(files: Files, offset: int, length: int) -> int:
    crc = 0
    for done in range(0, length, _STEP):
        wanted = min(_STEP, length - done)
        data = files.read(offset + done, wanted)
        if len(data) < wanted:
            message = "the file became shorter while it was read; check it again when nothing writes to it"
            raise StorageError(
                ErrorKind.IO, message, path=files.path, offset=offset + done, operation="check"
            )
        crc = zlib.crc32(data, crc)
    return crc


def _check_master(files: Files, trailer: Trailer, tables: Sequence[Table]) -> Iterator[Finding]:
    if trailer.master_checksum.type == CRC32:
        values = b"".join(table.checksum.value for table in tables if table.checksum.type == CRC32)
        offset = files.size - SIZE + _MASTER_CHECKSUM
        yield from _compare("master", trailer.master_checksum, zlib.crc32(values), offset)


def _compare(what: str, stored: Checksum, found: int, offset: int) -> Iterator[Finding]:
    expected = int.from_bytes(stored.data[:4], "big")
    if expected != found:
        message = f"the {what} checksum is {expected:#010x}, but the file's is {found:#010x}: it was changed"
        yield Finding(Severity.ERROR, f"{what}-checksum", message, offset)


def _check_fork(trailer: Trailer, extents: Sequence[Extent]) -> Iterator[Finding]:
    end = trailer.data_offset + trailer.data_length
    outside = [extent for extent in extents if extent.codec and extent.offset + extent.size > end]
    if outside:
        first = outside[0]
        message = (
            f"chunks whose bytes lie behind the data fork: {len(outside)}; "
            f"the first is chunk {first.chunk} of table {first.table}"
        )
        yield Finding(Severity.WARNING, "outside-fork", message, first.offset)


def _check_coverage(trailer: Trailer, extents: Sequence[Extent]) -> Iterator[Finding]:
    covered = sum(extent.length for extent in extents) // SECTOR
    if covered < trailer.sectors:
        missing = trailer.sectors - covered
        message = f"sectors of the disk that no chunk covers, which read as zeros: {missing}"
        yield Finding(Severity.NOTE, "uncovered", message)
