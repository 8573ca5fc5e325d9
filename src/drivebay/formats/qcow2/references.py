"""A walk over all tables of a QCOW2 image that counts how often each cluster is used.

Each L2 table is read once, however many L1 tables point to it, so the time that a walk takes is bounded
by the file's size. Memory: four bytes for each cluster of the file, and the L1 tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.qcow2.bitmaps import read_bitmaps
from drivebay.formats.qcow2.faults import Faults
from drivebay.formats.qcow2.header import COMPRESSED, COPIED, OFFSET_MASK, ZERO
from drivebay.formats.qcow2.image import Image
from drivebay.formats.qcow2.layer import packed_entry
from drivebay.formats.qcow2.snapshots import Snapshot, check_table
from drivebay.model import SECTOR

Entries = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]
MOST_CLUSTERS = 1 << 30  # what a sparse file claims must not fill the memory
_MOST = (1 << 32) - 1
_BITMAP_ENTRY = 0x00FF_FFFF_FFFF_FE00


class WrongFlag(NamedTuple):
    """An entry that says wrongly that nobody else uses its cluster."""

    offset: int
    raw: int


class References:
    """Counts uses in ``times``, one number for each cluster of the file; ``faults`` says what is wrong.

    ``overlapping`` are, after `finish`, the clusters of tables that something else uses, too.
    """

    def __init__(self, files: Files, image: Image) -> None:
        self.files = files
        self.image = image
        self.cluster = image.header.cluster
        clusters = -(-files.size // self.cluster)
        if clusters > MOST_CLUSTERS:
            message = f"the file has {clusters} clusters, more than the {MOST_CLUSTERS} that can be checked"
            remedy = "use 'qemu-img check'"
            raise StorageError(ErrorKind.UNSUPPORTED, f"{message}; {remedy}", path=files.path)
        self.times = np.zeros(clusters, np.uint32)
        self.faults = Faults()
        self.overlapping: frozenset[int] = frozenset()
        self._metadata = np.zeros(len(self.times), np.bool_)
        self._roots: list[tuple[int, int]] = []
        self._tables: tuple[Entries, npt.NDArray[np.int64]] | None = None

    def walk(self) -> None:
        """Count everything but the refcount table and its blocks. Raises StorageError for a failing read."""
        header = self.image.header
        self.use_metadata(0, self.cluster)
        roots = [(header.l1_offset, header.l1_size)]
        roots += [(one.l1_offset, one.l1_size) for one in self._sound_snapshots()]
        for root, count in roots:
            self.use_metadata(root, count * 8)
        self._roots = roots
        self._walk_bitmaps()
        entries = [self._l1(root, count) for root, count in roots]
        tables, weights = np.unique(np.concatenate(entries), return_counts=True)
        self._tables = (tables // np.uint64(self.cluster), weights)
        self._use(*self._tables)
        cut = tables[tables + np.uint64(self.cluster) > self.files.size]  # the last one, if any
        self.faults.add("cut", int(cut.sum()), len(cut))
        for table, weight in zip(tables.tolist(), weights.tolist(), strict=True):
            self._walk_l2(table, self.read_words(table, self.cluster)[:: header.step // 8], weight)

    def finish(self) -> None:
        """After everything was counted: which clusters of tables have other uses."""
        shared = [np.flatnonzero(self._metadata & (self.times > 1))]
        if self._tables is not None:
            tables, weights = self._tables
            shared.append(tables[self.times[tables] > weights].astype(np.int64))
        self.overlapping = frozenset(np.concatenate(shared).tolist())
        if self.overlapping:
            self.faults.add("overlap", min(self.overlapping) * self.cluster, len(self.overlapping))

    def use_metadata(self, offset: int, length: int) -> None:
        """A table at ``offset``, in the file, uses its clusters alone."""
        clusters = np.arange(offset // self.cluster, -(-(offset + length) // self.cluster), dtype=np.uint64)
        self._metadata[clusters[clusters < len(self.times)]] = True
        self._use(clusters, np.ones(len(clusters), np.int64))

    def read_words(self, offset: int, length: int) -> Entries:
        """``length`` bytes as 64-bit numbers; what the file lacks counts as zeros."""
        data = self.files.read(offset, length).ljust(length, b"\0")
        return np.frombuffer(data, ">u8").astype(np.uint64)

    def _use(self, clusters: Entries, weights: npt.NDArray[np.int64]) -> None:
        inside = clusters < len(self.times)
        found, places = np.unique(clusters[inside], return_inverse=True)
        added = np.bincount(places, weights[inside], len(found)).astype(np.int64)
        self.times[found] = np.minimum(self.times[found] + added, _MOST).astype(np.uint32)

    def _sound_snapshots(self) -> Iterator[Snapshot]:
        """Snapshots with an L1 table of their own, as long as all of these fit into the file."""
        header, files = self.image.header, self.files
        if self.image.snapshots:
            last = self.image.snapshots[-1]
            self.use_metadata(header.snapshots_offset, last.offset + last.length - header.snapshots_offset)
        room = files.size
        for snapshot in self.image.snapshots:
            room -= snapshot.l1_size * 8
            try:
                check_table(files, header, snapshot)
            except StorageError:
                room = min(room, room + snapshot.l1_size * 8)
                self.faults.add("snapshot", snapshot.offset)
                continue
            if room < 0:
                self.faults.add("snapshot", snapshot.offset)
                return
            yield snapshot

    def _l1(self, root: int, count: int) -> Entries:
        raw = self.read_words(root, count * 8)
        offsets = raw & np.uint64(OFFSET_MASK)
        return offsets[self._sound(offsets, root)]

    def _sound(self, offsets: Entries, place: int) -> Flags:
        """Which offsets, from a table at ``place``, are those of a cluster in the file. 0 is none."""
        unaligned, outside = self._faulty(offsets)
        self.faults.add("unaligned", place, int(unaligned.sum()))
        self.faults.add("outside", place, int(outside.sum()))
        sound: Flags = (offsets != 0) & ~unaligned & ~outside
        return sound

    def _faulty(self, offsets: Entries) -> tuple[Flags, Flags]:
        """Which offsets are no cluster's, and which lie behind the file's end."""
        unaligned: Flags = offsets % np.uint64(self.cluster) != 0
        outside: Flags = offsets >= self.files.size
        return unaligned, outside

    def _walk_l2(self, place: int, raw: Entries, weight: int) -> None:
        header = self.image.header
        packed = raw & np.uint64(COMPRESSED) != 0
        if header.has_data_file:
            self.faults.add("impossible", place, int(packed.sum()))
            return
        if header.version == 2:
            self.faults.add("impossible", place, int((~packed & (raw & np.uint64(ZERO) != 0)).sum()))
        self._walk_packed(place, raw[packed], weight)
        offsets = raw[~packed] & np.uint64(OFFSET_MASK)
        offsets = offsets[self._sound(offsets, place)]
        self._use(offsets // np.uint64(self.cluster), np.full(len(offsets), weight))

    def _walk_packed(self, place: int, raw: Entries, weight: int) -> None:
        entry = packed_entry(self.image.header)
        offsets = raw & np.uint64(entry.mask)
        outside = offsets >= self.files.size
        self.faults.add("outside", place, int(outside.sum()))
        raw, offsets = raw[~outside], offsets[~outside]
        sectors = (raw >> np.uint64(entry.sectors_shift)) & np.uint64(entry.sectors_mask)
        first = offsets // np.uint64(self.cluster)
        last = (offsets // np.uint64(SECTOR) + sectors) * np.uint64(SECTOR) // np.uint64(self.cluster)
        for more in range(3):  # two clusters of sectors, which need not begin at a boundary
            clusters = first + np.uint64(more)
            clusters = clusters[clusters <= last]
            self._use(clusters, np.full(len(clusters), weight))

    def _walk_bitmaps(self) -> None:
        """The bitmaps' clusters, if the image says that they are consistent: stale ones are nobody's."""
        directory = self.image.bitmaps
        if directory is None or not self.image.header.autoclear & 1:
            return
        self.use_metadata(directory.offset, directory.length)
        room = self.files.size
        for bitmap in read_bitmaps(self.files, directory):
            room -= bitmap.table_size * 8
            end = bitmap.table_offset + bitmap.table_size * 8
            if bitmap.table_offset % self.cluster or end > self.files.size or room < 0:
                self.faults.add("bitmap", directory.offset)
                return
            self.use_metadata(bitmap.table_offset, bitmap.table_size * 8)
            offsets = self.read_words(bitmap.table_offset, bitmap.table_size * 8) & np.uint64(_BITMAP_ENTRY)
            unaligned, outside = self._faulty(offsets)
            self.faults.add("bitmap", bitmap.table_offset, int((unaligned | outside).sum()))
            offsets = offsets[(offsets != 0) & ~unaligned & ~outside]
            self._use(offsets // np.uint64(self.cluster), np.ones(len(offsets), np.int64))

    def dangling(self) -> Iterator[tuple[int, int]]:
        """Entries of any L1 and L2 table that point out of the file, or to no boundary of a cluster.

        Where each lies in the file, and its length.
        """
        for root, count in self._roots:
            raw = self.read_words(root, count * 8)
            yield from self._dangling(raw & np.uint64(OFFSET_MASK), root, 8)
        if self._tables is None or self.image.header.has_data_file:
            return
        entry, step = packed_entry(self.image.header), self.image.header.step
        for table in (self._tables[0] * np.uint64(self.cluster)).tolist():
            raw = self.read_words(table, self.cluster)[:: step // 8]
            packed = raw & np.uint64(COMPRESSED) != 0
            yield from self._dangling(np.where(packed, 0, raw & np.uint64(OFFSET_MASK)), table, step)
            lost = packed & (raw & np.uint64(entry.mask) >= self.files.size)
            yield from _places(lost, table, step)

    def _dangling(self, offsets: Entries, place: int, step: int) -> Iterator[tuple[int, int]]:
        unaligned, outside = self._faulty(offsets)
        yield from _places(unaligned | outside, place, step)

    def wrong_flags(self) -> Iterator[WrongFlag]:
        """Entries of the active tables that say they own a cluster which is used more than once."""
        header = self.image.header
        raw = self.read_words(header.l1_offset, header.l1_size * 8)
        yield from self._wrong(raw, header.l1_offset, 8)
        tables = raw & np.uint64(OFFSET_MASK)
        unaligned, outside = self._faulty(tables)
        for table in np.unique(tables[(tables != 0) & ~unaligned & ~outside]).tolist():
            words = self.read_words(table, self.cluster)[:: header.step // 8]
            if not header.has_data_file:
                yield from self._wrong(words, table, header.step)

    def _wrong(self, raw: Entries, place: int, step: int) -> Iterator[WrongFlag]:
        owned = (raw & np.uint64(COPIED) != 0) & (raw & np.uint64(COMPRESSED) == 0)
        clusters = (raw & np.uint64(OFFSET_MASK)) // np.uint64(self.cluster)
        known = owned & (clusters < len(self.times)) & (clusters > 0)
        shared = np.flatnonzero(known)[self.times[clusters[known]] > 1]
        for index in shared.tolist():
            yield WrongFlag(place + index * step, int(raw[index]))


def _places(chosen: Flags, table: int, step: int) -> Iterator[tuple[int, int]]:
    for index in np.flatnonzero(chosen).tolist():
        yield table + index * step, step
