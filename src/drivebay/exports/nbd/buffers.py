"""What a connection keeps of its byte streams: bytes not yet handled, and bytes not yet sent.

Memory for received bytes comes as anonymous mappings: a client costs what it sends, not what it announces.
Touching fresh pages is slow, so that the mappings are used again.
"""

from __future__ import annotations

import mmap
import socket
from collections import deque
from collections.abc import Iterable

from drivebay.engine.source import Buffer

INBOX_SIZE = 1 << 20
_MOST_PARTS = 256  # of one sendmsg; the system allows 1024
_POOLED_PAYLOAD = 2 << 20  # QEMU and its tools send no larger ones
_MOST_POOLED = 8


class Inbox:
    """Received bytes: ``view[start:end]`` is not handled yet."""

    __slots__ = ("end", "start", "view")

    def __init__(self) -> None:
        self.view = memoryview(mmap.mmap(-1, INBOX_SIZE))
        self.start = 0
        self.end = 0

    def room(self) -> memoryview:
        """Where to receive more to; the caller moves ``end``. Never empty unless a whole inbox waits."""
        if self.end == INBOX_SIZE:
            rest = self.end - self.start
            self.view[:rest] = self.view[self.start : self.end]
            self.start, self.end = 0, rest
        return self.view[self.end :]

    def replace(self, data: bytes) -> None:
        """Hold ``data`` and nothing else."""
        self.view[: len(data)] = data
        self.start, self.end = 0, len(data)


class Outbox:
    """Bytes that the socket has not taken yet, in order; ``size`` of them."""

    __slots__ = ("_parts", "size")

    def __init__(self) -> None:
        self._parts: deque[memoryview] = deque()
        self.size = 0

    def push(self, parts: Iterable[Buffer]) -> None:
        """Queue parts; they must not change until they are sent."""
        for part in parts:
            view = memoryview(part)
            self._parts.append(view)
            self.size += view.nbytes

    def flush(self, sock: socket.socket) -> None:
        """Send as much as the socket takes."""
        while self._parts:
            first = [self._parts[index] for index in range(min(len(self._parts), _MOST_PARTS))]
            try:
                sent = sock.sendmsg(first, (), socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            self._drop(sent)

    def _drop(self, count: int) -> None:
        self.size -= count
        while self._parts and count >= self._parts[0].nbytes:
            count -= self._parts.popleft().nbytes
        if count:
            self._parts[0] = self._parts[0][count:]


class PayloadBuffers:
    """Memory for large payloads; what was given back is used again."""

    def __init__(self) -> None:
        self._free: list[mmap.mmap] = []

    def take(self, length: int) -> mmap.mmap:
        """Memory for ``length`` bytes or more."""
        if length > _POOLED_PAYLOAD:
            return mmap.mmap(-1, length)
        return self._free.pop() if self._free else mmap.mmap(-1, _POOLED_PAYLOAD)

    def give_back(self, buffer: mmap.mmap) -> None:
        """The buffer's content is not needed any more."""
        if len(buffer) == _POOLED_PAYLOAD and len(self._free) < _MOST_POOLED:
            self._free.append(buffer)
