"""Serving disks over NBD, until told to stop."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from drivebay.engine.disk import Disk
from drivebay.errors import ErrorKind, StorageError
from drivebay.exports import Export, NbdServer, ServerStats
from drivebay.service.addresses import Address, private_socket
from drivebay.service.disks import open_disk
from drivebay.service.options import DEFAULT, OpenOptions, Path
from drivebay.service.sizes import format_size


@dataclass(frozen=True, slots=True)
class ServedDisk:
    """One image on offer: the export's ``name``, where to reach it, and what it is."""

    name: str
    url: str
    path: str
    size: int
    writable: bool


class DiskServer:
    """Opened images behind an NBD server that listens already. A context manager: leaving it closes all.

    Each image is an export called ``name`` (for one image only), or like its file; a client that asks
    for no name gets the first. Without an ``address`` a Unix socket in a private folder is made. Raises
    StorageError, and then leaves nothing open.
    """

    def __init__(
        self,
        images: Sequence[Path],
        options: OpenOptions = DEFAULT,
        *,
        address: Address | None = None,
        read_only: bool = False,
        name: str | None = None,
    ) -> None:
        paths = _named(images, name)
        with ExitStack() as stack:
            disks = {
                export: stack.enter_context(open_disk(path, options, writable=not read_only))
                for export, path in paths.items()
            }
            for disk in disks.values():
                if disk.writable:
                    disk.verify_writable()  # a guest should not be the first to learn of a damaged table
            exports = {export: Export(disk, export, _description(disk)) for export, disk in disks.items()}
            self._nbd = NbdServer(exports)
            self._ended = False
            stack.callback(self._end)
            where = address or private_socket()
            stack.callback(where.remove)
            where = where.listen(self._nbd)
            self.disks = tuple(_served(where, export, paths[export], disk) for export, disk in disks.items())
            self._resources = stack.pop_all()

    @property
    def stats(self) -> ServerStats:
        """Counters of what clients asked for."""
        return self._nbd.stats

    def _end(self) -> None:
        """Let a server that never ran give up its sockets and threads."""
        if not self._ended:
            self._nbd.stop()
            self._nbd.run()

    def close(self) -> None:
        """Close the images, after `in_thread` has ended."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def in_thread(self, ended: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Serve in a thread while the context lasts; what was written is flushed then.

        ``ended`` is called when the server has ended, by itself or not. Raises the StorageError of a
        failed flush.
        """
        self._ended = True
        with self._nbd.in_thread(ended):
            yield


def _named(images: Sequence[Path], name: str | None) -> dict[str, str]:
    paths = [os.fspath(image) for image in images]
    if name is not None:
        if len(paths) != 1:
            raise _invalid(f"one name cannot serve for {len(paths)} images; leave the name out")
        return {name: paths[0]}
    named: dict[str, str] = {}
    for path in paths:
        export = os.path.basename(path).encode(errors="replace").decode()  # the protocol wants UTF-8
        if export in named:
            raise _invalid(f"{named[export]} and {path} would have the same name; serve one of them apart")
        named[export] = path
    if not named:
        raise _invalid("there is nothing to serve; name an image")
    return named


def _description(disk: Disk) -> str:
    facts = disk.layers[0].layer.facts
    return f"{facts.format}, {facts.variant}, {format_size(facts.size)}"


def _served(where: Address, export: str, path: str, disk: Disk) -> ServedDisk:
    return ServedDisk(export, where.url(export), path, disk.size, disk.writable)


def _invalid(message: str) -> StorageError:
    return StorageError(ErrorKind.INVALID, message, operation="serve")


@contextmanager
def serve(
    images: Sequence[Path],
    options: OpenOptions = DEFAULT,
    *,
    address: Address | None = None,
    read_only: bool = False,
    name: str | None = None,
) -> Iterator[str]:
    """Serve images in a thread while the context lasts; it gives the URL of the first one."""
    server = DiskServer(images, options, address=address, read_only=read_only, name=name)
    with server, server.in_thread():
        yield server.disks[0].url
