"""Sockets that wait for clients."""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass

from drivebay.errors import ErrorKind, StorageError, from_os_error

_BACKLOG = 128
_OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket; a Unix one remembers its file, to remove it and no other."""

    sock: socket.socket
    path: str | None = None
    inode: tuple[int, int] | None = None

    @property
    def fd(self) -> int:
        """The socket's file descriptor."""
        return self.sock.fileno()

    def close(self) -> None:
        """Stop listening and remove the socket's file, if it is still this one."""
        self.sock.close()
        if self.path is None:
            return
        try:
            if _identity(self.path) == self.inode:
                os.unlink(self.path)
        except FileNotFoundError:
            return


def listen_unix(path: str) -> Listener:
    """Listen on a Unix socket that only the owner may use; a socket that nobody listens on is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(path)
        os.chmod(path, _OWNER_ONLY)  # before listen: until then nobody can connect
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        return Listener(sock, path, _identity(path))
    except StorageError:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        raise _cannot_listen(error, path) from error


def listen_tcp(host: str, port: int) -> Listener:
    """Listen on a TCP address; port 0 takes a free one."""
    sock = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        return Listener(sock)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise _cannot_listen(error, f"{host}:{port}") from error


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StorageError(
            ErrorKind.INVALID,
            "is there already and is not a socket; choose another path",
            path=path,
            operation="listen",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise StorageError(
        ErrorKind.IN_USE,
        "another server listens on this socket; stop it or choose another path",
        path=path,
        operation="listen",
    )


def _cannot_listen(error: OSError, where: str) -> StorageError:
    if error.errno == errno.EADDRINUSE:
        kind, remedy = ErrorKind.IN_USE, "stop the other server or choose another address"
    elif isinstance(error, socket.gaierror) or error.errno in (None, errno.EADDRNOTAVAIL):
        kind, remedy = ErrorKind.INVALID, "check the address"
    else:
        return from_os_error(error, "listen", path=where)
    reason = error.strerror or str(error)
    return StorageError(kind, f"cannot listen: {reason}; {remedy}", path=where, operation="listen")
