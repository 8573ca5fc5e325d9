"""Packed blocks -> their bytes, with a small cache of what was unpacked last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

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
        most: int | None = None,
        size: int | None = None,
    ) -> bytes:
        """The first ``length`` unpacked bytes of the packed record at byte ``offset`` of ``source``.

        The record unpacks to ``most`` bytes at most (``None``: to exactly ``length``): a disk's last block
        may be packed whole, or as far as the disk goes. For a `PackedRun`, the offset is the run's. For a
        `PackedEntry`, ``size`` are the bytes that the record may take, header included, if the entry says
        it. Raises StorageError: CORRUPT where the record holds something else, IO where it can't be read.
        """
        key = (source, offset, length, packed.codec)
        found = self._look_up(key)
        if found is None:
            found = _unpack(_Record(source, packed, offset, size), length, most or length)
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


class _Record(NamedTuple):
    """Where packed bytes lie, and how many they may be."""

    source: FileSource
    packed: PackedEntry | PackedRun
    offset: int
    size: int | None

    @property
    def longest(self) -> int:
        """The bytes that it may take in the file."""
        if isinstance(self.packed, PackedRun):
            return self.packed.size
        longest = self.packed.header + self.packed.longest
        return longest if self.size is None else min(self.size, longest)


def _unpack(record: _Record, length: int, most: int) -> bytes:
    data = _read(record, most)
    if isinstance(record.packed, PackedEntry):
        data = data[record.packed.header :]
    codec = record.packed.codec
    try:
        return unpack(codec, data, length, most)
    except ERRORS as error:
        what = f"the compressed block ({codec.value}) is damaged: {str(error) or 'nothing can be read'}"
        raise _corrupt(record, what) from error


def _read(record: _Record, most: int) -> bytes:
    """The packed bytes, as far as the file and reason go."""
    source, offset = record.source, record.offset
    there = min(record.longest, source.size - offset, 2 * most + _SLACK)
    if there <= 0 < record.longest:
        raise _corrupt(record, f"the compressed block lies behind the file's end (byte {source.size})")
    buffer = bytearray(max(there, 0))
    try:
        source.read_into(memoryview(buffer), offset)
    except OSError as error:
        raise from_os_error(error, "read", path=source.path, offset=offset) from error
    return bytes(buffer)


def _corrupt(record: _Record, what: str) -> StorageError:
    return StorageError(
        ErrorKind.CORRUPT,
        f"{what}; restore this part of the image from a copy",
        path=record.source.path,
        offset=record.offset,
        operation="read",
    )
