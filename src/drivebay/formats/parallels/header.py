"""The header of an expanding Parallels image (.hds, .hdd), and what must hold in it.

Source: QEMU's "Parallels Expandable Image File Format". All numbers are little endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind
from drivebay.formats.headers import HeaderRefusals, Rule
from drivebay.model import SECTOR, Geometry, physical_geometry

MAGIC_1 = b"WithoutFreeSpace"  # entries count sectors
MAGIC_2 = b"WithouFreSpacExt"  # entries count blocks
VERSION = 2  # of both
ENTRIES_OFFSET = 32
HEADER_SIZE = 64
ENTRY_SIZE: Literal[4] = 4
IN_USE_OFFSET = 44
DATA_OFFSET = 48
FLAGS_OFFSET = 52
EXTENSION_OFFSET = 56
IN_USE = 0x746F6E59
CLOSED = 0x312E3276
EMPTY = 0x1  # the only flag there is
MAX_BLOCK = 64 << 20

_LAYOUT = struct.Struct("<16s5IQ3IQ")
_REFUSALS = HeaderRefusals("Parallels header")


@dataclass(frozen=True, slots=True)
class Header:
    """The fields as stored. ``tracks`` is the block size, in sectors as ``data_offset`` and ``extension``."""

    magic: bytes
    version: int
    heads: int
    cylinders: int
    tracks: int
    entries: int
    sectors: int
    in_use: int
    data_offset: int
    flags: int
    extension: int

    @property
    def block(self) -> int:
        """Bytes in a block."""
        return self.tracks * SECTOR

    @property
    def scale(self) -> int:
        """What a table entry counts, in bytes."""
        return self.block if self.magic == MAGIC_2 else SECTOR

    @property
    def size(self) -> int:
        """Bytes of the virtual disk; the old magic's images have a 32-bit number."""
        return SECTOR * (self.sectors if self.magic == MAGIC_2 else self.sectors & 0xFFFFFFFF)

    @property
    def entries_needed(self) -> int:
        """Table entries that the disk size needs."""
        return -(-self.size // self.block)

    @property
    def table_end(self) -> int:
        """Where the table ends."""
        return HEADER_SIZE + ENTRY_SIZE * self.entries

    @property
    def table_needed(self) -> int:
        """Where the table's last entry for the disk ends."""
        return HEADER_SIZE + ENTRY_SIZE * self.entries_needed

    @property
    def first_block(self) -> int:
        """Where the first block may begin: the data offset, or the table's end where that is higher."""
        return self._possible_from(max(self.table_end, self.data_offset * SECTOR))

    def behind_table(self, *, shortened: bool = False) -> int:
        """Where the first block could begin, whatever the data offset says.

        ``shortened``: behind the last entry that the disk needs.
        """
        return self._possible_from(self.table_needed if shortened else self.table_end)

    def _possible_from(self, offset: int) -> int:
        return offset + -offset % (self.block if self.magic == MAGIC_2 else SECTOR)

    @property
    def geometry(self) -> Geometry:
        """The stored geometry, or the default where it can't be (virtual-storage specification, 2.5)."""
        per_track = self.tracks
        if per_track > 63 and self.heads and self.cylinders:
            per_track = self.size // SECTOR // (self.heads * self.cylinders)
        fits = self.cylinders * self.heads * per_track * SECTOR <= self.size
        if self.cylinders and 0 < self.heads <= 16 and 0 < per_track <= 63 and fits:
            return Geometry(min(self.cylinders, 16383), self.heads, per_track)
        return physical_geometry(self.size)

    def pack(self) -> bytes:
        """The header's bytes."""
        return _LAYOUT.pack(
            self.magic,
            self.version,
            self.heads,
            self.cylinders,
            self.tracks,
            self.entries,
            self.sectors,
            self.in_use,
            self.data_offset,
            self.flags,
            self.extension,
        )


def read_header(files: Files) -> Header:
    """The header, each field checked against the others and the file's size; the table is not read.

    Raises StorageError: CORRUPT for values that can't be, UNSUPPORTED for versions that drivebay doesn't
    know. The rules are those of docs/formats/parallels.md.
    """
    data = files.read(0, HEADER_SIZE)
    _REFUSALS.require_length(files, data, HEADER_SIZE)
    header = Header(*_LAYOUT.unpack(data))
    _REFUSALS.require(_RULES, header, files)
    return header


_RULES: tuple[Rule[Header], ...] = (
    Rule(
        "magic",
        "magic",
        0,
        lambda h, _: h.magic in (MAGIC_1, MAGIC_2),
        f"it must be {MAGIC_1!r} or {MAGIC_2!r}",
    ),
    Rule(
        "version",
        "version",
        16,
        lambda h, _: h.version == VERSION,
        f"drivebay knows only {VERSION}",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "tracks",
        "block size in sectors",
        28,
        lambda h, _: 0 < h.block <= MAX_BLOCK,
        f"it must be from 1 to {MAX_BLOCK // SECTOR}",
    ),
    Rule("sectors", "number of sectors", 36, lambda h, _: h.size > 0, "it can't be 0"),
    Rule(
        "entries",
        "number of table entries",
        32,
        lambda h, _: h.entries >= h.entries_needed,
        "the disk size needs more",
    ),
    Rule(
        "entries",
        "number of table entries",
        32,
        lambda h, size: h.table_end <= size,
        "a table of so many reaches beyond the file's end",
    ),
)
