"""What must hold in a VHD's footer and dynamic header before anything in the file is believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vhd.footer import FOOTER_SIZE, VERSION, DiskType, Footer, is_sealed
from drivebay.formats.vhd.footers import Footers, read_footers
from drivebay.formats.vhd.header import CHECKSUM_OFFSET, COOKIE, ENTRY_SIZE, HEADER_SIZE, Header, unpack
from drivebay.formats.vhd.sizes import MAX_SIZE, disk_size
from drivebay.model import SECTOR

MIN_BLOCK = 64 << 10
MAX_BLOCK = 64 << 20
_REMEDIES = {
    ErrorKind.CORRUPT: "the image is damaged: restore it from a copy",
    ErrorKind.UNSUPPORTED: "convert the image with the tool that wrote it",
}


class Image(NamedTuple):
    """The validated headers. ``header`` is ``None`` for fixed disks; ``size`` is the virtual disk's."""

    footers: Footers
    size: int
    header: Header | None = None
    header_sound: bool = True

    @property
    def footer(self) -> Footer:
        """The footer that counts."""
        return self.footers.used.footer


class _Subject(NamedTuple):
    """What a rule may look at. Later rules rely on earlier ones."""

    footer: Footer
    header: Header
    file_size: int

    @property
    def size(self) -> int:
        return disk_size(self.footer)

    @property
    def table_room(self) -> range:
        """The bytes of the part of the table that the disk needs."""
        first = self.header.table_offset
        return range(first, first + self.header.blocks(self.size) * ENTRY_SIZE)


class _Rule(NamedTuple):
    part: str
    field: str
    label: str
    offset: int
    holds: Callable[[_Subject], bool]
    demand: str
    kind: ErrorKind = ErrorKind.CORRUPT


def read_image(files: Files) -> Image:
    """Footer and dynamic header, every field checked against the others and the file's size.

    The table isn't read, and a checksum that doesn't fit is no refusal (the image then opens read-only).
    Raises StorageError: CORRUPT for values that can't be, UNSUPPORTED for what drivebay doesn't know.
    """
    footers = read_footers(files)
    used = footers.used
    size = disk_size(used.footer)
    nothing = unpack(b"")
    _apply(_FOOTER_RULES, _Subject(used.footer, nothing, files.size), files, used.offset)
    if used.footer.type == DiskType.FIXED:
        _require_room(files, size, used.offset)
        return Image(footers, size)
    where = used.footer.data_offset
    data = files.read(where, HEADER_SIZE)
    header = unpack(data)
    _apply(_HEADER_RULES, _Subject(used.footer, header, files.size), files, where)
    return Image(footers, size, header, is_sealed(data, CHECKSUM_OFFSET))


def _apply(rules: tuple[_Rule, ...], subject: _Subject, files: Files, base: int) -> None:
    for rule in rules:
        if not rule.holds(subject):
            part: Any = getattr(subject, rule.part)
            what = f"VHD {rule.part}: the {rule.label} is {getattr(part, rule.field)!r}, but {rule.demand}"
            raise _refusal(files, rule.kind, base + rule.offset, what)


def _require_room(files: Files, size: int, end: int) -> None:
    if size > end:
        what = f"VHD footer: the disk has {size} bytes, but the file holds only {end} in front of its footer"
        raise _refusal(files, ErrorKind.CORRUPT, end + 48, what)


def _refusal(files: Files, kind: ErrorKind, offset: int, what: str) -> StorageError:
    message = f"{what}; {_REMEDIES[kind]}"
    return StorageError(kind, message, path=files.path, offset=offset, operation="open")


def _is_block_size(value: int) -> bool:
    return MIN_BLOCK <= value <= MAX_BLOCK and value & (value - 1) == 0


def _is_placed(s: _Subject) -> bool:
    """Whether the dynamic header lies in the file, behind the footer's copy."""
    offset = s.footer.data_offset
    return offset % SECTOR == 0 and FOOTER_SIZE <= offset <= s.file_size - HEADER_SIZE


def _is_apart(s: _Subject) -> bool:
    """Whether the table lies clear of the footer's copy and of the header."""
    table, header = s.table_room, s.footer.data_offset
    return table.start >= FOOTER_SIZE and (table.stop <= header or table.start >= header + HEADER_SIZE)


_FOOTER_RULES = (
    _Rule(
        "footer",
        "version",
        "version",
        12,
        lambda s: s.footer.version >> 16 == VERSION >> 16,
        f"drivebay knows only {VERSION} (1.0) and its like",
        ErrorKind.UNSUPPORTED,
    ),
    _Rule(
        "footer",
        "type",
        "disk type",
        60,
        lambda s: s.footer.type in set(DiskType),
        "drivebay knows only 2 (fixed), 3 (dynamic) and 4 (differencing)",
        ErrorKind.UNSUPPORTED,
    ),
    _Rule(
        "footer",
        "current_size",
        "current size",
        48,
        lambda s: s.size > 0 and s.size % SECTOR == 0,
        f"it must be a multiple of {SECTOR}, not 0",
    ),
    _Rule(
        "footer",
        "current_size",
        "current size",
        48,
        lambda s: s.footer.type == DiskType.FIXED or s.size <= MAX_SIZE,
        f"only fixed disks can be larger than {MAX_SIZE} (2 TiB)",
        ErrorKind.UNSUPPORTED,
    ),
    _Rule(
        "footer",
        "data_offset",
        "data offset",
        16,
        lambda s: s.footer.type == DiskType.FIXED or _is_placed(s),
        f"a dynamic header must lie at a multiple of {SECTOR} within the file, behind the footer's copy",
    ),
)

_HEADER_RULES = (
    _Rule(
        "header",
        "cookie",
        "cookie",
        0,
        lambda s: s.header.cookie == COOKIE,
        f"it must be {COOKIE!r}",
    ),
    _Rule(
        "header",
        "version",
        "version",
        24,
        lambda s: s.header.version >> 16 == VERSION >> 16,
        f"drivebay knows only {VERSION} (1.0) and its like",
        ErrorKind.UNSUPPORTED,
    ),
    _Rule(
        "header",
        "block_size",
        "block size",
        32,
        lambda s: _is_block_size(s.header.block_size),
        f"it must be a power of two from {MIN_BLOCK} to {MAX_BLOCK}",
    ),
    _Rule(
        "header",
        "entries",
        "number of table entries",
        28,
        lambda s: s.header.entries >= s.header.blocks(s.size),
        "the disk size needs more",
    ),
    _Rule(
        "header",
        "table_offset",
        "table offset",
        16,
        lambda s: s.header.table_offset % SECTOR == 0 and _is_apart(s),
        f"it must be a multiple of {SECTOR}, and the table clear of the headers",
    ),
    _Rule(
        "header",
        "table_offset",
        "table offset",
        16,
        lambda s: s.table_room.stop <= s.file_size,
        "a table for the disk size reaches beyond the file's end",
    ),
)
