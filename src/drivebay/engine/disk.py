"""Disk: an opened chain, the only object that moves guest bytes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from drivebay.blockmap import BlockState
from drivebay.engine import batch
from drivebay.engine.active import ActiveLayer
from drivebay.engine.batch import DONE, LATER, Outcome
from drivebay.engine.extents import merged, page_extents
from drivebay.engine.joining import require_empty, require_parent, require_same_disk
from drivebay.engine.operations import Operations
from drivebay.engine.pagemap import PageMap
from drivebay.engine.reader import Reader
from drivebay.engine.shared import Shared
from drivebay.engine.source import Buffer, OpenedLayer
from drivebay.engine.stats import DiskStats
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import CacheMode, Extent

DEFAULT_MAP_BUDGET = 64 << 20


class Disk:
    """A virtual disk made of ``layers``, the top (active) one first. Owns their files.

    Safe for many threads. Offsets and lengths are bytes and need no alignment; a range outside
    ``[0, size)`` raises StorageError of kind RANGE. Every completed write is readable at once, by
    everybody; it survives a power cut once a flush that began after it has returned (at once in
    writethrough mode; never surely in unsafe mode). `zero` and `discard` are writes too.

    ``map_budget`` bounds the memory of the map in bytes.
    """

    def __init__(
        self,
        layers: Sequence[OpenedLayer],
        *,
        writable: bool = False,
        cache: CacheMode = CacheMode.WRITEBACK,
        map_budget: int = DEFAULT_MAP_BUDGET,
    ) -> None:
        self.size = layers[0].layer.facts.size
        self.cache = cache
        self.writable = writable
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._layering = threading.Lock()  # held by whoever changes the layers
        self._operations = Operations(self._changed)
        self._map = PageMap(layers, self.size, map_budget)
        self._reader = Reader(self._changed, self._map)
        self._stats = DiskStats()
        self._active = self._activate(self._map, self._reader) if writable else None
        self._writethrough = cache is CacheMode.WRITETHROUGH

    def _activate(self, page_map: PageMap, reader: Reader) -> ActiveLayer:
        return ActiveLayer(self._shared(page_map, reader), durable=self.cache is not CacheMode.UNSAFE)

    def _shared(self, page_map: PageMap, reader: Reader) -> Shared:
        return Shared(self._changed, page_map, reader, self._operations, self._stats)

    @property
    def layers(self) -> tuple[OpenedLayer, ...]:
        """The layers, top first."""
        return tuple(layer.opened for layer in self._map.layers)

    @property
    def depth(self) -> int:
        """The number of layers."""
        return len(self._map.layers)

    @property
    def block_size(self) -> int:
        """The I/O granularity that suits the disk best, in bytes."""
        return self.layers[0].layer.facts.block_size or 4096

    @property
    def stats(self) -> DiskStats:
        """Counters; the same object at every call, brought up to date."""
        self._stats.map_bytes = self._map.bytes
        return self._stats

    def _check(self, offset: int, length: int) -> None:
        self._operations.require_open()
        if offset < 0 or length < 0 or offset + length > self.size:
            raise StorageError(
                ErrorKind.RANGE,
                f"{length} bytes at {offset} do not lie within the disk of {self.size} bytes",
                offset=offset,
            )

    def _require_active(self) -> ActiveLayer:
        if self._active is None:
            path = self.layers[0].sources[0].path
            raise StorageError(
                ErrorKind.READ_ONLY, "the disk was opened read-only; open it writable", path=path
            )
        return self._active

    def _writing(self) -> ActiveLayer:
        active = self._require_active()
        active.arm()
        return active

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``."""
        self._check(offset, length)
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` from ``offset``."""
        self._check(offset, len(view))
        with self._operations.under_way(writes=False):
            self._reader.read_into(offset, view)
        self._stats.reads += 1
        self._stats.read_bytes += len(view)

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write ``data`` at ``offset``; with ``fua`` it is durable when this returns."""
        view = memoryview(data).cast("B")
        self._check(offset, len(view))
        with self._operations.under_way(writes=True):
            self._writing().writer.write(offset, view)
        self._stats.writes += 1
        self._stats.written_bytes += len(view)
        self._after_write(fua=fua)

    def zero(
        self, offset: int, length: int, *, unmap: bool = True, fua: bool = False, own: bool = False
    ) -> None:
        """Let a range read as zeros, whatever the parents hold; ``unmap`` may give its space back.

        With ``own`` the active image itself says so, even where a parent does already: that one may go.
        """
        self._check(offset, length)
        with self._operations.under_way(writes=True):
            self._writing().writer.zero(offset, length, unmap=unmap, hide=True, own=own)
        self._stats.zeros += 1
        self._after_write(fua=fua)

    def discard(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Give a range's space back; it reads as zeros afterwards, whatever the parents hold."""
        self._check(offset, length)
        with self._operations.under_way(writes=True):
            self._writing().writer.zero(offset, length, unmap=True, hide=False)
        self._stats.discards += 1
        self._after_write(fua=fua)

    def drop(self, offset: int, length: int) -> None:
        """Forget what the active image holds of a range, so that its parents' bytes show there.

        Only blocks of the image that lie wholly in the range (the disk's end may cut the last one) are
        dropped; others stay as they are. When this returns that is durable, and the host has got back the
        space of the dropped blocks. Reads and writes wait meanwhile. Raises StorageError, STATE for an
        image without a parent; where the change fails, the disk goes on showing what it did.
        """
        self._check(offset, length)
        require_parent(self.layers[0])
        with self.freeze():
            if length:
                self._writing().dropper.drop(offset, length)

    def zero_is_fast(self, offset: int, length: int) -> bool:
        """Whether zeroing a range needs neither a copy from a parent nor zeros written out."""
        self._check(offset, length)
        with self._operations.under_way(writes=False):
            return self._active is not None and self._active.writer.zero_is_fast(offset, length)

    def _after_write(self, *, fua: bool) -> None:
        if fua or self._writethrough:
            self.flush()
        elif self.commit_due():
            self._commit()

    def _commit(self) -> None:
        if self._active is not None:
            with self._operations.under_way(writes=False):
                self._active.committer.flush()

    def flush(self) -> None:
        """All writes that completed before are durable when this returns.

        Where the host fails to make them so, the disk is poisoned: reads go on, writes and flushes fail.
        """
        self._check(0, 0)
        if self._active is not None:
            self._commit()
            self._stats.flushes += 1

    def commit_due(self) -> bool:
        """Whether changes wait that should be brought to the file without a guest's flush."""
        return self._active is not None and not self._active.poisoned and self._active.committer.due()

    def verify_writable(self) -> None:
        """Verify the active layer's table now, ahead of the first write; changes nothing.

        Raises what would forbid writing.
        """
        with self._operations.under_way(writes=True):
            self._require_active().committer.verify()

    def prefetch(self, offset: int, length: int) -> None:
        """Have the host read a range into its cache."""
        self._check(offset, length)
        with self._operations.under_way(writes=False):
            for piece in self._reader.pieces(offset, length):
                if piece.state == BlockState.DATA:
                    self._map.sources[piece.source].prefetch(piece.offset, piece.length)

    def extents(self, offset: int = 0, length: int | None = None) -> Iterator[Extent]:
        """What the range is made of: extents in order that cover it exactly, neighbours merged."""
        length = self.size - offset if length is None else length
        self._check(offset, length)
        return merged(self._extents(offset, offset + length))

    def _extents(self, position: int, end: int) -> Iterator[Extent]:
        while position < end:
            stop, found = self._page_extents(position, end)
            yield from found
            position = stop

    def _page_extents(self, position: int, end: int) -> tuple[int, list[Extent]]:
        """The extents of one page of the map, and where they end."""
        with self._operations.under_way(writes=False):
            self._reader.load(position, 1)
            try:
                index = position // self._map.page_span
                stop = min(end, (index + 1) * self._map.page_span)
                page, splits = self._map.pages[index], self._map.splits[index]
                return stop, list(page_extents(self._map, index, page, splits, position, stop))
            finally:
                self._changed.release()

    def read_batch(self, requests: Sequence[tuple[int, memoryview]]) -> list[Outcome]:
        """Fill ``(offset, view)`` requests that need no waiting; see `Outcome`. One thread at a time."""
        with self._lock:
            if self._operations.closed or self._operations.frozen:
                return [LATER] * len(requests)
            outcomes = batch.read_batch(self._map, requests)
        lengths = _done_lengths(requests, outcomes)
        self._stats.reads += len(lengths)
        self._stats.read_bytes += sum(lengths)
        return outcomes

    def write_batch(self, requests: Sequence[tuple[int, memoryview]]) -> list[Outcome]:
        """Write ``(offset, view)`` requests that need no waiting; see `Outcome`. One thread at a time."""
        with self._lock:
            active = self._active
            if active is None or self._holds_batches() or not active.ready:
                return [LATER] * len(requests)
            outcomes = batch.write_batch(self._map, active.writer.tags, active.first_writes.write, requests)
            active.committer.epoch.dirty = True
        lengths = _done_lengths(requests, outcomes)
        self._stats.writes += len(lengths)
        self._stats.written_bytes += sum(lengths)
        return outcomes

    def _holds_batches(self) -> bool:
        operations = self._operations
        return bool(operations.held or operations.frozen or operations.closed or self._writethrough)

    @contextmanager
    def quiesce(self) -> Iterator[None]:
        """Everything flushed, and no write under way or begun until the block ends."""
        self._operations.hold_writers()
        try:
            self.flush()
            yield
        finally:
            self._operations.release_writers()

    @contextmanager
    def freeze(self) -> Iterator[None]:
        """Everything flushed, and no operation at all under way or begun until the block ends.

        Whoever froze the disk may `rebase` it, from any thread, and nothing else: a read would wait for the
        end of the block. Others who freeze it or push a layer wait, too. `close` doesn't: what waited is
        refused then.
        """
        with self.quiesce(), self._layering, self._operations.freeze():
            yield

    def settle(self) -> None:
        """Let the active image's files be as if closed, so that somebody else may change them.

        Only while the disk is frozen, which is to be rebased to layers opened anew before it ends.
        """
        self._require_frozen()
        if self._active is not None:
            self._active.committer.close()

    def push(self, layer: OpenedLayer) -> None:
        """Make an empty layer the active one, while the disk is in use: an online snapshot.

        It must be of the disk's size and hold no blocks. What was the active layer is written no more.
        """
        require_empty(layer, self.size, writable=self.writable)
        with self.quiesce(), self._layering:
            if self._active is not None:
                self._active.committer.close()
            with self._lock:
                self._operations.require_open()
                self._map.push(layer)
                if self.writable:
                    self._active = self._activate(self._map, self._reader)

    def rebase(self, layers: Sequence[OpenedLayer]) -> None:
        """Show ``layers``, opened anew and top first, from now on: the same disk, made of other files.

        Only while the disk is frozen. The caller answers for the content. An opened layer that the disk has
        already may be among them (as the top, it goes on being written where it is); the files of all others
        that it had are closed. Nothing changes where an error is raised, and the layers stay the caller's.
        """
        self._require_frozen()
        require_same_disk(layers, self.size, writable=self.writable)
        page_map = PageMap(layers, self.size, self._map.budget)
        reader = Reader(self._changed, page_map)
        active = self._active
        if active is not None and layers[0] is not self.layers[0]:
            fresh = self._activate(page_map, reader)
            active.committer.close()
            active = fresh
        with self._lock:
            self._operations.require_open()
            if active is not None:
                active.move(self._shared(page_map, reader))
            old, self._map, self._reader, self._active = self._map, page_map, reader, active
        _close_others(old, page_map)

    def _require_frozen(self) -> None:
        if not self._operations.frozen:
            raise StorageError(
                ErrorKind.STATE, "layers are replaced only while the disk is frozen; freeze it"
            )

    def close(self) -> None:
        """Wait for what is under way, flush if writable, and close all files, even if the flush fails."""
        if not self._operations.close():
            return
        try:
            if self._active is not None:
                self._active.committer.flush()
                self._active.committer.close()
        finally:
            for source in self._map.sources:
                source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _done_lengths(requests: Sequence[tuple[int, memoryview]], outcomes: list[Outcome]) -> list[int]:
    if outcomes.count(DONE) == len(outcomes):
        return [len(view) for _, view in requests]
    pairs = zip(requests, outcomes, strict=True)
    return [len(view) for (_, view), outcome in pairs if outcome is not LATER]


def _close_others(old: PageMap, new: PageMap) -> None:
    """Close the files that only the old map has; all was flushed, so a failure loses nothing."""
    kept = {id(source) for source in new.sources}
    for source in old.sources:
        if id(source) not in kept:
            with contextlib.suppress(OSError):
                source.close()
