"""The parent's names in a differencing VHD: paths of other systems, turned into ours and back."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from urllib.parse import unquote

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vhd.header import NAME_SIZE, Header, Locator

RELATIVE = b"W2ru"
ABSOLUTE = b"W2ku"
_MAC_URL = b"MacX"
_ENCODINGS = {
    RELATIVE: "utf-16-le",
    ABSOLUTE: "utf-16-le",
    b"Wi2r": "latin-1",
    b"Wi2k": "latin-1",
    _MAC_URL: "utf-8",
}
_LONGEST = 1 << 16  # 32,767 UTF-16 units are the longest path of Windows
_DEVICE_PREFIX = re.compile(r"^(//[?.]/)?[A-Za-z]:")
_URL_PREFIX = re.compile(r"^file://(?:localhost(?=/))?", re.IGNORECASE)


def parent_names(files: Files, header: Header) -> tuple[str, ...]:
    """The parent's paths, the relative ones first, the bare name from the header last."""
    names = list(_paths(files, header))
    names.sort(key=posixpath.isabs)
    bare = posixpath.basename(_ours(_text(header.parent_name, "utf-16-be")))
    return tuple(dict.fromkeys(name for name in (*names, bare) if name not in ("", ".", "..")))


def _paths(files: Files, header: Header) -> Iterator[str]:
    for locator in header.locators:
        if locator.code in _ENCODINGS and is_readable(locator, files.size):
            data = files.read(locator.offset, locator.length)
            text = _text(data, _ENCODINGS[locator.code])
            yield _of_url(text) if locator.code == _MAC_URL else _ours(text)


def is_readable(locator: Locator, file_size: int) -> bool:
    """Whether the path lies in the file and has a length that a path can have."""
    return 0 < locator.length <= _LONGEST and locator.offset + locator.length <= file_size


def _text(data: bytes, encoding: str) -> str:
    return data.decode(encoding, "replace").split("\0", 1)[0]


def _ours(path: str) -> str:
    """A Windows path with our slashes, without drive, and without a leading "this folder"."""
    slashed = _DEVICE_PREFIX.sub("", path.replace("\\", "/"))
    return re.sub(r"^(\./+)+", "", slashed)


def _of_url(url: str) -> str:
    return re.sub(r"^(\./+)+", "", unquote(_URL_PREFIX.sub("", url), errors="replace"))


def encoded(path: str, code: bytes) -> bytes:
    """The bytes of a path of ours in a Windows locator. Raises StorageError (INVALID)."""
    if "\\" in path or "\0" in path:
        raise _unspeakable(path)
    windows = path.replace("/", "\\")
    if code == RELATIVE and not path.startswith("."):
        windows = f".\\{windows}"
    return _utf16(windows, path, "utf-16-le")


def encoded_name(path: str) -> bytes:
    """The parent's bare name for the header. Raises StorageError (INVALID)."""
    data = _utf16(posixpath.basename(path), path, "utf-16-be")
    if len(data) > NAME_SIZE - 2:
        raise _unspeakable(path)
    return data.ljust(NAME_SIZE, b"\0")


def _utf16(text: str, path: str, encoding: str) -> bytes:
    try:
        return text.encode(encoding)
    except UnicodeEncodeError as error:
        raise _unspeakable(path) from error


def _unspeakable(path: str) -> StorageError:
    return StorageError(
        ErrorKind.INVALID,
        f"a VHD can't record its parent's path {path!r}: it holds a backslash, a NUL or bytes that "
        "are no text, or its last part is too long; rename the parent",
        operation="record the parent",
    )
