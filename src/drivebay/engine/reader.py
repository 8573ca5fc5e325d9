"""Look-ups and blocking reads: a range of the disk -> pieces -> bytes."""

from __future__ import annotations

import threading

from drivebay.blockmap import BlockState, Packed, Segment, Table
from drivebay.engine.pagemap import PageMap, Piece
from drivebay.engine.source import FileSource
from drivebay.engine.unpack import Unpacker
from drivebay.errors import ErrorKind, StorageError, from_os_error


class Reader:
    """Resolves ranges through the map and reads them; safe for many threads."""

    def __init__(self, changed: threading.Condition, page_map: PageMap) -> None:
        self._changed = changed
        self._map = page_map
        self._unpacker = Unpacker()

    def load(self, offset: int, length: int) -> None:
        """Return with the disk's lock held and the map pages of the range there.

        Tables are read without the lock; what changed meanwhile makes a page stale, so it is built again.
        """
        self._changed.acquire()
        try:
            needed = self._map.span(offset, length)
            while missing := [index for index in needed if index not in self._map.pages]:
                self._load_page(missing[0], needed)
                needed = self._map.span(offset, length)
        except BaseException:
            self._changed.release()
            raise

    def _load_page(self, index: int, needed: range) -> None:
        before = self._map.changes
        pages = self._map.together(index)
        self._changed.release()
        try:
            built = self._map.build(pages)
        except OSError as error:
            raise from_os_error(error, "read a block table") from error
        finally:
            self._changed.acquire()
        if self._map.changes != before:
            return
        for number, (page, splits) in zip(pages, built, strict=True):
            if number not in self._map.pages:
                self._map.install(number, page, splits, needed)

    def pieces(self, offset: int, length: int) -> list[Piece]:
        """What covers the range now."""
        if not length:
            return []
        self.load(offset, length)
        try:
            return list(self._map.pieces(offset, length))
        finally:
            self._changed.release()

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` from virtual ``offset``."""
        for piece in self.pieces(offset, len(view)):
            at = piece.start - offset
            self.read_piece(piece, view[at : at + piece.length])

    def read_piece(self, piece: Piece, view: memoryview) -> None:
        """Fill ``view`` with a piece's bytes."""
        if piece.state == BlockState.DATA:
            source = self._map.sources[piece.source]
            try:
                source.read_into(view, piece.offset)
            except OSError as error:
                raise from_os_error(error, "read", path=source.path, offset=piece.offset) from error
        elif piece.state == BlockState.PACKED:
            self._read_packed(piece, view)
        elif piece.state == BlockState.CORRUPT:
            raise corrupt_block(self._map.sources[piece.source].path, piece.start)
        else:
            view[:] = bytes(len(view))

    def _read_packed(self, piece: Piece, view: memoryview) -> None:
        layer = self._map.layer_of(piece.source)
        source = self._map.sources[piece.source]
        done = 0
        while done < len(view):
            position = piece.start + done
            segment = layer.segment_at(position)
            begin, data = self._unpacked(source, segment, position, piece.offset)
            part = data[position - begin : position - begin + len(view) - done]
            view[done : done + len(part)] = part
            done += len(part)

    def _unpacked(
        self, source: FileSource, segment: Segment, position: int, where: int
    ) -> tuple[int, memoryview]:
        """Where the packed block around ``position`` begins on the disk, and its bytes."""
        if isinstance(segment, Packed):
            run = segment.runs[where]
            return run.start, memoryview(self._unpacker.block(source, run, run.offset, run.length))
        assert isinstance(segment, Table)
        assert segment.packed is not None
        # The last block may be packed whole, or as far as the disk goes.
        begin, length = segment.span((position - segment.start) // segment.block)
        block = self._unpacker.block(source, segment.packed, where, length, most=segment.block)
        return begin, memoryview(block)


def corrupt_block(path: str, position: int) -> StorageError:
    """The error for a block whose table entry points where it must not."""
    return StorageError(
        ErrorKind.CORRUPT,
        f"the block table sends virtual offset {position} to a place outside the file; "
        "run 'drivebay check' on the image and restore this part from a copy",
        path=path,
        operation="read",
    )
