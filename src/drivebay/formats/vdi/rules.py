"""What must hold in a VDI header before anything in the file is believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vdi.header import (
    HEADER_SIZE,
    MAX_BLOCK,
    MIN_BLOCK,
    MIN_HEADER_SIZE,
    PREFIX_SIZE,
    SIGNATURE,
    VERSION,
    ZERO_EXPAND,
    Header,
    ImageType,
    unpack,
)
from drivebay.model import NULL_UUID, SECTOR

_SHORTEST = PREFIX_SIZE + MIN_HEADER_SIZE
_REMEDIES = {
    ErrorKind.CORRUPT: "the header is damaged: restore the image from a copy",
    ErrorKind.UNSUPPORTED: "convert the image with the tool that wrote it",
}


class _Subject(NamedTuple):
    """What a rule may look at. Later rules rely on earlier ones."""

    header: Header
    file_size: int


class _Rule(NamedTuple):
    field: str
    label: str
    offset: int
    holds: Callable[[_Subject], bool]
    demand: str
    kind: ErrorKind = ErrorKind.CORRUPT


def read_header(files: Files) -> Header:
    """The header, with every field checked against the others and the file's size; the map isn't read.

    Raises StorageError: CORRUPT for values that can't be, UNSUPPORTED for versions and flags that
    drivebay doesn't know. The rules are those of docs/formats/vdi.md.
    """
    data = files.read(0, PREFIX_SIZE + HEADER_SIZE)
    if len(data) < _SHORTEST:
        what = f"the file ends within the VDI header, after {len(data)} of {_SHORTEST} bytes"
        raise _refusal(files, ErrorKind.CORRUPT, len(data), what)
    header = unpack(data)
    for rule in _RULES:
        if not rule.holds(_Subject(header, files.size)):
            value = getattr(header, rule.field)
            what = f"VDI header: the {rule.label} is {value}, but {rule.demand}"
            raise _refusal(files, rule.kind, rule.offset, what)
    return header


def _refusal(files: Files, kind: ErrorKind, offset: int, what: str) -> StorageError:
    message = f"{what}; {_REMEDIES[kind]}"
    return StorageError(kind, message, path=files.path, offset=offset, operation="open")


def _is_block_size(value: int) -> bool:
    return MIN_BLOCK <= value <= MAX_BLOCK and value & (value - 1) == 0


_RULES = (
    _Rule(
        "signature",
        "signature",
        64,
        lambda s: s.header.signature == SIGNATURE,
        f"it must be {SIGNATURE}",
    ),
    _Rule(
        "version",
        "version",
        68,
        lambda s: s.header.version >> 16 == VERSION >> 16,
        f"drivebay knows only {VERSION} (1.1) and its like",
        ErrorKind.UNSUPPORTED,
    ),
    _Rule(
        "header_size",
        "header size",
        72,
        lambda s: s.header.header_size >= MIN_HEADER_SIZE,
        f"it must be at least {MIN_HEADER_SIZE}",
    ),
    _Rule(
        "type",
        "image type",
        76,
        lambda s: s.header.type in set(ImageType),
        "it must be from 1 to 4",
    ),
    _Rule(
        "flags",
        "flags field",
        80,
        lambda s: s.header.flags & ~ZERO_EXPAND == 0,
        f"drivebay knows only {ZERO_EXPAND}",
        ErrorKind.UNSUPPORTED,
    ),
    _Rule(
        "map_offset",
        "map offset",
        340,
        lambda s: s.header.map_offset >= PREFIX_SIZE + s.header.header_size,
        "the header reaches beyond it",
    ),
    _Rule(
        "map_offset",
        "map offset",
        340,
        lambda s: s.header.map_offset % SECTOR == 0,
        f"it must be a multiple of {SECTOR}",
    ),
    _Rule(
        "data_offset",
        "data offset",
        344,
        lambda s: s.header.data_offset % SECTOR == 0,
        f"it must be a multiple of {SECTOR}",
    ),
    _Rule(
        "size",
        "disk size",
        368,
        lambda s: s.header.size > 0 and s.header.size % SECTOR == 0,
        f"it must be a multiple of {SECTOR}, not 0",
    ),
    _Rule(
        "block_size",
        "block size",
        376,
        lambda s: _is_block_size(s.header.block_size),
        f"it must be a power of two from {MIN_BLOCK} to {MAX_BLOCK}",
    ),
    _Rule(
        "extra",
        "extra data per block",
        380,
        lambda s: s.header.extra % SECTOR == 0 and s.header.extra <= s.header.block_size,
        f"it must be a multiple of {SECTOR}, at most the block size",
    ),
    _Rule(
        "blocks",
        "number of blocks",
        384,
        lambda s: s.header.blocks >= s.header.blocks_needed,
        "the disk size needs more",
    ),
    _Rule(
        "blocks",
        "number of blocks",
        384,
        lambda s: s.header.map_end <= s.header.data_offset,
        "a map of so many reaches into the data",
    ),
    _Rule(
        "blocks",
        "number of blocks",
        384,
        lambda s: s.header.map_end <= s.file_size,
        "a map of so many reaches beyond the file's end",
    ),
    _Rule(
        "blocks_allocated",
        "number of allocated blocks",
        388,
        lambda s: s.header.blocks_allocated <= s.header.blocks,
        "the image has fewer blocks",
    ),
    _Rule(
        "uuid",
        "image UUID",
        392,
        lambda s: s.header.uuid != NULL_UUID,
        "every image must have one",
    ),
    _Rule(
        "lchs",
        "logical geometry",
        456,
        lambda s: s.header.header_size < HEADER_SIZE or s.header.lchs.sector_size == SECTOR,
        f"its sector size must be {SECTOR}",
    ),
)
