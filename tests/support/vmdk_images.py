"""VMDK images in memory: what the format makes of a request, and single bytes of it changed."""

from __future__ import annotations

import dataclasses
import struct
import uuid

from drivebay.blockmap import CreateRequest, Layer
from drivebay.errors import StorageError
from drivebay.formats.vmdk import FORMAT
from drivebay.formats.vmdk.create import VmdkOptions
from support.memory_files import MemoryFiles, files_made_by

MIB = 1 << 20
GRAIN = 64 << 10
NAME = "disk.vmdk"
OWN = uuid.UUID("11111111-2222-4333-8444-555555555555")
MODIFICATION = uuid.UUID("66666666-7777-4888-9999-aaaaaaaaaaaa")
Made = dict[str, bytearray]


def made(variant: str | None = None, size: int = 5 * MIB, **fields: object) -> Made:
    """The files of a new image by name, "" being the image itself; further fields of the request."""
    request = CreateRequest(size, VmdkOptions(variant=variant), OWN, MODIFICATION, name=NAME)
    request = dataclasses.replace(request, **fields)  # type: ignore[arg-type]
    assert FORMAT.create is not None
    return {name: bytearray(data) for name, data in files_made_by(FORMAT.create(request)).items()}


def gate(files: Made | dict[str, bytes]) -> MemoryFiles:
    """The gate over the files of one image."""
    return MemoryFiles(files[""], NAME, files)


def opened(files: Made | dict[str, bytes]) -> Layer:
    """The image's description."""
    return FORMAT.open(gate(files))


def refusal_of(files: Made | dict[str, bytes]) -> StorageError | None:
    """Why the image doesn't open, if so."""
    try:
        opened(files)
    except StorageError as error:
        return error
    return None


def put(data: bytearray, offset: int, *values: int, width: str = "I") -> None:
    """Little-endian numbers in place of what is at ``offset``."""
    struct.pack_into(f"<{len(values)}{width}", data, offset, *values)


def tables_of(data: bytearray) -> tuple[int, int]:
    """Where the first grain table and its redundant copy lie, in bytes."""
    redundant, directory = struct.unpack_from("<QQ", data, 48)
    first, copy = (struct.unpack_from("<I", data, sector * 512)[0] * 512 for sector in (directory, redundant))
    return first, copy


def with_grains(files: Made, *blocks: int) -> Made:
    """The sparse image with those grains filled with their own number, in both copies of the table."""
    data = files[""]
    for block in blocks:
        place = len(data)
        data += bytes([block + 1]) * GRAIN
        for table in tables_of(data):
            put(data, table + 4 * block, place // 512)
    return files


def codes(files: Made | dict[str, bytes]) -> list[str]:
    """What the check finds, by its codes."""
    assert FORMAT.check is not None
    return [found.code for found in FORMAT.check(gate(files), opened(files))]


def repaired(files: Made) -> dict[str, bytes]:
    """The files after all steps of a repair."""
    assert FORMAT.repair is not None
    steps = FORMAT.repair(gate(files), opened(files))
    return files_made_by([change for step in steps for change in step.changes], files)


def loses(files: Made) -> list[bool]:
    """For each step of a repair, whether it loses data."""
    assert FORMAT.repair is not None
    return [step.loses for step in FORMAT.repair(gate(files), opened(files))]
