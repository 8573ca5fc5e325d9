"""The trailer in a DMG's last 512 bytes ("koly"), and what must hold in it. All numbers are big-endian."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from drivebay.blockmap import Files, Match
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import SECTOR

SIGNATURE = b"koly"
SIZE = 512
CRC32 = 2  # the checksum type that all images in use have
_VERSION = 4
_MAX_XML = 64 << 20  # block tables of a disk of half a terabyte
_MAX_SECTORS = (1 << 63) // SECTOR - 1
_ENCRYPTED_HEAD = b"encrcdsa"  # version 2: the header comes first
_ENCRYPTED_TAIL = b"cdsaencr"  # version 1: it comes last

_LAYOUT = struct.Struct(">4s3I 5Q 2I 16s 2I 128s 2Q 120s 2I 128s I Q 12s")
_REMEDIES = {
    ErrorKind.CORRUPT: "the image is damaged: restore it from a copy",
    ErrorKind.UNSUPPORTED: "convert it on a Mac: hdiutil convert -format UDZO -o NEW.dmg IMAGE",
}


class Checksum(NamedTuple):
    """A stored checksum: ``size`` counts bits, ``data`` are its 128 bytes, unused ones included."""

    type: int
    size: int
    data: bytes

    @property
    def value(self) -> bytes:
        """The bytes that count."""
        return self.data[: min(self.size // 8, len(self.data))]


@dataclass(frozen=True, slots=True)
class Trailer:
    """The fields as stored. Offsets and lengths are bytes of the file; ``sectors`` count 512 bytes."""

    signature: bytes
    version: int
    header_size: int
    flags: int
    running_data_offset: int
    data_offset: int
    data_length: int
    resource_offset: int
    resource_length: int
    segment_number: int
    segment_count: int
    segment_id: UUID
    data_checksum: Checksum
    xml_offset: int
    xml_length: int
    master_checksum: Checksum
    image_variant: int
    sectors: int


def probe(head: bytes, tail: bytes) -> Match:
    """YES by the trailer's signature, and for encrypted images, which opening refuses by name."""
    trailer = tail[-SIZE:]
    known = (len(trailer) == SIZE and trailer.startswith(SIGNATURE)) or _is_encrypted(head, tail)
    return Match.YES if known else Match.NO


def _is_encrypted(head: bytes, tail: bytes) -> bool:
    return head.startswith(_ENCRYPTED_HEAD) or tail.endswith(_ENCRYPTED_TAIL)


def unpack(data: bytes) -> Trailer:
    """The trailer in 512 bytes, unchecked."""
    values = _LAYOUT.unpack(data)
    segment_id, data_checksum = UUID(bytes=values[11]), Checksum(*values[12:15])
    fields = (
        *values[:11],
        segment_id,
        data_checksum,
        *values[15:17],
        Checksum(*values[18:21]),
        *values[21:23],
    )
    return Trailer(*fields)


def refusal(files: Files, kind: ErrorKind, offset: int, what: str) -> StorageError:
    """The error for an image in which ``what`` is so."""
    message = f"{what}; {_REMEDIES[kind]}"
    return StorageError(kind, message, path=files.path, offset=offset, operation="open")


def read_trailer(files: Files) -> Trailer:
    """The trailer, with every field checked against the others and the file's size.

    Raises StorageError: CORRUPT for values that can't be, UNSUPPORTED for encrypted and segmented images,
    and for those whose block tables are only in a resource fork. The rules are D1 to D6 of
    docs/formats/dmg.md.
    """
    start = files.size - SIZE
    data = files.read(max(start, 0), SIZE)
    if _is_encrypted(files.read(0, len(_ENCRYPTED_HEAD)), data):
        what = "this DMG image is encrypted, which drivebay does not read"
        raise refusal(files, ErrorKind.UNSUPPORTED, 0, what)
    if len(data) < SIZE or not data.startswith(SIGNATURE):
        what = "DMG trailer: the file's last 512 bytes do not begin with 'koly'"
        raise refusal(files, ErrorKind.CORRUPT, max(start, 0), what)
    trailer = unpack(data)
    _require_version(files, trailer, start)
    _require_tables(files, trailer, start)
    _require_ranges(files, trailer, start)
    return trailer


def _require_version(files: Files, trailer: Trailer, start: int) -> None:
    if trailer.version != _VERSION:
        what = f"DMG trailer: the version is {trailer.version}, but drivebay knows only {_VERSION}"
        raise refusal(files, ErrorKind.UNSUPPORTED, start + 4, what)
    if trailer.header_size != SIZE:
        what = f"DMG trailer: its size is {trailer.header_size}, but it must be {SIZE}"
        raise refusal(files, ErrorKind.CORRUPT, start + 8, what)
    if trailer.segment_count > 1:
        number, count = trailer.segment_number, trailer.segment_count
        what = f"this DMG image is segment {number} of {count}; drivebay reads only images of one segment"
        raise refusal(files, ErrorKind.UNSUPPORTED, start + 60, what)


def _require_tables(files: Files, trailer: Trailer, start: int) -> None:
    if not trailer.xml_length and trailer.resource_length:
        what = "this DMG image has its block tables in a resource fork instead of a property list"
        raise refusal(files, ErrorKind.UNSUPPORTED, start + 40, what)
    if not trailer.xml_length:
        what = "DMG trailer: the property list's length is 0, so there are no block tables"
        raise refusal(files, ErrorKind.CORRUPT, start + 224, what)
    if trailer.xml_length > _MAX_XML:
        what = (
            f"DMG trailer: the property list's length is {trailer.xml_length}, but at most {_MAX_XML} is read"
        )
        raise refusal(files, ErrorKind.UNSUPPORTED, start + 224, what)


def _require_ranges(files: Files, trailer: Trailer, start: int) -> None:
    if trailer.xml_offset + trailer.xml_length > start:
        what = (
            f"DMG trailer: the property list's offset is {trailer.xml_offset}, so it reaches into the trailer"
        )
        raise refusal(files, ErrorKind.CORRUPT, start + 216, what)
    if trailer.data_offset + trailer.data_length > start:
        end = trailer.data_offset + trailer.data_length
        what = f"DMG trailer: the data fork ends at {end}, within or behind the trailer"
        raise refusal(files, ErrorKind.CORRUPT, start + 24, what)
    if not 0 < trailer.sectors <= _MAX_SECTORS:
        what = (
            f"DMG trailer: the disk has {trailer.sectors} sectors, but it must have from 1 to {_MAX_SECTORS}"
        )
        raise refusal(files, ErrorKind.CORRUPT, start + 492, what)
