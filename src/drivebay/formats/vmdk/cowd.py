"""The header of an ESX copy-on-write extent ("COWD", vmfsSparse)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind
from drivebay.formats.headers import HeaderRefusals, Rule, is_power
from drivebay.formats.vmdk.header import ENTRY_SIZE
from drivebay.formats.vmdk.rules import MAX_GRAIN, refusal
from drivebay.model import SECTOR

MAGIC = b"COWD"
GTES = 4096
HEADER_SIZE = 2048
FREE_OFFSET = 28
UNCLEAN_OFFSET = 1648
FLAGS = 3
_LAYOUT = struct.Struct("<4s7I")


class Header(NamedTuple):
    """The fields as stored; sizes and offsets count sectors of 512 bytes."""

    magic: bytes
    version: int
    flags: int
    sectors: int
    grain: int
    directory: int
    tables: int
    free: int

    def pack(self) -> bytes:
        """The header's bytes; what a root extent doesn't use is zero."""
        return _LAYOUT.pack(*self).ljust(HEADER_SIZE, b"\0")


def read_header(files: Files) -> Header:
    """The header, checked against itself and the file's size. Raises StorageError."""
    data = files.read(0, HEADER_SIZE)
    if len(data) < HEADER_SIZE:
        raise refusal(files, ErrorKind.CORRUPT, len(data), "the file ends within the COWD header")
    header = Header(*_LAYOUT.unpack(data[: _LAYOUT.size]))
    HeaderRefusals("COWD header").require(_RULES, header, files)
    return header


_RULES: tuple[Rule[Header], ...] = (
    Rule(
        "version", "version", 4, lambda h, _: h.version == 1, "drivebay knows only 1", ErrorKind.UNSUPPORTED
    ),
    Rule("sectors", "capacity", 12, lambda h, _: h.sectors > 0, "it must not be 0"),
    Rule(
        "grain",
        "grain size",
        16,
        lambda h, _: is_power(h.grain, 1, MAX_GRAIN),
        f"it must be a power of two up to {MAX_GRAIN} sectors",
    ),
    Rule(
        "directory",
        "grain directory's offset",
        20,
        lambda h, size: h.directory > 0 and h.directory * SECTOR + _needed(h) * ENTRY_SIZE <= size,
        "a directory there doesn't lie within the file",
    ),
    Rule(
        "tables",
        "number of grain tables",
        24,
        lambda h, _: h.tables >= _needed(h),
        "the capacity needs more",
    ),
)


def _needed(header: Header) -> int:
    return -(-header.sectors // (header.grain * GTES))
