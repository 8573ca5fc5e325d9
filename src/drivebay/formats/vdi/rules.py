"""What must hold in a VDI header before anything in the file is believed."""

from __future__ import annotations

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
from drivebay.formats.vdi.rule import Rule, Subject, is_block_size
from drivebay.formats.vdi.version0 import VERSION0_RULES, unpack_version0
from drivebay.model import NULL_UUID, SECTOR

_SHORTEST = PREFIX_SIZE + MIN_HEADER_SIZE
_REMEDIES = {
    ErrorKind.CORRUPT: "the header is damaged: restore the image from a copy",
    ErrorKind.UNSUPPORTED: "convert the image with the tool that wrote it",
}


def read_header(files: Files) -> Header:
    """The header, with every field checked against the others and the file's size; the map isn't read.

    Raises StorageError: CORRUPT for values that can't be, UNSUPPORTED for versions and flags that
    drivebay doesn't know. The rules are those of docs/formats/vdi.md.
    """
    data = files.read(0, PREFIX_SIZE + HEADER_SIZE)
    header = unpack(data)
    old = len(data) >= PREFIX_SIZE and header.signature == SIGNATURE and header.major == 0
    if len(data) < _SHORTEST and not old:
        what = f"the file ends within the VDI header, after {len(data)} of {_SHORTEST} bytes"
        raise _refusal(files, ErrorKind.CORRUPT, len(data), what)
    header = unpack_version0(data) if old else header
    for rule in VERSION0_RULES if old else _RULES:
        if not rule.holds(Subject(header, files.size)):
            value = getattr(header, rule.field)
            what = f"VDI header: the {rule.label} is {value}, but {rule.demand}"
            raise _refusal(files, rule.kind, rule.offset, what)
    return header


def _refusal(files: Files, kind: ErrorKind, offset: int, what: str) -> StorageError:
    message = f"{what}; {_REMEDIES[kind]}"
    return StorageError(kind, message, path=files.path, offset=offset, operation="open")


_RULES = (
    Rule(
        "signature",
        "signature",
        64,
        lambda s: s.header.signature == SIGNATURE,
        f"it must be {SIGNATURE}",
    ),
    Rule(
        "version",
        "version",
        68,
        lambda s: s.header.major == VERSION >> 16,
        f"drivebay knows only {VERSION} (1.1) and its like, and version 0",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "header_size",
        "header size",
        72,
        lambda s: s.header.header_size >= MIN_HEADER_SIZE,
        f"it must be at least {MIN_HEADER_SIZE}",
    ),
    Rule(
        "type",
        "image type",
        76,
        lambda s: s.header.type in set(ImageType),
        "it must be from 1 to 4",
    ),
    Rule(
        "flags",
        "flags field",
        80,
        lambda s: s.header.flags & ~ZERO_EXPAND == 0,
        f"drivebay knows only {ZERO_EXPAND}",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "map_offset",
        "map offset",
        340,
        lambda s: s.header.map_offset >= PREFIX_SIZE + s.header.header_size,
        "the header reaches beyond it",
    ),
    Rule(
        "map_offset",
        "map offset",
        340,
        lambda s: s.header.map_offset % SECTOR == 0,
        f"it must be a multiple of {SECTOR}",
    ),
    Rule(
        "data_offset",
        "data offset",
        344,
        lambda s: s.header.data_offset % SECTOR == 0,
        f"it must be a multiple of {SECTOR}",
    ),
    Rule(
        "size",
        "disk size",
        368,
        lambda s: s.header.size > 0 and s.header.size % SECTOR == 0,
        f"it must be a multiple of {SECTOR}, not 0",
    ),
    Rule(
        "block_size",
        "block size",
        376,
        lambda s: is_block_size(s.header.block_size),
        f"it must be a power of two from {MIN_BLOCK} to {MAX_BLOCK}",
    ),
    Rule(
        "extra",
        "extra data per block",
        380,
        lambda s: s.header.extra % SECTOR == 0 and s.header.extra <= s.header.block_size,
        f"it must be a multiple of {SECTOR}, at most the block size",
    ),
    Rule(
        "blocks",
        "number of blocks",
        384,
        lambda s: s.header.blocks >= s.header.blocks_needed,
        "the disk size needs more",
    ),
    Rule(
        "blocks",
        "number of blocks",
        384,
        lambda s: s.header.map_end <= s.header.data_offset,
        "a map of so many reaches into the data",
    ),
    Rule(
        "blocks",
        "number of blocks",
        384,
        lambda s: s.header.map_end <= s.file_size,
        "a map of so many reaches beyond the file's end",
    ),
    Rule(
        "blocks_allocated",
        "number of allocated blocks",
        388,
        lambda s: s.header.blocks_allocated <= s.header.blocks,
        "the image has fewer blocks",
    ),
    Rule(
        "uuid",
        "image UUID",
        392,
        lambda s: s.header.uuid != NULL_UUID,
        "every image must have one",
    ),
    Rule(
        "lchs",
        "logical geometry",
        456,
        lambda s: s.header.header_size < HEADER_SIZE or s.header.lchs.sector_size == SECTOR,
        f"its sector size must be {SECTOR}",
    ),
)
