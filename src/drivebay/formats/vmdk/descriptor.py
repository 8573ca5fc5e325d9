"""The descriptor: the text that names an image's extents, its parent and its properties.

The reader is lenient (see docs/formats/vmdk.md); every line keeps its bytes, so that an edit leaves
alone what it doesn't know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from drivebay.errors import ErrorKind, StorageError

MAX_SIZE = 1 << 20
MAX_EXTENTS = 8192
SIGNATURE = b"# disk descriptorfile"
_BOM = b"\xef\xbb\xbf"
_EXTENT = re.compile(
    r"(?P<access>rw|rdonly|noaccess)\s+(?P<sectors>\d{1,19})\s+(?P<type>\w+)"
    r'(?:\s+(?:"(?P<quoted>[^"]*)"|(?P<bare>\S+))(?:\s+(?P<offset>\d{1,19})(?!\S))?)?'
    r"(?!\s*[\"+\d-])(?!\S)",
    re.IGNORECASE,
)
_BEGINS_EXTENT = re.compile(r"(?:rw|rdonly|noaccess)(?:\s|$)", re.IGNORECASE)
_ASSIGNMENT = re.compile(r'(?P<key>[\w.\-]+)\s*=\s*(?P<value>"[^"]*"|.*?)\s*$')
_ENCODING = re.compile(
    r"(?:utf-?8|us-ascii|windows-\d+|cp-?\d+|iso-?8859-\d+|gb\w+|shift_jis|big5|euc-\w+)", re.I
)


class Extent(NamedTuple):
    """One extent line; ``sectors`` and ``offset`` count 512 bytes. ``type`` and ``access`` are upper case."""

    access: str
    sectors: int
    type: str
    name: str
    offset: int


class Setting(NamedTuple):
    """One ``key = value`` line: the key as written, and where the value's bytes lie in the text."""

    key: str
    value: str
    offset: int
    line: int


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A parsed descriptor: ``text`` lies at byte ``offset`` of source 0, with ``room`` bytes to grow into.

    ``room`` is 0 for a file of its own. ``pointers`` are the bytes of the headers that tell both, in sectors.
    ``settings`` are by lower-case key, the first of each key.
    """

    text: bytes
    offset: int
    room: int
    encoding: str
    extents: tuple[Extent, ...]
    settings: Mapping[str, Setting]
    pointers: tuple[int, ...] = ()

    @property
    def embedded(self) -> bool:
        """Whether the descriptor lies within a sparse extent."""
        return self.room > 0

    def get(self, key: str, default: str = "") -> str:
        """The value of a key, in any case."""
        found = self.settings.get(key.lower())
        return found.value if found else default

    def hexadecimal(self, key: str) -> int | None:
        """A value of up to 8 hexadecimal digits (CID), ``None`` where there is none."""
        value = self.get(key)
        return int(value, 16) if re.fullmatch(r"[0-9a-fA-F]{1,8}", value) else None


def parse(
    text: bytes, path: str, *, offset: int = 0, room: int = 0, pointers: tuple[int, ...] = ()
) -> Descriptor:
    """The descriptor in ``text``, which lies at byte ``offset`` of the file ``path``.

    Raises StorageError (CORRUPT) for too many extents or none, and for a line that is half an extent's.
    """
    text = text.split(b"\0", 1)[0]
    encoding = _encoding(text)
    extents: list[Extent] = []
    settings: dict[str, Setting] = {}
    start = len(_BOM) if text.startswith(_BOM) else 0
    for number, line in enumerate(text[start:].split(b"\n")):
        shown = line.decode(encoding, "surrogateescape").strip()
        if extent := _extent(shown):
            extents.append(extent)
        elif not shown.startswith("#") and (match := _ASSIGNMENT.match(shown)):
            setting = _setting(match, line, start, number, encoding)
            settings.setdefault(setting.key.lower(), setting)
        elif _BEGINS_EXTENT.match(shown):  # without it, what follows would move to another place
            what = f"line {number + 1} is no whole extent line: {shown[:80]!r}"
            raise _fault(what, path, offset + start)
        start += len(line) + 1
    if not 1 <= len(extents) <= MAX_EXTENTS:
        what = f"it has {len(extents)} extent lines, but 1 to {MAX_EXTENTS} are possible"
        raise _fault(what, path, offset)
    return Descriptor(text, offset, room, encoding, tuple(extents), settings, pointers)


def _fault(what: str, path: str, offset: int) -> StorageError:
    message = f"VMDK descriptor: {what}; restore the descriptor from a copy"
    return StorageError(ErrorKind.CORRUPT, message, path=path, offset=offset, operation="open")


def _encoding(text: bytes) -> str:
    match = re.search(rb'^\s*encoding\s*=\s*"?([\w\-]+)', text, re.IGNORECASE | re.MULTILINE)
    name = match.group(1).decode("ascii", "replace") if match else "utf-8"
    if not _ENCODING.fullmatch(name):
        return "utf-8"
    try:
        b"".decode(name)
    except LookupError:
        return "utf-8"
    return name.lower()


def _extent(line: str) -> Extent | None:
    match = _EXTENT.match(line)
    if match is None:
        return None
    return Extent(
        match["access"].upper(),
        int(match["sectors"]),
        match["type"].upper(),
        match["quoted"] or match["bare"] or "",
        int(match["offset"] or 0),
    )


def _setting(match: re.Match[str], line: bytes, start: int, number: int, encoding: str) -> Setting:
    value = match["value"]
    before = line.index(b"=") + 1
    inner = value[1:-1] if value[:1] == value[-1:] == '"' and len(value) > 1 else value
    found = line.find(inner.encode(encoding, "surrogateescape"), before)
    return Setting(match["key"], inner, start + max(found, before), number)


def is_descriptor(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is a descriptor: its first line that isn't blank says so."""
    return head.removeprefix(_BOM).lstrip().lower().startswith(SIGNATURE)


def unescape(value: str) -> str:
    """A comment as people wrote it: VirtualBox puts a backslash before what can't stand in a line."""
    return re.sub(r"\\(.)", lambda match: {"n": "\n", "r": "\r"}.get(match[1], match[1]), value)


def escape(value: str) -> str:
    """The reverse of `unescape`."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
