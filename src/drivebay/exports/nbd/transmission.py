"""The transmission phase of one connection: requests from its inbox to the disk, replies to its wire.

Runs of plain reads and writes go to the disk as one batch and are answered by one send. Everything else,
and what would have to wait for the disk, is started (`Underway`), and answered when it is done.
"""

from __future__ import annotations

import mmap
import socket
from collections.abc import Callable
from typing import Final

from drivebay.engine.batch import Outcome
from drivebay.engine.source import Buffer
from drivebay.exports.nbd.constants import MAX_PAYLOAD, Command, Error
from drivebay.exports.nbd.handshake import Session
from drivebay.exports.nbd.plain import Batch, plan_reads, plan_writes
from drivebay.exports.nbd.replies import ChunkedReplies
from drivebay.exports.nbd.requests import Request
from drivebay.exports.nbd.shared import Shared
from drivebay.exports.nbd.underway import Underway
from drivebay.exports.nbd.wire import Wire

_DONE: Final = Outcome.DONE
_ZERO: Final = Outcome.ZERO

_MAX_IN_FLIGHT: Final = 64 << 20  # bytes of requests that one connection may have in the workers
_MAX_UNSENT: Final = 1 << 20  # bytes of replies; beyond, no more requests are taken
_MOST_AT_ONCE: Final = 256  # batches and other requests in one turn: other clients wait for no more
_ALIKE: Final = 16  # requests of one batch that count as much as another batch
_OWN_BUFFER_FROM: Final = 256 << 10  # payloads that get a buffer of their own while they arrive

_COMMAND_AT: Final = 7  # the low byte of a request's command
_READ: Final = int(Command.READ)
_WRITE: Final = int(Command.WRITE)


class _Body:
    """A large payload on its way in."""

    __slots__ = ("buffer", "received", "request", "view")

    def __init__(self, request: Request, buffer: mmap.mmap, begun: memoryview) -> None:
        self.request = request
        self.buffer = buffer
        self.view = memoryview(buffer)[: request.payload]
        self.received = len(begun)
        self.view[: self.received] = begun


class Transmission:
    """``on_reply`` is called when a worker's reply has been given to the wire."""

    def __init__(
        self, session: Session, shared: Shared, wire: Wire, on_reply: Callable[[list[Buffer]], None]
    ) -> None:
        self.finished = False  # the client wants, or deserves, no more requests to be taken
        self.paused = False  # there are more requests: call `process` again in the next turn
        self.underway = Underway(session, shared, wire, on_reply)
        self._replies = session.replies
        self._writable = session.export.writable
        self._disk = session.export.disk
        self._shared = shared
        self._wire = wire
        self._body: _Body | None = None
        self._left = 0  # batches and other requests until a pause
        self._gate = session.export.gate

    def must_wait(self) -> bool:
        """Whether no more requests are taken, for now or for ever."""
        return (
            self.finished
            or self.paused
            or self.underway.charge > _MAX_IN_FLIGHT
            or self._wire.outbox.size > _MAX_UNSENT
        )

    def receive(self, flags: int = socket.MSG_DONTWAIT) -> int:
        """Receive once and handle what became whole; as `Wire.receive`."""
        if self._body is not None:
            return self._receive_body(self._body)
        count = self._wire.receive(flags)
        if count > 0:
            self.process()
        return count

    def abandon(self) -> None:
        """The client is gone; see `Underway.abandon`."""
        self.underway.abandon(said_goodbye=self.finished)

    def process(self) -> None:
        """Handle whole requests until there are none, or until the client must be made to wait."""
        inbox, header, gate = self._wire.inbox, self._replies.requests.size, self._gate
        self.paused, self._left = False, _MOST_AT_ONCE
        while inbox.end - inbox.start >= header and not self.must_wait():
            if self._left <= 0:
                self.paused = True
                break
            self._left -= 1
            command = inbox.view[inbox.start + _COMMAND_AT]  # a guess: the plans look at the whole header
            if gate.closed:
                handled = self._any_request()
            elif command == _READ:
                handled = self._plain_reads() or self._any_request()
            elif command == _WRITE and self._writable:
                handled = self._plain_writes() or self._any_request()
            else:
                handled = self._any_request()
            if not handled:
                break

    def _plain_reads(self) -> bool:
        inbox, replies, shared = self._wire.inbox, self._replies, self._shared
        batch, end = plan_reads(replies, inbox.view, inbox.start, inbox.end, shared.slab)
        if not batch:
            return False
        outcomes = self._disk.read_batch(batch)
        count = len(batch)
        self._left -= count // _ALIKE
        if outcomes.count(_DONE) == count:
            self._wire.send(shared.slab.view[:end])
            stats = shared.stats
            stats.requests += count
            stats.read_bytes += end - count * replies.data_header
        else:
            self._answer_mixed(batch, outcomes)
        inbox.start += count * replies.requests.size
        return True

    def _answer_mixed(self, batch: Batch, outcomes: list[Outcome]) -> None:
        """Some reads of the batch are zeros or must wait for the disk."""
        inbox, replies, slab = self._wire.inbox, self._replies, self._shared.slab
        headers = replies.requests.decode_run(inbox.view, inbox.start, len(batch))
        ready: list[Buffer] = []
        end = count = 0
        for (_, cookie, offset, length), (_, data), outcome in zip(headers, batch, outcomes, strict=True):
            start, end = end, end + replies.data_header + length
            if outcome is _ZERO and isinstance(replies, ChunkedReplies):
                ready.append(replies.hole(cookie, offset, offset, length, last=True))
            elif outcome is _ZERO or outcome is _DONE:
                if outcome is _ZERO:
                    data[:] = bytes(length)
                ready.append(slab.view[start:end])
            else:
                self.underway.start(Request(Command.READ, 0, cookie, offset, length, 0), b"")
                continue
            count += length
        self._shared.stats.requests += len(ready)
        self._shared.stats.read_bytes += count
        self._wire.send(b"".join(ready))

    def _plain_writes(self) -> bool:
        inbox, replies, shared = self._wire.inbox, self._replies, self._shared
        batch, cookies, end = plan_writes(replies.requests, inbox.view, inbox.start, inbox.end)
        if not batch:
            return False
        outcomes = self._disk.write_batch(batch)
        self._left -= len(batch) // _ALIKE
        if outcomes.count(_DONE) != len(batch):
            batch, cookies = self._start_late_writes(batch, cookies, outcomes)
        shared.written.add(self._disk)
        shared.stats.requests += len(batch)
        shared.stats.written_bytes += sum([len(data) for _, data in batch])
        self._wire.send(replies.acks(cookies, [offset for offset, _ in batch]))
        inbox.start = end
        return True

    def _start_late_writes(
        self, batch: Batch, cookies: list[int], outcomes: list[Outcome]
    ) -> tuple[Batch, list[int]]:
        """Give what must wait to the workers, with a copy of the data; returns what is done."""
        done: list[int] = []
        for number, outcome in enumerate(outcomes):
            if outcome is _DONE:
                done.append(number)
                continue
            offset, data = batch[number]
            size = len(data)
            self.underway.start(Request(Command.WRITE, 0, cookies[number], offset, size, size), bytes(data))
        return [batch[number] for number in done], [cookies[number] for number in done]

    def _any_request(self) -> bool:
        """Handle the next request the general way; false when it is not all here yet."""
        inbox, requests = self._wire.inbox, self._replies.requests
        request = requests.decode(inbox.view, inbox.start)
        if request.command == Command.DISC:
            self.finished = True
            return False
        data = inbox.start + requests.size
        if request.payload > MAX_PAYLOAD:
            self.underway.refuse(request, Error.INVAL, f"a payload has at most {MAX_PAYLOAD} bytes")
            self.finished = True
            return False
        if inbox.end - data < request.payload:
            if request.payload > _OWN_BUFFER_FROM:
                buffer = self._shared.payloads.take(request.payload)
                self._body = _Body(request, buffer, inbox.view[data : inbox.end])
                inbox.start = inbox.end
            return False
        payload = bytes(inbox.view[data : data + request.payload])
        inbox.start = data + request.payload
        self.underway.start(request, payload)
        return True

    def _receive_body(self, body: _Body) -> int:
        count = self._wire.receive_into(body.view[body.received :])
        body.received += max(count, 0)
        if body.received == len(body.view):
            self._body = None
            self.underway.start(body.request, body.view, body.buffer)
        return count
