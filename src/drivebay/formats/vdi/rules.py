"""What must hold in a VDI header before anything in the file is believed."""

from __future__ import annotations

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind
from drivebay.formats.headers import HeaderRefusals, Rule, is_power
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
from drivebay.formats.vdi.version0 import VERSION0_RULES, unpack_version0
from drivebay.model import NULL_UUID, SECTOR

_SHORTEST = PREFIX_SIZE + MIN_HEADER_SIZE
_REFUSALS = HeaderRefusals("VDI header")


def read_header(files: Files) -> Header:
    """The header, with every field checked against the others and the file's size; the map isn't read.

    Raises StorageError: CORRUPT for values that can't be, UNSUPPORTED for versions and flags that
    drivebay doesn't know. The rules are those of docs/formats/vdi.md.
    """
    data = files.read(0, PREFIX_SIZE + HEADER_SIZE)
    header = unpack(data)
    old = len(data) >= PREFIX_SIZE and header.signature == SIGNATURE and header.major == 0
    if not old:
        _REFUSALS.require_length(files, data, _SHORTEST)
    header = unpack_version0(data) if old else header
    _REFUSALS.require(VERSION0_RULES if old else _RULES, header, files)
    return header


_RULES: tuple[Rule[Header], ...] = (
    Rule(
        "signature",
        "signature",
        64,
        lambda h, _: h.signature == SIGNATURE,
        f"it must be {SIGNATURE}",
    ),
    Rule(
        "version",
        "version",
        68,
        lambda h, _: h.major == VERSION >> 16,
        f"drivebay knows only {VERSION} (1.1) and its like, and version 0",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "header_size",
        "header size",
        72,
        lambda h, _: h.header_size >= MIN_HEADER_SIZE,
        f"it must be at least {MIN_HEADER_SIZE}",
    ),
    Rule(
        "type",
        "image type",
        76,
        lambda h, _: h.type in set(ImageType),
        "it must be from 1 to 4",
    ),
    Rule(
        "flags",
        "flags field",
        80,
        lambda h, _: h.flags & ~ZERO_EXPAND == 0,
        f"drivebay knows only {ZERO_EXPAND}",
        ErrorKind.UNSUPPORTED,
    ),
    Rule(
        "map_offset",
        "map offset",
        340,
        lambda h, _: h.map_offset >= PREFIX_SIZE + h.header_size,
        "the header reaches beyond it",
    ),
    Rule(
        "map_offset",
        "map offset",
        340,
        lambda h, _: h.map_offset % SECTOR == 0,
        f"it must be a multiple of {SECTOR}",
    ),
    Rule(
        "data_offset",
        "data offset",
        344,
        lambda h, _: h.data_offset % SECTOR == 0,
        f"it must be a multiple of {SECTOR}",
    ),
    Rule(
        "size",
        "disk size",
        368,
        lambda h, _: h.size > 0 and h.size % SECTOR == 0,
        f"it must be a multiple of {SECTOR}, not 0",
    ),
    Rule(
        "block_size",
        "block size",
        376,
        lambda h, _: is_power(h.block_size, MIN_BLOCK, MAX_BLOCK),
        f"it must be a power of two from {MIN_BLOCK} to {MAX_BLOCK}",
    ),
    Rule(
        "extra",
        "extra data per block",
        380,
        lambda h, _: h.extra % SECTOR == 0 and h.extra <= h.block_size,
        f"it must be a multiple of {SECTOR}, at most the block size",
    ),
    Rule(
        "blocks",
        "number of blocks",
        384,
        lambda h, _: h.blocks >= h.blocks_needed,
        "the disk size needs more",
    ),
    Rule(
        "blocks",
        "number of blocks",
        384,
        lambda h, _: h.map_end <= h.data_offset,
        "a map of so many reaches into the data",
    ),
    Rule(
        "blocks",
        "number of blocks",
        384,
        lambda h, size: h.map_end <= size,
        "a map of so many reaches beyond the file's end",
    ),
    Rule(
        "blocks_allocated",
        "number of allocated blocks",
        388,
        lambda h, _: h.blocks_allocated <= h.blocks,
        "the image has fewer blocks",
    ),
    Rule(
        "uuid",
        "image UUID",
        392,
        lambda h, _: h.uuid != NULL_UUID,
        "every image must have one",
    ),
    Rule(
        "lchs",
        "logical geometry",
        456,
        lambda h, _: h.header_size < HEADER_SIZE or h.lchs.sector_size == SECTOR,
        f"its sector size must be {SECTOR}",
    ),
)
