"""Small QED images in memory, with any header field made wrong."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from typing import Any

from drivebay.formats.qed.header import HEADER_SIZE, Header

CLUSTER = 4096
TABLE = CLUSTER // 8  # entries
L1, L2, DATA = CLUSTER, 2 * CLUSTER, 3 * CLUSTER

_SOUND = Header(
    magic=b"QED\0",
    cluster_size=CLUSTER,
    table_size=1,
    header_size=1,
    features=0,
    compat_features=0,
    autoclear_features=0,
    l1_offset=L1,
    size=8 * CLUSTER,
    name_offset=0,
    name_size=0,
)


def make_header(**fields: Any) -> Header:
    """The header of an image of eight 4 KiB clusters, with ``fields`` changed."""
    return dataclasses.replace(_SOUND, **fields)


def make_image(
    *,
    entries: Mapping[int, int] | None = None,
    tables: Mapping[int, int] | None = None,
    clusters: int = 4,
    backing: bytes = b"",
    **fields: Any,
) -> bytes:
    """One L2 table with ``entries``, and ``clusters`` of data, cluster n filled with byte n + 1.

    ``tables`` are L1 entries beside the first, ``backing`` is the backing file's name.
    """
    if backing:
        named = {"features": 1, "name_offset": HEADER_SIZE, "name_size": len(backing)}
        fields = named | fields
    data = bytearray(DATA)
    header = make_header(**fields).pack() + backing
    data[: len(header)] = header
    for index, value in {0: L2, **(tables or {})}.items():
        struct.pack_into("<Q", data, L1 + 8 * index, value)
    for index, value in (entries or {}).items():
        struct.pack_into("<Q", data, L2 + 8 * index, value)
    for number in range(clusters):
        data += bytes([number + 1]) * CLUSTER
    return bytes(data)
