"""What the messages of a control connection ask for."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from drivebay.errors import ErrorKind, StorageError
from drivebay.service.worker import spec
from drivebay.service.worker.messages import Message, decode, error_to_json
from drivebay.service.worker.slots import Holding, Slots

_log = logging.getLogger(__name__)


class Commands:
    """The commands of one control connection. ``quit`` is called when the client wants the worker to end."""

    def __init__(self, slots: Slots, quit: Callable[[], None]) -> None:
        self._slots = slots
        self._quit = quit
        self._holding = Holding()
        self._commands: dict[str, Callable[[Message], dict[str, Any]]] = {
            "status": self._status,
            "open": self._open,
            "close": self._close,
            "push": self._push,
            "hold": self._hold,
            "release": self._release,
            "rebase": self._rebase,
            "limit": self._limit,
            "flush": self._flush,
            "quit": self._end,
        }

    def answer(self, line: bytes | None) -> Message:
        """The answer to one line, ``None`` for one that was too long; never raises."""
        number: object = None
        try:
            if line is None:
                raise spec.invalid("this line is too long")
            message = decode(line)
            number = message.get("id")
            return {"id": number, "ok": self._command(message)(message)}
        except StorageError as error:
            return {"id": number, "error": error_to_json(error)}
        except Exception as error:
            _log.exception("a command failed")
            return {"id": number, "error": error_to_json(_internal(error))}

    def release(self) -> None:
        """The connection ends: let go what it holds, unless nobody can tell any more what the disks are."""
        try:
            self._slots.release(self._holding, forsaken=True)
        except Exception:
            _log.exception("disks were forsaken that can't be opened again; another worker may")
            os._exit(1)  # without another word to the images

    def _command(self, message: Message) -> Callable[[Message], dict[str, Any]]:
        name = message.get("do")
        command = self._commands.get(name) if isinstance(name, str) else None
        if command is None:
            raise spec.invalid(f"there is no such command; there are {', '.join(self._commands)}")
        return command

    def _status(self, message: Message) -> dict[str, Any]:
        del message
        return {"exports": self._slots.status()}

    def _open(self, message: Message) -> dict[str, Any]:
        self._slots.open(spec.spec_from_json(message.get("disk")))
        return {}

    def _close(self, message: Message) -> dict[str, Any]:
        self._slots.close(spec.text(message.get("export")), self._holding)
        return {}

    def _push(self, message: Message) -> dict[str, Any]:
        images = spec.mapping(message.get("images"), spec.text)
        return {"paused": self._slots.push(images, self._holding)}

    def _hold(self, message: Message) -> dict[str, Any]:
        exports, settle = spec.texts(message.get("exports")), message.get("settle") is True
        self._slots.hold(exports, self._holding, settle=settle)
        return {}

    def _release(self, message: Message) -> dict[str, Any]:
        del message
        self._slots.release(self._holding)
        return {}

    def _rebase(self, message: Message) -> dict[str, Any]:
        name, paths = spec.export_name(message.get("export")), spec.paths(message.get("paths"))
        formats = spec.texts(message.get("formats", []))
        return {"paused": self._slots.rebase(name, paths, formats, self._holding)}

    def _limit(self, message: Message) -> dict[str, Any]:
        group, limit = spec.text(message.get("group")), spec.limit(message.get("bytes_per_second"))
        self._slots.limit(group, limit)
        return {}

    def _flush(self, message: Message) -> dict[str, Any]:
        self._slots.flush(spec.texts(message.get("exports", [])), self._holding)
        return {}

    def _end(self, message: Message) -> dict[str, Any]:
        del message
        self._quit()
        return {}


def _internal(error: Exception) -> StorageError:
    return StorageError(
        ErrorKind.IO,
        f"internal error of the worker ({type(error).__name__}); see its log",
        operation="worker",
    )
