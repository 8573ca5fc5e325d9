"""The requests of one connection that no batch does: in the workers, or when there is bandwidth."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from functools import partial
from typing import Final

from drivebay.engine.batch import Outcome
from drivebay.engine.source import Buffer
from drivebay.exports.nbd.commands import execute, refusal
from drivebay.exports.nbd.constants import Command, CommandFlag, Error
from drivebay.exports.nbd.delay import Delay, Work
from drivebay.exports.nbd.handshake import Session
from drivebay.exports.nbd.requests import Request
from drivebay.exports.nbd.shared import Shared
from drivebay.exports.nbd.wire import Wire
from drivebay.exports.nbd.workers import Lane

_DONE: Final = Outcome.DONE

_LEAST_CHARGE: Final = 64 << 10  # what a request counts for beside its data
_SMALL: Final = 256 << 10  # bytes: what has waited for bandwidth and is no larger is done in the loop


class Underway:
    """``on_reply`` is called with each reply, which is still to be sent."""

    def __init__(
        self, session: Session, shared: Shared, wire: Wire, on_reply: Callable[[list[Buffer]], None]
    ) -> None:
        self.charge = 0  # bytes that the requests under way count for
        self._session = session
        self._replies = session.replies
        self._disk = session.export.disk
        self._shared = shared
        self._wire = wire
        self._on_reply = on_reply
        self._gate = session.export.gate
        self._delay = Delay(self._gate, shared, self._run)
        self._lane = Lane()

    def abandon(self, *, said_goodbye: bool) -> None:
        """The client is gone: what the workers have begun happens unanswered, what waits is not done.

        After a goodbye what waits for a worker is: the protocol promises it.
        """
        self._delay.abandon()
        if said_goodbye:
            return
        for _ in range(self._shared.workers.forget(self._lane)):
            self._gate.ended()

    def start(self, request: Request, payload: Buffer, buffer: mmap.mmap | None = None) -> None:
        """Refuse a request now, or have it done and answered later; its payload may lie in ``buffer``."""
        reason = refusal(self._session, request)
        if reason is not None:
            self.refuse(request, *reason)
            return
        charge = _LEAST_CHARGE
        if request.command in (Command.READ, Command.WRITE):
            charge += request.length
        self.charge += charge
        work = Work(request, payload, charge, buffer)
        if not (self._gate.closed and self._delay.add(work)):
            self._submit(work)

    def _submit(self, work: Work) -> None:
        """Give a request to the workers."""
        self._gate.begun()
        task = partial(execute, self._session, work.request, work.payload)
        self._shared.workers.submit(self._lane, task, partial(self._complete, work))

    def _run(self, works: list[Work]) -> None:
        """Do what has waited."""
        for work in works:
            reply = self._at_once(work)
            if reply is None:
                self._submit(work)
            else:
                self._finish(work, [reply])

    def _at_once(self, work: Work) -> Buffer | None:
        """The reply to a small plain request, if that needs no waiting for the disk."""
        request, replies = work.request, self._replies
        if request.flags & ~CommandFlag.PAYLOAD_LEN or not 0 < request.length <= _SMALL:
            return None
        if request.command == Command.WRITE:
            (outcome,) = self._disk.write_batch([(request.offset, memoryview(work.payload))])
            return replies.acks([request.cookie], [request.offset]) if outcome is _DONE else None
        if request.command != Command.READ:
            return None
        reply = bytearray(replies.data_header + request.length)  # zeros, if nothing is filled in
        (outcome,) = self._disk.read_batch([(request.offset, memoryview(reply)[replies.data_header :])])
        replies.pack_data(reply, 0, request.cookie, request.offset, request.length)
        return None if outcome is Outcome.LATER else reply

    def _complete(self, work: Work, reply: list[Buffer]) -> None:
        """A worker has the reply."""
        self._gate.ended()
        self._finish(work, reply)

    def _finish(self, work: Work, reply: list[Buffer]) -> None:
        request = work.request
        self.charge -= work.charge
        if work.buffer is not None:
            self._shared.payloads.give_back(work.buffer)
        stats = self._shared.stats
        stats.requests += 1
        if request.command == Command.READ:
            stats.read_bytes += request.length
        elif request.command in (Command.WRITE, Command.WRITE_ZEROES, Command.TRIM):
            stats.written_bytes += request.payload
            self._shared.written.add(self._disk)
        self._on_reply(reply)

    def refuse(self, request: Request, error: Error, message: str) -> None:
        """Answer a request by an error."""
        self._shared.stats.requests += 1
        self._shared.stats.errors += 1
        self._wire.send(self._replies.error(request.cookie, request.offset, error, message))
