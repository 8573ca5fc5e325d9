"""The other direction of the engine's codecs, for images that tests make."""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib

import lzfse

from drivebay.blockmap import Codec

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def pack(codec: Codec, data: bytes) -> bytes:
    """``data`` in packed form."""
    return _PACK[codec](data)


def pack_adc(data: bytes) -> bytes:
    """ADC with all three kinds of instructions; greedy, with a table of the last place of each 4 bytes."""
    result, plain = bytearray(), bytearray()
    places: dict[bytes, int] = {}
    position = 0
    while position < len(data):
        here = data[position : position + 4]
        distance = position - places.get(here, -1 << 20)
        places[here] = position
        count = _match(data, position, distance) if len(here) == 4 and distance <= 1 << 16 else 0
        if count:
            result += _plain(plain) + _repeat(distance, count)
            plain.clear()
        else:
            plain.append(data[position])
        position += count or 1
    return bytes(result + _plain(plain))


def _match(data: bytes, position: int, distance: int) -> int:
    most = 18 if distance <= 1 << 10 else 67
    count = 0
    while (
        count < most
        and position + count < len(data)
        and data[position + count - distance] == data[position + count]
    ):
        count += 1
    return count if count >= 4 else 0


def _plain(data: bytearray) -> bytes:
    pieces = (bytes(data[at : at + 128]) for at in range(0, len(data), 128))
    return b"".join(bytes([0x7F + len(piece)]) + piece for piece in pieces)


def _repeat(distance: int, count: int) -> bytes:
    high, low = divmod(distance - 1, 256)
    if distance <= 1 << 10:
        return bytes([(count - 3) << 2 | high, low])
    return bytes([0x40 | (count - 4), high, low])


def _deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-12)  # the window that QCOW2 prescribes
    return packer.compress(data) + packer.flush()


_PACK = {
    Codec.DEFLATE: _deflate,
    Codec.ZLIB: zlib.compress,
    Codec.ZSTD: zstd.compress,
    Codec.BZIP2: bz2.compress,
    Codec.LZMA: lzma.compress,
    Codec.LZFSE: lzfse.compress,
    Codec.ADC: pack_adc,
    Codec.STORED: bytes,
}
