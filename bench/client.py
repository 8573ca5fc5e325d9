"""An NBD client that keeps exactly N requests in flight and costs little itself.

It sends ready-made bytes, as many requests as were answered in one call, and never parses a reply that
it can count by its size. So it must not be the limit; ``bench.echo`` measures its own ceiling.
"""

from __future__ import annotations

import gc
import socket
import struct
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import wire
from bench.errors import BenchError
from bench.load import Load
from bench.replies import Replies

TIMEOUT = 20.0  # seconds without a single byte after which a server counts as hanging


class Client:
    """One connection to the export ``export`` of the server at ``path`` (a Unix socket).

    Raises OSError while no server listens there, and BenchError when one doesn't speak as it should.
    """

    def __init__(self, path: Path, export: str = "", *, structured: bool = False) -> None:
        self._structured = structured
        self._sock = socket.socket(socket.AF_UNIX)
        try:
            self._sock.settimeout(TIMEOUT)
            self._sock.connect(str(path))
            self.size = self._negotiate(export.encode())
        except BaseException:
            self._sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._request(wire.DISCONNECT, 0, 0)
        finally:
            self._sock.close()

    def _negotiate(self, export: bytes) -> int:
        greeting = wire.receive(self._sock, 18)
        if greeting[:16] != wire.GREETING + wire.OPTION_MAGIC:
            raise BenchError(f"this is no newstyle NBD server: it greets with {greeting!r}")
        self._sock.sendall(struct.pack(">I", wire.FIXED_NEWSTYLE | wire.NO_ZEROES))
        if self._structured:
            self._option(wire.OPTION_STRUCTURED_REPLY, b"")
        details = self._option(wire.OPTION_GO, struct.pack(">I", len(export)) + export + b"\0\0")
        return int.from_bytes(details[2:10])

    def _option(self, option: int, data: bytes) -> bytes:
        """Send an option, wait for its acknowledgement; the details of the export if it told them."""
        self._sock.sendall(wire.OPTION.pack(wire.OPTION_MAGIC, option, len(data)) + data)
        details = b""
        while True:
            _, _, answer, length = wire.OPTION_REPLY.unpack(wire.receive(self._sock, wire.OPTION_REPLY.size))
            body = wire.receive(self._sock, length)
            if answer == wire.OPTION_ACK:
                return details
            if answer != wire.OPTION_INFO:
                raise BenchError(
                    f"option {option} is answered with {answer:#x}: {body.decode(errors='replace')}"
                )
            if int.from_bytes(body[:2]) == wire.INFO_EXPORT:
                details = body

    def _request(self, kind: int, offset: int, length: int, data: bytes = b"") -> None:
        self._sock.sendall(wire.REQUEST.pack(wire.REQUEST_MAGIC, 0, kind, 0, offset, length) + data)

    def _answer(self, what: str) -> None:
        head = wire.receive(self._sock, wire.SIMPLE_HEADER)
        if head[:8] != wire.SIMPLE_GOOD:
            raise BenchError(f"{what} is answered with {head.hex(' ', 4)}")

    def read(self, offset: int, length: int) -> bytes:
        """One read, waited for; only without structured replies."""
        self._request(wire.READ, offset, length)
        self._answer(f"a read at {offset}")
        return wire.receive(self._sock, length)

    def write(self, offset: int, data: bytes) -> None:
        """One write, waited for."""
        self._request(wire.WRITE, offset, len(data), data)
        self._answer(f"a write at {offset}")

    def flush(self) -> None:
        """One flush, waited for."""
        self._request(wire.FLUSH, 0, 0)
        self._answer("a flush")

    def measure(self, load: Load, seconds: float) -> float:
        """Requests a second over ``seconds``, with ``load.depth`` of them in flight all the time."""
        replies = Replies(self._sock, load, structured=self._structured)
        collecting = gc.isenabled()
        gc.disable()
        try:
            return self._measure(load, replies, seconds)
        finally:
            if collecting:
                gc.enable()

    def finish(self, load: Load) -> float:
        """Requests a second for each of the load's requests once, and a flush after them."""
        replies = Replies(self._sock, load, structured=self._structured)
        size, sent, done = load.request_size, load.depth, 0
        begun = time.perf_counter()
        self._sock.sendall(load.requests[: sent * size])
        while done < load.count:
            done += replies.take()
            upto = min(done + load.depth, load.count)
            self._sock.sendall(load.requests[sent * size : upto * size])
            sent = upto
        self.flush()
        return done / (time.perf_counter() - begun)

    def _measure(self, load: Load, replies: Replies, seconds: float) -> float:
        requests, size, count = load.requests, load.request_size, load.count
        send, take, clock = self._sock.sendall, replies.take, time.perf_counter
        done = 0
        begun = clock()
        deadline = begun + seconds
        send(requests[: load.depth * size])
        position = load.depth % count
        while (now := clock()) < deadline or not done:
            answered = take()
            if answered:
                done += answered
                send(requests[position * size : (position + answered) * size])
                position = (position + answered) % count
        drained = 0
        while drained < load.depth:
            drained += take()
        return done / (now - begun)
