"""A source at whose reads, writes and syncs a test can stop a thread."""

from __future__ import annotations

from drivebay.engine.source import Buffer, FileSource
from support.threads import Gate


class GatedSource(FileSource):
    """Stops at a gate before the next read, write or sync of the thread that asks first."""

    def __init__(self, fd: int, path: str, *, writable: bool) -> None:
        super().__init__(fd, path, writable=writable)
        self.gates: dict[str, Gate] = {}

    def _pass(self, name: str) -> None:
        gate = self.gates.pop(name, None)
        if gate is not None:
            gate.stop_here()

    def read_into(self, view: memoryview, offset: int) -> None:
        """As `FileSource.read_into`, behind the gate "read"."""
        self._pass("read")
        super().read_into(view, offset)

    def write(self, data: Buffer, offset: int) -> None:
        """As `FileSource.write`, behind the gate "write"."""
        self._pass("write")
        super().write(data, offset)

    def sync(self) -> None:
        """As `FileSource.sync`, behind the gate "sync"."""
        self._pass("sync")
        super().sync()
