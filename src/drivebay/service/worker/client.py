"""Speaking to a worker, from another process."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from drivebay.errors import ErrorKind, StorageError
from drivebay.service.worker.control_client import ControlClient
from drivebay.service.worker.messages import Message
from drivebay.service.worker.spec import CONTROL_SOCKET, DiskSpec, spec_to_json

Status = dict[str, Any]

_RATES = ("reads", "writes", "read_bytes", "written_bytes", "zeros", "discards", "flushes", "errors")


class WorkerClient(ControlClient):
    """A control connection to a worker; see `connect`.

    Every method raises the StorageError that the worker answers with, and STATE when the worker is gone
    or does not answer within ``timeout`` seconds. What this client holds is released when it is closed,
    or dies.
    """

    def __init__(self, sock: socket.socket, path: str, timeout: float) -> None:
        super().__init__(sock, "the worker", partial(_gone, path))
        self._timeout = timeout

    @classmethod
    def connect(cls, run_folder: str, *, timeout: float = 600) -> WorkerClient:
        """Connect to the worker of this folder."""
        path = os.path.join(run_folder, CONTROL_SOCKET)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        try:
            sock.connect(path)
        except OSError as error:
            sock.close()
            raise _gone(path, f"no worker serves here ({error.strerror})") from error
        return cls(sock, path, timeout)

    def status(self) -> dict[str, Status]:
        """For each export what it is and has done; see docs/internals/worker.md for the fields."""
        exports: dict[str, Status] = self._ask("status")["exports"]
        return exports

    def open(self, spec: DiskSpec) -> None:
        """Open one more disk and offer it."""
        self._ask("open", disk=spec_to_json(spec))

    def close_disk(self, export: str) -> None:
        """Drop an export's clients, flush its disk and close it."""
        self._ask("close", export=export)

    def push(self, images: Mapping[str, str]) -> float:
        """Put an empty image on top of each of these disks, of all of them or none.

        The answer is for how many seconds no request was served.
        """
        named = {export: os.path.abspath(path) for export, path in images.items()}
        return float(self._ask("push", images=named)["paused"])

    def hold(self, exports: Sequence[str], *, settle: bool = False) -> None:
        """Flush these disks, and let no request be under way or begin until `release`.

        The images below the active one may be changed then, if `rebase` follows; to ``settle`` the active
        ones is to allow that for them, too. If this client dies, the worker opens all of them anew.
        """
        self._ask("hold", exports=list(exports), settle=settle)

    def release(self) -> None:
        """Let the disks go on that this client holds."""
        self._ask("release")

    def rebase(self, export: str, paths: Sequence[str], formats: Sequence[str] = ()) -> float:
        """Let a disk consist of these images from now on: the guest must see the same content.

        They are opened first; then the disk is held shortly, unless this client holds it. The answer is
        for how many seconds.
        """
        answer = self._ask("rebase", export=export, paths=_absolute(paths), formats=list(formats))
        return float(answer["paused"])

    def limit(self, group: str, bytes_per_second: int) -> None:
        """Give a bandwidth group a limit, 0 for none; it is made if it is new."""
        self._ask("limit", group=group, bytes_per_second=bytes_per_second)

    def flush(self, exports: Sequence[str] = ()) -> None:
        """Flush these disks; all of them where none is named."""
        self._ask("flush", exports=list(exports))

    def quit(self) -> None:
        """Have the worker flush and close everything, and end."""
        self._ask("quit")

    def _ask(self, do: str, **fields: object) -> Message:
        return self._exchange(do, fields, self._timeout)


def rates(before: Status, after: Status) -> dict[str, float]:
    """What one export did a second between two of its `WorkerClient.status`."""
    seconds = after["time"] - before["time"]
    if seconds <= 0:
        return dict.fromkeys(_RATES, 0.0)
    return {name: (after[name] - before[name]) / seconds for name in _RATES}


def _absolute(paths: Sequence[str]) -> list[str]:
    return [os.path.abspath(path) for path in paths]


def _gone(path: str, what: str) -> StorageError:
    return StorageError(
        ErrorKind.STATE, f"{what}; start the machine, or look at its log", path=path, operation="worker"
    )
