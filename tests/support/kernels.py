"""Small stand-ins for a Linux kernel, its modules and its package, laid out as the real ones are."""

from __future__ import annotations

import gzip
import lzma
import struct
from pathlib import Path

PLAIN_KERNEL = b"\x7fELF" + bytes(range(256)) * 64


def module(depends: str) -> bytes:
    """A minimal ELF file whose section .modinfo has this list of dependencies."""
    names = b"\0.modinfo\0.shstrtab\0"
    info = b"license=GPL\0depends=" + depends.encode() + b"\0name=x\0"
    header = struct.pack("<4sBB10x2HI3QI6H", b"\x7fELF", 2, 1, 1, 62, 1, 0, 0, 64, 0, 64, 56, 0, 64, 3, 2)
    at = 64 + 3 * 64
    table = bytes(64)
    table += struct.pack("<2I4Q2I2Q", 1, 1, 0, 0, at, len(info), 0, 0, 1, 0)
    table += struct.pack("<2I4Q2I2Q", 10, 3, 0, 0, at + len(info), len(names), 0, 0, 1, 0)
    return header + table + info + names


def program(segment_kind: int) -> bytes:
    header = struct.pack("<4sBB10x2HI3QI6H", b"\x7fELF", 2, 1, 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    return header + struct.pack("<2I6Q", segment_kind, 0, 0, 0, 0, 0, 0, 0)


def bzimage(payload: bytes) -> bytes:
    image = bytearray(5 * 512 + 100)
    image[0x1F1] = 4
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, 100, len(payload) + 4)
    return bytes(image) + payload + struct.pack("<I", len(PLAIN_KERNEL)) + b"after"


def write_package(tree: Path) -> Path:
    """An unpacked kernel package below ``tree``, with modules in several compressions."""
    drivers = tree / "lib/modules/6.1/kernel/drivers"
    drivers.mkdir(parents=True)
    (tree / "boot").mkdir()
    (tree / "boot/vmlinuz-6.1").write_bytes(bzimage(lzma.compress(PLAIN_KERNEL)))
    (tree / "lib/modules/6.1/modules.builtin").write_text("kernel/lib/crc-core.ko\n")
    (drivers / "ahci.ko").write_bytes(module("libahci,lib-ata"))
    (drivers / "libahci.ko.xz").write_bytes(lzma.compress(module("lib_ata,crc_core")))
    (drivers / "lib-ata.ko.gz").write_bytes(gzip.compress(module("")))
    (drivers / "other.ko").write_bytes(module(""))
    (drivers / "notes.kozy").write_bytes(b"")
    return tree
