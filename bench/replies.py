"""Replies as they stream in: counted by their fixed size, checked many at a time."""

from __future__ import annotations

import socket

import numpy as np

from bench import wire
from bench.errors import BenchError, DisconnectedError
from bench.load import Load

FEW = 4  # up to here, comparing bytes is cheaper than asking numpy


class Replies:
    """The receiving half of a connection under one load.

    All replies to a load have one size, because simple replies (and structured ones of a single chunk)
    have. A reply that is not well, or holds another page's data than was asked for, raises BenchError:
    an error can't count as speed.
    """

    def __init__(self, sock: socket.socket, load: Load, *, structured: bool) -> None:
        header = wire.STRUCTURED_HEADER if structured else wire.SIMPLE_HEADER
        self._good = wire.STRUCTURED_GOOD if structured else wire.SIMPLE_GOOD
        self._header = header
        self._holds_data = not load.write
        self.size = header + (load.length if self._holds_data else 0)
        self._sock = sock
        self._buffer = bytearray(self.size * load.depth)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._good_word = np.frombuffer(self._good, np.uint64)[0]
        self._prefixes, self._cookies = self._column(0), self._column(8)
        self._words = self._column(header) if self._holds_data else self._cookies

    def _column(self, offset: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        count = len(self._buffer) // self.size
        return np.ndarray((count,), np.uint64, self._view, offset, (self.size,))

    def take(self) -> int:
        """Wait for bytes; return how many replies they completed."""
        try:
            received = self._sock.recv_into(self._view[self._filled :])
        except TimeoutError:
            raise BenchError(f"no reply in time; {self._filled} bytes wait: {self._head(0)}") from None
        if not received:
            raise DisconnectedError
        self._filled += received
        complete = self._filled // self.size
        if complete:
            self._check(complete)
            self._keep_rest(complete * self.size)
        return complete

    def _keep_rest(self, used: int) -> None:
        rest = self._filled - used
        if rest:
            self._buffer[:rest] = self._view[used : self._filled]
        self._filled = rest

    def _check(self, complete: int) -> None:
        if complete <= FEW:
            well = all(self._is_well(at * self.size) for at in range(complete))
        else:
            well = bool(
                (self._prefixes[:complete] == self._good_word).all()
                and (self._cookies[:complete] == self._words[:complete]).all()
            )
        if not well:
            self._complain(complete)

    def _is_well(self, start: int) -> bool:
        if self._view[start : start + 8] != self._good:
            return False
        data = start + self._header
        return not self._holds_data or self._view[start + 8 : start + 16] == self._view[data : data + 8]

    def _complain(self, complete: int) -> None:
        bad = next(at for at in range(complete) if not self._is_well(at * self.size))
        raise BenchError(
            f"a reply is an error, out of shape or holds wrong data: {self._head(bad * self.size)}"
        )

    def _head(self, start: int) -> str:
        return bytes(self._view[start : min(start + self._header + 8, self._filled)]).hex(" ", 4) or "nothing"
