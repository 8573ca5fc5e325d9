"""What a worker is told to serve, and where in its folder it does so."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from drivebay.errors import ErrorKind, StorageError
from drivebay.model import CacheMode

NBD_SOCKET = "nbd.sock"
CONTROL_SOCKET = "worker.sock"
LOG_FILE = "worker.log"

_LONGEST_NAME = 4096  # bytes: what the NBD protocol allows


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """One disk to be served as the NBD export ``export``.

    ``paths`` are its images, the active one first, and exactly these; ``formats`` says what each is, where
    its content shall not decide (``""`` or nothing at all: it does). ``shared`` disks are written by
    several processes at once; ``group`` names a bandwidth group; without ``discard`` the guest can't
    give space back.
    """

    export: str
    paths: tuple[str, ...]
    formats: tuple[str, ...] = ()
    writable: bool = False
    cache: CacheMode = CacheMode.WRITEBACK
    shared: bool = False
    group: str = ""
    discard: bool = True


def spec_to_json(spec: DiskSpec) -> dict[str, Any]:
    """``spec`` as a JSON value."""
    return {
        "export": spec.export,
        "paths": [os.path.abspath(path) for path in spec.paths],
        "formats": list(spec.formats),
        "writable": spec.writable,
        "cache": spec.cache.value,
        "shared": spec.shared,
        "group": spec.group,
        "discard": spec.discard,
    }


def spec_from_json(value: object) -> DiskSpec:
    """The reverse; raises StorageError (INVALID) for anything that `spec_to_json` would not say."""
    if not isinstance(value, dict):
        raise invalid("a disk must be an object")
    return DiskSpec(
        export=export_name(value.get("export")),
        paths=paths(value.get("paths")),
        formats=texts(value.get("formats", [])),
        writable=_flag(value, "writable", default=False),
        cache=_cache(value.get("cache", CacheMode.WRITEBACK.value)),
        shared=_flag(value, "shared", default=False),
        group=text(value.get("group", "")),
        discard=_flag(value, "discard", default=True),
    )


def export_name(value: object) -> str:
    """A name that the NBD protocol can carry."""
    name = text(value)
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise invalid("an export's name must be Unicode text") from None
    if not 0 < size <= _LONGEST_NAME:
        raise invalid(f"an export's name must have 1 to {_LONGEST_NAME} bytes")
    return name


def paths(value: object) -> tuple[str, ...]:
    """The images of a chain: at least one."""
    names = texts(value)
    if not names or not all(names) or any("\0" in name for name in names):
        raise invalid("a disk needs the path of at least one image, and none may be empty")
    return names


def texts(value: object) -> tuple[str, ...]:
    """A list of texts."""
    return tuple(text(each) for each in items(value))


def items(value: object) -> list[object]:
    """A list."""
    if not isinstance(value, list):
        raise invalid("a list was expected here")
    return value


def mapping(value: object, check: Callable[[object], Any]) -> dict[str, Any]:
    """An object whose members all pass ``check``."""
    if not isinstance(value, Mapping):
        raise invalid("an object was expected here")
    return {str(key): check(each) for key, each in value.items()}


def text(value: object) -> str:
    """A text."""
    if not isinstance(value, str):
        raise invalid("a text was expected here")
    return value


def limit(value: object) -> int:
    """Bytes per second; 0 is no limit."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise invalid("a limit must be a number of bytes per second, 0 for none")
    return value


def invalid(message: str) -> StorageError:
    """What is wrong with a message to a worker."""
    return StorageError(
        ErrorKind.INVALID, f"{message}; see the worker's protocol in the manual", operation="worker"
    )


def _flag(value: Mapping[str, object], name: str, *, default: bool) -> bool:
    flag = value.get(name, default)
    if not isinstance(flag, bool):
        raise invalid(f"{name} must be true or false")
    return flag


def _cache(value: object) -> CacheMode:
    try:
        return CacheMode(value)
    except ValueError:
        known = ", ".join(mode.value for mode in CacheMode)
        raise invalid(f"the cache mode must be one of {known}") from None
