"""Requests from bytes: the 28-byte request header and the 32-byte extended one.

A header starts with magic (32 bits), flags (16) and command (16). Read as one 64-bit number, a request
without flags is told by a single comparison: that is what the tight paths for plain reads and writes do.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from drivebay.exports.nbd.constants import (
    EXTENDED_REQUEST_MAGIC,
    REQUEST_MAGIC,
    Command,
    CommandFlag,
    ProtocolError,
)


class Request(NamedTuple):
    """One request. ``command`` may be unknown to us; ``payload`` is how many bytes follow the header."""

    command: int
    flags: int
    cookie: int
    offset: int
    length: int
    payload: int


class RequestFormat:
    """How requests look on a connection; ``plain_read`` and ``plain_write`` are their first 64 bits."""

    __slots__ = ("header", "magic", "plain_read", "plain_write", "size")

    def __init__(self, magic: int, layout: str, write_flags: int) -> None:
        self.magic = magic
        self.header = struct.Struct(layout)  # start (magic, flags, command), cookie, offset, length
        self.size = self.header.size
        self.plain_read = magic << 32 | Command.READ
        self.plain_write = magic << 32 | write_flags << 16 | Command.WRITE

    def decode(self, buffer: memoryview, at: int) -> Request:
        """The request whose header starts at ``at``; `ProtocolError` if that is no request."""
        start, cookie, offset, length = self.header.unpack_from(buffer, at)
        if start >> 32 != self.magic:
            raise ProtocolError(f"request magic is {start >> 32:#010x}, not {self.magic:#010x}")
        flags, command = start >> 16 & 0xFFFF, start & 0xFFFF
        payload = length if command == Command.WRITE or self._counts_payload(flags) else 0
        return Request(command, flags, cookie, offset, length, payload)

    def _counts_payload(self, flags: int) -> bool:
        return self.magic == EXTENDED_REQUEST_MAGIC and bool(flags & CommandFlag.PAYLOAD_LEN)

    def decode_run(self, buffer: memoryview, at: int, count: int) -> Iterable[tuple[int, int, int, int]]:
        """``(start, cookie, offset, length)`` of ``count`` headers without payloads in a row."""
        if count == 1:
            return (self.header.unpack_from(buffer, at),)
        return self.header.iter_unpack(buffer[at : at + count * self.size])


COMPACT = RequestFormat(REQUEST_MAGIC, ">QQQI", 0)
EXTENDED = RequestFormat(EXTENDED_REQUEST_MAGIC, ">QQQQ", CommandFlag.PAYLOAD_LEN)
