"""The guest agent: QEMU's, where the guest runs it (its protocol is JSON over a virtual serial line).

What it answers is the guest's word: anything may come.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from typing import Any

from drivebay.errors import ErrorKind, StorageError
from drivebay.qemu.arguments import AGENT_SOCKET

_SYNC_TIMEOUT = 5.0  # seconds that a living agent needs at most to say that it is there
_ANSWER_TIMEOUT = 30.0  # to flush and freeze all file systems takes time
_OPERATION = "guest agent"


async def ask_agent(run_folder: str, command: str) -> Any:
    """What the agent returns for ``command``.

    Raises StorageError: UNSUPPORTED where there is no agent, and it was not asked; STATE where it refuses,
    or was asked and does not answer.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(os.path.join(run_folder, AGENT_SOCKET))
    except OSError as error:
        raise _missing(str(error)) from error
    try:
        await _sync(reader, writer)
        return await _ask(reader, writer, command)
    finally:
        writer.close()


async def _sync(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Skip what an earlier client left on the line."""
    number = secrets.randbits(31)
    _send(writer, {"execute": "guest-sync", "arguments": {"id": number}})
    try:
        async with asyncio.timeout(_SYNC_TIMEOUT):
            while line := await reader.readline():
                if _decoded(line).get("return") == number:
                    return
    except TimeoutError as error:
        raise _missing("it does not answer") from error
    except (OSError, ValueError) as error:
        raise _missing(str(error)) from error
    raise _missing("it hung up")


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, command: str) -> Any:
    _send(writer, {"execute": command})
    reason = "it hung up"
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT):
            answer = _decoded(await reader.readline())
    except TimeoutError:
        answer, reason = {}, f"it has not answered within {_ANSWER_TIMEOUT:.0f} s"
    except (OSError, ValueError) as error:
        answer, reason = {}, str(error)
    if "return" in answer:
        return answer["return"]
    told = answer.get("error")
    reason = str(told.get("desc", told)) if isinstance(told, dict) else reason
    raise StorageError(
        ErrorKind.STATE,
        f"the guest agent does not do {command}: {reason[:500]}; look at its log in the guest",
        operation=_OPERATION,
    )


def _send(writer: asyncio.StreamWriter, message: Mapping[str, object]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")


def _decoded(line: bytes) -> dict[str, Any]:
    """The object that a line holds; empty for anything else."""
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(line)
        return value if isinstance(value, dict) else {}
    return {}


def _missing(reason: str) -> StorageError:
    return StorageError(
        ErrorKind.UNSUPPORTED,
        f"no guest agent answers in the guest ({reason}); install and start qemu-guest-agent there, "
        "or go on without it",
        operation=_OPERATION,
    )
