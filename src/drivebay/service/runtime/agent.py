"""The guest agent: QEMU's, where the guest runs it (its protocol is JSON over a virtual serial line)."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Mapping
from typing import Any

from drivebay.errors import ErrorKind, StorageError
from drivebay.qemu.arguments import AGENT_SOCKET

_SYNC_TIMEOUT = 3.0  # seconds that a living agent needs at most to say that it is there
_FREEZE_TIMEOUT = 60.0
_OPERATION = "guest agent"


async def ask_agent(run_folder: str, command: str, arguments: Mapping[str, object] | None = None) -> Any:
    """What the agent returns for ``command``. Raises StorageError: UNSUPPORTED where there is no agent."""
    try:
        reader, writer = await asyncio.open_unix_connection(os.path.join(run_folder, AGENT_SOCKET))
    except OSError as error:
        raise _missing(error) from error
    try:
        await _sync(reader, writer)
        message: dict[str, object] = {"execute": command}
        _send(writer, message | ({"arguments": dict(arguments)} if arguments else {}))
        async with asyncio.timeout(_FREEZE_TIMEOUT):
            answer = json.loads(await reader.readline() or b"{}")
    except (OSError, TimeoutError, ValueError) as error:
        raise _missing(error) from error
    finally:
        writer.close()
    if "return" not in answer:
        reason = answer.get("error", {}).get("desc", "it hung up")
        raise StorageError(
            ErrorKind.STATE, f"the guest agent refuses {command}: {reason}", operation=_OPERATION
        )
    return answer["return"]


async def _sync(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Skip what an earlier client left on the line."""
    number = secrets.randbits(31)
    _send(writer, {"execute": "guest-sync", "arguments": {"id": number}})
    async with asyncio.timeout(_SYNC_TIMEOUT):
        while line := await reader.readline():
            if json.loads(line).get("return") == number:
                return
    raise OSError("it hung up")


def _send(writer: asyncio.StreamWriter, message: Mapping[str, object]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")


def _missing(error: Exception) -> StorageError:
    reason = str(error) or "it does not answer"
    return StorageError(
        ErrorKind.UNSUPPORTED,
        f"no guest agent answers in the guest ({reason}); install qemu-guest-agent there, "
        "or go on without it",
        operation=_OPERATION,
    )
