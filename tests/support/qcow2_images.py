"""Small QCOW2 images in memory, with any header field made wrong."""

from __future__ import annotations

import dataclasses
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from drivebay.formats.qcow2.extensions import Extension
from drivebay.formats.qcow2.header import Header, Incompatible

CLUSTER = 4096
TABLE, BLOCK, L1, L2, DATA = (number * CLUSTER for number in range(1, 6))
BLOCKS = 8
COPIED = 1 << 63
COMPRESSED = 1 << 62
OFFSET = 0x00FF_FFFF_FFFF_FE00

_SOUND = Header(
    cluster_bits=12,
    size=BLOCKS * CLUSTER,
    l1_size=1,
    l1_offset=L1,
    refcount_offset=TABLE,
    refcount_clusters=1,
)


def make_header(**fields: Any) -> Header:
    """The header of an image of eight 4 KiB clusters, with ``fields`` changed."""
    return dataclasses.replace(_SOUND, **fields)


def own(cluster: int) -> int:
    """The entry of a block in data cluster ``cluster`` that nobody else uses."""
    return DATA + cluster * CLUSTER | COPIED


def snapshot_entry(*, l1_offset: int = L1, l1_size: int = 1, name: str = "one", **fields: int) -> bytes:
    """An entry of the snapshot table; ``fields`` are ``size`` and ``extra`` (bytes of extra data)."""
    extra = fields.get("extra", 16)
    sizes = struct.pack(">QQ", 0, fields.get("size", BLOCKS * CLUSTER)).ljust(extra, b"\0")[:extra]
    head = struct.pack(">QIHHIIQII", l1_offset, l1_size, 1, len(name), 1000, 500_000_000, 0, 0, extra)
    entry = head + sizes + b"7" + name.encode()
    return entry + bytes(-len(entry) % 8)


def make_image(
    *,
    entries: Mapping[int, int] | None = None,
    beside: Mapping[int, int] | None = None,
    counts: Mapping[int, int] | None = None,
    l1: Mapping[int, int] | None = None,
    clusters: int = 4,
    extensions: Sequence[Extension] = (),
    backing: bytes = b"",
    snapshot_entries: Sequence[bytes] = (),
    **fields: Any,
) -> bytes:
    """One L2 table with ``entries``, and ``clusters`` of data, cluster n filled with byte n + 1.

    The reference counts (of 16 bits) are right for those entries, but for ``counts``, by cluster number.
    A snapshot table lies behind the data. With ``cluster_bits`` other than 12 the places stay.
    """
    entries = entries or {}
    data = bytearray(DATA)
    for number in range(clusters):
        data += bytes([number + 1]) * CLUSTER
    if snapshot_entries:
        table = b"".join(snapshot_entries)
        fields = {"snapshots": len(snapshot_entries), "snapshots_offset": len(data)} | fields
        data += table.ljust(CLUSTER, b"\0")
    _put_header(data, extensions, backing, fields)
    struct.pack_into(">Q", data, TABLE, BLOCK)
    uses = Counter(range(5))
    placed = [] if fields.get("incompatible", 0) & Incompatible.DATA_FILE else entries.values()
    uses.update((raw & OFFSET) // CLUSTER for raw in placed if raw & OFFSET and not raw & COMPRESSED)
    uses.update([DATA // CLUSTER + clusters] if snapshot_entries else [])
    for cluster, count in {**uses, **(counts or {})}.items():
        struct.pack_into(">H", data, BLOCK + 2 * cluster, count)
    for index, raw in ({0: L2 | COPIED} | dict(l1 or {})).items():
        struct.pack_into(">Q", data, L1 + 8 * index, raw)
    step = 8 if beside is None else 16
    for index, raw in entries.items():
        struct.pack_into(">Q", data, L2 + step * index, raw)
    for index, word in (beside or {}).items():
        struct.pack_into(">Q", data, L2 + step * index + 8, word)
    return bytes(data)


def _put_header(
    data: bytearray, extensions: Sequence[Extension], backing: bytes, fields: Mapping[str, Any]
) -> None:
    packed = b"".join(extension.pack() for extension in extensions)
    header = make_header(**fields)
    if backing:
        place = {"backing_offset": header.length + len(packed) + 8, "backing_length": len(backing)}
        header = make_header(**place | dict(fields))
    area = header.pack() + packed + bytes(8) + backing
    data[: len(area)] = area
