"""Apple Data Compression, the oldest codec of DMG images: a byte-wise LZ77 without an end mark.

A byte of 128 or more says how many bytes follow as they are; one of 64 to 127 a long match with a
16-bit distance; a smaller one a short match with a 10-bit distance. See docs/formats/dmg.md.
"""

from __future__ import annotations

_PLAIN = 0x80
_LONG = 0x40


def unpack_adc(data: bytes, length: int) -> bytes:
    """The ``length`` bytes that ``data`` begins with; raises ValueError where it holds something else."""
    result = bytearray()
    position = 0
    while len(result) < length:
        position = _step(data, position, result)
    if len(result) > length:
        raise ValueError("it unpacks to more bytes than it should")
    return bytes(result)


def _step(data: bytes, position: int, result: bytearray) -> int:
    """Carry out the instruction at ``position``; returns where the next one begins."""
    code = _byte(data, position)
    if code & _PLAIN:
        end = position + 2 + (code & 0x7F)
        if end > len(data):
            raise ValueError("its packed bytes end too early")
        result += data[position + 1 : end]
        return end
    if code & _LONG:
        distance = (_byte(data, position + 1) << 8) + _byte(data, position + 2) + 1
        _repeat(result, distance, (code & 0x3F) + 4)
        return position + 3
    distance = ((code & 0x03) << 8) + _byte(data, position + 1) + 1
    _repeat(result, distance, (code >> 2) + 3)
    return position + 2


def _byte(data: bytes, position: int) -> int:
    if position >= len(data):
        raise ValueError("its packed bytes end too early")
    return data[position]


def _repeat(result: bytearray, distance: int, count: int) -> None:
    begin = len(result) - distance
    if begin < 0:
        raise ValueError("it repeats bytes from before its beginning")
    piece = result[begin : begin + count]
    result += (piece * (count // len(piece) + 1))[:count]  # a match may reach into what it makes
