"""One client's connection: its phases, what it waits for, and its end."""

from __future__ import annotations

import logging
import select
import socket
from time import monotonic
from typing import Final

from drivebay.engine.source import Buffer
from drivebay.exports.export import Export
from drivebay.exports.nbd.constants import ProtocolError
from drivebay.exports.nbd.handshake import GREETING, Handshake
from drivebay.exports.nbd.shared import Shared
from drivebay.exports.nbd.transmission import Transmission
from drivebay.exports.nbd.wire import Wire

_log = logging.getLogger(__name__)

_READABLE: Final = select.EPOLLIN
_WRITABLE: Final = select.EPOLLOUT
_ALONE: Final = 64  # receives
_GONE: Final = select.EPOLLHUP | select.EPOLLERR


class Connection:
    """A client, from the greeting to the end. Everything runs in the loop's thread.

    A client that breaks the protocol, or whose socket fails, is dropped; nobody else notices.
    """

    def __init__(self, sock: socket.socket, shared: Shared, deadline: float) -> None:
        self.deadline = deadline  # of the handshake, on the monotonic clock
        self._shared = shared
        self._wire = Wire(sock)
        self._handshake = Handshake(shared.exports)
        self._transmission: Transmission | None = None
        self._closing = False  # takes no more requests; ends when everything is answered
        self._dropped = False
        self._interest = _READABLE
        shared.epoll.register(sock, _READABLE)
        shared.handlers[sock.fileno()] = self.on_event
        shared.connections.add(self)
        shared.stats.connections += 1
        shared.handshaking.add(self)

    @property
    def export(self) -> Export | None:
        """What the client uses, once it has chosen."""
        session = self._handshake.session
        return session.export if session is not None else None

    def greet(self) -> None:
        """Say the server's first words."""
        try:
            self._wire.send(GREETING)
        except OSError as error:
            self.drop(str(error))

    def on_event(self, events: int) -> None:
        """The socket can be read or written, or the peer is gone."""
        try:
            if events & _READABLE:
                transmission = self._transmission
                count = self._shake_hands() if transmission is None else transmission.receive()
                if not count:
                    self._closing = True
            elif events & _GONE:
                self.drop("the peer is gone")
            if events & _WRITABLE:
                self._resume()
            if not self._at_rest():
                self._settle()
        except (ProtocolError, OSError) as error:
            self.drop(str(error))
        except Exception:
            _log.exception("a connection failed")
            self.drop("internal error")

    def serve_alone(self) -> bool:
        """Handle what comes, without the loop, for a while; false when nothing came for a moment.

        Only for a connection at rest: it waits in the socket, where no reply of a worker can wake it.
        """
        transmission = self._transmission
        if transmission is None or not self._at_rest():
            return False
        try:
            for _ in range(_ALONE):
                count = self._receive_alone(transmission)
                if not self._at_rest():
                    break
                if count <= 0:
                    self._closing = not count
                    break
            if not self._at_rest():
                self._settle()
                return False
            return count > 0
        except (ProtocolError, OSError) as error:
            self.drop(str(error))
        except Exception:
            _log.exception("a connection failed")
            self.drop("internal error")
        return False

    def _receive_alone(self, transmission: Transmission) -> int:
        """Receive, and wait a moment for it; first without sleeping, where that pays."""
        count = transmission.receive()
        if count >= 0:
            return count
        eagerness = self._shared.eagerness
        started = monotonic()
        until = eagerness.look_until(started)
        while count < 0 and monotonic() < until:
            count = transmission.receive()
        if count < 0:
            count = transmission.receive(0)
            eagerness.waited(monotonic() - started)
        return count

    def resume(self) -> None:
        """Send the replies that came from the workers, and go on with the requests that are here."""
        if not self._dropped:
            self.on_event(_WRITABLE)

    def finish(self) -> None:
        """Take no more requests; close when those under way are answered."""
        self._closing = True
        self._settle()

    def drop(self, reason: str) -> None:
        """Close at once; what the workers have begun still happens, unanswered."""
        if self._dropped:
            return
        _log.debug("connection closed: %s", reason)
        self._dropped = True
        if self._transmission is not None:
            self._transmission.abandon()
        self._transmission = None  # it refers to this connection: both shall go without the collector
        shared, sock = self._shared, self._wire.sock
        shared.epoll.unregister(sock)
        del shared.handlers[sock.fileno()]
        shared.connections.discard(self)
        shared.stats.connections -= 1
        shared.handshaking.discard(self)
        shared.closed.append(sock)

    def _shake_hands(self) -> int:
        """Receive once and answer; as `Wire.receive`."""
        count = self._wire.receive()
        if count <= 0:
            return count
        inbox, handshake = self._wire.inbox, self._handshake
        answer = handshake.receive(inbox.view[inbox.start : inbox.end])
        inbox.start = inbox.end
        if answer:
            self._wire.send(answer)
        if handshake.aborted:
            self._closing = True
        if handshake.session is not None:
            inbox.replace(handshake.rest)
            self._shared.handshaking.discard(self)
            self._transmission = Transmission(handshake.session, self._shared, self._wire, self._on_reply)
            self._transmission.process()
        return count

    def _on_reply(self, reply: list[Buffer]) -> None:
        if not self._dropped:
            self._wire.outbox.push(reply)
            self._shared.going_on.add(self)

    def _resume(self) -> None:
        """Send what is queued and go on with what waited for that."""
        self._wire.flush()
        if self._transmission is not None:
            self._transmission.process()

    def _at_rest(self) -> bool:
        """The usual case: nothing is under way, and the next request is waited for."""
        transmission = self._transmission
        return (
            transmission is not None
            and not (self._wire.outbox.size or transmission.underway.charge or transmission.finished)
            and not (self._closing or transmission.paused)
            and self._interest == _READABLE
        )

    def _settle(self) -> None:
        """After each event: close if that is due, else wait for the right things."""
        transmission, unsent = self._transmission, self._wire.outbox.size
        waiting, busy = self._closing, False
        if transmission is not None:
            if transmission.finished:
                self._closing = True
            waiting = self._closing or transmission.must_wait()
            busy = transmission.paused or transmission.underway.charge > 0
            if transmission.paused:
                self._shared.going_on.add(self)
        elif unsent:
            waiting = True
        if self._closing and not (busy or unsent or self._dropped):
            self.drop("finished")
        if self._dropped:
            return
        interest = 0 if waiting else _READABLE
        if unsent:
            interest |= _WRITABLE
        if interest != self._interest:
            self._shared.epoll.modify(self._wire.sock, interest)
            self._interest = interest
