"""A real NBD server for tests: in a thread, on a Unix socket with a short path."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drivebay.engine.disk import Disk
from drivebay.exports import Export, NbdServer
from support.memory_disk import MemoryDisk

SIZE = 16 << 20


@contextmanager
def serving(
    *disks: Disk | MemoryDisk, read_only: bool = False, **options: float
) -> Iterator[tuple[str, NbdServer]]:
    """Serve the disks as "disk0", "disk1" ...; the socket's path and the server."""
    exports = {
        f"disk{number}": Export(disk, f"disk{number}", f"number {number}", read_only)
        for number, disk in enumerate(disks)
    }
    with tempfile.TemporaryDirectory(prefix="nbd-") as folder:
        path = str(Path(folder, "socket"))
        server = NbdServer(exports, **options)
        server.listen_unix(path)
        with server.in_thread():
            yield path, server
