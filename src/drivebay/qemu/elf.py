"""The little that must be known of ELF files: a module's dependencies, and whether a program is static.

Only 64-bit little-endian files are read (System V ABI, "Object Files"; x86-64). All functions raise
`StorageError` (CORRUPT) for anything else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from drivebay.errors import ErrorKind, StorageError

_IDENT = b"\x7fELF\x02\x01"
_PT_INTERP = 3


def is_static(program: bytes) -> bool:
    """True when ``program`` asks for no dynamic loader, so that it runs alone in an initramfs."""
    return all(kind != _PT_INTERP for kind in _segment_kinds(program))


def module_dependencies(module: bytes) -> tuple[str, ...]:
    """The names of the modules that a Linux kernel module needs, from its ``.modinfo`` section.

    The section holds ``key=value`` strings that end with NUL; ``depends`` lists names between commas.
    """
    for line in _section(module, b".modinfo").split(b"\0"):
        key, _, value = line.partition(b"=")
        if key == b"depends":
            return tuple(name for name in value.decode().split(",") if name)
    return ()


def _segment_kinds(data: bytes) -> Iterator[int]:
    _require_elf(data)
    try:
        (table,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
        for index in range(count):
            yield struct.unpack_from("<I", data, table + index * size)[0]
    except struct.error as error:
        raise _corrupt() from error


def _section(data: bytes, name: bytes) -> bytes:
    _require_elf(data)
    try:
        sections = list(_sections(data))
        names = sections[struct.unpack_from("<H", data, 62)[0]]
    except (struct.error, IndexError) as error:
        raise _corrupt() from error
    for name_offset, offset, size in sections:
        start = names[1] + name_offset
        if data[start : start + len(name) + 1] == name + b"\0":
            return data[offset : offset + size]
    return b""


def _sections(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(offset of the name in the name section, file offset, size) of every section."""
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    for index in range(count):
        name_offset, _, _, _, offset, length = struct.unpack_from("<IIQQQQ", data, table + index * size)
        yield name_offset, offset, length


def _require_elf(data: bytes) -> None:
    if not data.startswith(_IDENT) or len(data) < 64:
        raise _corrupt()


def _corrupt() -> StorageError:
    return StorageError(
        ErrorKind.CORRUPT,
        "not a complete 64-bit ELF file; install the package that it belongs to again",
        operation="read an ELF file",
    )
