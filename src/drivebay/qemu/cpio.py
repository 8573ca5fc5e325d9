"""Write the cpio archive ("newc" variant) that Linux unpacks as its first root file system.

Layout (kernel documentation, "initramfs buffer format"): per file a header of 110 ASCII bytes (the magic
``070701``, then 13 numbers of 8 hexadecimal digits), the name with its NUL, padding to 4 bytes, the
content, padding to 4 bytes. An entry named ``TRAILER!!!`` ends the archive.

The same files always give the same bytes: owners and times are zero, inode numbers count up.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class CpioFile:
    """One file of the archive: its path without a leading slash, its ``st_mode``, and its content."""

    path: str
    mode: int
    content: bytes = b""


def directory(path: str) -> CpioFile:
    """A folder that everyone may read."""
    return CpioFile(path, stat.S_IFDIR | 0o755)


def regular(path: str, content: bytes, *, executable: bool = False) -> CpioFile:
    """A regular file."""
    return CpioFile(path, stat.S_IFREG | (0o755 if executable else 0o644), content)


def symlink(path: str, target: str) -> CpioFile:
    """A symbolic link to ``target``."""
    return CpioFile(path, stat.S_IFLNK | 0o777, target.encode())


def archive(files: Iterable[CpioFile]) -> bytes:
    """The archive of ``files`` in the given order (a folder must come before what it holds)."""
    parts = [_entry(inode, file) for inode, file in enumerate(files, start=1)]
    parts.append(_entry(0, CpioFile(_TRAILER, 0)))
    return b"".join(parts)


def _entry(inode: int, file: CpioFile) -> bytes:
    name = file.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(file.mode) else 1
    # inode, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    numbers = (inode, file.mode, 0, 0, links, 0, len(file.content), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08x" % number for number in numbers)
    return _padded(header + name) + _padded(file.content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
