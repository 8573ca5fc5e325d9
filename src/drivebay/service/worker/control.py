"""The control socket: a thread for each client, which may wait; the disks' loop never does."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable

from drivebay.errors import ErrorKind, StorageError
from drivebay.exports.nbd.listeners import Listener, listen_unix
from drivebay.service.worker.commands import Commands
from drivebay.service.worker.messages import encode, error_to_json, lines

_log = logging.getLogger(__name__)

_MAX_CLIENTS = 32
_END_TIMEOUT = 10.0  # seconds for commands that are under way when the worker ends


class ControlServer:
    """Serves the control protocol on a Unix socket until `close`; each client gets its own `Commands`."""

    def __init__(self, path: str, commands: Callable[[], Commands]) -> None:
        self._commands = commands
        self._clients: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        self._ending = False
        self._listener: Listener = listen_unix(path)
        self._listener.sock.setblocking(True)
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more commands, and wait a while for those under way; what clients hold is released."""
        with self._lock:
            self._ending = True
            clients = dict(self._clients)
        with contextlib.suppress(OSError):
            self._listener.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._thread.join()
        self._listener.close()
        for sock in clients:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RD)  # answers still go out
        deadline = time.monotonic() + _END_TIMEOUT
        for thread in clients.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self) -> None:
        while not self._ending:
            try:
                sock, _ = self._listener.sock.accept()
            except OSError as error:
                if not self._ending:
                    _log.warning("cannot accept a control client: %s", error)
                    time.sleep(0.1)
                continue
            self._begin(sock)

    def _begin(self, sock: socket.socket) -> None:
        thread = threading.Thread(target=self._serve, args=(sock,), name="control-client", daemon=True)
        with self._lock:
            full = len(self._clients) >= _MAX_CLIENTS
            if not (full or self._ending):
                self._clients[sock] = thread
                thread.start()
                return
        with contextlib.suppress(OSError):
            sock.send(encode({"id": None, "error": error_to_json(_busy())}), socket.MSG_DONTWAIT)
        sock.close()

    def _serve(self, sock: socket.socket) -> None:
        commands = self._commands()
        try:
            for line in lines(sock):
                sock.sendall(encode(commands.answer(line)))
        except OSError as error:
            _log.debug("a control client is gone: %s", error)
        finally:
            commands.release()
            with self._lock:
                del self._clients[sock]
            sock.close()


def _busy() -> StorageError:
    return StorageError(
        ErrorKind.IN_USE,
        f"{_MAX_CLIENTS} clients control this worker already; close one of them",
        operation="worker",
    )
