"""Replies to bytes, in the three styles that a client can negotiate.

| style | header | holes and messages | used |
|---|---|---|---|
| simple | 16 bytes | no | until something better is negotiated |
| structured | 20 bytes, 16 for a reply without content | yes | STRUCTURED_REPLY (QEMU, libnbd) |
| extended | 32 bytes | yes, and 64-bit block status | EXTENDED_HEADERS |

``start`` is the offset of the request itself, which extended replies repeat; ``offset`` is where the
content of a chunk lies.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from drivebay.exports.nbd import requests
from drivebay.exports.nbd.constants import (
    CHUNK_DONE,
    EXTENDED_REPLY_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    Chunk,
)

_SIMPLE = struct.Struct(">QQ")  # magic and error, cookie
_STRUCTURED = struct.Struct(">QQI")  # magic, flags and type; cookie, payload length
_STRUCTURED_DATA = struct.Struct(">QQIQ")  # the same and the offset of the data
_EXTENDED = struct.Struct(">QQQQ")  # magic, flags and type; cookie, request's offset, payload length
_EXTENDED_DATA = struct.Struct(">QQQQQ")  # the same and the offset of the data
_HOLE = struct.Struct(">QI")  # offset, length
_ERROR = struct.Struct(">IH")  # error, length of the message
_WORD = struct.Struct(">I")
_WORDS = struct.Struct(">II")
_EXTENT = struct.Struct(">II")  # length, flags
_EXTENT_64 = struct.Struct(">QQ")

_MAX_MESSAGE = 1024


def _beginning(magic: int, flags: int, kind: int) -> int:
    """The first 64 bits of a chunk."""
    return magic << 32 | flags << 16 | kind


_SIMPLE_DONE = SIMPLE_REPLY_MAGIC << 32
_STRUCTURED_ALL_DATA = _beginning(STRUCTURED_REPLY_MAGIC, CHUNK_DONE, Chunk.OFFSET_DATA)
_EXTENDED_ALL_DATA = _beginning(EXTENDED_REPLY_MAGIC, CHUNK_DONE, Chunk.OFFSET_DATA)
_EXTENDED_NONE = _beginning(EXTENDED_REPLY_MAGIC, CHUNK_DONE, Chunk.NONE)


class SimpleReplies:
    """A header, then a read's data; also the base of the chunked styles."""

    requests = requests.COMPACT
    data_header = _SIMPLE.size  # bytes in front of the data of a read that is answered in one piece
    copied_words: tuple[tuple[int, int], ...] = (
        (2, 2),
        (3, 3),
    )  # of that header, and those of the request (32 bits each) that they repeat

    def pack_data(self, buffer: bytearray, at: int, cookie: int, offset: int, length: int) -> None:
        """Write the header of a read that is answered in one piece into ``buffer``."""
        del offset, length
        _SIMPLE.pack_into(buffer, at, _SIMPLE_DONE, cookie)

    def acks(self, cookies: Sequence[int], starts: Sequence[int]) -> bytes:
        """Success, without content, to several requests."""
        del starts
        words = [_SIMPLE_DONE] * (2 * len(cookies))
        words[1::2] = cookies
        return struct.pack(f">{len(words)}Q", *words)

    def error(self, cookie: int, start: int, error: int, message: str) -> bytes:
        """A failure; ``message`` is for people, and dropped where the style has no room for it."""
        del start, message
        return _SIMPLE.pack(_SIMPLE_DONE | error, cookie)


class ChunkedReplies(SimpleReplies):
    """What structured and extended replies share: data, holes, status and messages in chunks."""

    longest_extent = 0xFFFFFFFF & -4096

    def chunk(self, kind: int, cookie: int, start: int, length: int, *, last: bool) -> bytes:
        """The header of a chunk with ``length`` bytes of payload, structured style."""
        del start
        return _STRUCTURED.pack(
            _beginning(STRUCTURED_REPLY_MAGIC, CHUNK_DONE if last else 0, kind), cookie, length
        )

    def data(self, cookie: int, start: int, offset: int, length: int, *, last: bool) -> bytes:
        """The header of a content chunk; ``length`` bytes of data follow it."""
        header = self.chunk(Chunk.OFFSET_DATA, cookie, start, length + 8, last=last)
        return header + offset.to_bytes(8, "big")

    def hole(self, cookie: int, start: int, offset: int, length: int, *, last: bool) -> bytes:
        """A chunk that says that ``length`` bytes from ``offset`` are zeros."""
        return self.chunk(Chunk.OFFSET_HOLE, cookie, start, _HOLE.size, last=last) + _HOLE.pack(
            offset, length
        )

    def error(self, cookie: int, start: int, error: int, message: str) -> bytes:
        text = message.encode()[:_MAX_MESSAGE].decode(errors="ignore").encode()
        header = self.chunk(Chunk.ERROR, cookie, start, _ERROR.size + len(text), last=True)
        return header + _ERROR.pack(error, len(text)) + text

    def status(
        self, cookie: int, start: int, context: int, extents: Sequence[tuple[int, int]], *, last: bool
    ) -> bytes:
        """The ``(length, flags)`` of consecutive extents in one metadata context."""
        payload = _WORD.pack(context) + b"".join([_EXTENT.pack(*extent) for extent in extents])
        return self.chunk(Chunk.BLOCK_STATUS, cookie, start, len(payload), last=last) + payload


class StructuredReplies(ChunkedReplies):
    """20-byte chunk headers; success without content stays a simple reply, which the protocol allows."""

    data_header = _STRUCTURED_DATA.size
    copied_words = ((2, 2), (3, 3), (5, 4), (6, 5))

    def pack_data(self, buffer: bytearray, at: int, cookie: int, offset: int, length: int) -> None:
        _STRUCTURED_DATA.pack_into(buffer, at, _STRUCTURED_ALL_DATA, cookie, length + 8, offset)


class ExtendedReplies(ChunkedReplies):
    """32-byte headers for requests and replies, 64-bit lengths in block status."""

    requests = requests.EXTENDED
    data_header = _EXTENDED_DATA.size
    copied_words = ((2, 2), (3, 3), (4, 4), (5, 5), (8, 4), (9, 5))
    longest_extent = (1 << 64) - 1

    def pack_data(self, buffer: bytearray, at: int, cookie: int, offset: int, length: int) -> None:
        _EXTENDED_DATA.pack_into(buffer, at, _EXTENDED_ALL_DATA, cookie, offset, length + 8, offset)

    def acks(self, cookies: Sequence[int], starts: Sequence[int]) -> bytes:
        pack = _EXTENDED.pack
        return b"".join([pack(_EXTENDED_NONE, *both, 0) for both in zip(cookies, starts, strict=True)])

    def chunk(self, kind: int, cookie: int, start: int, length: int, *, last: bool) -> bytes:
        beginning = _beginning(EXTENDED_REPLY_MAGIC, CHUNK_DONE if last else 0, kind)
        return _EXTENDED.pack(beginning, cookie, start, length)

    def status(
        self, cookie: int, start: int, context: int, extents: Sequence[tuple[int, int]], *, last: bool
    ) -> bytes:
        head = _WORDS.pack(context, len(extents))
        payload = head + b"".join([_EXTENT_64.pack(*extent) for extent in extents])
        return self.chunk(Chunk.BLOCK_STATUS_EXT, cookie, start, len(payload), last=last) + payload


SIMPLE = SimpleReplies()
STRUCTURED = StructuredReplies()
EXTENDED = ExtendedReplies()
