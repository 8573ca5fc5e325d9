"""Undo the compression of kernels and kernel modules, told by the first bytes."""

from __future__ import annotations

import lzma
import shutil
import subprocess
import zlib
from typing import Protocol

from drivebay.errors import ErrorKind, StorageError

_GZIP = b"\x1f\x8b"
_XZ = b"\xfd7zXZ\0"
_ZSTD = b"\x28\xb5\x2f\xfd"


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def decompress(data: bytes) -> bytes:
    """The content of gzip, xz or zstd ``data``; anything else is returned as it is.

    Bytes after the end of a gzip or xz stream are ignored. Zstandard goes through the program ``zstd``, since
    the standard library has it only from Python 3.14 on. Raises `StorageError`: CORRUPT, or NOT_FOUND
    when ``zstd`` is missing.
    """
    if data.startswith(_GZIP):
        return _complete(zlib.decompressobj(wbits=31), data)
    if data.startswith(_XZ):
        return _complete(lzma.LZMADecompressor(lzma.FORMAT_XZ), data)
    return _unzstd(data) if data.startswith(_ZSTD) else data


def _complete(stream: _Decompressor, data: bytes) -> bytes:
    try:
        content = stream.decompress(data)
    except (zlib.error, lzma.LZMAError) as error:
        raise _corrupt(str(error)) from error
    if not stream.eof:
        raise _corrupt("its end is missing")
    return content


def _unzstd(data: bytes) -> bytes:
    program = shutil.which("zstd")
    if program is None:
        raise StorageError(
            ErrorKind.NOT_FOUND,
            "the guest's kernel needs the program zstd, which is missing; install the package zstd",
            operation="decompress",
        )
    done = subprocess.run([program, "-dc"], input=data, capture_output=True, check=False)
    if done.returncode:
        raise _corrupt(done.stderr.decode(errors="replace").strip())
    return done.stdout


def _corrupt(reason: str) -> StorageError:
    return StorageError(
        ErrorKind.CORRUPT, f"damaged compressed data ({reason}); fetch the file again", operation="decompress"
    )
