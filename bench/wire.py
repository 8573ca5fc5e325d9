"""The part of the NBD protocol that the client and the echo server need, as numbers and records.

Source: the NBD protocol document (fixed newstyle negotiation, simple and structured replies).
"""

from __future__ import annotations

import socket
import struct

import numpy as np

from bench.errors import DisconnectedError

GREETING = b"NBDMAGIC"
OPTION_MAGIC = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x3E889045565A9
FIXED_NEWSTYLE = 1
NO_ZEROES = 2

OPTION_GO = 7
OPTION_STRUCTURED_REPLY = 8
OPTION_ACK = 1
OPTION_INFO = 3
INFO_EXPORT = 0

REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3

# The first 8 bytes of a reply that is well: magic and error 0; or magic, "last chunk", "data at an offset".
SIMPLE_GOOD = bytes.fromhex("6744669800000000")
STRUCTURED_GOOD = bytes.fromhex("668e33ef00010001")
SIMPLE_HEADER = 16
STRUCTURED_HEADER = 28

PAGE = 4096  # test data: each page of a disk holds its own number, in 8-byte big-endian words

REQUEST = struct.Struct(">IHHQQI")
OPTION = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")

# A request's cookie is the number of the page where it begins: each reply tells what data it must hold.
REQUEST_DTYPE = np.dtype(
    [
        ("magic", ">u4"),
        ("flags", ">u2"),
        ("type", ">u2"),
        ("cookie", ">u8"),
        ("offset", ">u8"),
        ("length", ">u4"),
    ]
)


def receive(sock: socket.socket, length: int) -> bytes:
    """Exactly ``length`` bytes; raises DisconnectedError if the other side closes before."""
    parts = bytearray()
    while len(parts) < length:
        part = sock.recv(length - len(parts))
        if not part:
            raise DisconnectedError
        parts += part
    return bytes(parts)


def pages(first: int, count: int) -> bytes:
    """The content of ``count`` pages of test data from page ``first`` on."""
    return np.arange(first, first + count, dtype=">u8").repeat(PAGE // 8).tobytes()
