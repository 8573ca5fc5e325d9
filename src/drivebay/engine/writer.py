"""Blocking writes: in place, into new blocks with copy-up, and zeros.

One block is allocated by one operation at a time; others that want to write it wait. Readers see the
old mapping until the new block's data is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from drivebay.blockmap import BlockState, Table, WritePlan
from drivebay.engine.epoch import Committer
from drivebay.engine.mapentry import TAG_SHIFT, pack
from drivebay.engine.pagemap import Piece
from drivebay.engine.reader import corrupt_block
from drivebay.engine.shared import Shared
from drivebay.engine.source import FileSource
from drivebay.engine.space import UnitSpace
from drivebay.errors import ErrorKind, StorageError, from_os_error

_COPY_CHUNK = 1 << 20
_LINEAR_CHUNK = 1 << 30
_RECLAIM_POLL = 0.02  # seconds
_RECLAIM_SECONDS = 30.0


class Writer:
    """Writes to the active layer; safe for many threads, within an operation that writes."""

    def __init__(
        self,
        shared: Shared,
        committer: Committer,
        plan: WritePlan,
        space: UnitSpace | None,
    ) -> None:
        self._changed = shared.changed
        self._map = shared.page_map
        self._reader = shared.reader
        self._operations = shared.operations
        self._stats = shared.stats
        self._committer = committer
        self._plan = plan
        self._space = space
        self._table = space.table if space is not None else None
        self._in_flight: set[int] = set()
        top = self._map.layers[0]
        self.tags = frozenset(
            pack(BlockState.DATA, top.first_source + i, in_place=True) >> TAG_SHIFT
            for i in range(len(top.opened.sources))
        )

    def write(self, offset: int, view: memoryview) -> None:
        """Write ``view`` at virtual ``offset``."""
        end = offset + len(view)
        position = offset
        while position < end:
            stop = min(end, self._block_end(position))
            self._write_piece(position, view[position - offset : stop - offset])
            position = stop

    def zero(self, offset: int, length: int, *, unmap: bool, hide: bool) -> None:
        """Make a range read as zeros.

        ``unmap``: give allocated space back; ``hide``: also mark whole blocks that read as zeros only
        because no layer has them.
        """
        end = offset + length
        position = offset
        while position < end:
            stop = min(end, self._block_end(position))
            self._zero_piece(position, stop - position, unmap=unmap, hide=hide)
            position = stop

    def zero_is_fast(self, offset: int, length: int) -> bool:
        """Whether `zero` would neither copy nor write out zeros."""
        position, end = offset, offset + length
        while position < end:
            stop = min(end, self._block_end(position))
            if not self._whole(position, stop - position) and any(
                piece.state == BlockState.DATA and piece.tag not in self.tags
                for piece in self._reader.pieces(position, stop - position)
            ):
                return False
            position = stop
        return True

    def _block_end(self, position: int) -> int:
        if self._table is None:
            return min(self._map.size, position + _LINEAR_CHUNK)
        return position - (position - self._table.start) % self._table.block + self._table.block

    def _whole(self, position: int, length: int) -> bool:
        """Whether the range is a whole block that the table can mark as zeros."""
        if self._table is None or self._plan.zero is None:
            return False
        return self._table.span((position - self._table.start) // self._table.block) == (position, length)

    def _in_place(self, position: int, length: int) -> list[Piece] | None:
        pieces = list(self._map.pieces(position, length))
        for piece in pieces:
            if piece.state == BlockState.CORRUPT:
                raise corrupt_block(self._map.sources[piece.source].path, piece.start)
        return pieces if all(piece.tag in self.tags for piece in pieces) else None

    @contextmanager
    def _claimed(self, position: int, length: int) -> Iterator[list[Piece] | None]:
        """Pieces to write in place, or ``None`` with the block claimed for allocation."""
        block = (position - self._table.start) // self._table.block if self._table is not None else 0
        while True:
            self._reader.load(position, length)
            try:
                pieces = self._in_place(position, length)
                if pieces is None and block in self._in_flight:
                    self._operations.pause()  # whoever allocates the block may wait for older operations
                    continue
                if pieces is None:
                    self._in_flight.add(block)
                break
            finally:
                self._changed.release()
        try:
            yield pieces
        finally:
            if pieces is None:
                with self._changed:
                    self._in_flight.discard(block)
                    self._changed.notify_all()

    def _write_piece(self, position: int, view: memoryview) -> None:
        with self._claimed(position, len(view)) as pieces:
            if pieces is None:
                self._write_new_block(position, len(view), view)
                return
            for piece in pieces:
                at = piece.start - position
                source = self._map.sources[piece.source]
                self._put(source, view[at : at + piece.length], piece.offset)
            self._mark_dirty()

    def _put(self, source: FileSource, view: memoryview, offset: int) -> None:
        try:
            source.write(view, offset)
        except OSError as error:
            raise from_os_error(error, "write", path=source.path, offset=offset) from error

    def _mark_dirty(self) -> None:
        with self._changed:
            self._committer.epoch.dirty = True

    def _write_new_block(self, position: int, count: int, view: memoryview | None) -> None:
        """Give the block a unit and write ``count`` bytes at ``position``; no view means zeros."""
        if self._table is None or self._space is None:
            raise StorageError(ErrorKind.STATE, "this layer has no room for new blocks; open it read-only")
        block = (position - self._table.start) // self._table.block
        begin, length = self._table.span(block)
        unit = self._take_unit(self._space)
        source = self._map.layers[0].source(self._table.source)
        offset = self._space.data_offset(unit)
        try:
            self._copy_up(source, offset - begin, begin, position)
            if view is not None:
                self._put(source, view, offset + position - begin)
            self._copy_up(source, offset - begin, position + count, begin + length)
        except BaseException:
            self._space.give_back(unit)
            raise
        self._publish(self._table, block, offset)

    def _publish(self, table: Table, block: int, offset: int) -> None:
        """From now on the block is read and written at ``offset`` of the active layer's file."""
        number = self._map.layers[0].first_source + table.source
        self._reader.load(*table.span(block))
        try:
            self._map.set_block(*table.span(block), pack(BlockState.DATA, number, offset, in_place=True))
            raw = table.entry.encode(offset) | self._plan.leaf_flags
            self._committer.enter(block, raw, table.block)
        finally:
            self._changed.release()

    def _take_unit(self, space: UnitSpace) -> int:
        try:
            unit = space.take(self._operations.oldest())
            if unit is None:
                unit = self._reclaim_unit(space)
        except OSError as error:
            path = self._map.layers[0].source(0).path
            raise from_os_error(error, "make room for a new block", path=path) from error
        return unit

    def _reclaim_unit(self, space: UnitSpace) -> int:
        """All units are taken: those freed lately come back with a commit, once nobody uses them.

        A table without damage has a unit for every block, so one comes free when others have finished.
        """
        deadline = time.monotonic() + _RECLAIM_SECONDS
        delay = 0.0
        while time.monotonic() < deadline:
            self._committer.flush()
            with self._changed:
                self._operations.pause(delay)
            unit = space.take(self._operations.oldest())
            if unit is not None:
                return unit
            delay = _RECLAIM_POLL
        raise StorageError(
            ErrorKind.CORRUPT,
            "every block that the image can count is in use, so its table must be damaged; "
            "run 'drivebay check' on it",
            path=self._map.layers[0].source(0).path,
        )

    def _copy_up(self, source: FileSource, shift: int, start: int, end: int) -> None:
        """Copy what the chain shows in a range to ``shift`` further on in the new block's file."""
        for piece in self._reader.pieces(start, max(end - start, 0)):
            if piece.state in (BlockState.ABSENT, BlockState.ZERO):
                continue
            self._stats.copy_ups += 1
            for at in range(0, piece.length, _COPY_CHUNK):
                view = memoryview(bytearray(min(_COPY_CHUNK, piece.length - at)))
                part = piece._replace(offset=piece.offset + at, length=len(view))
                self._reader.read_piece(part, view)
                self._put(source, view, shift + piece.start + at)

    def _set_zero(self, position: int, length: int) -> None:
        if self._table is not None and self._plan.zero is not None:
            self._map.set_block(position, length, self._map.layers[0].zero_entry())
            block = (position - self._table.start) // self._table.block
            self._committer.enter(block, self._plan.zero, 0)

    def _zero_piece(self, position: int, length: int, *, unmap: bool, hide: bool) -> None:
        if self._whole(position, length) and self._zero_block(position, length, unmap=unmap, hide=hide):
            return
        for piece in self._reader.pieces(position, length):
            if piece.state in (BlockState.ABSENT, BlockState.ZERO):
                continue
            with self._claimed(piece.start, piece.length) as pieces:
                if pieces is None:
                    self._write_new_block(piece.start, piece.length, None)
                else:
                    self._zero_in_place(pieces, unmap=unmap)

    def _zero_block(self, position: int, length: int, *, unmap: bool, hide: bool) -> bool:
        """Zero a whole block through its entry; false where its bytes must be zeroed instead."""
        with self._claimed(position, length) as pieces:
            if pieces is not None:
                if unmap:
                    self._drop_block(position, length)
                return unmap
            states = {piece.state for piece in self._reader.pieces(position, length)}
            if BlockState.DATA in states or (hide and BlockState.ABSENT in states):
                self._enter_zero(position, length)
            return True

    def _drop_block(self, position: int, length: int) -> None:
        """Let a block of the active layer become zeros, and its unit free after the commit."""
        self._reader.load(position, length)
        try:
            pieces = self._in_place(position, length)
            if pieces is None or self._space is None:
                return  # another operation dropped it first
            self._committer.epoch.freed.append(self._space.unit_at(pieces[0].offset))
            self._set_zero(position, length)
        finally:
            self._changed.release()

    def _enter_zero(self, position: int, length: int) -> None:
        self._reader.load(position, length)
        try:
            self._set_zero(position, length)
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
