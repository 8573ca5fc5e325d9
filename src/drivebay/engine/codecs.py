"""The codecs: packed bytes -> exactly as many bytes as expected, whatever the packed ones say."""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from drivebay.blockmap import Codec
from drivebay.engine.adc import unpack_adc
from drivebay.engine.lzfse_stream import unpack_lzfse

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LZMA_MEMORY = 128 << 20  # the largest preset's dictionary, twice
_ZSTD_WINDOW_LOG = 23  # 8 MiB: what RFC 8878 (3.1.1.1.2) asks a decoder to support
_RAW_DEFLATE = -15

#: What a codec raises for packed bytes that it can't read.
ERRORS = (ValueError, OSError, EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError)


class _Decompressor(Protocol):
    """What the standard library's decompressors have in common."""

    @property
    def eof(self) -> bool:
        """Whether the end of the stream was reached."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most ``max_length`` bytes."""


def _run(decompressor: _Decompressor, data: bytes, length: int) -> bytes:
    """What the stream in ``data`` unpacks to; what follows its end is ignored.

    One byte more than expected is asked for: so the decompressor goes on to the stream's end, where
    checksums are verified, and a stream that is too long gives itself away.
    """
    result = decompressor.decompress(data, length + 1)
    if len(result) > length:
        raise ValueError("it unpacks to more bytes than it should")
    if not decompressor.eof:
        raise ValueError("its packed bytes end too early")
    return result


def _deflate(data: bytes, length: int) -> bytes:
    return _run(zlib.decompressobj(wbits=_RAW_DEFLATE), data, length)


def _zlib(data: bytes, length: int) -> bytes:
    return _run(zlib.decompressobj(), data, length)


def _zstd(data: bytes, length: int) -> bytes:
    options: dict[Any, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return _run(zstd.ZstdDecompressor(options=options), data, length)


def _bzip2(data: bytes, length: int) -> bytes:
    return _run(bz2.BZ2Decompressor(), data, length)


def _lzma(data: bytes, length: int) -> bytes:
    return _run(lzma.LZMADecompressor(memlimit=_LZMA_MEMORY), data, length)


def _stored(data: bytes, length: int) -> bytes:
    return data[:length]


_UNPACK: dict[Codec, Callable[[bytes, int], bytes]] = {
    Codec.DEFLATE: _deflate,
    Codec.ZLIB: _zlib,
    Codec.ZSTD: _zstd,
    Codec.BZIP2: _bzip2,
    Codec.LZMA: _lzma,
    Codec.LZFSE: unpack_lzfse,
    Codec.ADC: unpack_adc,
    Codec.STORED: _stored,
}


def unpack(codec: Codec, data: bytes, length: int, most: int) -> bytes:
    """The first ``length`` bytes of what ``data`` begins with a packed form of: ``most`` bytes at most.

    Raises one of `ERRORS`, whose text says what "it" (the packed data) does wrong.
    """
    result = _UNPACK[codec](data, most)
    if len(result) < length:
        raise ValueError(f"it unpacks to {len(result)} bytes instead of {length}")
    return result[:length]
