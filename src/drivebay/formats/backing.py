"""Names of backing files as QEMU records them, turned into paths (QCOW, QCOW2, QED).

QEMU takes a name with a colon before the first slash for a protocol, and one that begins with
``json:`` for a description of a whole stack of drivers. What is a local file in the end is followed;
everything else is refused, for nobody asked for a connection.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind, StorageError

_FILE_DRIVERS = ("file", "host_device")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")
_HARMLESS = re.compile(  # keys of a description that don't change what the disk holds
    r"(?:file\.)?(?:driver|file|filename|node-name|read-only|auto-read-only|force-share|discard|detect-zeroes"
    r"|locking|aio[\w-]*|[\w-]*cache[\w.-]*|lazy-refcounts|pass-discard-[\w-]+|overlap-check[\w.-]*)"
)
_PROTOCOL = re.compile(r"([A-Za-z0-9_+.-]+):")
_QEMU_NAMES = {"vhd": "vpc"}  # where QEMU calls a format otherwise


class BackingName(NamedTuple):
    """A path, and the format that the name itself tells (only ``json:`` names do)."""

    path: str
    format: str | None = None


def backing_name(raw: bytes, files: Files, offset: int) -> BackingName:
    """The path in a recorded name, which was found at ``offset``.

    Raises StorageError: UNSUPPORTED for what is no local file, CORRUPT for what is no name.
    """
    name = raw.decode("utf-8", "surrogateescape")
    if not name or "\0" in name:
        raise _refusal(files, offset, ErrorKind.CORRUPT, f"the name of another file is {name[:80]!r}")
    if name.startswith("json:"):
        found = _from_json(name.removeprefix("json:"))
        if found is None:
            what = f"the backing file {name[:80]!r} is not simply a local file"
            raise _refusal(files, offset, ErrorKind.UNSUPPORTED, what)
        return found
    if _WINDOWS.match(name):
        return BackingName(re.split(r"[\\/]", name)[-1])
    return BackingName(_without_protocol(name, files, offset))


def qemu_format(name: str) -> str:
    """What QEMU calls our format."""
    return _QEMU_NAMES.get(name, name)


def our_format(name: str) -> str:
    """What we call QEMU's format."""
    return next((ours for ours, theirs in _QEMU_NAMES.items() if theirs == name), name)


def recorded_name(path: str) -> bytes:
    """The bytes to record for the path of a backing file, so that QEMU takes it for one."""
    raw = path.encode("utf-8", "surrogateescape")
    return b"./" + raw if b":" in raw.split(b"/", 1)[0] else raw


def _without_protocol(name: str, files: Files, offset: int) -> str:
    protocol = _PROTOCOL.match(name)
    if protocol is None:
        return name
    if protocol[1] != "file":
        what = f"the backing file {name[:80]!r} is reached through {protocol[1]!r}, not a local file"
        raise _refusal(files, offset, ErrorKind.UNSUPPORTED, what)
    path = name.removeprefix("file:")
    return "/" + path.lstrip("/") if path.startswith("//") else path


def _from_json(text: str) -> BackingName | None:
    """The file in a description such as ``{"driver": "qcow2", "file": {"driver": "file", ...}}``."""
    try:
        top = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(top, dict):
        return None
    nested = top.get("file")
    keys = [*top, *(nested if isinstance(nested, dict) else ())]
    if not all(_HARMLESS.fullmatch(key) for key in keys):  # "offset" shows a part of the file only
        return None
    driver = top.get("driver")
    if driver in _FILE_DRIVERS:
        return _named(top.get("filename"), None)
    if not isinstance(nested, dict):
        nested = {key.removeprefix("file."): top[key] for key in top if key.startswith("file.")}
    if nested.get("driver", "file") not in _FILE_DRIVERS:
        return None
    return _named(nested.get("filename"), driver if isinstance(driver, str) else None)


def _named(path: object, driver: str | None) -> BackingName | None:
    return BackingName(path, driver) if isinstance(path, str) and path and "\0" not in path else None


def _refusal(files: Files, offset: int, kind: ErrorKind, what: str) -> StorageError:
    remedy = "give the image a local one with 'qemu-img rebase -u'"
    if kind is ErrorKind.CORRUPT:
        remedy = "the header is damaged: restore the image from a copy"
    return StorageError(kind, f"{what}; {remedy}", path=files.path, offset=offset, operation="open")
