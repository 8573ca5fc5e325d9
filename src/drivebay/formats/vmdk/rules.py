"""What must hold in a hosted sparse header before anything in the file is believed."""

from __future__ import annotations

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.headers import HeaderRefusals, Rule, is_power
from drivebay.formats.vmdk.header import (
    DEFLATE,
    ENTRY_SIZE,
    FOOTER_MARKER,
    GD_AT_END,
    HEADER_SIZE,
    MAGIC,
    MARKERS,
    NEWLINES,
    VALID_NEWLINES,
    Header,
    unpack,
)
from drivebay.model import SECTOR

MAX_GRAIN = 32768  # sectors: 16 MiB; a compressed grain is unpacked as a whole
MAX_GTES = 65536
_REFUSALS = HeaderRefusals("VMDK header")


def read_header(files: Files) -> Header:
    """The header (or the footer that stands for it), checked against itself and the file's size.

    Raises StorageError: CORRUPT for values that can't be, UNSUPPORTED for versions and compressions that
    drivebay doesn't know. Tables aren't read.
    """
    data = files.read(0, HEADER_SIZE)
    header = unpack(data)
    if len(data) < HEADER_SIZE or header.magic != MAGIC:
        raise refusal(files, ErrorKind.CORRUPT, 0, "the file has no whole VMDK header")
    base = 0
    if header.directory == GD_AT_END:
        base = _footer_offset(files)
        header = unpack(files.read(base, HEADER_SIZE))
    _REFUSALS.require(_RULES, header, files, base)
    return header


def _footer_offset(files: Files) -> int:
    """Where the footer begins: before the end-of-stream marker, behind a marker of its own."""
    base = files.size - 2 * SECTOR
    data = files.read(base - SECTOR, 2 * SECTOR) if base >= 2 * SECTOR else b""
    marker = int.from_bytes(data[12:16], "little")
    if marker != FOOTER_MARKER or data[SECTOR : SECTOR + 4] != MAGIC:
        what = "the header says that a footer ends the file, but there is none: it was not written to its end"
        raise refusal(files, ErrorKind.CORRUPT, max(base, 0), what)
    return base


def refusal(files: Files, kind: ErrorKind, offset: int, what: str) -> StorageError:
    """The error for a header that can't be used."""
    return _REFUSALS.refusal(files, what, offset, kind)


_RULES: tuple[Rule[Header], ...] = (
    Rule("magic", "magic", 0, lambda h, _: h.magic == MAGIC, "it must be 'KDMV'"),
    Rule(
        "version",
        "version",
        4,
        lambda h, _: 1 <= h.version <= 3,
        "drivebay knows only 1 to 3",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "newlines",
        "newline test",
        73,
        lambda h, _: not h.flags & VALID_NEWLINES or h.newlines == NEWLINES,
        "it must be '\\n \\r\\n': the file was copied as if it were text",
    ),
    Rule(
        "compression",
        "compression",
        77,
        lambda h, _: h.compression in (0, DEFLATE),
        f"drivebay knows only 0 (none) and {DEFLATE} (deflate)",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "flags",
        "flags field",
        8,
        lambda h, _: not h.compression or bool(h.flags & MARKERS),
        "compressed grains without markers are unknown to drivebay",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "capacity",
        "capacity",
        12,
        lambda h, _: 0 < h.capacity < 1 << 54,
        "it must be from 1 sector to below 2**54",
    ),
    Rule(
        "grain",
        "grain size",
        20,
        lambda h, _: is_power(h.grain, 8, MAX_GRAIN),
        f"it must be a power of two from 8 to {MAX_GRAIN} sectors",
    ),
    Rule(
        "gtes",
        "number of entries of a grain table",
        44,
        lambda h, _: 0 < h.gtes <= MAX_GTES,
        f"it must be from 1 to {MAX_GTES}",
    ),
    Rule(
        "directory",
        "grain directory's offset",
        56,
        lambda h, size: h.directory > 0 and h.directory * SECTOR + h.tables * ENTRY_SIZE <= size,
        "a directory there doesn't lie within the file",
    ),
)
