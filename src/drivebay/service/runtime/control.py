"""The supervisor's control socket: JSON lines, as the worker's (`drivebay.service.worker.messages`)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from drivebay.errors import ErrorKind, StorageError
from drivebay.service.worker.messages import LONGEST_LINE, Message, decode, encode, error_to_json

_log = logging.getLogger(__name__)

Answer = Callable[[Message, int], Awaitable[dict[str, Any]]]  # the number tells clients apart
_FAREWELL = 5.0  # seconds for clients to take their last answers


class Control:
    """Answers clients, each in its own order, all of them at the same time."""

    def __init__(self, answer: Answer, gone: Callable[[int], None] = lambda _: None) -> None:
        """``gone`` is told of each client that has hung up."""
        self._answer = answer
        self._gone = gone
        self._numbers = itertools.count(1)
        self._server: asyncio.Server | None = None
        self._busy: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.StreamWriter] = set()

    async def listen(self, path: str) -> None:
        """Listen; the caller has seen to it that nobody else does."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._server = await asyncio.start_unix_server(self._serve, path, limit=LONGEST_LINE)

    async def close(self) -> None:
        """Let no one in any more, and hang up once what was asked has been answered."""
        if self._server is not None:
            self._server.close()
        if self._busy:
            await asyncio.wait(self._busy, timeout=_FAREWELL)
        for writer in list(self._clients):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        client = next(self._numbers)
        try:
            while line := await reader.readline():
                task = asyncio.ensure_future(self._reply(line, writer, client))
                self._busy.add(task)
                task.add_done_callback(self._busy.discard)
                await task
        except (OSError, ValueError) as error:  # it hung up, or its line is too long
            _log.info("a client: %s", error)
        finally:
            self._clients.discard(writer)
            writer.close()
            self._gone(client)

    async def _reply(self, line: bytes, writer: asyncio.StreamWriter, client: int) -> None:
        number = None
        try:
            message = decode(line)
            number = message.get("id")
            reply: Message = {"id": number, "ok": await self._answer(message, client)}
        except StorageError as error:
            reply = {"id": number, "error": error_to_json(error)}
        except Exception as error:
            _log.exception("a command failed")
            failure = StorageError(
                ErrorKind.STATE, f"internal error ({type(error).__name__}: {error}); please report it"
            )
            reply = {"id": number, "error": error_to_json(failure)}
        writer.write(encode(reply))
        await writer.drain()
