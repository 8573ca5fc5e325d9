"""The first cluster as it is written: header, extensions, name of the backing file."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace

from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.qcow2.extensions import FEATURE_NAMES, Extension
from drivebay.formats.qcow2.header import Autoclear, Compatible, Header, Incompatible

_END = bytes(8)


def pack_area(header: Header, extensions: Iterable[Extension], backing: bytes) -> bytes:
    """The bytes, with the header's fields of the backing file set for the name ``backing``.

    The table of feature names is left out where there is no room for it. Raises StorageError (INVALID)
    where the first cluster has no room for the rest.
    """
    kept = list(extensions)
    area = _pack(header, kept, backing)
    if len(area) > header.cluster:
        area = _pack(header, [one for one in kept if one.type != FEATURE_NAMES], backing)
    if len(area) > header.cluster:
        raise StorageError(
            ErrorKind.INVALID,
            f"the header with its names takes {len(area)} bytes, but only a cluster of {header.cluster} is "
            "there for it; use larger clusters, or shorter names",
        )
    return area


def _pack(header: Header, extensions: list[Extension], backing: bytes) -> bytes:
    packed = b"".join(extension.pack() for extension in extensions) + _END
    start = header.length + len(packed) if backing else 0
    return replace(header, backing_offset=start, backing_length=len(backing)).pack() + packed + backing


def feature_names() -> Extension:
    """The names of the features that drivebay knows, for readers that don't."""
    table = (
        (kind, flag) for kind, flags in enumerate((Incompatible, Compatible, Autoclear)) for flag in (*flags,)
    )
    return Extension(FEATURE_NAMES, b"".join(_feature(kind, flag) for kind, flag in table), 0)


def _feature(kind: int, flag: Incompatible | Compatible | Autoclear) -> bytes:
    name = str(flag.name).lower().replace("_", " ").encode()
    return struct.pack(">BB46s", kind, int(flag).bit_length() - 1, name)
