"""One attempt: a damaged image goes through everything that drivebay does with images."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import drivebay
from drivebay.blockmap import Layer, Packed, Table
from drivebay.engine.disk import Disk
from drivebay.engine.source import OpenedLayer
from drivebay.errors import StorageError
from support.interpreter import CorruptPointerError, Image, read_layers

MIB = 1 << 20
#: In files that no image may show: one beside it that it doesn't record, one outside of its folder.
CANARY = b"[canary: no image may show these bytes]"
#: What the buffers hold before they are read into: if it is still there, memory was handed out.
UNREAD = b"<memory that was never written>"
_WHOLE = 24 * MIB  # a disk up to this size is read whole, of a larger one some windows
_WINDOW = MIB
_WINDOWS = 12
_STEP = MIB
_SAMPLES = 24
_PROBES = 6


class ViolationError(Exception):
    """The product did what it must never do."""


def attempt(image: Path, chance: random.Random) -> str:
    """Use the image in every way; returns how it ended ("read", or the kind of the error).

    Raises `ViolationError`, or whatever else than a StorageError the product raises: each is a finding.
    """
    _tell(lambda: drivebay.info(image))
    _tell(lambda: [finding.message for finding in drivebay.check(image)])
    _tell(lambda: drivebay.repair(image))
    outcome = _tell(lambda: _read(image, chance))
    if outcome == "read" and chance.random() < 0.3:
        _tell(lambda: _write(image, chance))
    return outcome


def _tell(act: Callable[[], Any]) -> str:
    try:
        act()
    except StorageError as error:
        _require(
            bool(error.message) and len(str(error)) < 4096, f"an error without a proper message: {error!r}"
        )
        _require(CANARY not in str(error).encode("utf-8", "replace"), "an error shows another file's bytes")
        return error.kind.value
    return "read"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ViolationError(message)


def _read(image: Path, chance: random.Random) -> None:
    errors: list[StorageError] = []
    with drivebay.open(image) as disk:
        images = [_with_bytes(layer) for layer in disk.layers]
        for start, length in _ranges(disk.size, chance):
            try:
                data = _read_range(disk, start, length)
                covered = sum(extent.length for extent in disk.extents(start, length))
            except StorageError as error:
                errors.append(error)
                continue
            _require(covered == length, f"the extents of {length} bytes at {start} cover {covered}")
            if all(_is_plain(layer.layer) for layer in disk.layers):
                _require_origin(data, [file for _, *files in images for file in files], chance)
            _require_meaning(images, start, data, chance)
    if errors:
        raise errors[0]


def _with_bytes(opened: OpenedLayer) -> tuple[Layer, *tuple[bytes, ...]]:
    return (opened.layer, *(Path(source.path).read_bytes() for source in opened.sources))


def _is_plain(layer: Layer) -> bool:
    """Whether the disk's bytes are in the files as they are."""
    tables = [segment for segment in layer.segments if isinstance(segment, Table)]
    packed = any(isinstance(segment, Packed) for segment in layer.segments) or any(
        table.packed for table in tables
    )
    return not (packed or layer.replay)


def _ranges(size: int, chance: random.Random) -> list[tuple[int, int]]:
    if size <= _WHOLE:
        return [(start, min(_STEP, size - start)) for start in range(0, size, _STEP)]
    starts = [0, size - _WINDOW, *(chance.randrange(0, size - _WINDOW) for _ in range(_WINDOWS))]
    return [(start - start % 512, _WINDOW) for start in starts]


def _read_range(disk: Disk, start: int, length: int) -> bytes:
    buffer = bytearray((UNREAD * (length // len(UNREAD) + 1))[:length])
    disk.read_into(start, memoryview(buffer))
    data = bytes(buffer)
    _require(
        CANARY not in data, f"bytes of another file at virtual offset {start + max(data.find(CANARY), 0)}"
    )
    _require(
        UNREAD not in data, f"the buffer was not filled at virtual offset {start + max(data.find(UNREAD), 0)}"
    )
    return data


def _require_meaning(images: Sequence[Image], start: int, data: bytes, chance: random.Random) -> None:
    """What was read must be what the interpreter of descriptions reads, wherever that finds no fault."""
    for _ in range(_PROBES):
        place = chance.randrange(len(data) // 512) * 512
        length = min(chance.choice([512, 4096, 70_000]), len(data) - place)
        try:
            meant = read_layers(images, start + place, length)
        except CorruptPointerError:
            continue
        _require(
            data[place : place + length] == meant,
            f"{length} bytes at {start + place} are not what they should be",
        )


def _require_origin(data: bytes, files: list[bytes], chance: random.Random) -> None:
    """What isn't zero must be in one of the image's files: a sample of the sectors."""
    filled = len(data.rstrip(b"\0")) // 512 + 1
    for place in chance.sample(range(filled), min(_SAMPLES, filled)):
        sector = data[place * 512 : place * 512 + 512].rstrip(b"\0")
        _require(
            any(sector in file for file in files), f"bytes that are in no file of the image: {sector[:40]!r}"
        )


def _write(image: Path, chance: random.Random) -> None:
    """Write to the image as a guest would; what was written must read back, before and after closing."""
    with drivebay.open(image, writable=True) as disk:
        written: dict[int, bytes] = {}
        for _ in range(chance.randint(1, 5)):
            place = chance.randrange(max(disk.size // 512 - 8, 1)) * 512
            data = chance.randbytes(min(512 * chance.randint(1, 8), disk.size - place))
            written = {start: old for start, old in written.items() if not _overlap(start, old, place, data)}
            disk.write(place, data)
            written[place] = data
        for place, data in written.items():
            _require(disk.read(place, len(data)) == data, f"a write at {place} reads back as something else")
        disk.flush()
    with drivebay.open(image) as disk:
        for place, data in written.items():
            _require(disk.read(place, len(data)) == data, f"a flushed write at {place} is gone")


def _overlap(start: int, old: bytes, place: int, data: bytes) -> bool:
    return start < place + len(data) and place < start + len(old)
