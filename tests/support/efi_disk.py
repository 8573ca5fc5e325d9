"""A disk that EFI firmware boots from: an EFI system partition with a small program on it.

Layouts: Microsoft's specification of the FAT file system (FAT16), the PE format, and the UEFI specification.
"""

from __future__ import annotations

import struct

import drivebay

SECTOR = 512
SIZE = 20 << 20

# Reads the variable "Boots", one more is stored as a non-volatile one and said on the first serial port; then
# the program switches the machine off. rdx leads to the system table, rbx from there to the runtime services.
_CODE = """
53 4883ec30 488b5a58                                   push rbx; sub rsp,48; mov rbx,[rdx+0x58]
488d0d90000000 488d1579000000 4531c0                   rcx = name, rdx = vendor, r8 = 0
4c8d0d67000000 488d0591000000 4889442420 ff5348        r9 = size, [rsp+32] = count; GetVariable
fe0583000000                                           inc byte [count]
488d0d63000000 488d154c000000 41b807000000             rcx = name, rdx = vendor, r8 = non-volatile, both times
41b901000000 488d0562000000 4889442420 ff5358          r9 = 1, [rsp+32] = count; SetVariable
488d3546000000 66baf803 fc                             rsi = text, dx = port; cld
ac 84c0 7403 ee ebf8                                   lodsb; test al,al; jz +3; out dx,al; jmp -8
b902000000 31d2 4531c0 4531c9 ff5368                   ecx = off, edx = r8d = r9d = 0; ResetSystem
f4 ebfd 6690                                           hlt; jmp -3; nop
"""
_DATA = b"".join(
    (
        struct.pack("<Q", 1),  # size
        b"drivebay's tests",  # vendor
        "Boots\0".encode("utf-16-le"),  # name
        b"this is boot 0\n\0",  # text, with the count
    )
)


def bootable(path: str) -> None:
    """Put the partition with the program on a disk of 20 MiB, where firmware looks for it on any disk."""
    with drivebay.open(path, writable=True) as disk:
        start, sectors = 2048, SIZE // SECTOR - 2048
        partition = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEF, b"\xff" * 3, start, sectors)
        disk.write(0, partition.rjust(446 + 16, b"\0").ljust(510, b"\0") + b"\x55\xaa")
        for sector, data in _file_system(sectors):
            disk.write((start + sector) * SECTOR, data)
        disk.flush()


def _file_system(sectors: int) -> list[tuple[int, bytes]]:
    """FAT16 with clusters of 4 sectors; each of the two folders and the program has one cluster."""
    per_cluster, fat, roots = 4, 40, 32  # sectors of a cluster, of a file allocation table, of the root
    boot = struct.pack(
        "<3s8sHBHBHHBHHHIIBBBI11s8s",
        *(b"\xeb\x3c\x90", b"drivebay", SECTOR, per_cluster, 1, 2, roots * 16, sectors, 0xF8, fat),
        *(32, 64, 0, 0, 0x80, 0, 0x29, 1, b"ESP".ljust(11), b"FAT16".ljust(8)),
    )
    table = struct.pack("<5H", 0xFFF8, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF)
    root = 1 + 2 * fat
    data = root + roots
    program = _program()
    return [
        (0, boot.ljust(510, b"\0") + b"\x55\xaa"),
        (1, table),
        (1 + fat, table),
        (root, _entry("EFI", 2)),
        (data, _entry(".", 2) + _entry("..", 0) + _entry("BOOT", 3)),
        (data + per_cluster, _entry(".", 3) + _entry("..", 2) + _entry("BOOTX64", 4, "EFI", len(program))),
        (data + 2 * per_cluster, program),
    ]


def _entry(name: str, cluster: int, extension: str = "", size: int = 0) -> bytes:
    kind = 0x20 if extension else 0x10
    text = name.ljust(8).encode() + extension.ljust(3).encode()
    return struct.pack("<11sB14xHI", text, kind, cluster, size)


def _program() -> bytes:
    """The code and its data as one section of a PE image for EFI."""
    code = b"".join(bytes.fromhex(line[:55]) for line in _CODE.strip().splitlines()) + _DATA
    at, offset = 0x1000, 0x200  # in memory, in the file
    header = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x22)
    header += struct.pack("<HBBIIIII", 0x20B, 0, 0, offset, 0, 0, at, at)
    header += struct.pack("<QIIHHHHHHIIIIHH", 0, at, offset, 0, 0, 0, 0, 2, 0, 0, 2 * at, offset, 0, 10, 0)
    header += struct.pack("<QQQQII", 0, 0, 0, 0, 0, 16) + bytes(16 * 8)
    header += struct.pack("<8sIIIIIIHHI", b".text", len(code), at, offset, offset, 0, 0, 0, 0, 0xE0000020)
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    return (dos + header).ljust(offset, b"\0") + code.ljust(offset, b"\0")
