"""The reference counts that a QCOW2 image has, held against the use that a walk found."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from drivebay.blockmap import Files
from drivebay.blockmap.counts import Counts, unpack_counts
from drivebay.formats.qcow2.faults import Faults
from drivebay.formats.qcow2.header import Header
from drivebay.formats.qcow2.references import References


class StoredCounts:
    """The blocks of counts by number; those that the table can't have right are left out."""

    def __init__(self, files: Files, header: Header, faults: Faults) -> None:
        self._files = files
        self._header = header
        self.per_block = header.cluster * 8 // header.refcount_bits
        self.table_length = header.refcount_clusters * header.cluster
        self.blocks = dict(self._sound_blocks(faults))

    def _sound_blocks(self, faults: Faults) -> Iterator[tuple[int, int]]:
        data = self._files.read(self._header.refcount_offset, self.table_length)
        table = np.frombuffer(data.ljust(self.table_length, b"\0"), ">u8").astype(np.uint64)
        seen: set[int] = set()
        for number in np.flatnonzero(table).tolist():
            offset = int(table[number])
            if offset % self._header.cluster or offset >= self._files.size or offset in seen:
                faults.add("refcount-table", self._header.refcount_offset + number * 8)
                continue
            seen.add(offset)
            yield number, offset

    def counts(self, block: int) -> Counts:
        """The counts of a block; zeros where there is none."""
        offset = self.blocks.get(block)
        data = b"" if offset is None else self._files.read(offset, self._header.cluster)
        return unpack_counts(data.ljust(self._header.cluster, b"\0"), self._header.refcount_bits)

    def numbers(self, times: npt.NDArray[np.uint32]) -> list[int]:
        """The blocks that are there, and those that ``times`` needs."""
        needed = np.unique(np.flatnonzero(times) // self.per_block).tolist()
        return sorted(self.blocks.keys() | set(needed))

    def clusters(self) -> Iterator[int]:
        """The clusters in which the table and the blocks lie."""
        begin, cluster = self._header.refcount_offset, self._header.cluster
        yield from range(begin // cluster, -(-(begin + self.table_length) // cluster))
        yield from (offset // cluster for offset in self.blocks.values())

    def use_themselves(self, references: References) -> None:
        """Count the table and its blocks as used."""
        references.use_metadata(self._header.refcount_offset, self.table_length)
        for offset in self.blocks.values():
            references.use_metadata(offset, self._header.cluster)


def wanted_counts(times: npt.NDArray[np.uint32], block: int, per_block: int) -> npt.NDArray[np.uint32]:
    """What a block should say, going by the uses found."""
    part = times[block * per_block : (block + 1) * per_block]
    return np.concatenate([part, np.zeros(per_block - len(part), np.uint32)])


def compare(stored: StoredCounts, references: References) -> Iterator[int]:
    """Add to the faults what is counted too low or too high; yields the numbers of such blocks."""
    times, faults = references.times, references.faults
    for block in stored.numbers(times):
        counts = stored.counts(block)
        wanted = wanted_counts(times, block, stored.per_block)
        for code, wrong in (("refcount-low", counts < wanted), ("leak", counts > wanted)):
            if wrong.any():
                first = (block * stored.per_block + int(wrong.argmax())) * references.cluster
                faults.add(code, first, int(wrong.sum()))
        if (counts != wanted).any():
            yield block
