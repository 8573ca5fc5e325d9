"""The handshake's core: options in, replies and a session out."""

from __future__ import annotations

import contextlib
import random
import struct

import pytest

from drivebay.exports import Export
from drivebay.exports.nbd import replies
from drivebay.exports.nbd.constants import ProtocolError
from drivebay.exports.nbd.handshake import GREETING, Handshake
from drivebay.exports.nbd.options import preferred_block
from support import nbd_client as nbd
from support.memory_disk import MemoryDisk

SIZE = 1 << 20
CLIENT_FLAGS = struct.pack(">I", 3)


def exports(**options: bool) -> dict[str, Export]:
    return {
        "first": Export(MemoryDisk(SIZE), "first", "the first", **options),
        "second": Export(MemoryDisk(2 * SIZE), "second"),
    }


def begun(**options: bool) -> Handshake:
    handshake = Handshake(exports(**options))
    assert handshake.receive(CLIENT_FLAGS) == b""
    return handshake


def option(number: int, data: bytes = b"") -> bytes:
    return struct.pack(">QII", nbd.OPTION_MAGIC, number, len(data)) + data


def answers(output: bytes) -> list[tuple[int, bytes]]:
    found = []
    while output:
        magic, _, kind, length = struct.unpack_from(">QIII", output)
        assert magic == nbd.OPTION_REPLY_MAGIC
        found.append((kind, output[20 : 20 + length]))
        output = output[20 + length :]
    return found


def named(name: str, rest: bytes = struct.pack(">H", 0)) -> bytes:
    return struct.pack(">I", len(name)) + name.encode() + rest


def queries(*texts: str) -> bytes:
    return struct.pack(">I", len(texts)) + b"".join(named(text, b"") for text in texts)


def test_greeting_offers_fixed_newstyle_without_zeroes() -> None:
    assert GREETING == nbd.GREETING + b"\0\3"


def test_go_answers_with_all_facts_and_opens_a_session() -> None:
    handshake = begun()
    output = handshake.receive(option(nbd.GO, named("first", struct.pack(">4H", 3, 1, 2, 3))))
    facts = {struct.unpack_from(">H", data)[0]: data[2:] for kind, data in answers(output) if kind == 3}
    assert answers(output)[-1] == (nbd.ACK, b"")
    assert facts[0][:8] == struct.pack(">Q", SIZE)
    assert facts[1] == b"first"
    assert facts[2] == b"the first"
    assert facts[3] == struct.pack(">III", 1, 4096, 32 << 20)
    assert handshake.session is not None
    assert handshake.session.export.name == "first"
    assert handshake.session.replies is replies.SIMPLE


def test_flags_say_what_the_export_can_do() -> None:
    def flags(*before: bytes, **options: bool) -> int:
        handshake = begun(**options)
        for each in before:
            handshake.receive(each)
        output = handshake.receive(option(nbd.INFO, named("first")))
        return int(struct.unpack(">HQH", answers(output)[0][1])[2])

    has, read_only, flush, fua, trim, zeroes, df, multi, cache, fast = (
        1 << bit for bit in (0, 1, 2, 3, 5, 6, 7, 8, 10, 11)
    )
    common = has | flush | fua | multi | cache
    assert flags() == common | trim | zeroes | fast
    assert flags(read_only=True) == common | read_only
    assert flags(option(nbd.STRUCTURED_REPLY)) == common | trim | zeroes | fast | df


def test_info_opens_no_session() -> None:
    handshake = begun()
    assert answers(handshake.receive(option(nbd.INFO, named("second"))))[-1][0] == nbd.ACK
    assert handshake.session is None


def test_the_empty_name_is_the_first_export() -> None:
    handshake = begun()
    handshake.receive(option(nbd.GO, named("")))
    assert handshake.session is not None
    assert handshake.session.export.name == "first"


def test_list_names_all_exports_with_their_descriptions() -> None:
    output = answers(begun().receive(option(nbd.LIST)))
    assert output == [
        (nbd.SERVER, named("first", b"the first")),
        (nbd.SERVER, named("second", b"")),
        (nbd.ACK, b""),
    ]


@pytest.mark.parametrize(("flags", "padding"), [(1, 124), (3, 0)])
def test_export_name_pads_unless_told_not_to(flags: int, padding: int) -> None:
    handshake = Handshake(exports())
    output = handshake.receive(struct.pack(">I", flags) + option(nbd.EXPORT_NAME, b"second"))
    assert output[:8] == struct.pack(">Q", 2 * SIZE)
    assert output[10:] == bytes(padding)
    assert handshake.session is not None


def test_abort_is_acknowledged() -> None:
    handshake = begun()
    assert answers(handshake.receive(option(nbd.ABORT, b"ignored"))) == [(nbd.ACK, b"")]
    assert handshake.aborted


def test_bytes_after_go_are_kept_for_the_transmission() -> None:
    handshake = begun()
    handshake.receive(option(nbd.GO, named("first")) + b"requests")
    assert handshake.rest == b"requests"


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (option(nbd.STARTTLS), nbd.ERR_UNSUP),
        (option(4711, b"data"), nbd.ERR_UNSUP),
        (option(nbd.LIST, b"x"), nbd.ERR_INVALID),
        (option(nbd.STRUCTURED_REPLY, b"x"), nbd.ERR_INVALID),
        (option(nbd.EXTENDED_HEADERS, b"x"), nbd.ERR_INVALID),
        (option(nbd.GO, named("third")), nbd.ERR_UNKNOWN),
        (option(nbd.GO, b"\0\0"), nbd.ERR_INVALID),
        (option(nbd.GO, named("first", b"\0\2\0\0")), nbd.ERR_INVALID),
        (option(nbd.GO, named("first", b"\0\0extra")), nbd.ERR_INVALID),
        (option(nbd.GO, struct.pack(">I", 1 << 31) + b"first\0\0"), nbd.ERR_TOO_BIG),
        (option(nbd.GO, struct.pack(">I", 2) + b"\xff\xfe\0\0"), nbd.ERR_INVALID),
        (option(nbd.SET_META_CONTEXT, named("first", queries("base:allocation"))), nbd.ERR_INVALID),
        (option(nbd.LIST_META_CONTEXT, named("first", queries())), nbd.ERR_INVALID),
        (option(nbd.LIST, bytes(65537)), nbd.ERR_TOO_BIG),
    ],
)
def test_an_option_that_fails_leaves_the_handshake_going(message: bytes, error: int) -> None:
    handshake = begun()
    assert [kind for kind, _ in answers(handshake.receive(message))] == [error]
    assert answers(handshake.receive(option(nbd.GO, named("first"))))[-1][0] == nbd.ACK


def test_a_message_may_arrive_byte_by_byte() -> None:
    handshake = Handshake(exports())
    messages = CLIENT_FLAGS + option(9999, bytes(100)) + option(nbd.GO, named("second"))
    output = b"".join(handshake.receive(bytes([byte])) for byte in messages)
    assert [kind for kind, _ in answers(output)] == [nbd.ERR_UNSUP, nbd.REP_INFO, nbd.ACK]
    assert handshake.session is not None


@pytest.mark.parametrize(
    "message",
    [
        b"\0\0\0\4",
        CLIENT_FLAGS + b"GET / HTTP/1.1\r\n",
        CLIENT_FLAGS + option(nbd.EXPORT_NAME, b"third"),
        CLIENT_FLAGS + option(nbd.EXPORT_NAME, b"\xff"),
        CLIENT_FLAGS + option(nbd.EXTENDED_HEADERS) + option(nbd.EXPORT_NAME, b"first"),
        CLIENT_FLAGS + struct.pack(">QII", nbd.OPTION_MAGIC, nbd.LIST, (32 << 20) + 1),
        CLIENT_FLAGS + struct.pack(">QII", nbd.OPTION_MAGIC, nbd.EXPORT_NAME, 65537),
        CLIENT_FLAGS + 1001 * option(nbd.STARTTLS),
    ],
)
def test_what_cannot_be_answered_ends_the_connection(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        Handshake(exports()).receive(message)


def test_extended_headers_take_precedence_over_structured_replies() -> None:
    handshake = begun()
    handshake.receive(option(nbd.STRUCTURED_REPLY))
    assert answers(handshake.receive(option(nbd.EXTENDED_HEADERS))) == [(nbd.ACK, b"")]
    late = answers(handshake.receive(option(nbd.STRUCTURED_REPLY)))
    assert late[0][0] == nbd.ERR_EXT_HEADER_REQD
    handshake.receive(option(nbd.GO, named("first")))
    assert handshake.session is not None
    assert handshake.session.replies is replies.EXTENDED


@pytest.mark.parametrize(
    ("number", "asked", "found"),
    [
        (nbd.LIST_META_CONTEXT, (), ["base:allocation", "qemu:allocation-depth"]),
        (nbd.LIST_META_CONTEXT, ("base:",), ["base:allocation"]),
        (nbd.LIST_META_CONTEXT, ("qemu:", "x-y:z"), ["qemu:allocation-depth"]),
        (nbd.LIST_META_CONTEXT, ("base:unknown", "nonsense"), []),
        (nbd.SET_META_CONTEXT, (), []),
        (nbd.SET_META_CONTEXT, ("base:",), []),
        (nbd.SET_META_CONTEXT, ("qemu:allocation-depth",), ["qemu:allocation-depth"]),
    ],
)
def test_meta_context_queries(number: int, asked: tuple[str, ...], found: list[str]) -> None:
    handshake = begun()
    handshake.receive(option(nbd.STRUCTURED_REPLY))
    output = answers(handshake.receive(option(number, named("first", queries(*asked)))))
    assert output[-1] == (nbd.ACK, b"")
    assert [data[4:].decode() for _, data in output[:-1]] == found


@pytest.mark.parametrize(("name", "count"), [("first", 1), ("", 1), ("second", 0)])
def test_contexts_hold_for_the_export_they_were_set_on(name: str, count: int) -> None:
    handshake = begun()
    handshake.receive(option(nbd.STRUCTURED_REPLY))
    handshake.receive(option(nbd.SET_META_CONTEXT, named("first", queries("base:allocation"))))
    handshake.receive(option(nbd.GO, named(name)))
    assert handshake.session is not None
    assert len(handshake.session.contexts) == count


def test_a_failed_set_clears_the_contexts() -> None:
    handshake = begun()
    handshake.receive(option(nbd.STRUCTURED_REPLY))
    handshake.receive(option(nbd.SET_META_CONTEXT, named("first", queries("base:allocation"))))
    handshake.receive(option(nbd.SET_META_CONTEXT, named("third", queries("base:allocation"))))
    handshake.receive(option(nbd.GO, named("first")))
    assert handshake.session is not None
    assert handshake.session.contexts == ()


@pytest.mark.parametrize(
    ("block", "preferred"), [(512, 4096), (4096, 4096), (65536, 65536), (1 << 20, 65536), (10_000, 8192)]
)
def test_the_preferred_block_is_a_sensible_power_of_two(block: int, preferred: int) -> None:
    assert preferred_block(block) == preferred


@pytest.mark.parametrize("seed", range(20))
def test_random_options_are_answered_or_end_the_connection(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        stream = bytearray(CLIENT_FLAGS)
        for _ in range(rng.randrange(1, 8)):
            data = rng.choice(
                [
                    b"",
                    rng.randbytes(9),
                    named("first"),
                    named("first", queries("base:", "x")),
                    named("second"),
                ]
            )
            stream += option(rng.randrange(13), data)
        for _ in range(rng.randrange(3)):
            stream[rng.randrange(4, len(stream))] ^= 1 << rng.randrange(8)
        handshake, at, output = Handshake(exports()), 0, b""
        with contextlib.suppress(ProtocolError):
            while at < len(stream):
                step = rng.randrange(1, 60)
                output += handshake.receive(bytes(stream[at : at + step]))
                at += step
        if handshake.session is None:
            assert all(kind in range(1, 5) or kind >> 31 for kind, _ in answers(output))
