"""Other programs and libraries that read disk images: each gives the bytes of the whole disk."""

from __future__ import annotations

import gc
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyphdi
import pyqcow
import pyvhdi
import pyvmdk
from dissect.hypervisor.disk.hdd import HDS
from dissect.hypervisor.disk.qcow2 import QCow2
from dissect.hypervisor.disk.vdi import VDI
from dissect.hypervisor.disk.vhd import VHD
from dissect.hypervisor.disk.vhdx import VHDX
from dissect.hypervisor.disk.vmdk import VMDK

from drivebay.chain.image import image_file

Read = Callable[[Path], bytes]
_TIMEOUT = 120

#: What QEMU calls our formats.
DRIVERS = {"vhd": "vpc"} | {
    name: name for name in ("raw", "vdi", "vmdk", "vhdx", "qcow", "qcow2", "qed", "parallels", "dmg")
}


def qemu_img(*arguments: object, folder: Path | None = None) -> str:
    """Run ``qemu-img``, in ``folder``, where it looks for data files; what it prints. It must succeed."""
    command = ["qemu-img", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False, cwd=folder)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}{done.stdout}"
    return done.stdout


def _by_qemu(name: str) -> Read:
    def read(path: Path) -> bytes:
        raw = path.with_name(path.name + ".by-qemu")
        qemu_img("convert", "-f", DRIVERS[name], "-O", "raw", path, raw, folder=path.parent)
        return raw.read_bytes()

    return read


def _whole(stream: Any) -> bytes:
    data: bytes = stream.read(stream.size)
    return data


def _left_open(read: Callable[[], Any]) -> bytes:
    """The whole stream that ``read`` makes, whose library leaves its files to the collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            return _whole(read())
        finally:
            gc.collect()


def _vmdk_by_dissect(path: Path) -> bytes:
    return _left_open(lambda: VMDK(path))


def _vhd_by_dissect(path: Path) -> bytes:
    with path.open("rb") as file:
        return _whole(VHD(file))


def _vhdx_by_dissect(path: Path) -> bytes:
    with path.open("rb") as file:
        return _whole(VHDX(file))


def _qcow2_by_dissect(path: Path) -> bytes:
    return _left_open(lambda: QCow2(path).open())


def _vdi_by_dissect(path: Path) -> bytes:
    with path.open("rb") as file:
        return _whole(VDI(file).open())


def _hds_by_dissect(path: Path) -> bytes:
    with path.open("rb") as file:
        return _whole(HDS(file))


def _by_handle(handle: Any) -> bytes:
    try:
        data = bytearray()
        while len(data) < handle.get_media_size():
            data += handle.read_buffer(min(1 << 20, handle.get_media_size() - len(data)))
        return bytes(data)
    finally:
        handle.close()


def _by_libvmdk(path: Path) -> bytes:
    handle = pyvmdk.handle()
    handle.open(str(path))
    handle.open_extent_data_files()
    return _by_handle(handle)


def _by_libvhdi(path: Path) -> bytes:
    handle = pyvhdi.file()
    handle.open(str(path))
    return _by_handle(handle)


def _by_libqcow(path: Path) -> bytes:
    handle = pyqcow.file()
    handle.open(str(path))
    return _by_handle(handle)


def _by_libphdi(path: Path) -> bytes:
    handle = pyphdi.handle()
    handle.open(image_file(str(path)))
    handle.open_extent_data_files()
    return _by_handle(handle)


#: Readers by format and tool.
READERS: dict[str, dict[str, Read]] = {
    "raw": {"qemu-img": _by_qemu("raw")},
    "vdi": {"qemu-img": _by_qemu("vdi"), "dissect": _vdi_by_dissect},
    "vmdk": {"qemu-img": _by_qemu("vmdk"), "dissect": _vmdk_by_dissect, "libvmdk": _by_libvmdk},
    "vhd": {"qemu-img": _by_qemu("vhd"), "dissect": _vhd_by_dissect, "libvhdi": _by_libvhdi},
    "vhdx": {"qemu-img": _by_qemu("vhdx"), "dissect": _vhdx_by_dissect, "libvhdi": _by_libvhdi},
    "qcow2": {"qemu-img": _by_qemu("qcow2"), "dissect": _qcow2_by_dissect, "libqcow": _by_libqcow},
    "qcow": {"qemu-img": _by_qemu("qcow"), "libqcow": _by_libqcow},
    "qed": {"qemu-img": _by_qemu("qed")},
    "parallels": {"qemu-img": _by_qemu("parallels"), "dissect": _hds_by_dissect},
    "dmg": {"qemu-img": _by_qemu("dmg")},
}
BUNDLE_READERS: dict[str, Read] = {"libphdi": _by_libphdi}
