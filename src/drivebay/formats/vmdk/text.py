"""Writing descriptors: new ones as VirtualBox lays them out, and lines of old ones replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drivebay.blockmap import FileEdit, FileReplace, FileWrite
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vmdk.descriptor import Descriptor, Extent
from drivebay.formats.vmdk.header import pointer_to
from drivebay.model import SECTOR, Geometry

_BARE = {"version", "CID", "parentCID"}  # written without quotes
_SPACED = {"ddb.virtualHWVersion"}  # as VMware and VirtualBox write it
_AFTER = ("createtype", "parentcid", "cid", "version")


def render(header: Mapping[str, str], extents: Sequence[Extent], database: Mapping[str, str]) -> bytes:
    """A whole descriptor. Raises StorageError (INVALID) for a value that can't stand in one."""
    lines = ["# Disk DescriptorFile", *(line_of(key, value) for key, value in header.items())]
    lines += ["", "# Extent description", *(_extent_line(extent) for extent in extents)]
    lines += ["", "# The Disk Data Base", "#DDB", ""]
    lines += [line_of(key, value) for key, value in database.items()]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def line_of(key: str, value: str) -> str:
    """One setting; the value is quoted where the format wants that."""
    if any(character in value for character in '"\n\r\0'):
        message = (
            f"the value {value[:200]!r} can't stand in a VMDK descriptor; leave out quotes and line ends"
        )
        raise StorageError(ErrorKind.INVALID, message, operation="write the descriptor")
    if key in _BARE:
        return f"{key}={value}"
    return f'{key} = "{value}"' if key in _SPACED else f'{key}="{value}"'


def _extent_line(extent: Extent) -> str:
    if '"' in extent.name or "\n" in extent.name:
        message = f"a VMDK can't have the name {extent.name!r}; leave out quotes and line ends"
        raise StorageError(ErrorKind.INVALID, message, operation="write the descriptor")
    offset = f" {extent.offset}" if extent.type == "FLAT" else ""
    return f'{extent.access} {extent.sectors} {extent.type} "{extent.name}"{offset}'


def geometry_settings(geometry: Geometry, prefix: str) -> dict[str, str]:
    """The three settings of a geometry; ``prefix`` is "" or "bios"."""
    numbers = {"cylinders": geometry.cylinders, "heads": geometry.heads, "sectors": geometry.sectors}
    return {
        f"ddb.geometry.{prefix + (key.capitalize() if prefix else key)}": str(number)
        for key, number in numbers.items()
    }


def changed(descriptor: Descriptor, settings: Mapping[str, str | None], path: str) -> list[FileEdit]:
    """The edits that give keys new values (``None``: take the line out); every other line stays as it is.

    After a crash it is the old text or the new one, except where an embedded one fills more than half of
    its room. Raises StorageError (INVALID) where the text doesn't fit into the room that it has.
    """
    text = _replaced(descriptor, settings)
    if len(text) == len(descriptor.text):
        parts = _differing(descriptor, text)
        if len(parts) < 2:
            return parts
    if not descriptor.embedded:
        return [FileReplace(text)]
    return _aside_and_back(descriptor, text) or _in_place(descriptor, text, path)


def _aside_and_back(descriptor: Descriptor, text: bytes) -> list[FileEdit]:
    """The text behind the old one, where the header points until that is replaced; nothing for want of room.

    Each is whole while the header points to it: a disk writes the header's sector whole.
    """
    begin = descriptor.offset
    skip = (max(len(text), len(descriptor.text)) // SECTOR + 1) * SECTOR  # a NUL ends what is before it
    room = descriptor.room - skip
    if len(text) >= room:
        return []
    return [
        FileWrite(begin + skip, text.ljust(room, b"\0")),
        *_pointing(descriptor, begin + skip, room),
        FileWrite(begin, text.ljust(skip, b"\0")),
        *_pointing(descriptor, begin, descriptor.room),
        FileWrite(begin + skip, bytes(room)),
    ]


def _pointing(descriptor: Descriptor, begin: int, room: int) -> list[FileWrite]:
    return [FileWrite(place, pointer_to(begin // SECTOR, room // SECTOR)) for place in descriptor.pointers]


def _in_place(descriptor: Descriptor, text: bytes, path: str) -> list[FileEdit]:
    if len(text) > descriptor.room:
        message = (
            f"the descriptor would have {len(text)} bytes, but has room for {descriptor.room}; shorten it"
        )
        raise StorageError(ErrorKind.INVALID, message, path=path, offset=descriptor.offset, operation="edit")
    return [FileWrite(descriptor.offset, text.ljust(descriptor.room, b"\0"))]


def _differing(descriptor: Descriptor, text: bytes) -> list[FileEdit]:
    """The sectors of the text that change: a disk writes each of them whole."""
    return [
        FileWrite(descriptor.offset + at, part)
        for at in range(0, len(text), SECTOR)
        if (part := text[at : at + SECTOR]) != descriptor.text[at : at + SECTOR]
    ]


def _replaced(descriptor: Descriptor, settings: Mapping[str, str | None]) -> bytes:
    lines: list[bytes | None] = list(descriptor.text.split(b"\n"))
    ending = b"\r" if b"\r\n" in descriptor.text else b""
    last = lines.pop() or b""  # what follows the last line end
    if last:
        lines.append(last)
    for key, value in settings.items():
        line = None
        if value is not None:
            line = line_of(key, value).encode(descriptor.encoding, "surrogateescape") + ending
        if (found := descriptor.settings.get(key.lower())) is not None:
            lines[found.line] = line
        elif line is not None:
            _insert(descriptor, lines, key, line)
    return b"".join(line + b"\n" for line in lines if line is not None)


def _insert(descriptor: Descriptor, lines: list[bytes | None], key: str, line: bytes) -> None:
    """Put a new setting where it belongs, without moving other lines."""
    if key.startswith("ddb."):
        lines.append(line)
        return
    numbers = (descriptor.settings[key].line for key in _AFTER if key in descriptor.settings)
    after = next(numbers, 0)
    lines[after] = (lines[after] or b"") + b"\n" + line
