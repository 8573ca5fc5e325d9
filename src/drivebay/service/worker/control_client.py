"""The asking end of a control connection: what the clients of workers and of supervisors share."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from drivebay.errors import StorageError
from drivebay.service.worker.messages import Message, decode, encode, error_from_json, lines


class ControlClient:
    """Asks ``peer``; safe for many threads, which wait for each other. ``gone`` makes the error of no answer.

    It hangs up when an answer does not come in time: else it would be taken for that of the next question.
    """

    def __init__(self, sock: socket.socket, peer: str, gone: Callable[[str], StorageError]) -> None:
        self._sock = sock
        self._peer = peer
        self._gone = gone
        self._lines = lines(sock)
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def close(self) -> None:
        """Hang up; what was asked for still happens."""
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exchange(self, do: str, fields: Mapping[str, object], timeout: float | None) -> Message:
        """What is answered within ``timeout`` seconds. Raises the StorageError that is answered, too."""
        with self._lock:
            try:
                self._sock.settimeout(timeout)
                self._sock.sendall(encode({"id": next(self._numbers), "do": do, **fields}))
                line = next(self._lines, None)
            except OSError as error:
                self._sock.close()
                raise self._gone(f"{self._peer} does not answer ({error})") from error
        if line is None:
            raise self._gone(f"{self._peer} ended")
        answer = decode(line)
        if "error" in answer:
            raise error_from_json(answer["error"])
        result: Message = answer["ok"]
        return result
