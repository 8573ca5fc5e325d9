"""Which footer of a VHD counts: the one at the end, or its copy in front where that one is damaged."""

from __future__ import annotations

from typing import NamedTuple

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vhd.footer import (
    CHECKSUM_OFFSET,
    COOKIE,
    FOOTER_SIZE,
    NO_DATA_OFFSET,
    OLD_FOOTER_SIZE,
    DiskType,
    Footer,
    is_sealed,
    unpack,
)


class Found(NamedTuple):
    """A footer, the 512 bytes it was read from (an old one filled up with a zero), and their offset.

    ``sound`` tells that the checksum fits.
    """

    footer: Footer
    data: bytes
    offset: int
    sound: bool


class Footers(NamedTuple):
    """The footer that counts; ``at_end`` and ``in_front`` are what was found there, if it is a footer."""

    used: Found
    at_end: Found | None
    in_front: Found | None

    @property
    def where(self) -> str:
        """Which one counts, for humans."""
        if self.used is self.at_end:
            return "at the end"
        return "the copy in front"

    @property
    def agree(self) -> bool:
        """Whether a sparse image's copy in front is what the used footer says, so that a crash can't hurt."""
        return self.in_front is not None and self.in_front.data == self.used.data


def read_footers(files: Files) -> Footers:
    """Find the footer that counts. Raises StorageError (CORRUPT) where there is none.

    The copy in front only counts in a sparse image, and never against an end that says "fixed": what
    a fixed disk begins with is written by its guest.
    """
    at_end = _at_end(files)
    in_front = _at(files, 0, FOOTER_SIZE) if files.size > FOOTER_SIZE else None
    if in_front is not None and (not in_front.footer.is_sparse or _is_fixed(at_end)):
        in_front = None
    candidates = [found for found in (at_end, in_front) if found]
    used = next((found for found in candidates if found.sound), None) or next(iter(candidates), None)
    if used is None:
        raise StorageError(
            ErrorKind.CORRUPT,
            "there is no VHD footer at the file's end and no copy of one at its beginning; "
            "the file may be cut short: restore the image from a copy",
            path=files.path,
            offset=max(files.size - FOOTER_SIZE, 0),
            operation="open",
        )
    return Footers(used, at_end, in_front)


def _at_end(files: Files) -> Found | None:
    """The footer at the end: of 512 bytes, or of 511 as old Virtual PCs wrote it."""
    found = _at(files, files.size - FOOTER_SIZE, FOOTER_SIZE)
    return found or _at(files, files.size - OLD_FOOTER_SIZE, OLD_FOOTER_SIZE)


def _is_fixed(found: Found | None) -> bool:
    footer = found.footer if found else None
    return footer is not None and (footer.type == DiskType.FIXED or footer.data_offset == NO_DATA_OFFSET)


def _at(files: Files, offset: int, length: int) -> Found | None:
    data = files.read(offset, length).ljust(FOOTER_SIZE, b"\0") if offset >= 0 else b""
    if not data.startswith(COOKIE):
        return None
    return Found(unpack(data), data, offset, is_sealed(data, CHECKSUM_OFFSET))
