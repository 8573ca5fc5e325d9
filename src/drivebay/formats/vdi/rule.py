"""What a rule about a VDI header is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from drivebay.errors import ErrorKind
from drivebay.formats.vdi.header import MAX_BLOCK, MIN_BLOCK, Header


class Subject(NamedTuple):
    """What a rule may look at. Later rules rely on earlier ones."""

    header: Header
    file_size: int


class Rule(NamedTuple):
    field: str
    label: str
    offset: int
    holds: Callable[[Subject], bool]
    demand: str
    kind: ErrorKind = ErrorKind.CORRUPT


def is_block_size(value: int) -> bool:
    """Whether blocks may have this size."""
    return MIN_BLOCK <= value <= MAX_BLOCK and value & (value - 1) == 0
