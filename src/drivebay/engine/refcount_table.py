"""The reference counts of an image's clusters: read when needed, changed in memory, written in stages.

The table (`drivebay.blockmap.Refcounts`) points to blocks of counts. A new block lies in the first of the
clusters that it counts, and so counts itself; when the table is full, a larger one takes its place. What
points to a block or a table is written only after it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from drivebay.blockmap import Refcounts
from drivebay.blockmap.counts import Counts, pack_counts, unpack_counts
from drivebay.engine.change import Change
from drivebay.engine.source import FileSource
from drivebay.engine.tables import distinct
from drivebay.errors import ErrorKind, StorageError

_ENTRY = 8
_LARGEST_TABLE = 8 << 20  # what QEMU reads
_LARGEST_FILE = 1 << 56  # what block tables can point to
_CACHE_BYTES = 32 << 20
_UNALIGNED = 511


@dataclass(slots=True)
class _Changes:
    """What memory is ahead of the file in: ranges of counts by block, new blocks, tables left behind."""

    counts: dict[int, tuple[int, int]] = field(default_factory=dict)
    blocks: set[int] = field(default_factory=set)
    replaced: list[range] = field(default_factory=list)

    def count(self, block: int, index: int) -> None:
        """The count ``index`` of a block has changed."""
        low, high = self.counts.get(block, (index, index + 1))
        self.counts[block] = min(low, index), max(high, index + 1)

    def add(self, other: _Changes) -> None:
        """Take in what ``other`` holds."""
        for block, (low, high) in other.counts.items():
            self.count(block, low)
            self.count(block, high - 1)
        self.blocks |= other.blocks
        self.replaced += other.replaced


class RefcountTable:
    """The counts in source number ``number``. Not safe for threads: its owner has a lock."""

    def __init__(self, source: FileSource, number: int, refcounts: Refcounts) -> None:
        self._source = source
        self._number = number
        self._refcounts = refcounts
        self.cluster = refcounts.cluster
        self.per_block = refcounts.cluster * 8 // refcounts.bits
        self._root = refcounts.root
        self._entries: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._blocks: OrderedDict[int, Counts] = OrderedDict()
        self._changes = _Changes()
        self._reserving = _Changes()

    def load(self) -> None:
        """Read the table. Raises CORRUPT where it points out of the file, or twice to one block."""
        self._root = self._refcounts.root
        data = bytearray(self._refcounts.table_clusters * self.cluster)
        self._source.read_into(memoryview(data), self._root)
        self._entries = np.frombuffer(data, ">u8").astype(np.uint64)
        used = self._entries[self._entries != 0]
        end = self._source.size - self.cluster
        if (used > end).any() or (used % np.uint64(self.cluster)).any() or len(distinct(used)[0]) < len(used):
            raise unsafe_counts(
                self._source.path,
                "its refcount table points out of the file or twice to one block",
                self._root,
            )

    @property
    def clusters(self) -> npt.NDArray[np.uint64]:
        """The clusters that table and blocks themselves take."""
        table = np.arange(len(self._entries) * _ENTRY // self.cluster, dtype=np.uint64)
        blocks = self._entries[self._entries != 0]
        return np.concatenate(
            [table + np.uint64(self._root // self.cluster), blocks // np.uint64(self.cluster)]
        )

    @property
    def block_numbers(self) -> list[int]:
        """The blocks that are there."""
        return [int(block) for block in np.flatnonzero(self._entries)]

    def counts(self, block: int) -> Counts | None:
        """The counts of ``per_block`` clusters; ``None``: there is no such block, so all are 0."""
        found = self._blocks.get(block)
        if found is not None:
            self._blocks.move_to_end(block)
            return found
        if block >= len(self._entries) or self._entries[block] == 0:
            return None
        data = bytearray(self.cluster)
        self._source.read_into(memoryview(data), int(self._entries[block]))
        return self._keep(block, unpack_counts(bytes(data), self._refcounts.bits))

    def _keep(self, block: int, counts: Counts) -> Counts:
        self._blocks[block] = counts
        most = max(_CACHE_BYTES // counts.nbytes, 2)
        if len(self._blocks) > most:
            unchanged = (known for known in self._blocks if known != block and not self._is_changed(known))
            for known in list(islice(unchanged, len(self._blocks) - most)):
                del self._blocks[known]
        return counts

    def _is_changed(self, block: int) -> bool:
        return any(
            block in changes.counts or block in changes.blocks for changes in (self._changes, self._reserving)
        )

    def count(self, cluster: int) -> int:
        """How often a cluster is used."""
        block, index = divmod(cluster, self.per_block)
        counts = self.counts(block)
        return 0 if counts is None else int(counts[index])

    def change(self, cluster: int, by: int) -> int:
        """Count a cluster up or down; its block exists. Returns the new count, -1 where it was 0 already."""
        block, index = divmod(cluster, self.per_block)
        counts = self.counts(block)
        value = by + (0 if counts is None else int(counts[index]))
        if counts is not None and value >= 0:
            counts[index] = value
            self._changes.count(block, index)
        return value

    def count_run(self, block: int, clusters: npt.NDArray[np.int64], *, used: bool) -> None:
        """Clusters of one block, which exists, are used once from now on, or not at all."""
        counts = self.counts(block)
        assert counts is not None
        indices = clusters - block * self.per_block
        counts[indices] = used
        for index in (indices.min(), indices.max()):
            self._changes.count(block, int(index))

    def free_in(self, block: int) -> npt.NDArray[np.int64] | None:
        """The clusters of a block whose count is 0; the block is made if need be. ``None``: it can't be."""
        counts = self.counts(block)
        if counts is None:
            if (block + 1) * self.per_block * self.cluster > _LARGEST_FILE:
                return None
            if block >= len(self._entries) and not self._grow():
                return None
            counts = self.counts(block)
            counts = self._add_block(block) if counts is None else counts
        return np.flatnonzero(counts == 0) + block * self.per_block

    def _add_block(self, block: int) -> Counts:
        counts = unpack_counts(bytes(self.cluster), self._refcounts.bits)
        counts[0] = 1
        self._entries[block] = block * self.per_block * self.cluster
        self._changes.blocks.add(block)
        return self._keep(block, counts)

    def _grow(self) -> bool:
        """Make a larger table behind everything that the full one counts; false: no larger one can be."""
        old = len(self._entries) * _ENTRY // self.cluster
        table = min(max(old + 1, old * 3 // 2), _LARGEST_TABLE // self.cluster)
        if table <= old:
            return False
        first = len(self._entries)
        blocks = -(-table // (self.per_block - 1))  # each counts itself, too
        start = first * self.per_block + blocks
        self._changes.replaced.append(range(self._root // self.cluster, self._root // self.cluster + old))
        self._entries = np.concatenate(
            [self._entries, np.zeros((table - old) * self.cluster // _ENTRY, np.uint64)]
        )
        for number in range(blocks):
            self._add_grown(first + number, (first * self.per_block + number) * self.cluster)
        for cluster in range(first * self.per_block, start + table):
            self.change(cluster, 1)
        self._root = start * self.cluster
        return True

    def _add_grown(self, block: int, offset: int) -> None:
        self._entries[block] = offset
        self._changes.blocks.add(block)
        self._keep(block, unpack_counts(bytes(self.cluster), self._refcounts.bits))

    def stages(self) -> list[list[Change]]:
        """Changes that bring the file up to memory, each stage to be durable before the next."""
        self._reserving.add(self._changes)
        changes, self._changes = self._reserving, _Changes()
        content = list(self._contents(changes))
        if not changes.replaced:
            entries = [self._entry_change(block) for block in sorted(changes.blocks)]
            return [stage for stage in (content, entries) if stage]
        content.append(self._change(self._root, self._entries.astype(">u8").tobytes()))
        return [content, [self._change(self._refcounts.place, self._header_field())]]

    def _contents(self, changes: _Changes) -> Iterator[Change]:
        for block in sorted(changes.counts.keys() | changes.blocks):
            whole = block in changes.blocks
            low, high = (0, self.per_block) if whole else changes.counts[block]
            yield self._counts_change(block, low, high)

    def _counts_change(self, block: int, low: int, high: int) -> Change:
        bits = self._refcounts.bits
        first, last = low * bits // 8, -(-high * bits // 8)  # whole bytes
        counts = self._blocks[block][first * 8 // bits : last * 8 // bits]
        return self._change(int(self._entries[block]) + first, pack_counts(counts, bits))

    def _entry_change(self, block: int) -> Change:
        return self._change(self._root + block * _ENTRY, int(self._entries[block]).to_bytes(_ENTRY, "big"))

    def _header_field(self) -> bytes:
        clusters = len(self._entries) * _ENTRY // self.cluster
        return self._root.to_bytes(8, "big") + clusters.to_bytes(4, "big")

    def _change(self, offset: int, data: bytes) -> Change:
        return Change(self._number, offset, data)

    def done(self) -> list[int]:
        """The last stages are durable; returns the clusters of tables that were left behind, now free."""
        left = [cluster for table in self._reserving.replaced for cluster in table]
        self._reserving = _Changes()
        for cluster in left:
            self.change(cluster, -1)
        return left

    def write_counts(self) -> None:
        """Write changed counts of blocks that the file has; what fails is left to the next stages."""
        for block in [block for block in self._changes.counts if block not in self._changes.blocks]:
            change = self._counts_change(block, *self._changes.counts[block])
            self._source.write(change.data, change.offset)
            del self._changes.counts[block]


def unsafe_counts(path: str, what: str, offset: int) -> StorageError:
    """The error for an image whose reference counts must not be relied on."""
    return StorageError(
        ErrorKind.CORRUPT,
        f"{what}, so writing could destroy data; run 'drivebay repair' on it, or open it read-only",
        path=path,
        offset=offset,
        operation="write",
    )
