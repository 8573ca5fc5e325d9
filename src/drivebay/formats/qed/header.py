"""The QED header: where its fields lie, and what must hold in it (QEMU's qed_spec, "Header").

All numbers are little endian; offsets and sizes are bytes, but where a field counts clusters.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

from drivebay.blockmap import Files, Match
from drivebay.errors import ErrorKind
from drivebay.formats.backing import BackingName, backing_name
from drivebay.formats.headers import HeaderRefusals, Rule, is_power
from drivebay.model import SECTOR

MAGIC = b"QED\0"
HEADER_SIZE = 64
FEATURES_OFFSET = 16
AUTOCLEAR_OFFSET = 32
BACKING_FILE = 0x1
NEED_CHECK = 0x2
NO_PROBE = 0x4  # the backing file is raw, whatever it holds
MIN_CLUSTER = 4 << 10
MAX_CLUSTER = 64 << 20
MAX_TABLE = 16
MAX_NAME = 1023  # what QEMU takes
ENTRY_SIZE: Literal[8] = 8
ABSENT = 0
ZERO = 1

_LAYOUT = struct.Struct("<4s3I5Q2I")
_KNOWN = BACKING_FILE | NEED_CHECK | NO_PROBE
_REFUSALS = HeaderRefusals("QED header")


@dataclass(frozen=True, slots=True)
class Header:
    """The fields as stored; ``table_size`` and ``header_size`` count clusters."""

    magic: bytes
    cluster_size: int
    table_size: int
    header_size: int
    features: int
    compat_features: int
    autoclear_features: int
    l1_offset: int
    size: int
    name_offset: int
    name_size: int

    @property
    def table_bytes(self) -> int:
        """What the L1 table takes, and each L2 table."""
        return self.table_size * self.cluster_size

    @property
    def table_entries(self) -> int:
        """Entries of a table of either level."""
        return self.table_bytes // ENTRY_SIZE

    @property
    def tables_needed(self) -> int:
        """L2 tables that the virtual size needs: so many entries of the L1 table matter."""
        return -(-self.size // (self.table_entries * self.cluster_size))

    @property
    def data_offset(self) -> int:
        """Where regular clusters begin."""
        return self.header_size * self.cluster_size

    @property
    def has_backing(self) -> bool:
        """Whether absent clusters are the backing file's."""
        return bool(self.features & BACKING_FILE)

    def pack(self) -> bytes:
        """The header's bytes, from the first of the file."""
        return _LAYOUT.pack(
            self.magic,
            self.cluster_size,
            self.table_size,
            self.header_size,
            self.features,
            self.compat_features,
            self.autoclear_features,
            self.l1_offset,
            self.size,
            self.name_offset,
            self.name_size,
        )


def probe(head: bytes, _tail: bytes = b"") -> Match:
    """YES by the magic alone: a damaged image is still QED, and opening it tells what is wrong."""
    return Match.YES if head[:4] == MAGIC else Match.NO


def read_header(files: Files) -> Header:
    """The header, each field checked against the others and the file's size; no table is read.

    Raises StorageError: CORRUPT for values that can't be, UNSUPPORTED for features that drivebay doesn't
    know. The rules are those of docs/formats/qed.md.
    """
    data = files.read(0, HEADER_SIZE)
    _REFUSALS.require_length(files, data, HEADER_SIZE)
    header = Header(*_LAYOUT.unpack(data))
    _REFUSALS.require(_RULES, header, files)
    return header


def read_backing(files: Files, header: Header) -> BackingName | None:
    """The backing file; ``header`` was accepted by `read_header`. Raises StorageError where it is no file."""
    if not header.has_backing:
        return None
    raw = files.read(header.name_offset, header.name_size)
    return backing_name(raw, files, header.name_offset)


def _name_fits(header: Header, file_size: int) -> bool:
    end = header.name_offset + header.name_size
    return not header.has_backing or (
        header.name_offset >= HEADER_SIZE and end <= min(header.data_offset, file_size)
    )


_RULES: tuple[Rule[Header], ...] = (
    Rule("magic", "magic", 0, lambda h, _: h.magic == MAGIC, f"it must be {MAGIC!r}"),
    Rule(
        "cluster_size",
        "cluster size",
        4,
        lambda h, _: is_power(h.cluster_size, MIN_CLUSTER, MAX_CLUSTER),
        f"it must be a power of two from {MIN_CLUSTER} to {MAX_CLUSTER}",
    ),
    Rule(
        "table_size",
        "table size",
        8,
        lambda h, _: is_power(h.table_size, 1, MAX_TABLE),
        f"it must be a power of two from 1 to {MAX_TABLE}",
    ),
    Rule("header_size", "header size", 12, lambda h, _: h.header_size > 0, "it must be a cluster at least"),
    Rule(
        "features",
        "features field",
        FEATURES_OFFSET,
        lambda h, _: h.features & ~_KNOWN == 0,
        f"drivebay knows only the bits {_KNOWN:#x}",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "l1_offset",
        "L1 table offset",
        40,
        lambda h, _: h.l1_offset % h.cluster_size == 0,
        "it must be a multiple of the cluster size",
    ),
    Rule(
        "l1_offset",
        "L1 table offset",
        40,
        lambda h, _: h.l1_offset >= h.data_offset,
        "the header reaches beyond it",
    ),
    Rule(
        "l1_offset",
        "L1 table offset",
        40,
        lambda h, size: h.l1_offset + h.table_bytes <= size,
        "the table reaches beyond the file's end",
    ),
    Rule(
        "size",
        "disk size",
        48,
        lambda h, _: h.size > 0 and h.size % SECTOR == 0,
        f"it must be a multiple of {SECTOR}, not 0",
    ),
    Rule(
        "size",
        "disk size",
        48,
        lambda h, _: h.size <= h.table_entries**2 * h.cluster_size,
        "the tables can't hold so much",
    ),
    Rule(
        "name_size",
        "size of the backing file's name",
        60,
        lambda h, _: not h.has_backing or 0 < h.name_size <= MAX_NAME,
        f"it must be from 1 to {MAX_NAME}",
    ),
    Rule(
        "name_offset",
        "offset of the backing file's name",
        56,
        _name_fits,
        "the name must lie between the header and the first cluster",
    ),
)
