"""What a VMDK needs to be sound again: grain tables from their copies, and copies from them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from drivebay.blockmap import FileEdit, Files, FileWrite, Layer, RepairStep, Table
from drivebay.formats.vmdk import cowd, header
from drivebay.formats.vmdk.check import counts_too_few, is_unclean, lacks_copy, sparse_extents
from drivebay.formats.vmdk.rules import read_header
from drivebay.formats.vmdk.scan import Entries, Flags, Leaf, Scan, Tables, numbers
from drivebay.formats.vmdk.sparse import Place, open_sparse
from drivebay.model import SECTOR


def repair(files: Files, layer: Layer) -> Iterator[RepairStep]:
    """The steps, each of which leaves an image that opens. Raises StorageError if it can't be read.

    Only entries that both copies have wrong are lost; where the two differ, what was read so far stays.
    """
    for extent, table in sparse_extents(files, layer):
        name = layer.sources[table.source - 1] if table.source else ""
        yield from _Repair(extent, table, name).steps()


class _Repair:
    """The repair of one extent; ``name`` is that of its file, as in `FileWrite`."""

    def __init__(self, files: Files, table: Table, name: str) -> None:
        self._files = files
        self._table = table
        self._name = name
        self._tables = Tables(files, table)
        self._end = files.size + -files.size % SECTOR
        self._healed: dict[int, tuple[Entries, Flags]] = {}

    def steps(self) -> Iterator[RepairStep]:
        if self._table.packed is None and self._table.entry.width == header.ENTRY_SIZE:
            scan = self._tables.scan()
            yield from self._heal(scan)
            yield from self._lost(scan)
            yield from self._free(scan)
            yield from self._count(scan)
        yield from self._flags()

    def _write(self, offset: int, data: bytes) -> FileEdit:
        return FileWrite(offset, data, self._name)

    def _message(self, text: str) -> str:
        return f"{self._name}: {text}" if self._name else text

    def _heal(self, scan: Scan) -> Iterator[RepairStep]:
        """Make tables equal that differ: an entry that can't be is taken from the other copy."""
        changes: list[FileEdit] = []
        for main, copy in scan.differing:
            raw, other = self._tables.read(main), self._tables.read(copy)
            healed = self._tables.bad(main, raw) & ~self._tables.bad(main, other)
            right = np.where(healed, other, raw)
            self._healed[main.offset] = right, healed
            changes += self._both(main, copy, right)
        if changes:
            message = f"make {len(scan.differing)} grain tables and their copies equal"
            yield RepairStep(self._message(message), tuple(changes))

    def _lost(self, scan: Scan) -> Iterator[RepairStep]:
        """Tables that are lost are made again from their copies, at the file's end; the other way, too."""
        lost = {leaf.number: leaf for leaf in scan.lost}
        copies = {leaf.number: leaf for leaf in scan.lost_copies}
        for wrong, others, root, what in (
            (lost, copies, self._mirror, "grain table"),
            (copies, lost, self._table.root, "redundant grain table"),
        ):
            for number, leaf in wrong.items():
                good = self._good(number, root) if number not in others else None
                yield self._remade(leaf, good, what)

    @property
    def _mirror(self) -> int | None:
        return self._table.mirrors[0] if self._table.mirrors else None

    def _good(self, number: int, root: int | None) -> bytes | None:
        """The bytes of table ``number`` of the directory at ``root``, if it is there."""
        if root is None:
            return None
        place = root + number * header.ENTRY_SIZE
        offset = int.from_bytes(self._files.read(place, header.ENTRY_SIZE), "little") * SECTOR
        data = self._files.read(offset, self._tables.leaf_size) if offset else b""
        return data if len(data) == self._tables.leaf_size else None

    def _remade(self, leaf: Leaf, good: bytes | None, what: str) -> RepairStep:
        if good is None:
            message = self._message(f"take {what} {leaf.number}, which is nowhere, out of its directory")
            return RepairStep(message, (self._write(leaf.entry, bytes(header.ENTRY_SIZE)),), loses=True)
        place = self._end
        self._end += len(good) + -len(good) % SECTOR
        message = self._message(f"make {what} {leaf.number} again from its copy, at {place}")
        entry = (place // SECTOR).to_bytes(header.ENTRY_SIZE, "little")
        changes = (self._write(place, good.ljust(self._end - place, b"\0")), self._write(leaf.entry, entry))
        return RepairStep(message, changes, loses=self._tells_more(leaf, good))

    def _tells_more(self, leaf: Leaf, good: bytes) -> bool:
        """Whether the table that goes is read now, and has grains that no other one has."""
        is_main = self._table.root <= leaf.entry < self._table.root + self._tables.directory_size
        if not is_main or not self._tables.is_inside(leaf):
            return False
        raw = self._tables.read(leaf)
        copy = numbers(self._table.entry, good)[: len(raw)]
        return bool((self._tables.unclaimed(leaf, raw) & (raw != copy)).any())

    def _free(self, scan: Scan) -> Iterator[RepairStep]:
        """Free what can't be, and all but the first entry for a grain, in both copies."""
        changes: list[FileEdit] = []
        freed = 0
        for main, copy, indices in scan.wrong:
            raw, healed = self._healed.get(main.offset) or (self._tables.read(main), None)
            gone = indices if healed is None else indices[~healed[indices]]
            if len(gone):
                raw[gone] = 0
                freed += len(gone)
                changes += self._both(main, copy, raw)
        if changes:
            message = f"free {freed} grains whose entries can't be, or are used twice"
            yield RepairStep(self._message(message), tuple(changes), loses=True)

    def _both(self, main: Leaf, copy: Leaf | None, raw: Entries) -> list[FileEdit]:
        data = raw.astype("<u4").tobytes()
        return [self._write(leaf.offset, data) for leaf in (main, copy) if leaf is not None]

    def _count(self, scan: Scan) -> Iterator[RepairStep]:
        if counts_too_few(self._files, scan):
            free = max(scan.end, self._end) // SECTOR
            change = self._write(cowd.FREE_OFFSET, free.to_bytes(4, "little"))
            yield RepairStep(self._message("count the sectors in use again"), (change,))

    def _flags(self) -> Iterator[RepairStep]:
        found = open_sparse(self._files, Place(self._table.start, self._table.length, self._table.source))
        if self._files.read(0, 4) == header.MAGIC:
            head = read_header(self._files)
            if lacks_copy(head, self._table):
                flags = (head.flags & ~header.REDUNDANT).to_bytes(4, "little")
                message = "say in the header that there is no redundant grain directory"
                yield RepairStep(self._message(message), (self._write(header.FLAGS_OFFSET, flags),))
        if found.mark is not None and is_unclean(self._files, found.mark):
            message = "mark the extent as closed"
            change = self._write(found.mark.offset, found.mark.closed)
            yield RepairStep(self._message(message), (change,))
