"""Packed bytes, unpacked the slow and obvious way: what the interpreter reads compressed blocks with."""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable

import lzfse

from drivebay.blockmap import Codec

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


_ERRORS = (
    zlib.error,
    lzma.LZMAError,
    zstd.ZstdError,
    lzfse.error,
    MemoryError,
    OSError,
    EOFError,
    IndexError,
    ValueError,
)


class UnpackError(Exception):
    """The packed bytes are damaged, or hold less than they should."""


def unpack(codec: Codec, packed: bytes, length: int) -> bytes:
    """The first ``length`` unpacked bytes; what follows the packed record is ignored."""
    try:
        unpacked = _UNPACKERS[codec](packed, length)
    except _ERRORS as error:
        raise UnpackError(str(error)) from error
    if len(unpacked) < length:
        raise UnpackError(f"{len(unpacked)} bytes instead of {length}")
    return unpacked[:length]


def _deflate(packed: bytes, length: int) -> bytes:
    return zlib.decompressobj(-15).decompress(packed, length)


def _zlib(packed: bytes, length: int) -> bytes:
    return zlib.decompressobj().decompress(packed, length)


def _bzip2(packed: bytes, length: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(packed, length)


def _lzma(packed: bytes, length: int) -> bytes:
    return lzma.LZMADecompressor().decompress(packed, length)


def _zstd(packed: bytes, length: int) -> bytes:
    return zstd.ZstdDecompressor().decompress(packed, length)


def _adc(packed: bytes, length: int) -> bytes:
    """Apple Data Compression: runs of plain bytes, and two kinds of copies of what was unpacked before."""
    unpacked = bytearray()
    at = 0
    while len(unpacked) < length and at < len(packed):
        control = packed[at]
        if control & 0x80:
            count = (control & 0x7F) + 1
            unpacked += packed[at + 1 : at + 1 + count]
            at += 1 + count
            continue
        if control & 0x40:
            count, back, size = (control & 0x3F) + 4, int.from_bytes(packed[at + 1 : at + 3], "big"), 3
        else:
            count, back, size = (control >> 2 & 0xF) + 3, (control & 3) << 8 | packed[at + 1], 2
        for _ in range(count):
            unpacked.append(unpacked[-back - 1])
        at += size
    return bytes(unpacked)


_UNPACKERS: dict[Codec, Callable[[bytes, int], bytes]] = {
    Codec.DEFLATE: _deflate,
    Codec.ZLIB: _zlib,
    Codec.BZIP2: _bzip2,
    Codec.LZMA: _lzma,
    Codec.ZSTD: _zstd,
    Codec.ADC: _adc,
    Codec.STORED: lambda packed, length: packed[:length],
    Codec.LZFSE: lambda packed, _length: lzfse.decompress(packed),
}
