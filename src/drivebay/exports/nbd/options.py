"""Option messages: the fields in an option's data, and the replies to options."""

from __future__ import annotations

import struct

from drivebay.exports.export import Export
from drivebay.exports.nbd.constants import (
    MAX_NAME,
    MAX_PAYLOAD,
    OPTION_REPLY_MAGIC,
    Info,
    OptionReply,
    TransmissionFlag,
)

_REPLY = struct.Struct(">QIII")  # magic, option, reply type, length
_WORD = struct.Struct(">I")
_HALF = struct.Struct(">H")
_EXPORT_INFO = struct.Struct(">HQH")  # type, size, transmission flags
_BLOCK_SIZE_INFO = struct.Struct(">HIII")  # type, minimum, preferred, maximum payload

_SMALLEST_PREFERRED_BLOCK = 4096
_LARGEST_PREFERRED_BLOCK = 64 << 10  # what a guest should align to, not the image's allocation unit


class OptionError(Exception):
    """The option is answered with the error ``reply``; the handshake goes on."""

    def __init__(self, reply: OptionReply, message: str) -> None:
        super().__init__(message)
        self.reply = reply


class OptionData:
    """Reads the fields of an option's data one after the other; `OptionError` when they do not fit."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def half(self) -> int:
        """An unsigned 16-bit field."""
        return int.from_bytes(self._take(2), "big")

    def word(self) -> int:
        """An unsigned 32-bit field."""
        return int.from_bytes(self._take(4), "big")

    def string(self) -> str:
        """A length (32 bits) and that much UTF-8."""
        length = self.word()
        if length > MAX_NAME:
            raise OptionError(OptionReply.ERR_TOO_BIG, f"a string has at most {MAX_NAME} bytes")
        try:
            return self._take(length).decode()
        except UnicodeDecodeError:
            raise OptionError(OptionReply.ERR_INVALID, "strings must be UTF-8") from None

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            raise OptionError(OptionReply.ERR_INVALID, "the option has more data than its fields")

    def _take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        if len(taken) != length:
            raise OptionError(OptionReply.ERR_INVALID, "the option's data ends inside a field")
        self._at += length
        return taken


def reply(option: int, kind: OptionReply, data: bytes = b"") -> bytes:
    """One reply to ``option``."""
    return _REPLY.pack(OPTION_REPLY_MAGIC, option, kind, len(data)) + data


def server_entry(export: Export) -> bytes:
    """The data of a LIST reply."""
    name = export.name.encode()
    return _WORD.pack(len(name)) + name + export.description.encode()


def info(export: Export, kind: int, *, chunked: bool) -> bytes:
    """The data of one INFO reply; empty for a kind that we do not know."""
    if kind == Info.EXPORT:
        return _EXPORT_INFO.pack(kind, export.disk.size, transmission_flags(export, chunked=chunked))
    if kind == Info.NAME:
        return _HALF.pack(kind) + export.name.encode()
    if kind == Info.DESCRIPTION:
        return _HALF.pack(kind) + export.description.encode()
    if kind == Info.BLOCK_SIZE:
        return _BLOCK_SIZE_INFO.pack(kind, 1, preferred_block(export.disk.block_size), MAX_PAYLOAD)
    return b""


def preferred_block(block_size: int) -> int:
    """The preferred block size to advertise for a disk: a power of two."""
    bounded = min(max(block_size, _SMALLEST_PREFERRED_BLOCK), _LARGEST_PREFERRED_BLOCK)
    return 1 << (bounded.bit_length() - 1)


def transmission_flags(export: Export, *, chunked: bool) -> int:
    """What the export can do. One Disk serves all connections, so that one flush covers them all."""
    flags = TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH | TransmissionFlag.SEND_FUA
    flags |= TransmissionFlag.CAN_MULTI_CONN | TransmissionFlag.SEND_CACHE
    if export.writable:
        flags |= TransmissionFlag.SEND_WRITE_ZEROES | TransmissionFlag.SEND_FAST_ZERO
        flags |= TransmissionFlag.SEND_TRIM if export.discard else 0
    else:
        flags |= TransmissionFlag.READ_ONLY
    if chunked:
        flags |= TransmissionFlag.SEND_DF
    return int(flags)
