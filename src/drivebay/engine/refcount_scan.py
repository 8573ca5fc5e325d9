"""What the active tables use, held against the reference counts before the first write."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from drivebay.blockmap import BlockState, Directory, PackedEntry, Table
from drivebay.engine.refcount_table import RefcountTable, unsafe_counts
from drivebay.engine.source import FileSource
from drivebay.engine.tables import (
    Entries,
    Flags,
    distinct,
    leaf_states,
    offsets_of,
    read_directory,
    states_of,
)
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import SECTOR

_DATA, _ZERO = int(BlockState.DATA), int(BlockState.ZERO)
_PACKED, _SPLIT, _CORRUPT = int(BlockState.PACKED), int(BlockState.SPLIT), int(BlockState.CORRUPT)
_OWNED = 0x8000  # in `_uses`: an entry says that nothing else uses the cluster
_SHARED = 0x4000  # an entry points to data there, and does not say so
_MOST = 0x3FFF
MOST_CLUSTERS = 1 << 30  # 64 TiB of the usual ones: what a sparse file claims must not fill the memory
_CHUNK = 1 << 16
_BATCH_BYTES = 1 << 20


class ReferenceScan:
    """Counts the uses of each cluster. Memory: two bytes for each cluster that the file has."""

    def __init__(self, source: FileSource, counts: RefcountTable) -> None:
        self._source = source
        self._counts = counts
        self._cluster = np.uint64(counts.cluster)
        clusters = -(-source.size // counts.cluster)
        if clusters > MOST_CLUSTERS:
            raise StorageError(
                ErrorKind.UNSUPPORTED,
                f"the file has {clusters} clusters, but {MOST_CLUSTERS} are the most that can be written; "
                "convert it to an image with larger clusters",
                path=source.path,
                operation="write",
            )
        self._uses: npt.NDArray[np.uint16] = np.zeros(clusters, np.uint16)
        self.stale_flags = False

    def verify(self, tables: tuple[Table, ...]) -> int:
        """Raises CORRUPT where a use isn't counted, or a cluster that an entry says it owns has others.

        Afterwards ``stale_flags`` tells whether entries don't say that they own their cluster although
        nothing else uses it. Returns the first block of counts that has a free cluster.
        """
        self._use(np.zeros(1, np.uint64), _OWNED)
        self._use(self._counts.clusters, _OWNED)
        for table in tables:
            self._scan(table)
        touched = distinct(np.flatnonzero(self._uses) // self._counts.per_block)[0].tolist()
        last = -(-len(self._uses) // self._counts.per_block)
        known = {*touched, *(block for block in self._counts.block_numbers if block < last)}
        full = {block for block in sorted(known) if not self._compare(block)}
        return next(block for block in itertools.count() if block not in full)

    def _unsafe(self, what: str, offset: int) -> Exception:
        return unsafe_counts(self._source.path, what, offset)

    def _use(self, clusters: Entries, flag: int = 0) -> None:
        inside = clusters[clusters < len(self._uses)]
        if len(inside) < len(clusters):
            raise self._unsafe("a table points outside of the file", int(clusters.max()) * int(self._cluster))
        found, times = distinct(inside)
        total = (self._uses[found] & _MOST).astype(np.int64) + times
        if len(total) and int(total.max()) > _MOST:
            offset = int(found[total.argmax()]) * int(self._cluster)
            raise self._unsafe("thousands of entries point to one cluster", offset)
        self._uses[found] = (
            total.astype(np.uint16) | (self._uses[found] & ~np.uint16(_MOST)) | np.uint16(flag)
        )

    def _compare(self, block: int) -> bool:
        """Hold one block of counts against the uses; returns whether it has a free cluster."""
        start = block * self._counts.per_block
        uses = self._uses[start : start + self._counts.per_block]
        counts = self._counts.counts(block)
        if counts is None:
            counts = np.zeros(len(uses), np.uint8)
        here = counts[: len(uses)]
        bad = ((uses & _MOST) > here) | ((uses & _OWNED != 0) & (here != 1))
        if bad.any():
            index = int(bad.argmax())
            found = f"{int(uses[index] & _MOST)} entries, but its reference count is {int(here[index])}"
            raise self._unsafe(f"a cluster is used by {found}", (start + index) * int(self._cluster))
        self.stale_flags |= bool(((uses & _SHARED != 0) & (here == 1)).any())
        return bool((counts == 0).any())

    def _scan(self, table: Table) -> None:
        directory = table.directory
        assert directory is not None
        step = directory.entry.step
        ends = table.root, table.root + directory.count * step - 1
        first, last = (end // int(self._cluster) for end in ends)
        self._use(np.arange(first, last + 1, dtype=np.uint64), _OWNED)
        leaves: list[Entries] = []
        for first in range(0, directory.count, _CHUNK):
            raw = read_directory(table, self._source, table.root, first, min(_CHUNK, directory.count - first))
            states = leaf_states(table, self._source, raw)
            if (states == _CORRUPT).any():
                raise self._unsafe("an entry of its directory points where it must not", table.root)
            leaves.append(raw[states == _DATA])
        self._scan_leaves(table, directory, np.concatenate(leaves))

    def _scan_leaves(self, table: Table, directory: Directory, raw: Entries) -> None:
        offsets = offsets_of(directory.entry, raw)
        if len(distinct(offsets)[0]) < len(offsets):
            raise self._unsafe("two entries of its directory point to one table", table.root)
        owned = _owned(raw, directory.entry.owned)
        self._use(offsets[owned] // self._cluster, _OWNED)
        self._use(offsets[~owned] // self._cluster)
        size = directory.per_leaf * table.entry.step
        for batch in _batches(offsets, max(_BATCH_BYTES // size, 1)):
            data = bytearray(len(batch) * size)
            view = memoryview(data)
            for number, offset in enumerate(batch.tolist()):
                self._source.read_into(view[number * size : (number + 1) * size], offset)
            words = np.frombuffer(data, f"{table.entry.byte_order}u{table.entry.width}")
            self._scan_entries(table, words[:: table.entry.step // table.entry.width].astype(np.uint64))

    def _scan_entries(self, table: Table, raw: Entries) -> None:
        states = states_of(table.entry, raw)
        offsets = offsets_of(table.entry, raw)
        if (states == _CORRUPT).any():
            raise self._unsafe("an entry of its block table points where it must not", table.root)
        if table.data != table.source:
            return  # counts are those of the table's file
        if table.packed is not None:
            self._use_packed(table.packed, raw[states == _PACKED])
        # Zeros may keep a cluster, even one that the file does not reach to yet.
        kept = (states == _ZERO) & (offsets != 0) & (offsets < self._source.size)
        placed = (states == _DATA) | ((states == _SPLIT) & (offsets != 0)) | kept
        owned = _owned(raw, table.entry.owned)
        self._use(offsets[placed & owned] // self._cluster, _OWNED)
        self._use(offsets[placed & ~owned] // self._cluster, _SHARED)

    def _use_packed(self, packed: PackedEntry, raw: Entries) -> None:
        first, last = packed_clusters(packed, raw, self._cluster)
        end = np.uint64(max(len(self._uses) - 1, 0))  # the last sectors are rounded up
        self._use(first)
        for more in range(1, int((last - first).max()) + 1 if len(raw) else 1):
            clusters = first + np.uint64(more)
            self._use(clusters[(clusters <= last) & (clusters <= end)])


def _owned(raw: Entries, bits: int) -> Flags:
    owned: Flags = (raw & np.uint64(bits)) == np.uint64(bits)
    return owned


def packed_clusters(packed: PackedEntry, raw: Entries, cluster: np.uint64) -> tuple[Entries, Entries]:
    """The first and the last cluster that each packed block touches."""
    offsets = (raw & np.uint64(packed.mask)) * np.uint64(packed.scale)
    sectors = (raw >> np.uint64(packed.sectors_shift)) & np.uint64(packed.sectors_mask)
    last = (offsets // np.uint64(SECTOR) + sectors) * np.uint64(SECTOR)
    return offsets // cluster, last // cluster


def _batches(offsets: Entries, count: int) -> Iterator[Entries]:
    return (offsets[first : first + count] for first in range(0, len(offsets), count))
