"""The handshake phase: fixed newstyle, as bytes in and bytes out.

server: magic, magic, flags          client: flags
client: magic, option, length, data  server: replies, the last one ACK or an error
... until GO or EXPORT_NAME (transmission begins) or ABORT
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from drivebay.exports.export import Export
from drivebay.exports.nbd import metacontext, replies
from drivebay.exports.nbd.constants import (
    GREETING_MAGIC,
    MAX_PAYLOAD,
    OPTION_MAGIC,
    HandshakeFlag,
    Info,
    Option,
    OptionReply,
    ProtocolError,
)
from drivebay.exports.nbd.metacontext import MetaContext
from drivebay.exports.nbd.options import (
    OptionData,
    OptionError,
    info,
    reply,
    server_entry,
    transmission_flags,
)

_FLAGS = int(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)
GREETING = struct.pack(">QQH", GREETING_MAGIC, OPTION_MAGIC, _FLAGS)

_OPTION = struct.Struct(">QII")  # magic, option, length of the data
_EXPORT_NAME_REPLY = struct.Struct(">QH")  # size, transmission flags
_EXPORT_NAME_PADDING = bytes(124)
_MAX_OPTION_DATA = 64 << 10
_MAX_OPTIONS = 1000


@dataclass(frozen=True, slots=True)
class Session:
    """What a handshake agreed on."""

    export: Export
    replies: replies.SimpleReplies
    contexts: tuple[MetaContext, ...]


class Handshake:
    """One client's handshake. Send `GREETING`, then feed what arrives to `receive`.

    Done when ``session`` is set (``rest`` then holds bytes that already belong to the transmission
    phase) or when ``aborted`` is.
    """

    def __init__(self, exports: Mapping[str, Export]) -> None:
        self.session: Session | None = None
        self.aborted = False
        self.rest = b""
        self._exports = exports
        self._input = bytearray()
        self._to_skip = 0  # data of an option that is too big, still to come
        self._flags: int | None = None
        self._options = 0
        self._replies = replies.SIMPLE
        self._contexts: tuple[Export, tuple[MetaContext, ...]] | None = None

    def receive(self, data: bytes | memoryview) -> bytes:
        """Take in ``data``; the bytes to send back. Raises `ProtocolError`: drop the connection."""
        self._input += data
        output = b""
        while (answer := self._step()) is not None:
            output += answer
        return output

    def _step(self) -> bytes | None:
        """Handle one whole message; ``None`` when there is none."""
        if self.aborted or self.session is not None:
            return None
        if self._to_skip:
            return self._skip()
        if self._flags is None:
            return self._client_flags()
        if len(self._input) < _OPTION.size:
            return None
        magic, option, length = _OPTION.unpack_from(self._input)
        if magic != OPTION_MAGIC:
            raise ProtocolError(f"option magic is {magic:#018x}")
        if length > _MAX_OPTION_DATA:
            return self._refuse_big(option, length)
        if len(self._input) < _OPTION.size + length:
            return None
        return self._answer(option, self._take(_OPTION.size + length)[_OPTION.size :])

    def _take(self, length: int) -> bytes:
        taken = bytes(self._input[:length])
        del self._input[:length]
        return taken

    def _skip(self) -> bytes | None:
        skipped = self._take(self._to_skip)
        self._to_skip -= len(skipped)
        return b"" if skipped else None

    def _client_flags(self) -> bytes | None:
        if len(self._input) < 4:
            return None
        self._flags = int.from_bytes(self._take(4), "big")
        if self._flags & ~_FLAGS:
            raise ProtocolError(f"unknown client flags {self._flags:#x}")
        return b""

    def _refuse_big(self, option: int, length: int) -> bytes:
        if option == Option.EXPORT_NAME or length > MAX_PAYLOAD:
            raise ProtocolError(f"option {option} with {length} bytes of data")
        self._take(_OPTION.size)
        self._to_skip = length
        return reply(option, OptionReply.ERR_TOO_BIG, b"the option has too much data")

    def _answer(self, option: int, data: bytes) -> bytes:
        self._options += 1
        if self._options > _MAX_OPTIONS:
            raise ProtocolError("too many options")
        handler = _HANDLERS.get(option)
        if handler is None:
            return reply(option, OptionReply.ERR_UNSUP, b"unknown option")
        try:
            return handler(self, option, data)
        except OptionError as error:
            return reply(option, error.reply, str(error).encode())

    def _export_name(self, option: int, data: bytes) -> bytes:
        if self._replies is replies.EXTENDED:
            raise ProtocolError("EXPORT_NAME after EXTENDED_HEADERS")
        try:
            export = self._find(data.decode())
        except (OptionError, UnicodeDecodeError):
            raise ProtocolError(f"option {option} for an unknown export") from None
        self._finish(export)
        answer = _EXPORT_NAME_REPLY.pack(export.disk.size, transmission_flags(export, chunked=self._chunked))
        padded = not (self._flags or 0) & HandshakeFlag.NO_ZEROES
        return answer + _EXPORT_NAME_PADDING if padded else answer

    def _abort(self, option: int, data: bytes) -> bytes:
        del data
        self.aborted = True
        return reply(option, OptionReply.ACK)

    def _list(self, option: int, data: bytes) -> bytes:
        OptionData(data).end()
        entries = [reply(option, OptionReply.SERVER, server_entry(each)) for each in self._exports.values()]
        return b"".join(entries) + reply(option, OptionReply.ACK)

    def _info(self, option: int, data: bytes) -> bytes:
        fields = OptionData(data)
        name = fields.string()
        wanted = {fields.half() for _ in range(fields.half())}
        fields.end()
        export = self._find(name)
        facts = [info(export, kind, chunked=self._chunked) for kind in sorted(wanted | {Info.EXPORT})]
        if option == Option.GO:
            self._finish(export)
        answers = [reply(option, OptionReply.INFO, fact) for fact in facts if fact]
        return b"".join(answers) + reply(option, OptionReply.ACK)

    def _structured_reply(self, option: int, data: bytes) -> bytes:
        OptionData(data).end()
        if self._replies is replies.EXTENDED:
            raise OptionError(OptionReply.ERR_EXT_HEADER_REQD, "extended headers are in use already")
        self._replies = replies.STRUCTURED
        return reply(option, OptionReply.ACK)

    def _extended_headers(self, option: int, data: bytes) -> bytes:
        OptionData(data).end()
        self._replies = replies.EXTENDED
        return reply(option, OptionReply.ACK)

    def _meta_context(self, option: int, data: bytes) -> bytes:
        setting = option == Option.SET_META_CONTEXT
        if setting:
            self._contexts = None
        if not self._chunked:
            raise OptionError(OptionReply.ERR_INVALID, "negotiate structured replies first")
        fields = OptionData(data)
        export = self._find(fields.string())
        queries = [fields.string() for _ in range(fields.word())]
        fields.end()
        found = metacontext.selected(queries) if setting else metacontext.listed(queries)
        if setting:
            self._contexts = export, tuple(found)
        return b"".join(
            reply(option, OptionReply.META_CONTEXT, _context_entry(context)) for context in found
        ) + reply(option, OptionReply.ACK)

    @property
    def _chunked(self) -> bool:
        return self._replies is not replies.SIMPLE

    def _find(self, name: str) -> Export:
        """The export of that name; the empty name is the first one."""
        export = self._exports.get(name)
        if export is None and not name:
            export = next(iter(self._exports.values()), None)
        if export is None:
            raise OptionError(OptionReply.ERR_UNKNOWN, "there is no export of that name")
        return export

    def _finish(self, export: Export) -> None:
        chosen = self._contexts
        contexts = chosen[1] if chosen is not None and chosen[0] is export else ()
        self.session = Session(export, self._replies, contexts)
        self.rest = self._take(len(self._input))


def _context_entry(context: MetaContext) -> bytes:
    return context.id.to_bytes(4, "big") + context.name.encode()


_HANDLERS: dict[int, Callable[[Handshake, int, bytes], bytes]] = {
    Option.EXPORT_NAME: Handshake._export_name,
    Option.ABORT: Handshake._abort,
    Option.LIST: Handshake._list,
    Option.INFO: Handshake._info,
    Option.GO: Handshake._info,
    Option.STRUCTURED_REPLY: Handshake._structured_reply,
    Option.LIST_META_CONTEXT: Handshake._meta_context,
    Option.SET_META_CONTEXT: Handshake._meta_context,
    Option.EXTENDED_HEADERS: Handshake._extended_headers,
}
