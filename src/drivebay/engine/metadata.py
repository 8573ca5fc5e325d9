"""The active layer's files as those see them that bring metadata to them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from drivebay.engine.change import Change
from drivebay.engine.source import FileSource
from drivebay.errors import ErrorKind, StorageError, from_os_error

_NONE: Mapping[int, int | None] = MappingProxyType({})


class MetadataFiles:
    """Reads, writes and syncs ``sources``; without ``durable``, syncs do nothing.

    ``data`` are those that hold what guests write, by number, and where they must end (``None``: anywhere);
    a text that only names them doesn't.
    After a sync that failed, ``poisoned`` holds the error, for nobody knows what is on the device.
    """

    def __init__(
        self, sources: Sequence[FileSource], *, durable: bool, data: Mapping[int, int | None] = _NONE
    ) -> None:
        self._sources = sources
        self._data = data
        self._durable = durable
        self.poisoned: StorageError | None = None

    def path(self, source: int) -> str:
        """The path of a source, for messages."""
        return self._sources[source].path

    def size(self, source: int) -> int:
        """How long a source is, in bytes."""
        return self._sources[source].size

    def complete(self) -> None:
        """Let files with data reach as far as writes in place may go, for `FileSource.extend` must know.

        What can't grow, like a device, can't be written there either.
        """
        for number, end in self._data.items():
            source = self._sources[number]
            reach = source.size + -source.size % source.padding
            if source.writable:
                with contextlib.suppress(OSError):
                    source.extend(reach if end is None else min(reach, end))

    def read(self, source: int, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset``. Raises StorageError."""
        file = self._sources[source]
        buffer = bytearray(length)
        try:
            file.read_into(memoryview(buffer), offset)
        except OSError as error:
            raise from_os_error(error, "read metadata", path=file.path, offset=offset) from error
        return bytes(buffer)

    def write(self, change: Change) -> None:
        """Write a change; it is durable after `sync`. Raises StorageError."""
        file = self._sources[change.source]
        try:
            file.write(change.data, change.offset)
        except OSError as error:
            raise from_os_error(error, "write metadata", path=file.path, offset=change.offset) from error

    def write_stage(self, changes: Iterable[Change]) -> None:
        """Write all changes of a stage, and sync the files that they are in: there may be thousands."""
        changed: set[int] = set()
        for change in changes:
            self.write(change)
            changed.add(change.source)
        self._sync(self._sources[number] for number in sorted(changed))

    def sync(self) -> None:
        """Everything written so far, data too, is durable when this returns. Raises StorageError."""
        self._sync(source for source in self._sources if source.writable)

    def _sync(self, sources: Iterable[FileSource]) -> None:
        for source in sources if self._durable else ():
            try:
                source.sync()
            except OSError as error:
                self.poisoned = _poison(source, error)
                raise self.poisoned from error


def _poison(source: FileSource, error: OSError) -> StorageError:
    return StorageError(
        ErrorKind.IO,
        f"the host could not make written data durable ({error.strerror}), so what is on the device is "
        "not known; reads go on, writes are refused: look at the host's kernel log, then open the disk again",
        path=source.path,
        operation="sync",
    )
