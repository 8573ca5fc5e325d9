"""Where a server listens, and the URLs by which its exports are reached (NBD's uri.md)."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from drivebay.errors import ErrorKind, StorageError
from drivebay.service.options import Path

if TYPE_CHECKING:
    from drivebay.exports import NbdServer

NBD_PORT = 10809
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket at ``path``; with ``own_folder`` its folder was made for it, and goes with it."""

    path: str
    own_folder: bool = False

    def listen(self, server: NbdServer) -> UnixAddress:
        """Let ``server`` listen here; the answer is where it really does."""
        server.listen_unix(self.path)
        return self

    def url(self, name: str) -> str:
        """The URL of the export called ``name``."""
        return f"nbd+unix:///{quote(name, safe='')}?socket={quote(os.fsencode(self.path))}"

    def remove(self) -> None:
        """Remove the folder that was made for the socket."""
        if self.own_folder:
            shutil.rmtree(os.path.dirname(self.path), ignore_errors=True)


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP address; port 0 stands for a free one."""

    host: str = LOOPBACK
    port: int = NBD_PORT

    def listen(self, server: NbdServer) -> TcpAddress:
        """As `UnixAddress.listen`."""
        return TcpAddress(*server.listen_tcp(self.host, self.port))

    def url(self, name: str) -> str:
        """As `UnixAddress.url`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == NBD_PORT else f":{self.port}"
        return f"nbd://{host}{port}/{quote(name, safe='')}"

    def remove(self) -> None:
        """As `UnixAddress.remove`: nothing to do."""


Address = UnixAddress | TcpAddress


def private_socket() -> UnixAddress:
    """A new socket in a folder of its own that only this user may enter."""
    folder = os.environ.get("XDG_RUNTIME_DIR")
    usable = folder and os.access(folder, os.W_OK | os.X_OK) and len(folder) < 60
    try:
        made = tempfile.mkdtemp(prefix="drivebay-", dir=folder if usable else None)
    except OSError as error:
        raise StorageError(
            ErrorKind.IO,
            f"there is no folder for a socket ({error.strerror}); say where with --socket PATH",
            path=error.filename,
            operation="listen",
        ) from error
    return UnixAddress(os.path.join(made, "nbd.sock"), own_folder=True)


def address_of(socket: Path | None, listen: str | None) -> Address | None:
    """The address that was asked for; ``None`` where none was."""
    if socket is not None and listen is not None:
        raise StorageError(ErrorKind.INVALID, "give a socket or a TCP address, not both", operation="listen")
    if socket is not None:
        return UnixAddress(os.path.abspath(socket))
    return None if listen is None else parse_tcp(listen)


def parse_tcp(text: str) -> TcpAddress:
    """``HOST:PORT``, ``[IPV6]:PORT`` or ``HOST``; raises StorageError (INVALID)."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(NBD_PORT)
    bare = host.removeprefix("[").removesuffix("]")
    bracketed = host == f"[{bare}]"
    if not bare or (":" in bare and not bracketed) or not port.isascii() or not port.isdigit():
        raise _invalid(text)
    if int(port) > 65535:
        raise _invalid(text)
    return TcpAddress(bare, int(port))


def _invalid(text: str) -> StorageError:
    return StorageError(
        ErrorKind.INVALID,
        f"{text[:80]!r} is no address; write it like {LOOPBACK}:{NBD_PORT} or [::1]:{NBD_PORT}",
        operation="listen",
    )
