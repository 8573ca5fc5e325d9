"""Packed blocks -> their bytes, with a small cache of what was unpacked last."""

from __future__ import annotations

import threading
from collections import OrderedDict

from drivebay.blockmap import Codec, PackedEntry, PackedRun
from drivebay.engine.codecs import ERRORS, unpack
from drivebay.engine.source import FileSource
from drivebay.errors import ErrorKind, StorageError, from_os_error

_CACHE_BYTES = 16 << 20
_SLACK = 64 << 10  # no codec makes more than twice its input and this of it
_Key = tuple[FileSource, int, int, Codec]


class Unpacker:
    """Unpacks blocks; safe for many threads, which wait for each other only to look into the cache.

    The cache holds up to ``capacity`` bytes of unpacked blocks, those used last.
    """

    def __init__(self, capacity: int = _CACHE_BYTES) -> None:
        self._capacity = capacity
        self._cached: OrderedDict[_Key, bytes] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def block(
        self,
        source: FileSource,
        packed: PackedEntry | PackedRun,
        offset: int,
        length: int,
        *,
        size: int | None = None,
    ) -> bytes:
        """The ``length`` unpacked bytes of the packed record at byte ``offset`` of ``source``.

        ``length`` is all that the record unpacks to. For a `PackedRun`, the offset is the run's. For a
        `PackedEntry`, ``size`` are the bytes that the record may take, header included, if the entry says
        it. Raises StorageError: CORRUPT where the record holds something else, IO where it can't be read.
        """
        key = (source, offset, length, packed.codec)
        found = self._look_up(key)
        if found is None:
            found = _unpack(source, packed, offset, length, size)
            self._keep(key, found)
        return found

    def _look_up(self, key: _Key) -> bytes | None:
        with self._lock:
            found = self._cached.get(key)
            if found is not None:
                self._cached.move_to_end(key)
            return found

    def _keep(self, key: _Key, block: bytes) -> None:
        if len(block) > self._capacity:
            return
        with self._lock:
            if key in self._cached:
                return
            self._cached[key] = block
            self._held += len(block)
            while self._held > self._capacity:
                self._held -= len(self._cached.popitem(last=False)[1])


def _unpack(
    source: FileSource, packed: PackedEntry | PackedRun, offset: int, length: int, size: int | None
) -> bytes:
    data = _read(source, offset, _taken(packed, size), length)
    if isinstance(packed, PackedEntry):
        data = data[packed.header :]
    try:
        return unpack(packed.codec, data, length)
    except ERRORS as error:
        what = str(error) or "it is damaged"
        raise _corrupt(source, packed.codec, offset, what) from error


def _taken(packed: PackedEntry | PackedRun, size: int | None) -> int:
    if isinstance(packed, PackedRun):
        return packed.size
    longest = packed.header + packed.longest
    return longest if size is None else min(size, longest)


def _read(source: FileSource, offset: int, size: int, length: int) -> bytes:
    """The packed bytes, as far as the file and reason go."""
    there = min(size, source.size - offset, 2 * length + _SLACK)
    if there <= 0 < size:
        message = f"the compressed block lies behind the file's end (byte {source.size})"
        raise _refusal(source, offset, message)
    buffer = bytearray(max(there, 0))
    try:
        source.read_into(memoryview(buffer), offset)
    except OSError as error:
        raise from_os_error(error, "read", path=source.path, offset=offset) from error
    return bytes(buffer)


def _corrupt(source: FileSource, codec: Codec, offset: int, what: str) -> StorageError:
    return _refusal(source, offset, f"the compressed block ({codec.value}) is damaged: {what}")


def _refusal(source: FileSource, offset: int, message: str) -> StorageError:
    return StorageError(
        ErrorKind.CORRUPT,
        f"{message}; restore this part of the image from a copy",
        path=source.path,
        offset=offset,
        operation="read",
    )
