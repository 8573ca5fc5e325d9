"""The files that the VHDX log journal writes, in memory: with every state that a power cut may leave."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from drivebay.engine.change import Change
from drivebay.errors import ErrorKind, StorageError

_SECTOR = 512


class CrashState(NamedTuple):
    """The file after a power cut behind ``cut`` events."""

    cut: int
    data: bytes


class LoggedFile:
    """Source 0 in memory. ``events`` are the changes that reached it, ``None`` for a sync.

    With ``fail_at`` n, event number n raises NO_SPACE and changes nothing.
    """

    def __init__(self, data: bytes) -> None:
        self.before = data
        self.data = bytearray(data)
        self.events: list[Change | None] = []
        self.fail_at = -1

    def path(self, source: int) -> str:
        """As `MetadataFiles.path`."""
        assert source == 0
        return "image.vhdx"

    def size(self, source: int) -> int:
        """As `MetadataFiles.size`."""
        assert source == 0
        return len(self.data)

    def read(self, source: int, offset: int, length: int) -> bytes:
        """As `MetadataFiles.read`."""
        assert source == 0
        assert offset + length <= len(self.data)
        return bytes(self.data[offset : offset + length])

    def write(self, change: Change) -> None:
        """As `MetadataFiles.write`."""
        assert change.source == 0
        self._note(change)
        _apply(self.data, change.offset, change.data)

    def sync(self) -> None:
        """As `MetadataFiles.sync`."""
        self._note(None)

    def _note(self, event: Change | None) -> None:
        if len(self.events) == self.fail_at:
            self.fail_at = -1
            raise StorageError(ErrorKind.NO_SPACE, "the host is full; free space", path="image.vhdx")
        self.events.append(event)

    def crash_states(self, torn: int, seed: int = 1) -> Iterator[CrashState]:
        """For every prefix: all that no sync has covered, nothing of it, ``torn`` subsets of its sectors."""
        draw = random.Random(seed)
        durable, pending = bytearray(self.before), list[Change]()
        for cut, event in enumerate([*self.events, None]):
            yield CrashState(cut, _with(durable, pending, lambda: True))
            if pending:
                yield CrashState(cut, bytes(durable))
            for _ in range(torn if pending else 0):
                share = draw.random()
                yield CrashState(cut, _with(durable, pending, lambda share=share: draw.random() < share))
            if event is None:
                durable, pending = bytearray(_with(durable, pending, lambda: True)), []
            else:
                pending.append(event)


def _with(durable: bytearray, pending: list[Change], keep: object) -> bytes:
    assert callable(keep)
    data = bytearray(durable)
    for change in pending:
        for start in range(0, len(change.data), _SECTOR):
            if keep():
                _apply(data, change.offset + start, change.data[start : start + _SECTOR])
    return bytes(data)


def _apply(data: bytearray, offset: int, piece: bytes) -> None:
    data.extend(bytes(max(offset + len(piece) - len(data), 0)))
    data[offset : offset + len(piece)] = piece
