"""What must hold in a VHD's footer and dynamic header before anything in the file is believed."""

from __future__ import annotations

from typing import NamedTuple

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind
from drivebay.formats.headers import HeaderRefusals, Rule, is_power
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
_FOOTER = HeaderRefusals("VHD footer", _REMEDIES)
_HEADER = HeaderRefusals("VHD header", _REMEDIES)


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


def read_image(files: Files) -> Image:
    """Footer and dynamic header, every field checked against the others and the file's size.

    The table isn't read, and a checksum that doesn't fit is no refusal (the image then opens read-only).
    Raises StorageError: CORRUPT for values that can't be, UNSUPPORTED for what drivebay doesn't know.
    """
    footers = read_footers(files)
    used = footers.used
    size = disk_size(used.footer)
    nothing = unpack(b"")
    subject = _Subject(used.footer, nothing, files.size)
    _FOOTER.require(_FOOTER_RULES, subject, files, used.offset, used.footer)
    if used.footer.type == DiskType.FIXED:
        _require_room(files, size, used.offset)
        return Image(footers, size)
    where = used.footer.data_offset
    data = files.read(where, HEADER_SIZE)
    header = unpack(data)
    _HEADER.require(_HEADER_RULES, subject._replace(header=header), files, where, header)
    return Image(footers, size, header, is_sealed(data, CHECKSUM_OFFSET))


def _require_room(files: Files, size: int, end: int) -> None:
    if size > end:
        what = f"VHD footer: the disk has {size} bytes, but the file holds only {end} in front of its footer"
        raise _FOOTER.refusal(files, what, end + 48)


def _is_placed(s: _Subject) -> bool:
    """Whether the dynamic header lies in the file, behind the footer's copy."""
    offset = s.footer.data_offset
    return offset % SECTOR == 0 and FOOTER_SIZE <= offset <= s.file_size - HEADER_SIZE


def _is_apart(s: _Subject) -> bool:
    """Whether the table lies clear of the footer's copy and of the header."""
    table, header = s.table_room, s.footer.data_offset
    return table.start >= FOOTER_SIZE and (table.stop <= header or table.start >= header + HEADER_SIZE)


_FOOTER_RULES: tuple[Rule[_Subject], ...] = (
    Rule(
        "version",
        "version",
        12,
        lambda s, _: s.footer.version >> 16 == VERSION >> 16,
        f"drivebay knows only {VERSION} (1.0) and its like",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "type",
        "disk type",
        60,
        lambda s, _: s.footer.type in set(DiskType),
        "drivebay knows only 2 (fixed), 3 (dynamic) and 4 (differencing)",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "current_size",
        "current size",
        48,
        lambda s, _: s.size > 0 and s.size % SECTOR == 0,
        f"it must be a multiple of {SECTOR}, not 0",
    ),
    Rule(
        "current_size",
        "current size",
        48,
        lambda s, _: s.footer.type == DiskType.FIXED or s.size <= MAX_SIZE,
        f"only fixed disks can be larger than {MAX_SIZE} (2 TiB)",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "data_offset",
        "data offset",
        16,
        lambda s, _: s.footer.type == DiskType.FIXED or _is_placed(s),
        f"a dynamic header must lie at a multiple of {SECTOR} within the file, behind the footer's copy",
    ),
)

_HEADER_RULES: tuple[Rule[_Subject], ...] = (
    Rule(
        "cookie",
        "cookie",
        0,
        lambda s, _: s.header.cookie == COOKIE,
        f"it must be {COOKIE!r}",
    ),
    Rule(
        "version",
        "version",
        24,
        lambda s, _: s.header.version >> 16 == VERSION >> 16,
        f"drivebay knows only {VERSION} (1.0) and its like",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "block_size",
        "block size",
        32,
        lambda s, _: is_power(s.header.block_size, MIN_BLOCK, MAX_BLOCK),
        f"it must be a power of two from {MIN_BLOCK} to {MAX_BLOCK}",
    ),
    Rule(
        "entries",
        "number of table entries",
        28,
        lambda s, _: s.header.entries >= s.header.blocks(s.size),
        "the disk size needs more",
    ),
    Rule(
        "table_offset",
        "table offset",
        16,
        lambda s, _: s.header.table_offset % SECTOR == 0 and _is_apart(s),
        f"it must be a multiple of {SECTOR}, and the table clear of the headers",
    ),
    Rule(
        "table_offset",
        "table offset",
        16,
        lambda s, _: s.table_room.stop <= s.file_size,
        "a table for the disk size reaches beyond the file's end",
    ),
)
