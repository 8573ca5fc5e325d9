"""Walking over the content of whole disks. What reads as zeros is never read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from drivebay.chain.apply import Progress
from drivebay.engine.disk import Disk
from drivebay.model import ExtentState

_STEP = 2 << 20
_ZEROS = bytes(_STEP)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two disks differ: ``offset`` is the first byte that does, ``None`` where none does."""

    offset: int | None
    size_a: int
    size_b: int

    @property
    def equal(self) -> bool:
        """Whether the contents are the same; a longer disk's rest of zeros is no difference."""
        return self.offset is None


def checksum(disk: Disk, progress: Progress | None = None) -> str:
    """The SHA-256 of the whole virtual disk as hexadecimal digits."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_STEP))
    for start, length, has_data in _steps(disk):
        digest.update(_load(disk, start, buffer[:length]) if has_data else memoryview(_ZEROS)[:length])
        if progress is not None:
            progress(start + length, disk.size)
    return digest.hexdigest()


def compare(a: Disk, b: Disk, progress: Progress | None = None) -> Comparison:
    """Find the first byte in which two disks differ.

    As in ``qemu-img compare`` without ``-s``: what one disk has beyond the other's end must be zeros.
    """
    size = max(a.size, b.size)
    buffers = memoryview(bytearray(_STEP)), memoryview(bytearray(_STEP))
    offset = None
    for start, length, in_a, in_b in _common_steps(a, b):
        view_a = _load(a, start, buffers[0][:length]) if in_a else memoryview(_ZEROS)[:length]
        view_b = _load(b, start, buffers[1][:length]) if in_b else memoryview(_ZEROS)[:length]
        found = _first_difference(view_a, view_b) if in_a or in_b else None
        if found is not None:
            offset = start + found
            break
        if progress is not None:
            progress(start + length, size)
    return Comparison(offset, a.size, b.size)


def _load(disk: Disk, start: int, view: memoryview) -> memoryview:
    disk.read_into(start, view)
    return view


def _first_difference(a: memoryview, b: memoryview) -> int | None:
    different = np.frombuffer(a, np.uint8) != np.frombuffer(b, np.uint8)
    first = int(different.argmax())
    return first if different[first] else None


def _steps(disk: Disk) -> Iterator[tuple[int, int, bool]]:
    for extent in disk.extents():
        end = extent.start + extent.length
        for start in range(extent.start, end, _STEP):
            yield start, min(_STEP, end - start), extent.state is ExtentState.DATA


def _common_steps(a: Disk, b: Disk) -> Iterator[tuple[int, int, bool, bool]]:
    ends_a, ends_b = _padded(a, max(a.size, b.size)), _padded(b, max(a.size, b.size))
    start, end_a, end_b, in_a, in_b = 0, 0, 0, False, False
    while start < max(a.size, b.size):
        if start == end_a:
            end_a, in_a = next(ends_a)
        if start == end_b:
            end_b, in_b = next(ends_b)
        length = min(end_a, end_b) - start
        if in_a or in_b:
            length = min(length, _STEP)
        yield start, length, in_a, in_b
        start += length


def _padded(disk: Disk, size: int) -> Iterator[tuple[int, bool]]:
    for extent in disk.extents():
        yield extent.start + extent.length, extent.state is ExtentState.DATA
    if disk.size < size:
        yield size, False
