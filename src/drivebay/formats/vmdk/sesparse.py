"""The headers of a space-efficient sparse extent (seSparse, VMFS 6). Nothing but reading is described.

Not published by VMware; the facts are those that QEMU found (QEMU, block/vmdk.c, commit message).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from drivebay.blockmap import BlockState, Entry, Files
from drivebay.blockmap import Rule as EntryRule
from drivebay.errors import ErrorKind
from drivebay.formats.headers import HeaderRefusals, Rule
from drivebay.formats.vmdk.rules import refusal
from drivebay.model import SECTOR

MAGIC = bytes.fromhex("bebafeca00000000")
VOLATILE_MAGIC = bytes.fromhex("fecafeca00000000")
GRAIN = 8 * SECTOR
GTES = 4096
_TABLE = 64 * SECTOR
_VERSION = 0x0000000200000001
_MOST = 1 << 54
_TYPE = 0xF << 60
_LAYOUT = struct.Struct("<8s25Q")
_FIELDS = (1, 2, 3, 4, 5, 10, 16, 17, 18, 24)  # those of `Header`


class Header(NamedTuple):
    """The fields that reading needs; offsets and sizes count sectors of 512 bytes."""

    version: int
    capacity: int
    grain: int
    table: int
    flags: int
    volatile: int
    directory: int
    directory_size: int
    tables: int
    grains: int


def read_header(files: Files) -> Header:
    """The constant header, checked, and the volatile one, which must say that nothing is to be replayed.

    Raises StorageError.
    """
    data = files.read(0, SECTOR)
    if len(data) < SECTOR or data[:8] != MAGIC:
        raise refusal(files, ErrorKind.CORRUPT, 0, "the file has no whole seSparse header")
    fields = _LAYOUT.unpack(data[: _LAYOUT.size])
    header = Header._make(fields[number] for number in _FIELDS)
    HeaderRefusals("seSparse header").require(_RULES, header, files)
    volatile = files.read(header.volatile * SECTOR, SECTOR)
    if volatile[:8] != VOLATILE_MAGIC:
        what = "the seSparse extent has no volatile header where it says"
        raise refusal(files, ErrorKind.CORRUPT, header.volatile * SECTOR, what)
    if any(volatile[24:32]):
        what = "the seSparse extent was not closed: its journal must be replayed by ESXi first"
        raise refusal(files, ErrorKind.UNSUPPORTED, header.volatile * SECTOR + 24, what)
    return header


def directory_entry(header: Header) -> Entry:
    """Entries number the grain tables in their low half; the high half says 0x10000000."""
    rules = (
        EntryRule((1 << 64) - 1, 0, BlockState.ABSENT),
        EntryRule(0xFFFFFFFF << 32, 1 << 60, BlockState.DATA),
        EntryRule(0, 0, BlockState.CORRUPT),
    )
    return Entry(8, "<", rules, mask=0xFFFFFFFF, scale=_TABLE, base=header.tables * SECTOR)


def grain_entry(header: Header) -> Entry:
    """The top four bits are the state; the grain's number has its low 12 bits next, then the others.

    An unmapped grain hides the parent, as a zeroed one does: unmapping what was never written changes it.
    """
    rules = (
        EntryRule((1 << 64) - 1, 0, BlockState.ABSENT),
        EntryRule(_TYPE, 1 << 60, BlockState.ZERO),
        EntryRule(_TYPE, 2 << 60, BlockState.ZERO),
        EntryRule(_TYPE, 3 << 60, BlockState.DATA),
        EntryRule(0, 0, BlockState.CORRUPT),
    )
    return Entry(
        8,
        "<",
        rules,
        mask=(1 << 48) - 1,
        scale=GRAIN << 12,
        base=header.grains * SECTOR,
        fine_mask=0xFFF << 48,
        fine_shift=48,
        fine_scale=GRAIN,
    )


def _directory_fits(header: Header, size: int) -> bool:
    needed = -(-header.capacity // (GTES * GRAIN // SECTOR)) * 8
    end = header.directory * SECTOR + needed
    return header.directory > 0 and needed <= header.directory_size * SECTOR and end <= size


_RULES: tuple[Rule[Header], ...] = (
    Rule(
        "version",
        "version",
        8,
        lambda h, _: h.version == _VERSION,
        f"drivebay knows only {_VERSION} (2.1)",
        ErrorKind.UNSUPPORTED,
    ),
    Rule("capacity", "capacity", 16, lambda h, _: 0 < h.capacity < _MOST, f"it must be from 1 to {_MOST}"),
    Rule(
        "grain",
        "grain size",
        24,
        lambda h, _: h.grain * SECTOR == GRAIN,
        "drivebay knows only 8 sectors",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "table",
        "grain table size",
        32,
        lambda h, _: h.table * SECTOR == _TABLE,
        "drivebay knows only 64 sectors",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "flags", "flags field", 40, lambda h, _: h.flags == 0, "drivebay knows only 0", ErrorKind.UNSUPPORTED
    ),
    Rule(
        "volatile", "volatile header's offset", 80, lambda h, _: 0 < h.volatile < _MOST, "it can't be there"
    ),
    Rule("directory", "grain directory's offset", 128, _directory_fits, "a directory there is too small"),
    Rule("tables", "grain tables' offset", 144, lambda h, _: 0 < h.tables < _MOST, "they can't be there"),
    Rule("grains", "grains' offset", 192, lambda h, _: 0 < h.grains < _MOST, "they can't be there"),
)
