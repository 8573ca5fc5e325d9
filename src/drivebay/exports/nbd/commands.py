"""One request against an export, with the disk's blocking calls: what the worker threads run.

Plain reads and writes that need not wait never get here (`drivebay.exports.nbd.plain`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from drivebay.engine.source import Buffer
from drivebay.errors import ErrorKind, StorageError
from drivebay.exports.nbd.constants import MAX_PAYLOAD, Command, CommandFlag, Error
from drivebay.exports.nbd.handshake import Session
from drivebay.exports.nbd.metacontext import describe
from drivebay.exports.nbd.replies import ChunkedReplies
from drivebay.exports.nbd.requests import Request
from drivebay.model import ExtentState

_log = logging.getLogger(__name__)

_SPLIT_FROM = 64 << 10  # reads from this size on tell their holes; looking for them costs time
_MAX_EXTENTS = 16384  # in one block status reply
_MAX_STATUS_LENGTH = 64 << 30  # looked at for one block status request

_FLAGS: dict[int, int] = {
    Command.READ: CommandFlag.FUA | CommandFlag.DF,
    Command.WRITE: CommandFlag.FUA | CommandFlag.PAYLOAD_LEN,
    Command.FLUSH: CommandFlag.FUA,
    Command.TRIM: CommandFlag.FUA,
    Command.CACHE: CommandFlag.FUA,
    Command.WRITE_ZEROES: CommandFlag.FUA | CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO,
    Command.BLOCK_STATUS: CommandFlag.FUA | CommandFlag.REQ_ONE,
}
_WRITERS = (Command.WRITE, Command.TRIM, Command.WRITE_ZEROES)
_SENDABLE = {Error.PERM, Error.IO, Error.NOMEM, Error.INVAL, Error.NOSPC}

Refusal = tuple[Error, str]


def refusal(session: Session, request: Request) -> Refusal | None:
    """Why the request cannot even be tried, or ``None``."""
    command = request.command
    if command not in _FLAGS:
        return Error.INVAL, f"unknown command {command}"
    chunked = isinstance(session.replies, ChunkedReplies)
    allowed = int(_FLAGS[command])  # an IntFlag would invert within its known bits only
    if request.flags & ~allowed or (request.flags & CommandFlag.DF and not chunked):
        return Error.INVAL, f"flags {request.flags:#x} do not fit command {command}"
    if command in _WRITERS and not session.export.writable:
        return Error.PERM, "the export is read-only"
    if command == Command.TRIM and not session.export.discard:
        return Error.INVAL, "the export does not take space back"
    if command == Command.BLOCK_STATUS and not (session.contexts and request.length):
        return Error.INVAL, "block status needs a metadata context and a length"
    if request.offset + request.length > session.export.disk.size:
        return _beyond_end(command, session.export.disk.size)
    if command == Command.READ and request.length > MAX_PAYLOAD:
        return Error.OVERFLOW if chunked else Error.INVAL, f"a read returns at most {MAX_PAYLOAD} bytes"
    return None


def _beyond_end(command: int, size: int) -> Refusal:
    full = command in (Command.WRITE, Command.WRITE_ZEROES)
    return Error.NOSPC if full else Error.INVAL, f"the request goes beyond the end of the disk, {size} bytes"


def execute(session: Session, request: Request, payload: Buffer) -> list[Buffer]:
    """The whole reply to a request that was not refused; never raises."""
    try:
        return _ACTIONS[request.command](session, request, payload)
    except StorageError as error:
        session.export.faults.note(error.with_traceback(None))
        return [_error(session, request, sendable_error(error), error.message)]
    except MemoryError:
        return [_error(session, request, Error.NOMEM, "the server is out of memory")]
    except Exception:
        _log.exception("request %s failed", request)
        return [_error(session, request, Error.IO, "internal error of the server; see its log")]


def sendable_error(error: StorageError) -> Error:
    """The error number for a reply: the protocol knows fewer than ``errno`` does."""
    if error.kind is ErrorKind.UNSUPPORTED:
        return Error.INVAL
    return Error(error.nbd_errno) if error.nbd_errno in _SENDABLE else Error.IO


def _error(session: Session, request: Request, error: Error, message: str) -> bytes:
    return session.replies.error(request.cookie, request.offset, error, message)


def _done(session: Session, request: Request) -> list[Buffer]:
    return [session.replies.acks([request.cookie], [request.offset])]


def _read(session: Session, request: Request, payload: Buffer) -> list[Buffer]:
    del payload
    replies = session.replies
    if isinstance(replies, ChunkedReplies):
        if not request.length:
            return _done(session, request)
        if request.length >= _SPLIT_FROM and not request.flags & CommandFlag.DF:
            return _read_in_chunks(session, request, replies)
    reply = bytearray(replies.data_header + request.length)
    replies.pack_data(reply, 0, request.cookie, request.offset, request.length)
    session.export.disk.read_into(request.offset, memoryview(reply)[replies.data_header :])
    return [reply]


def _read_in_chunks(session: Session, request: Request, replies: ChunkedReplies) -> list[Buffer]:
    disk = session.export.disk
    cookie, start, length = request.cookie, request.offset, request.length
    parts: list[Buffer] = []
    for offset, size, is_data in _data_and_holes(session, request):
        last = offset + size == start + length
        if is_data:
            parts.append(replies.data(cookie, start, offset, size, last=last))
            parts.append(disk.read(offset, size))
        else:
            parts.append(replies.hole(cookie, start, offset, size, last=last))
    return parts


def _data_and_holes(session: Session, request: Request) -> list[tuple[int, int, bool]]:
    """``(offset, length, is data)`` runs that cover the request; neighbours differ."""
    runs: list[tuple[int, int, bool]] = []
    for extent in session.export.disk.extents(request.offset, request.length):
        is_data = extent.state is ExtentState.DATA
        if runs and runs[-1][2] == is_data:
            offset, length, _ = runs.pop()
            runs.append((offset, length + extent.length, is_data))
        else:
            runs.append((extent.start, extent.length, is_data))
    return runs


def _write(session: Session, request: Request, payload: Buffer) -> list[Buffer]:
    session.export.disk.write(request.offset, payload, fua=_fua(request))
    return _done(session, request)


def _flush(session: Session, request: Request, payload: Buffer) -> list[Buffer]:
    del payload
    if session.export.disk.writable:
        session.export.disk.flush()
    return _done(session, request)


def _trim(session: Session, request: Request, payload: Buffer) -> list[Buffer]:
    del payload
    session.export.disk.discard(request.offset, request.length, fua=_fua(request))
    return _done(session, request)


def _cache(session: Session, request: Request, payload: Buffer) -> list[Buffer]:
    del payload
    session.export.disk.prefetch(request.offset, request.length)
    return _done(session, request)


def _write_zeroes(session: Session, request: Request, payload: Buffer) -> list[Buffer]:
    del payload
    disk = session.export.disk
    if request.flags & CommandFlag.FAST_ZERO and not disk.zero_is_fast(request.offset, request.length):
        return [_error(session, request, Error.NOTSUP, "zeroing would not be faster than writing")]
    unmap = session.export.discard and not request.flags & CommandFlag.NO_HOLE
    disk.zero(request.offset, request.length, unmap=unmap, fua=_fua(request))
    return _done(session, request)


def _block_status(session: Session, request: Request, payload: Buffer) -> list[Buffer]:
    del payload
    replies = session.replies
    assert isinstance(replies, ChunkedReplies)  # contexts are only given to chunked sessions
    limit = 1 if request.flags & CommandFlag.REQ_ONE else _MAX_EXTENTS
    extents = session.export.disk.extents(request.offset, min(request.length, _MAX_STATUS_LENGTH))
    found = describe(extents, session.contexts, limit=_MAX_EXTENTS, longest=replies.longest_extent)
    parts: list[Buffer] = []
    for number, context in enumerate(session.contexts, start=1):
        last = number == len(session.contexts)
        runs = found[context.id][:limit]
        parts.append(replies.status(request.cookie, request.offset, context.id, runs, last=last))
    return parts


def _fua(request: Request) -> bool:
    return bool(request.flags & CommandFlag.FUA)


_ACTIONS: dict[int, Callable[[Session, Request, Buffer], list[Buffer]]] = {
    Command.READ: _read,
    Command.WRITE: _write,
    Command.FLUSH: _flush,
    Command.TRIM: _trim,
    Command.CACHE: _cache,
    Command.WRITE_ZEROES: _write_zeroes,
    Command.BLOCK_STATUS: _block_status,
}
