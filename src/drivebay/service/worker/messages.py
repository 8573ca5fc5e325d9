"""The control protocol's messages: one JSON object a line, each way.

``{"id": 7, "do": "flush", "exports": ["SATA:0:0"]}`` is answered by ``{"id": 7, "ok": {...}}`` or
``{"id": 7, "error": {"kind": ..., "message": ..., "path": ..., "offset": ..., "operation": ...}}``.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

from drivebay.errors import ErrorKind, StorageError
from drivebay.service.worker.spec import invalid

LONGEST_LINE = 4 << 20  # bytes; a chain of a thousand images with long paths fits
_CHUNK = 64 << 10

Message = dict[str, Any]


def encode(message: Message) -> bytes:
    """``message`` as a line."""
    return json.dumps(message).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message in ``line``; raises StorageError (INVALID) for everything else."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise invalid("this line is no JSON text") from None
    if not isinstance(message, dict):
        raise invalid("a message must be an object")
    return message


def lines(sock: socket.socket) -> Iterator[bytes | None]:
    """The whole lines that come on ``sock``, until its end; ``None`` for one that was too long.

    The bytes of a line that is too long are thrown away as they come. Raises OSError.
    """
    pending = bytearray()
    skipping = False
    while data := sock.recv(_CHUNK):
        *ends, rest = data.split(b"\n")
        for end in ends:
            pending += end
            yield None if skipping or len(pending) > LONGEST_LINE else bytes(pending)
            pending.clear()
            skipping = False
        pending += rest
        if len(pending) > LONGEST_LINE:
            pending.clear()
            skipping = True


def error_to_json(error: StorageError) -> dict[str, Any]:
    """``error`` as a JSON value."""
    return {
        "kind": error.kind.value,
        "message": error.message,
        "path": error.path,
        "offset": error.offset,
        "operation": error.operation,
    }


def error_from_json(value: dict[str, Any]) -> StorageError:
    """The reverse."""
    return StorageError(
        ErrorKind(value["kind"]),
        value["message"],
        path=value.get("path"),
        offset=value.get("offset"),
        operation=value.get("operation"),
    )
