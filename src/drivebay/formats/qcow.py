"""QCOW, version 1: QEMU's first format, read only. See docs/formats/qcow.md.

Big endian: magic "QFI\\xfb", version 1, name of the backing file, disk size, cluster and L2 bits, L1
offset. L1 and L2 entries are offsets; bit 63 of an L2 entry says "compressed" (raw deflate).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from drivebay.blockmap import (
    BlockState,
    Codec,
    Directory,
    Entry,
    Files,
    Format,
    Layer,
    Match,
    PackedEntry,
    Rule,
    Table,
)
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.backing import backing_name
from drivebay.model import SECTOR, ImageFacts

_MAGIC = b"QFI\xfb\0\0\0\x01"
_LAYOUT = struct.Struct(">II QIIQ BBH IQ")
_COMPRESSED = 1 << 63
_MAX_BACKING_NAME = 1023
_MAX_SIZE = 1 << 62
_REMEDIES = {
    ErrorKind.CORRUPT: "the header is damaged: restore the image from a copy",
    ErrorKind.UNSUPPORTED: "convert the image with 'qemu-img convert'",
}


@dataclass(frozen=True, slots=True)
class _Header:
    magic: int
    version: int
    backing_offset: int
    backing_length: int
    modified: int
    size: int
    cluster_bits: int
    l2_bits: int
    padding: int
    crypt_method: int
    l1_offset: int

    @property
    def cluster(self) -> int:
        return 1 << self.cluster_bits

    @property
    def l1_size(self) -> int:
        return -(-self.size >> (self.cluster_bits + self.l2_bits))


def _probe(head: bytes, _tail: bytes = b"") -> Match:
    return Match.YES if head[:8] == _MAGIC else Match.NO


def _open(files: Files) -> Layer:
    header = _read_header(files)
    name = None
    if header.backing_offset:
        raw = files.read(header.backing_offset, header.backing_length)
        name = backing_name(raw, files, header.backing_offset).path if raw else None
    table = _table(header)
    facts = ImageFacts(
        format="qcow",
        variant="v1",
        size=table.length,
        block_size=header.cluster,
        differencing=name is not None,
        parent_names=() if name is None else (name,),
        details={
            "cluster size": header.cluster,
            "entries of an L2 table": 1 << header.l2_bits,
            "L1 offset": header.l1_offset,
            "modified": header.modified,
        },
    )
    refusal = "drivebay only reads QCOW version 1; convert it, or put a child of another format on it"
    return Layer(facts, (table,), refusal=refusal)


def _table(header: _Header) -> Table:
    offset = _COMPRESSED - 1
    nothing = Rule(offset, 0, BlockState.ABSENT)
    high = Rule(_COMPRESSED, _COMPRESSED, BlockState.CORRUPT)
    packed = Rule(_COMPRESSED, _COMPRESSED, BlockState.PACKED)
    return Table(
        start=0,
        length=header.size + -header.size % SECTOR,
        block=header.cluster,
        source=0,
        root=header.l1_offset,
        entry=Entry(8, ">", (packed, nothing, *_UNALIGNED), offset, 1),
        directory=Directory(Entry(8, ">", (high, nothing), offset, 1), 1 << header.l2_bits, header.l1_size),
        packed=PackedEntry(Codec.DEFLATE, (1 << (63 - header.cluster_bits)) - 1, header.cluster),
        short_tail=True,
    )


# Offsets that are no multiple of a sector: one rule for each bit that must be clear.
_UNALIGNED = tuple(Rule(1 << bit, 1 << bit, BlockState.CORRUPT) for bit in range(9))


def _read_header(files: Files) -> _Header:
    """The header, checked; the rules are those of docs/formats/qcow.md. Raises StorageError."""
    data = files.read(0, _LAYOUT.size)
    if len(data) < _LAYOUT.size:
        what = f"the file ends within the QCOW header, after {len(data)} of {_LAYOUT.size} bytes"
        raise _refusal(files, what, len(data))
    header = _Header(*_LAYOUT.unpack(data))
    for holds, label, value, offset, demand, kind in _rules(header, files.size):
        if not holds:
            raise _refusal(files, f"QCOW header: the {label} is {value}, but {demand}", offset, kind)
    return header


def _rules(header: _Header, file_size: int) -> Iterator[tuple[bool, str, int, int, str, ErrorKind]]:
    """Whether a field is right; its name, value and offset; what is demanded. Rules rely on earlier ones."""
    corrupt, unsupported = ErrorKind.CORRUPT, ErrorKind.UNSUPPORTED
    magic = (header.magic, header.version) == struct.unpack(">II", _MAGIC)
    yield magic, "version", header.version, 4, "it must be 1, behind the magic number", corrupt
    bits = header.cluster_bits
    yield 9 <= bits <= 16, "cluster bits field", bits, 32, "it must be from 9 to 16", corrupt
    bits = header.l2_bits
    yield 6 <= bits <= 13, "L2 bits field", bits, 33, "it must be from 6 to 13", corrupt
    method, none = header.crypt_method, "drivebay reads no encrypted QCOW images (1 is AES)"
    yield method == 0, "encryption method", method, 36, none, unsupported
    size = header.size
    yield 0 < size < _MAX_SIZE, "disk size", size, 24, f"it must be above 0 and below {_MAX_SIZE}", corrupt
    table = header.l1_offset + header.l1_size * 8
    inside = header.l1_offset >= _LAYOUT.size and table <= file_size
    yield (
        inside,
        "L1 offset",
        header.l1_offset,
        40,
        "the table doesn't lie between header and file's end",
        corrupt,
    )
    start, length = header.backing_offset, header.backing_length
    named = start == 0 or (length <= _MAX_BACKING_NAME and start + length <= file_size)
    yield named, "backing file name's length", length, 16, "the name is too long or not in the file", corrupt


def _refusal(files: Files, what: str, offset: int, kind: ErrorKind = ErrorKind.CORRUPT) -> StorageError:
    message = f"{what}; {_REMEDIES[kind]}"
    return StorageError(kind, message, path=files.path, offset=offset, operation="open")


FORMAT = Format(name="qcow", extensions=("qcow",), probe=_probe, open=_open)
