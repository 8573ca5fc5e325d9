"""QEMU: disks become its arguments, and guests run in it. Nothing else of drivebay knows QEMU."""

from drivebay.qemu.emulator import Accelerator, accelerator, find_qemu
from drivebay.qemu.machine import DirectKernel, NbdDisk, arguments
from drivebay.qemu.tiny_guest import GuestResult, TinyGuest

__all__ = [
    "Accelerator",
    "DirectKernel",
    "GuestResult",
    "NbdDisk",
    "TinyGuest",
    "accelerator",
    "arguments",
    "find_qemu",
]
