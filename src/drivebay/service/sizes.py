"""Sizes as people write them: ``10G``, ``512 KiB``, ``1.5 TiB``. All units are powers of 1024."""

from __future__ import annotations

import re
from fractions import Fraction

from drivebay.errors import ErrorKind, StorageError
from drivebay.model import SECTOR

_UNITS = "KMGTPE"
_LARGEST = (1 << 63) - 1  # what a file offset can say
_SIZE = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*(?:([KMGTPE])(?:i?B)?|B)?", re.IGNORECASE)


def parse_size(text: str | int) -> int:
    """The bytes that ``text`` means; a number without a unit counts bytes.

    A fraction of a unit is rounded up to whole sectors of 512 bytes. Raises StorageError (INVALID).
    """
    match = _SIZE.fullmatch(str(text).strip())
    if match is None:
        raise _invalid(text, "is no size; write it like 10G, 512 KiB or 1.5 TiB (units of 1024), or as bytes")
    number, unit = Fraction(match[1]), match[2]
    size = number * (1 << 10 * (_UNITS.index(unit.upper()) + 1)) if unit else number
    if size.denominator != 1:
        if unit is None:
            raise _invalid(text, "is no whole number of bytes; leave the fraction out or add a unit")
        size = Fraction(-(-size // SECTOR) * SECTOR)
    if not 0 < size <= _LARGEST:
        raise _invalid(text, "is not possible; give a size above 0 and below 8 EiB")
    return int(size)


def format_size(size: int) -> str:
    """``size`` bytes in the largest unit that fits, with up to two decimals."""
    if size < 1024:
        return f"{size} B"
    exponent = min((size.bit_length() - 1) // 10, len(_UNITS))
    number = f"{size / (1 << 10 * exponent):.2f}".rstrip("0").rstrip(".")
    return f"{number} {_UNITS[exponent - 1]}iB"


def _invalid(text: object, why: str) -> StorageError:
    return StorageError(ErrorKind.INVALID, f"{str(text)[:60]!r} {why}", operation="read a size")
