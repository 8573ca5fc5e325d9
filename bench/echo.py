"""A server that does nothing: ``python -m bench.echo SOCKET SIZE``. It shows the client's own ceiling.

It answers each request with a right reply that it has ready, and only sets the number of the page; there
is no disk behind it. It expects requests of one kind and length on a connection, as `bench.client` sends
them.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

import numpy as np
from numpy.typing import NDArray

from bench import wire
from bench.errors import DisconnectedError

BUFFER = 8 << 20
POLL = 100e-6  # seconds of looking before sleeping, so that waking up doesn't count as the client's time


def main() -> None:
    """Serve one connection after the other until killed."""
    path, size = sys.argv[1], int(sys.argv[2])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection:
                _serve(connection, size)


def _serve(sock: socket.socket, size: int) -> None:
    try:
        _negotiate(sock, size)
        _transmit(sock)
    except (DisconnectedError, ConnectionError):
        return  # the client went away; the next one may come


def _negotiate(sock: socket.socket, size: int) -> None:
    sock.sendall(wire.GREETING + wire.OPTION_MAGIC + struct.pack(">H", wire.FIXED_NEWSTYLE | wire.NO_ZEROES))
    wire.receive(sock, 4)
    _, option, length = wire.OPTION.unpack(wire.receive(sock, wire.OPTION.size))
    wire.receive(sock, length)
    details = struct.pack(">HQH", wire.INFO_EXPORT, size, 1)
    info = wire.OPTION_REPLY.pack(wire.OPTION_REPLY_MAGIC, option, wire.OPTION_INFO, len(details)) + details
    sock.sendall(info + wire.OPTION_REPLY.pack(wire.OPTION_REPLY_MAGIC, option, wire.OPTION_ACK, 0))


def _transmit(sock: socket.socket) -> None:
    first = wire.receive(sock, wire.REQUEST.size)
    _, _, kind, _, _, length = wire.REQUEST.unpack(first)
    request_size = len(first) + (length if kind == wire.WRITE else 0)
    buffer = bytearray(max(BUFFER, 2 * request_size))
    buffer[: len(first)] = first
    view, filled = memoryview(buffer), len(first)
    cookies = np.ndarray((len(buffer) // request_size,), np.uint64, buffer, 8, (request_size,))
    replies = _replies(length if kind == wire.READ else 0, len(cookies))
    single = replies[:1].view(np.uint8).data
    while True:
        complete = filled // request_size
        if complete == 1:
            _reply_once(sock, single, view[8:16])
        else:
            for at in range(0, complete, len(replies)):
                _reply(sock, replies, cookies[at : min(at + len(replies), complete)])
        used = complete * request_size
        buffer[: filled - used] = view[used:filled]
        filled -= used
        received = _receive(sock, view[filled:])
        if not received:
            return
        filled += received


def _receive(sock: socket.socket, view: memoryview) -> int:
    deadline = time.perf_counter() + POLL
    while time.perf_counter() < deadline:
        try:
            return sock.recv_into(view, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            continue
    return sock.recv_into(view)


def _replies(length: int, count: int) -> NDArray[np.void]:
    words = max(length // 8, 1)
    dtype = np.dtype([("good", "u8"), ("cookie", "u8"), ("data", "u8", (words,))][: 3 if length else 2])
    replies = np.zeros(max(1, min(count, BUFFER // dtype.itemsize)), dtype)
    replies["good"] = np.frombuffer(wire.SIMPLE_GOOD, np.uint64)[0]
    return replies


def _reply_once(sock: socket.socket, reply: memoryview, cookie: memoryview) -> None:
    reply[8:16] = cookie
    if len(reply) > wire.SIMPLE_HEADER:
        reply[16:24] = cookie
    sock.sendall(reply)


def _reply(sock: socket.socket, replies: NDArray[np.void], cookies: NDArray[np.uint64]) -> None:
    batch = replies[: len(cookies)]
    batch["cookie"] = cookies
    if "data" in (replies.dtype.names or ()):
        batch["data"][:, 0] = cookies
    sock.sendall(batch.view(np.uint8).data)


if __name__ == "__main__":
    main()
