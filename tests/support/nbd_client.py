"""A small NBD client for tests: plain, synchronous, and able to misbehave.

`connect` opens a socket, `Client` shakes hands and makes single requests. Numbers come from the protocol
document, not from the server's code, so that both cannot share a mistake.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field

GREETING = struct.pack(">QQ", 0x4E42444D41474943, 0x49484156454F5054)
OPTION_MAGIC = 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST, EXTENDED_REQUEST = 0x25609513, 0x21E41C71
SIMPLE, STRUCTURED, EXTENDED = 0x67446698, 0x668E33EF, 0x6E8A278C

EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO = 1, 2, 3, 5, 6, 7
STRUCTURED_REPLY, LIST_META_CONTEXT, SET_META_CONTEXT, EXTENDED_HEADERS = 8, 9, 10, 11
ACK, SERVER, REP_INFO, META_CONTEXT = 1, 2, 3, 4
ERR_UNSUP, ERR_INVALID, ERR_UNKNOWN = 0x80000001, 0x80000003, 0x80000006
ERR_TOO_BIG, ERR_EXT_HEADER_REQD = 0x80000009, 0x8000000A

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (1 << bit for bit in range(6))

Address = str | tuple[str, int]


def connect(address: Address, *, timeout: float = 20) -> socket.socket:
    """A connected socket: a path means a Unix socket, a pair a TCP one."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


@dataclass
class Reply:
    """All chunks of one reply, put together."""

    error: int = 0
    message: str = ""
    data: bytes = b""
    chunks: list[tuple[int, int, int]] = field(default_factory=list)  # type, offset, length
    status: dict[int, list[tuple[int, int]]] = field(default_factory=dict)


class Client:
    """One connection. ``style`` is "simple", "structured" or "extended"."""

    def __init__(
        self,
        address: Address,
        export: str = "",
        *,
        style: str = "structured",
        contexts: tuple[str, ...] = (),
        go: bool = True,
    ) -> None:
        self.sock = connect(address)
        self.style = style
        self.contexts: dict[str, int] = {}
        self.size = self.flags = self._cookie = 0
        self._lengths: dict[int, tuple[int, int]] = {}
        try:
            self._begin(export, contexts, go=go)
        except BaseException:
            self.sock.close()
            raise

    def _begin(self, export: str, contexts: tuple[str, ...], *, go: bool) -> None:
        assert self.receive(16) == GREETING
        self.receive(2)  # the handshake flags
        self.sock.sendall(struct.pack(">I", 3))
        if self.style == "structured":
            self.ack(STRUCTURED_REPLY)
        elif self.style == "extended":
            self.ack(EXTENDED_HEADERS)
        if contexts:
            self.contexts = self.meta_context(SET_META_CONTEXT, export, contexts)
        if go:
            self.go(export)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def receive(self, length: int) -> bytes:
        """Exactly ``length`` bytes; `ConnectionError` at the end of the stream."""
        data = bytearray(length)
        view = memoryview(data)
        while view:
            count = self.sock.recv_into(view)
            if not count:
                raise ConnectionError("the server closed the connection")
            view = view[count:]
        return bytes(data)

    def option(self, option: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """Send an option; its replies up to the last."""
        self.sock.sendall(struct.pack(">QII", OPTION_MAGIC, option, len(data)) + data)
        replies = []
        while True:
            magic, echoed, kind, length = struct.unpack(">QIII", self.receive(20))
            assert (magic, echoed) == (OPTION_REPLY_MAGIC, option)
            replies.append((kind, self.receive(length)))
            if kind == ACK or kind & 1 << 31:
                return replies

    def ack(self, option: int, data: bytes = b"") -> list[bytes]:
        """An option that must succeed; the data of its replies before the ACK."""
        replies = self.option(option, data)
        assert replies[-1][0] == ACK, replies
        return [data for _, data in replies[:-1]]

    def info(self, option: int, export: str, kinds: tuple[int, ...] = ()) -> dict[int, bytes]:
        """The answers to INFO or GO by kind."""
        name = export.encode()
        data = struct.pack(">I", len(name)) + name + struct.pack(f">H{len(kinds)}H", len(kinds), *kinds)
        return {struct.unpack_from(">H", each)[0]: each[2:] for each in self.ack(option, data)}

    def go(self, export: str = "", kinds: tuple[int, ...] = ()) -> dict[int, bytes]:
        """Begin the transmission phase."""
        facts = self.info(GO, export, kinds)
        self.size, self.flags = struct.unpack(">QH", facts[0])
        return facts

    def meta_context(self, option: int, export: str, queries: tuple[str, ...]) -> dict[str, int]:
        """Context ids by name, listed or set."""
        name = export.encode()
        data = struct.pack(">I", len(name)) + name + struct.pack(">I", len(queries))
        for query in queries:
            data += struct.pack(">I", len(query)) + query.encode()
        return {each[4:].decode(): struct.unpack_from(">I", each)[0] for each in self.ack(option, data)}

    def send(
        self, command: int, offset: int = 0, length: int = 0, payload: bytes = b"", *, flags: int = 0
    ) -> int:
        """Send a request; its cookie."""
        self._cookie += 1
        self._lengths[self._cookie] = offset, length if command == READ else 0
        if self.style == "extended" and command == WRITE:
            flags |= PAYLOAD_LEN
        layout, magic = (">IHHQQQ", EXTENDED_REQUEST) if self.style == "extended" else (">IHHQQI", REQUEST)
        header = struct.pack(layout, magic, flags, command, self._cookie, offset, length)
        self.sock.sendall(header + payload)
        return self._cookie

    def reply(self) -> tuple[int, Reply]:
        """The next whole reply and its cookie; replies must not be interleaved."""
        whole = Reply()
        while True:
            cookie, done = self._chunk(whole)
            if done:
                del self._lengths[cookie]
                return cookie, whole

    def call(
        self, command: int, offset: int = 0, length: int = 0, payload: bytes = b"", *, flags: int = 0
    ) -> Reply:
        """One request and its reply."""
        sent = self.send(command, offset, length, payload, flags=flags)
        cookie, reply = self.reply()
        assert cookie == sent
        return reply

    def read(self, offset: int, length: int) -> bytes:
        """Data that must arrive."""
        reply = self.call(READ, offset, length)
        assert not reply.error, reply
        return reply.data

    def write(self, offset: int, data: bytes, *, flags: int = 0) -> None:
        """A write that must succeed."""
        reply = self.call(WRITE, offset, len(data), data, flags=flags)
        assert not reply.error, reply

    def _chunk(self, whole: Reply) -> tuple[int, bool]:
        magic = struct.unpack(">I", self.receive(4))[0]
        if magic == SIMPLE:
            return self._simple(whole)
        flags, kind, cookie = struct.unpack(">HHQ", self.receive(12))
        if magic == EXTENDED:
            start, length = struct.unpack(">QQ", self.receive(16))
            assert start == self._lengths[cookie][0]
        else:
            assert magic == STRUCTURED
            assert self.style == "structured"
            length = struct.unpack(">I", self.receive(4))[0]
        self._content(whole, kind, cookie, self.receive(length))
        return cookie, bool(flags & 1)

    def _simple(self, whole: Reply) -> tuple[int, bool]:
        assert self.style != "extended"
        whole.error, cookie = struct.unpack(">IQ", self.receive(12))
        if self.style == "simple" and not whole.error:
            whole.data = self.receive(self._lengths[cookie][1])
        return cookie, True

    def _content(self, whole: Reply, kind: int, cookie: int, payload: bytes) -> None:
        if kind in (1, 2):
            start, length = self._lengths[cookie]
            offset = struct.unpack_from(">Q", payload)[0]
            data = payload[8:] if kind == 1 else bytes(struct.unpack_from(">I", payload, 8)[0])
            whole.chunks.append((kind, offset, len(data)))
            room = bytearray(whole.data.ljust(length, b"\xee"))
            room[offset - start : offset - start + len(data)] = data
            assert len(room) == length
            whole.data = bytes(room)
        elif kind == 5:
            context = struct.unpack_from(">I", payload)[0]
            whole.status[context] = list(struct.iter_unpack(">II", payload[4:]))
        elif kind == 6:
            context, count = struct.unpack_from(">II", payload)
            whole.status[context] = list(struct.iter_unpack(">QQ", payload[8:]))
            assert len(whole.status[context]) == count
        elif kind == 0x8001:
            whole.error, length = struct.unpack_from(">IH", payload)
            whole.message = payload[6 : 6 + length].decode()
            assert len(payload) == 6 + length
        else:
            assert kind == 0
            assert not payload
