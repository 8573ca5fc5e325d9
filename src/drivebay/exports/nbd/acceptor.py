"""Taking clients: the sockets that a server listens on, and how many may connect."""

from __future__ import annotations

import logging
import select
import socket
from functools import partial
from time import monotonic

from drivebay.exports.nbd.connection import Connection
from drivebay.exports.nbd.listeners import Listener
from drivebay.exports.nbd.shared import Shared

_log = logging.getLogger(__name__)


class Acceptor:
    """Makes a `Connection` of each client, of ``most`` at a time. Runs in the loop's thread.

    A listener that can't accept for now is ``paused``; `check` is needed now and then while there is one,
    or a connection in its handshake, for which it gets ``handshake_timeout`` seconds.
    """

    def __init__(self, shared: Shared, most: int, handshake_timeout: float) -> None:
        self.paused: list[Listener] = []
        self._shared = shared
        self._most = most
        self._handshake_timeout = handshake_timeout
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> None:
        """Take the clients that come there, too."""
        self._listeners.append(listener)
        self._watch(listener)

    def check(self, now: float) -> None:
        """Drop who shakes hands for too long, and try paused listeners again."""
        for connection in list(self._shared.handshaking):
            if now > connection.deadline:
                connection.drop("the handshake took too long")
        while self.paused:
            self._watch(self.paused.pop())

    def close(self) -> None:
        """Take no more clients."""
        for listener in self._listeners:
            if listener not in self.paused:
                self._unwatch(listener)
            listener.close()
        self._listeners.clear()
        self.paused.clear()

    def _watch(self, listener: Listener) -> None:
        self._shared.handlers[listener.fd] = partial(self._accept, listener)
        self._shared.epoll.register(listener.fd, select.EPOLLIN)

    def _unwatch(self, listener: Listener) -> None:
        self._shared.epoll.unregister(listener.fd)
        del self._shared.handlers[listener.fd]

    def _accept(self, listener: Listener, _: int) -> None:
        """Take the clients that wait; one too many is closed at once."""
        while True:
            try:
                sock, _ = listener.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                _log.warning("cannot accept a client: %s", error)
                self._unwatch(listener)
                self.paused.append(listener)
                return
            if len(self._shared.connections) >= self._most:
                _log.warning("refused a client: %d connections are open", self._most)
                sock.close()
            else:
                self._begin(sock)

    def _begin(self, sock: socket.socket) -> None:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        Connection(sock, self._shared, monotonic() + self._handshake_timeout).greet()
        self._shared.stats.accepted += 1
