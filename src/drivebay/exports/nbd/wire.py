"""The socket of a connection with its two byte streams."""

from __future__ import annotations

import socket
import struct
from typing import Final

from drivebay.engine.source import Buffer
from drivebay.exports.nbd.buffers import Inbox, Outbox

_PATIENCE: Final = struct.pack("@ll", 0, 20_000)  # seconds, microseconds
_SEND_BUFFER: Final = 2 << 20  # asked of the system, which may give less


class Wire:
    """Never waits, unless told to: what the socket does not take stays in ``outbox``."""

    __slots__ = ("inbox", "outbox", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.inbox = Inbox()
        self.outbox = Outbox()
        sock.setblocking(True)  # each call says itself whether it waits
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    def receive(self, flags: int = socket.MSG_DONTWAIT) -> int:
        """Receive once into the inbox: the number of bytes, 0 at the end of the stream, -1 for not now.

        With ``flags`` 0 this waits a moment (20 ms) for the first byte.
        """
        inbox = self.inbox
        if inbox.start == inbox.end:
            inbox.start = inbox.end = 0
            room = inbox.view
        else:
            room = inbox.room()
        try:
            count = self.sock.recv_into(room, 0, flags)
        except BlockingIOError:
            return -1
        inbox.end += count
        return count

    def receive_into(self, view: memoryview) -> int:
        """The same, into ``view``."""
        try:
            return self.sock.recv_into(view, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return -1

    def send(self, data: Buffer) -> None:
        """Send now; a copy is kept of what the socket does not take."""
        sent = 0
        if not self.outbox.size:
            try:
                sent = self.sock.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
        self.outbox.push([bytes(memoryview(data)[sent:])])

    def flush(self) -> None:
        """Send what is left, as far as the socket takes it."""
        self.outbox.flush(self.sock)
