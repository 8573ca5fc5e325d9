"""The parent locator: who a differencing image's parent is, and where (MS-VHDX 2.6.2.6)."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind
from drivebay.formats.vhdx.refusal import refusal, require, require_known

VHDX_LOCATOR = UUID("b04aefb7-d19e-4a81-b789-25b8e9445913")
LINKAGE, LINKAGE2 = "parent_linkage", "parent_linkage2"
RELATIVE, VOLUME, ABSOLUTE = "relative_path", "volume_path", "absolute_win32_path"

_HEADER = struct.Struct("<16sHH")
_ENTRY = struct.Struct("<IIHH")
_GUID = re.compile(r"\{?([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})\}?")
_VOLUME_PREFIX = re.compile(r"//\?/(?:Volume\{[^}/]*\}|[A-Za-z]:)?(?=/)|[A-Za-z]:(?=/)")


@dataclass(frozen=True, slots=True)
class Locator:
    """The keys and values as stored; ``linkage`` is the DataWriteGuid that the parent had."""

    values: Mapping[str, str]
    linkage: UUID

    @property
    def names(self) -> tuple[str, ...]:
        """The parent's paths in the order of the specification, as paths of this host; its bare name last."""
        stored = [self.values[key] for key in (RELATIVE, VOLUME, ABSOLUTE) if key in self.values]
        paths = [_host_path(path) for path in stored]
        bare = [path.rsplit("/", 1)[-1] for path in paths]
        return tuple(dict.fromkeys(path for path in paths + bare if path))


def _host_path(path: str) -> str:
    """Windows' path as this host's: drives and volumes have no name here, so their root is ours."""
    return _VOLUME_PREFIX.sub("", path.replace("\\", "/"), count=1).removeprefix("./")


def pack_locator(values: Mapping[str, str]) -> bytes:
    """The item for ``values``."""
    begin = _HEADER.size + _ENTRY.size * len(values)
    table, strings = b"", b""
    for key, value in values.items():
        name, text = key.encode("utf-16-le"), value.encode("utf-16-le")
        where = begin + len(strings)
        table += _ENTRY.pack(where, where + len(name), len(name), len(text))
        strings += name + text
    return _HEADER.pack(VHDX_LOCATOR.bytes_le, 0, len(values)) + table + strings


def read_locator(files: Files, offset: int, length: int) -> Locator:
    """The locator in ``length`` bytes at ``offset`` of the file (rules X15 to X17). Raises StorageError."""
    data = files.read(offset, length)
    require(len(data) >= _HEADER.size, files, offset, f"VHDX parent locator: it has only {len(data)} bytes")
    kind, _, count = _HEADER.unpack_from(data)
    require_known(
        UUID(bytes_le=kind) == VHDX_LOCATOR,
        files,
        offset,
        f"VHDX parent locator: its type is {UUID(bytes_le=kind)}, but drivebay knows only {VHDX_LOCATOR}",
    )
    require(
        _HEADER.size + count * _ENTRY.size <= len(data),
        files,
        offset + 18,
        f"VHDX parent locator: {count} entries don't fit into its {len(data)} bytes",
    )
    values = _read_values(files, data, count, offset)
    found = _GUID.fullmatch(values.get(LINKAGE, ""))
    if found is None:
        what = f"VHDX parent locator: {LINKAGE} is {values.get(LINKAGE, '')[:80]!r}, not a GUID"
        raise refusal(files, ErrorKind.CORRUPT, offset, what)
    return Locator(values, UUID(found[1]))


def _read_values(files: Files, data: bytes, count: int, at: int) -> dict[str, str]:
    values: dict[str, str] = {}
    room = len(data)  # for all strings together, so that overlapping ones can't use up the memory
    for where in range(_HEADER.size, _HEADER.size + count * _ENTRY.size, _ENTRY.size):
        key_at, value_at, key_length, value_length = _ENTRY.unpack_from(data, where)
        pieces = ((key_at, key_length), (value_at, value_length))
        room -= key_length + value_length
        require(
            room >= 0 and all(start > 0 and size > 0 and start + size <= len(data) for start, size in pieces),
            files,
            at + where,
            f"VHDX parent locator: the entry's key ({key_length} bytes at {key_at}) or value ({value_length} "
            f"bytes at {value_at}) is empty, not within the item, or over another one",
        )
        key, value = (data[start : start + size].decode("utf-16-le", "replace") for start, size in pieces)
        require(key not in values, files, at + where, f"VHDX parent locator: it has two keys {key!r}")
        values[key] = value
    return values
