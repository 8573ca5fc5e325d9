"""LZFSE streams, unpacked block by block, so that no block can fill the memory.

The library unpacks whole streams and lets them grow as far as they like. Here each block is given to it
in a stream of its own, behind the last bytes that came out (a match reaches back 262,139 bytes at most),
and must unpack to the number of bytes that its header says. The layout is that of the reference
implementation's block headers (github.com/lzfse/lzfse): all numbers are little-endian.
"""

from __future__ import annotations

from typing import NamedTuple

import lzfse  # type: ignore[import-untyped]  # it has no annotations

_WINDOW = 1 << 18
_STORED = b"bvx-"
_LZVN = b"bvxn"
_LZFSE = b"bvx2"
_END = b"bvx$"
_SHORTEST_BLOCK = 4096  # on average; the encoder makes blocks of tens of kilobytes
_LEAST_BLOCKS = 16


class _Block(NamedTuple):
    """One block: where its bytes begin and end, and how many it unpacks to."""

    magic: bytes
    begin: int
    end: int
    length: int


def unpack_lzfse(data: bytes, length: int) -> bytes:
    """The ``length`` bytes that the stream in ``data`` holds; raises ValueError where it holds others."""
    result = bytearray()
    position = 0
    most = length // _SHORTEST_BLOCK + _LEAST_BLOCKS
    for _ in range(most):
        block = _block_at(data, position)
        if block.magic == _END:
            return bytes(result)
        if len(result) + block.length > length:
            raise ValueError("it unpacks to more bytes than it should")
        result += _unpack_block(data, block, result)
        position = block.end
    raise ValueError(f"its LZFSE stream has more than {most} blocks")


def _block_at(data: bytes, position: int) -> _Block:
    magic = data[position : position + 4]
    if magic == _END:
        return _Block(magic, position, position + 4, 0)
    if magic not in _SIZES:
        raise ValueError(f"its LZFSE block {magic!r} at packed byte {position} has no known type")
    header = data[position : position + 32].ljust(32, b"\0")
    length = int.from_bytes(header[4:8], "little")
    end = position + _SIZES[magic](header)
    if end > len(data):
        raise ValueError("its packed bytes end too early")
    return _Block(magic, position, end, length)


def _unpack_block(data: bytes, block: _Block, before: bytearray) -> bytes:
    stored = data[block.begin : block.end]
    if block.magic == _STORED:
        return stored[8:]
    history = before[-_WINDOW:]
    known = _STORED + len(history).to_bytes(4, "little") + history if history else b""
    try:
        unpacked: bytes = lzfse.decompress(known + stored + _END)
    except lzfse.error as error:
        raise ValueError("its LZFSE block is damaged") from error
    if len(unpacked) != len(history) + block.length:
        raise ValueError("its LZFSE block has another length than its header says")
    return unpacked[len(history) :]


def _stored_size(header: bytes) -> int:
    return 8 + int.from_bytes(header[4:8], "little")


def _lzvn_size(header: bytes) -> int:
    return 12 + int.from_bytes(header[8:12], "little")


def _lzfse_size(header: bytes) -> int:
    literals, matches = (int.from_bytes(header[place : place + 8], "little") for place in (8, 16))
    own = int.from_bytes(header[24:28], "little")
    return own + (literals >> 20 & 0xFFFFF) + (matches >> 40 & 0xFFFFF)


_SIZES = {_STORED: _stored_size, _LZVN: _lzvn_size, _LZFSE: _lzfse_size}
