"""Blocking writes: in place, into new blocks with copy-up, and zeros.

One block is allocated by one operation at a time; others that want to write it wait. Readers see the
old mapping until the new block's data is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from drivebay.blockmap import BlockState, WritePlan
from drivebay.engine.active_table import ActiveTable
from drivebay.engine.epoch import Committer, Place
from drivebay.engine.mapentry import TAG_SHIFT, pack
from drivebay.engine.pagemap import Piece, part_of
from drivebay.engine.reader import corrupt_block
from drivebay.engine.shared import Shared
from drivebay.engine.source import Buffer, FileSource
from drivebay.engine.targets import NO_TABLE, Target, Targets
from drivebay.errors import ErrorKind, StorageError, from_os_error

_COPY_CHUNK = 1 << 20
_RECLAIM_POLL = 0.02  # seconds
_RECLAIM_SECONDS = 30.0
_BYTES = frozenset({BlockState.DATA, BlockState.PACKED})  # states that have bytes somewhere


class Writer:
    """Writes to the active layer; safe for many threads, within an operation that writes.

    ``tags`` are those of map entries that may be written in place; ``in_flight`` are the blocks that
    somebody is giving new space to, guarded by the disk's lock.
    """

    def __init__(
        self, shared: Shared, committer: Committer, plan: WritePlan, tables: Sequence[ActiveTable]
    ) -> None:
        self._changed = shared.changed
        self._map = shared.page_map
        self._reader = shared.reader
        self._operations = shared.operations
        self._stats = shared.stats
        self._committer = committer
        self._plan = plan
        self._tables = tables
        self._targets = Targets(tables)
        self.in_flight: set[Place] = set()
        self._top = self._map.layers[0]
        self.tags = frozenset(
            pack(BlockState.DATA, self._top.first_source + i, in_place=True) >> TAG_SHIFT
            for i in range(len(self._top.opened.sources))
        )

    def write(self, offset: int, view: memoryview) -> None:
        """Write ``view`` at virtual ``offset``."""
        for target in self._targets.over(offset, len(view)):
            at = target.position - offset
            self._write_piece(target, view[at : at + target.length])

    def zero(self, offset: int, length: int, *, unmap: bool, hide: bool, own: bool = False) -> None:
        """Make a range read as zeros.

        ``unmap``: give allocated space back; ``hide``: also mark whole blocks that read as zeros only
        because no layer has them; ``own``: also where it is a parent that says so already.
        """
        for target in self._targets.over(offset, length):
            self._zero_piece(target, unmap=unmap, hide=hide, own=own)
            if self._committer.due():  # a range of TiB must not keep its map pages until it is done
                self._committer.flush()

    def zero_is_fast(self, offset: int, length: int) -> bool:
        """Whether `zero` would neither copy nor write out zeros."""
        return not any(
            not self._markable(target)
            and any(
                piece.state in _BYTES and piece.tag not in self.tags
                for piece in self._reader.pieces(target.position, target.length)
            )
            for target in self._targets.over(offset, length)
        )

    def _markable(self, target: Target) -> bool:
        """Whether the target is a whole block that its table can mark as zeros."""
        return target.whole and self._plan.zero is not None

    def _in_place(self, position: int, length: int) -> list[Piece] | None:
        pieces = list(self._map.pieces(position, length))
        for piece in pieces:
            if piece.state == BlockState.CORRUPT:
                raise corrupt_block(self._map.sources[piece.source].path, piece.start)
        return pieces if all(piece.tag in self.tags for piece in pieces) else None

    @contextmanager
    def _claimed(self, target: Target) -> Iterator[list[Piece] | None]:
        """Pieces to write in place, or ``None`` with the block claimed for allocation."""
        while True:
            self._reader.load(target.position, target.length)
            try:
                pieces = self._in_place(target.position, target.length)
                if pieces is None and target.place in self.in_flight:
                    self._operations.pause()  # whoever allocates the block may wait for older operations
                    continue
                if pieces is None:
                    self.in_flight.add(target.place)
                break
            finally:
                self._changed.release()
        try:
            yield pieces
        finally:
            if pieces is None:
                with self._changed:
                    self.in_flight.discard(target.place)
                    self._changed.notify_all()

    def _write_piece(self, target: Target, view: memoryview) -> None:
        with self._claimed(target) as pieces:
            if pieces is None:
                self._write_new_block(target, view)
                return
            for piece in pieces:
                at = piece.start - target.position
                source = self._map.sources[piece.source]
                self._put(source, view[at : at + piece.length], piece.offset)
            self._mark_dirty()

    def _put(self, source: FileSource, data: Buffer, offset: int) -> None:
        try:
            source.write(data, offset)
        except OSError as error:
            raise from_os_error(error, "write", path=source.path, offset=offset) from error

    def _mark_dirty(self) -> None:
        with self._changed:
            self._committer.epoch.dirty = True

    def _write_new_block(self, target: Target, view: memoryview | None) -> None:
        """Give the block new space and write to it; no view means zeros."""
        if target.table == NO_TABLE:
            raise StorageError(
                ErrorKind.READ_ONLY,
                f"the image has no place for data at {target.position}: this part of it can't be written",
                path=self._top.source(0).path,
                offset=target.position,
                operation="write",
            )
        active = self._tables[target.table]
        source = self._top.source(active.table.data)
        before = self._reader.pieces(target.begin, target.block_length)
        kept = self._first_of_own(target, before)
        offset = self._take(active, target.block) if kept is None else kept.offset + target.begin - kept.start
        try:
            if kept is not None:
                self._zero_missing(source, offset - target.begin, before, target if view is None else None)
            if self._plan.lead_data:
                self._put(source, self._plan.lead_data, offset - self._plan.lead)
            shift = offset - target.begin
            for piece in before:
                self._copy_up(source, shift, piece, target.position, target.position + target.length)
            if view is not None:
                self._put(source, view, shift + target.position)
        except BaseException:
            active.space.give_back(offset)
            raise
        number = self._top.first_source + active.table.data
        entry = pack(BlockState.DATA, number, offset, in_place=True)
        freed = self._old_entry(target, before)
        copied = any(piece.state in _BYTES for piece in before)
        written = active.table.block if copied else target.length
        self._enter(target, entry, active.data_value(offset), freed, written)

    def _first_of_own(self, target: Target, pieces: Sequence[Piece]) -> Piece | None:
        """The first piece of a block that lies in its own place, where it must stay; others may move."""
        if not self._tables[target.table].own_place:
            return None
        own = (piece for piece in pieces if piece.state == BlockState.DATA and self._top.owns(piece.source))
        return next(own, None)

    def _zero_missing(
        self, source: FileSource, shift: int, pieces: Sequence[Piece], target: Target | None
    ) -> None:
        """Zero what is not there yet of a block that stays in its place, and ``target``."""
        missing = [(p.start, p.length) for p in pieces if p.state in (BlockState.ABSENT, BlockState.ZERO)]
        for start, length in [*missing, *([(target.position, target.length)] if target else [])]:
            try:
                source.zero_range(shift + start, length, punch=self._plan.punch)
            except OSError as error:
                raise from_os_error(error, "zero", path=source.path, offset=shift + start) from error

    def _old_entry(self, target: Target, pieces: Sequence[Piece]) -> int | None:
        """The raw entry of a block that has space in the active layer."""
        if self._plan.refcounts or any(
            piece.state in _BYTES and self._top.owns(piece.source) for piece in pieces
        ):
            return self._committer.raw(target.table, target.block)
        return None

    def _enter(self, target: Target, entry: int, value: int, freed: int | None, new_bytes: int) -> None:
        """From now on the block is what ``entry`` says."""
        self._reader.load(target.begin, target.block_length)
        try:
            self._map.set_block(target.begin, target.block_length, entry)
            self._committer.enter(target.place, value, freed, new_bytes)
        finally:
            self._changed.release()

    def _take(self, active: ActiveTable, block: int) -> int:
        path = self._top.source(active.table.data).path
        try:
            offset = active.space.take(self._operations.oldest(), block)
            return self._reclaim(active, block) if offset is None else offset
        except OSError as error:
            raise from_os_error(error, "make room for a new block", path=path) from error

    def _reclaim(self, active: ActiveTable, block: int) -> int:
        """All units are taken: those freed lately come back with a commit, once nobody uses them.

        A table without damage has a unit for every block, so one comes free when others have finished.
        """
        deadline = time.monotonic() + _RECLAIM_SECONDS
        delay = 0.0
        while time.monotonic() < deadline:
            self._committer.flush()
            with self._changed:
                self._operations.pause(delay)
            offset = active.space.take(self._operations.oldest(), block)
            if offset is not None:
                return offset
            delay = _RECLAIM_POLL
        raise StorageError(
            ErrorKind.CORRUPT,
            "every block that the image can count is in use, so its table must be damaged; "
            "run 'drivebay check' on it",
            path=self._top.source(active.table.source).path,
        )

    def _copy_up(self, source: FileSource, shift: int, piece: Piece, skip: int, resume: int) -> None:
        """Copy what the chain shows in a piece, but for ``skip .. resume``, to ``shift`` further on."""
        if piece.state in (BlockState.ABSENT, BlockState.ZERO):
            return
        here = piece.state == BlockState.DATA and self._map.sources[piece.source] is source
        if here and piece.offset == shift + piece.start:
            return  # a block that stays in its place
        end = piece.start + piece.length
        for low, high in ((piece.start, min(end, skip)), (max(piece.start, resume), end)):
            for start in range(low, high, _COPY_CHUNK):
                view = memoryview(bytearray(min(_COPY_CHUNK, high - start)))
                self._reader.read_piece(part_of(piece, start, len(view)), view)
                self._put(source, view, shift + start)
                self._stats.copy_ups += start == low

    def _zero_piece(self, target: Target, *, unmap: bool, hide: bool, own: bool) -> None:
        if self._markable(target) and self._zero_block(target, unmap=unmap, hide=hide, own=own):
            return
        for piece in self._reader.pieces(target.position, target.length):
            if not (piece.state in _BYTES or (own and self._is_parents_zero(piece))):
                continue
            part = target._replace(position=piece.start, length=piece.length)
            with self._claimed(part) as pieces:
                if pieces is None:
                    self._write_new_block(part, None)
                else:
                    self._zero_in_place(pieces, unmap=unmap)

    def _is_parents_zero(self, piece: Piece) -> bool:
        return piece.state == BlockState.ZERO and not self._top.owns(piece.source)

    def _zero_block(self, target: Target, *, unmap: bool, hide: bool, own: bool) -> bool:
        """Zero a whole block through its entry; false where its bytes must be zeroed instead."""
        with self._claimed(target) as pieces:
            if pieces is not None:
                drops = unmap and not self._tables[target.table].own_place
                if drops:
                    self._drop_block(target)
                return drops
            before = self._reader.pieces(target.position, target.length)
            if self._first_of_own(target, before) is not None:
                return False
            states = {piece.state for piece in before}
            wanted = states & _BYTES or (hide and BlockState.ABSENT in states)
            if wanted or (own and any(self._is_parents_zero(piece) for piece in before)):
                value = self._tables[target.table].zero_value()
                self._enter(target, self._top.zero_entry(), value, self._old_entry(target, before), 0)
            return True

    def _drop_block(self, target: Target) -> None:
        """Let a block of the active layer become zeros, and its space free after the commit."""
        active = self._tables[target.table]
        self._reader.load(target.position, target.length)
        try:
            pieces = self._in_place(target.position, target.length)
            if pieces is None:
                return  # another operation dropped it first
            self._map.set_block(target.begin, target.block_length, self._top.zero_entry())
            freed = active.table.entry.encode(pieces[0].offset)
            self._committer.enter(target.place, active.zero_value(), freed, 0)
        finally:
            self._changed.release()

    def _zero_in_place(self, pieces: list[Piece], *, unmap: bool) -> None:
        for piece in pieces:
            source = self._map.sources[piece.source]
            try:
                source.zero_range(piece.offset, piece.length, punch=unmap and self._plan.punch)
            except OSError as error:
                raise from_os_error(error, "zero", path=source.path, offset=piece.offset) from error
        self._mark_dirty()
