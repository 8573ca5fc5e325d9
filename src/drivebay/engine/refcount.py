"""The REFCOUNT allocator: clusters, each with a reference count in the image.

A count goes up, durably, before anything refers to the cluster, and down only after nothing does any
more: a crash leaves clusters counted that nobody uses, never the opposite.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from drivebay.blockmap import BlockState, Table, WritePlan
from drivebay.engine.change import Change
from drivebay.engine.punching import punch
from drivebay.engine.refcount_scan import ReferenceScan, packed_clusters
from drivebay.engine.refcount_table import RefcountTable
from drivebay.engine.source import FileSource
from drivebay.errors import ErrorKind, StorageError

_RUN = 64  # clusters


class RefcountSpace:
    """Hands out clusters of the file that holds ``tables``; safe for many threads."""

    def __init__(self, sources: Sequence[FileSource], tables: Sequence[Table], plan: WritePlan) -> None:
        assert plan.refcounts is not None
        self._tables = tuple(tables)
        self._table = self._tables[0]
        self._source = sources[self._table.source]
        self._punch = plan.punch
        self._counts = RefcountTable(self._source, self._table.source, plan.refcounts)
        self._cluster = plan.refcounts.cluster
        self._lock = threading.Lock()
        self._block = -1  # the block of counts whose free clusters are handed out, and those
        self._free: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._next = 0
        self._run: list[int] = []  # the next of them, last one first; they are counted as used already
        self._again: deque[int] = deque()  # clusters that came back, and may be used at once
        self._retired: deque[tuple[int, int]] = deque()  # newest operation that may use it, cluster
        self._kept_back: set[int] = set()  # free clusters that the search must not find
        self._stale_flags = True
        self._verified = 0  # clusters up to here: their uses were held against their counts; others are zeros

    def recount(self) -> None:
        """As `Space.recount`: every use must be counted, and what is to be written in place used once."""
        with self._lock:
            self._counts.load()
            scan = ReferenceScan(self._source, self._counts)
            self._block = scan.verify(self._tables) - 1
            self._stale_flags = scan.stale_flags
            self._verified = -(-self._source.size // self._cluster)

    def take(self, oldest_operation: int, _block: int) -> int | None:
        """As `Space.take`; the cluster counts as used from now on."""
        with self._lock:
            while self._retired and self._retired[0][0] < oldest_operation:
                self._again.append(self._retired.popleft()[1])
            return self._take(zeroed=True)

    def take_leaf(self) -> int:
        """As `LeafSpace.take_leaf`; its old bytes are still there."""
        with self._lock:
            offset = self._take(zeroed=False)
        if offset is None:
            raise StorageError(
                ErrorKind.NO_SPACE,
                "its table of reference counts can't grow any more, so the image is full; convert it to "
                "one with larger clusters",
                path=self._source.path,
                operation="write",
            )
        return offset

    def _take(self, *, zeroed: bool) -> int | None:
        if self._again:
            return self._take_again(zeroed=zeroed)
        if not self._run and not self._begin_run():
            return None
        cluster = self._run[-1]
        offset = cluster * self._cluster
        self._source.extend(offset + self._cluster)
        if zeroed and cluster < self._verified:
            self._source.zero_range(offset, self._cluster, punch=self._punch)
        self._run.pop()
        return offset

    def _take_again(self, *, zeroed: bool) -> int:
        cluster = self._again[0]
        offset = cluster * self._cluster
        self._source.extend(offset + self._cluster)
        if zeroed:
            self._source.zero_range(offset, self._cluster, punch=self._punch)
        self._counts.change(cluster, 1)
        self._kept_back.discard(self._again.popleft())
        return offset

    def _begin_run(self) -> bool:
        """Count some free clusters of one block as used, to be handed out; false: there are none."""
        while self._next >= len(self._free):
            free = self._counts.free_in(self._block + 1)
            if free is None:
                return False
            self._block += 1
            kept_back = np.fromiter(self._kept_back, np.int64, len(self._kept_back))
            self._free, self._next = free[~np.isin(free, kept_back)], 0
        run = self._free[self._next : self._next + _RUN]
        self._counts.count_run(self._block, run, used=True)
        self._next += len(run)
        self._run = run[::-1].tolist()
        return True

    def _end_run(self) -> None:
        """What is left of the run counts as free again, and is the first of the next run."""
        if self._run:
            self._counts.count_run(self._block, np.array(self._run, np.int64), used=False)
            self._next -= len(self._run)
            self._run = []

    def give_back(self, offset: int) -> None:
        """As `Space.give_back`."""
        with self._lock:
            cluster = offset // self._cluster
            self._counts.change(cluster, -1)
            self._kept_back.add(cluster)
            self._again.append(cluster)

    def retire(self, raws: Sequence[int], newest_operation: int) -> None:
        """As `Space.retire`. A failure only leaves counts too high until the next reservations."""
        with self._lock, contextlib.suppress(OSError):
            for raw in raws:
                self._retire(raw, newest_operation)
            self._counts.write_counts()

    def _retire(self, raw: int, newest_operation: int) -> None:
        state = self._table.entry.state(raw)
        for cluster in self._clusters_of(raw, state):
            if self._counts.change(cluster, -1) != 0:
                continue
            self._kept_back.add(cluster)
            self._retired.append((newest_operation, cluster))
            if state is BlockState.DATA and self._punch and not self._stale_flags:
                # Only what was discarded gets here: its older readers may see zeros. Others need the bytes.
                self._source.zero_range(cluster * self._cluster, self._cluster, punch=True)

    def _clusters_of(self, raw: int, state: BlockState) -> range:
        """What a raw entry gives back: of zeros and packed blocks, only what is verified to be theirs."""
        if state is BlockState.PACKED:
            assert self._table.packed is not None
            raws = np.array([raw], np.uint64)
            first, last = packed_clusters(self._table.packed, raws, np.uint64(self._cluster))
            return range(int(first[0]), min(int(last[0]) + 1, self._verified))
        cluster = self._table.entry.offset(raw) // self._cluster
        kept = state is BlockState.ZERO and cluster < self._verified
        points = cluster and (kept or state in (BlockState.DATA, BlockState.SPLIT))
        return range(cluster, cluster + 1) if points else range(0)

    def clear(self, raws: Sequence[int]) -> None:
        """As `Space.clear`; what something else uses, too, stays."""
        size = self._cluster
        with self._lock, contextlib.suppress(OSError):
            clusters = [each for raw in raws for each in self._clusters_of(raw, self._table.entry.state(raw))]
            free = [each * size for each in clusters if self._counts.count(each) == 0]
            if self._punch:
                punch(self._source, [(start, start + size) for start in free])

    def retire_leaf(self, offset: int) -> None:
        """As `LeafSpace.retire_leaf`. It rests until the disk is reopened, as its readers are not known."""
        with self._lock, contextlib.suppress(OSError):
            if self._counts.change(offset // self._cluster, -1) == 0:
                self._kept_back.add(offset // self._cluster)
            self._counts.write_counts()

    def shorten(self) -> None:
        """As `Space.shorten`: the file has no room ahead."""

    def reservations(self) -> list[list[Change]]:
        """As `Space.reservations`: blocks of counts, then what points to them, then the header."""
        with self._lock:
            self._end_run()
            return self._counts.stages()

    def reserved(self) -> None:
        """As `Space.reserved`; a table of counts that was left behind is free from now on."""
        with self._lock, contextlib.suppress(OSError):
            for cluster in self._counts.done():
                self._kept_back.add(cluster)
                self._again.append(cluster)
            self._counts.write_counts()
