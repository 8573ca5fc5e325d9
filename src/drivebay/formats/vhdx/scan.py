"""One pass over the BAT: which entries are wrong, and which parts of the file nobody has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vhdx.header import MIB
from drivebay.formats.vhdx.image import ENTRY_SIZE, ImageParts
from drivebay.formats.vhdx.layer import FULLY_PRESENT, NOT_PRESENT, PARTIALLY_PRESENT, STATE, UNMAPPED

_GROUPS = 16  # of a chunk's blocks and their bitmap: 512 GiB of the file at most
_RESERVED = np.uint64(0xFFFF8)
Raw = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Faults(NamedTuple):
    """Flags for the entries of a slice of the BAT that begins with number ``first``, in its order."""

    first: int
    raw: Raw
    state: Flags
    outside: Flags
    overlap: Flags
    no_bitmap: Flags
    bitmap: Flags
    reserved: Flags


class BatScan:
    """Reads the BAT. Memory: one byte for each MiB of the file, and one slice."""

    def __init__(self, parts: ImageParts) -> None:
        self._parts = parts
        self._metadata = parts.metadata
        self._size = parts.files.size
        self.used = np.zeros(-(-self._size // MIB), np.bool_)
        header = parts.headers.current
        self._use(0, MIB)
        self._use(header.log_offset, header.log_length)
        for region in parts.regions:
            self._use(region.offset, region.length)

    def _use(self, offset: int, length: int) -> None:
        self.used[offset // MIB : (offset + length) // MIB] = True

    def slices(self) -> Iterator[Faults]:
        """The faults of all entries, in order; ``used`` is complete after the last."""
        row = self._metadata.chunk_ratio + 1
        step = row * _GROUPS
        for first in range(0, self._metadata.bat_entries, step):
            raw = self._read(first, min(step, self._metadata.bat_entries - first))
            rows = np.zeros((-(-len(raw) // row), row), np.uint64)
            rows.reshape(-1)[: len(raw)] = raw
            yield self._faults(first, raw, rows)

    def _read(self, first: int, count: int) -> Raw:
        offset, length = self._parts.bat.offset + first * ENTRY_SIZE, count * ENTRY_SIZE
        data = self._parts.files.read(offset, length)
        if len(data) < length:
            what = "the file became shorter while its BAT was read; check it again when nothing writes to it"
            raise StorageError(
                ErrorKind.IO, what, path=self._parts.files.path, offset=offset, operation="check"
            )
        return np.frombuffer(data, "<u8").astype(np.uint64)

    def _faults(self, first: int, raw: Raw, rows: Raw) -> Faults:
        states = rows & np.uint64(STATE)
        offsets = (rows >> np.uint64(20)).astype(np.int64)
        payload, bitmap = self._kinds(rows)
        partial = payload & (states == PARTIALLY_PRESENT)
        present = payload & (states == FULLY_PRESENT) | partial & self._metadata.has_parent
        good_bitmap = bitmap & (states == FULLY_PRESENT) & (offsets > 0)
        bad_bitmap = bitmap & ~good_bitmap & (states != NOT_PRESENT)
        outside = (present | good_bitmap) & (offsets > (self._size - self._sizes(first, rows.shape)) // MIB)
        overlap = np.zeros(rows.shape, np.bool_)
        good_bitmap &= ~outside
        overlap[good_bitmap] = self._take(offsets[good_bitmap], MIB)
        good_bitmap &= ~overlap
        inside = present & (offsets > 0) & ~outside
        overlap[inside] = self._take(offsets[inside], self._metadata.block_size)

        def flat(flags: Flags) -> Flags:
            result: Flags = flags.reshape(-1)[: len(raw)]
            return result

        return Faults(
            first,
            raw,
            state=flat(payload & (states > UNMAPPED) & ~present | present & (offsets == 0)),
            outside=flat(outside),
            overlap=flat(overlap),
            no_bitmap=flat(inside & partial & ~good_bitmap[:, -1:]),
            bitmap=flat(bad_bitmap),
            reserved=flat((rows & _RESERVED) != 0),
        )

    def _kinds(self, rows: Raw) -> tuple[Flags, Flags]:
        """Which entries are for payload blocks, and which for the bitmaps of a differencing image."""
        payload = np.ones(rows.shape, np.bool_)
        payload[:, -1] = False
        return payload, ~payload & self._metadata.has_parent

    def _sizes(self, first: int, shape: tuple[int, ...]) -> Numbers:
        """The bytes that each entry's block must have: of the disk's last one, the part that the disk has."""
        sizes = np.full(shape, self._metadata.block_size, np.int64)
        sizes[:, -1] = MIB
        ratio = self._metadata.chunk_ratio
        group, within = divmod(self._metadata.blocks - 1, ratio)
        row = group - first // (ratio + 1)
        if 0 <= row < shape[0]:
            sizes[row, within] = self._metadata.size - (self._metadata.blocks - 1) * self._metadata.block_size
        return sizes

    def _take(self, offsets: Numbers, length: int) -> Flags:
        """Mark the MiBs of blocks as used; flags the blocks that lie where something else lies."""
        if not len(offsets):
            return np.zeros(0, np.bool_)
        lengths = np.minimum(length // MIB, len(self.used) - offsets)  # the last one may be cut short
        owners = np.repeat(np.arange(len(offsets)), lengths)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = offsets[owners] + within
        again = np.ones(len(places), np.bool_)
        again[np.unique(places, return_index=True)[1]] = False
        again |= self.used[places]
        self.used[places] = True
        flags = np.zeros(len(offsets), np.bool_)
        flags[owners[again]] = True
        return flags
