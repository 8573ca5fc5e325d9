"""Header extensions: what follows the header in the first cluster."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from drivebay.blockmap import Files
from drivebay.formats.qcow2.header import Header
from drivebay.formats.qcow2.rules import refusal

BACKING_FORMAT = 0xE2792ACA
FEATURE_NAMES = 0x6803F857
BITMAPS = 0x23852875
DATA_FILE = 0x44415441
_HEAD = struct.Struct(">II")
_FEATURE = 48


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension; ``offset`` is where its head begins."""

    type: int
    data: bytes
    offset: int

    def pack(self) -> bytes:
        """Head, data and padding."""
        return _HEAD.pack(self.type, len(self.data)) + self.data + bytes(-len(self.data) % 8)


def read_extensions(files: Files, header: Header) -> tuple[Extension, ...]:
    """All extensions in their order, known or not. Raises CORRUPT where one reaches out of its area."""
    area = files.read(0, header.backing_offset or header.cluster)
    found = []
    position = header.length
    while position + _HEAD.size <= len(area):
        kind, length = _HEAD.unpack_from(area, position)
        if kind == 0:
            break
        start = position + _HEAD.size
        if start + length > len(area):
            what = f"QCOW2 header extension {kind:#x}: its {length} bytes reach out of the area of extensions"
            raise refusal(files, what, position)
        found.append(Extension(kind, area[start : start + length], position))
        position = start + length + -length % 8
    return tuple(found)


def extension_of(extensions: tuple[Extension, ...], kind: int) -> Extension | None:
    """The first extension of a type."""
    return next((extension for extension in extensions if extension.type == kind), None)


def incompatible_names(extensions: tuple[Extension, ...]) -> dict[int, str]:
    """What the feature name table calls the incompatible features, by bit number."""
    table = extension_of(extensions, FEATURE_NAMES)
    data = table.data if table else b""
    entries = (data[start : start + _FEATURE] for start in range(0, len(data) - _FEATURE + 1, _FEATURE))
    return {
        entry[1]: entry[2:].rstrip(b"\0").decode("utf-8", "replace") for entry in entries if entry[0] == 0
    }


def text_of(extension: Extension) -> str:
    """The data of an extension that is a string."""
    return extension.data.split(b"\0", 1)[0].decode("utf-8", "replace")
