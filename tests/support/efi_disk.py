"""A disk with an EFI system partition: Linux is on it, and a program in the place where firmware looks when
it knows of nothing better. That program writes a boot entry for Linux into the variables, as installers do.

Layouts: the UEFI specification (boot entries, device paths), Microsoft's of FAT16 and of the PE format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import drivebay

SECTOR = 512
SIZE = 32 << 20
SAYS = "the boot entry is there"  # the program, before it switches the machine off

_START, _SECTORS = 2048, SIZE // SECTOR - 2048  # of the partition
_CLUSTER, _TABLE, _ROOT = 4, 64, 32  # sectors of a cluster, of a file allocation table, of the root folder
_DISK_SIGNATURE = b"test"
_GLOBAL = UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")  # the firmware's own variables

# Calls SetVariable for the boot entry and for the order, both non-volatile; says so on the first serial port;
# switches off. rdx leads to the system table, rbx from there to the runtime services.
_CODE = """
53 4883ec30 488b5a58                                   push rbx; sub rsp,48; mov rbx,[rdx+0x58]
488d0d90000000 488d1579000000 41b807000000             rcx = "Boot0007", rdx = vendor, r8 = flags
448b0dbd000000 488d05ba000000 4889442420 ff5358        r9 = [size], [rsp+32] = entry; SetVariable
488d0d78000000 488d154f000000 41b807000000             rcx = "BootOrder", rdx = vendor, r8 = flags
41b902000000 488d0572000000 4889442420 ff5358          r9 = 2, [rsp+32] = order; SetVariable
488d3565000000 66baf803 fc                             rsi = text, dx = port; cld
ac 84c0 7403 ee ebf8                                   lodsb; test al,al; jz +3; out dx,al; jmp -8
b902000000 31d2 4531c0 4531c9 ff5368                   ecx = off, edx = r8d = r9d = 0; ResetSystem
f4 ebfd                                                hlt; jmp -3
"""


def bootable(path: str, kernel: Path, initrd: Path, command_line: str) -> None:
    """Make this of a disk of ``SIZE`` bytes. The kernel needs an EFI stub."""
    program = _program(_boot_entry(r"\LINUX.EFI", rf"initrd=\INITRD {command_line}"))
    with drivebay.open(path, writable=True) as disk:
        disk.write(0, _partition_table())
        for sector, data in _file_system(program, kernel.read_bytes(), initrd.read_bytes()):
            disk.write((_START + sector) * SECTOR, data)
        disk.flush()


def _partition_table() -> bytes:
    partition = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEF, b"\xff" * 3, _START, _SECTORS)
    table = (_DISK_SIGNATURE + b"\0\0" + partition).rjust(462, b"\0")
    return table.ljust(510, b"\0") + b"\x55\xaa"


def _boot_entry(file: str, options: str) -> bytes:
    """A program on the partition, and what it is given."""
    name = _text(file)
    partition = struct.pack("<BBHIQQ16sBB", 4, 1, 42, 1, _START, _SECTORS, _DISK_SIGNATURE, 1, 1)
    path = partition + struct.pack("<BBH", 4, 4, 4 + len(name)) + name + b"\x7f\xff\x04\0"
    return struct.pack("<IH", 1, len(path)) + _text("Linux") + path + _text(options)


def _file_system(program: bytes, kernel: bytes, initrd: bytes) -> Iterator[tuple[int, bytes]]:
    """FAT16, by sectors: the contents lie one after the other, from cluster 2 on."""
    boot = struct.pack(
        "<3s8sHBHBHHBHHHIIBBBI11s8s",
        *(b"\xeb\x3c\x90", b"drivebay", SECTOR, _CLUSTER, 1, 2, _ROOT * 16, _SECTORS, 0xF8, _TABLE),
        *(32, 64, 0, 0, 0x80, 0, 0x29, 1, b"ESP".ljust(11), b"FAT16".ljust(8)),
    )
    yield 0, boot.ljust(510, b"\0") + b"\x55\xaa"
    size = _CLUSTER * SECTOR
    first = [2, 3, 4]  # clusters: the two folders, the program, the kernel, the initrd
    for before in (program, kernel):
        first.append(first[-1] + -(-len(before) // size))
    folder = _entry(".", 2) + _entry("..", 0) + _entry("BOOT", 3)
    inner = _entry(".", 3) + _entry("..", 2) + _entry("BOOTX64", 4, "EFI", len(program))
    root = 1 + 2 * _TABLE
    linux = _entry("LINUX", first[3], "EFI", len(kernel)) + _entry("INITRD", first[4], "", len(initrd))
    yield root, _entry("EFI", 2) + linux
    table = [0xFFF8, 0xFFFF]
    for cluster, content in zip(first, (folder, inner, program, kernel, initrd), strict=True):
        yield root + _ROOT + (cluster - 2) * _CLUSTER, content + bytes(-len(content) % SECTOR)
        count = -(-len(content) // size)
        table += [*range(cluster + 1, cluster + count), 0xFFFF]
    for copy in range(2):
        yield 1 + copy * _TABLE, struct.pack(f"<{len(table)}H", *table)


def _entry(name: str, cluster: int, extension: str = "", size: int = 0) -> bytes:
    kind = 0x20 if size else 0x10
    text = name.ljust(8).encode() + extension.ljust(3).encode()
    return struct.pack("<11sB14xHI", text, kind, cluster, size)


def _program(boot_entry: bytes) -> bytes:
    """The code and its data as one section of a PE image for EFI."""
    code = b"".join(bytes.fromhex(line[:55]) for line in _CODE.strip().splitlines()).ljust(0x90, b"\0")
    code += _GLOBAL.bytes_le + _text("Boot0007") + _text("BootOrder") + struct.pack("<H", 7)
    code += f"{SAYS}\n\0".encode() + struct.pack("<I", len(boot_entry)) + boot_entry
    code += bytes(-len(code) % SECTOR)
    at, offset, size = 0x1000, 0x200, len(code)  # in memory; in the file
    header = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x22)
    header += struct.pack("<HBBIIIII", 0x20B, 0, 0, size, 0, 0, at, at)
    header += struct.pack("<QIIHHHHHHIIIIHH", 0, at, offset, 0, 0, 0, 0, 2, 0, 0, 2 * at, offset, 0, 10, 0)
    header += struct.pack("<QQQQII", 0, 0, 0, 0, 0, 16) + bytes(16 * 8)
    header += struct.pack("<8sIIIIIIHHI", b".text", len(code), at, size, offset, 0, 0, 0, 0, 0xE0000020)
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    return (dos + header).ljust(offset, b"\0") + code


def _text(text: str) -> bytes:
    return f"{text}\0".encode("utf-16-le")
