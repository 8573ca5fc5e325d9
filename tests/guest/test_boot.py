"""A guest sees served disks on every controller of the table, and reads and writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import drivebay
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.kinds import KINDS, Bus
from drivebay.qemu import NbdDisk, TinyGuest
from drivebay.registry.medium import DeviceType

if TYPE_CHECKING:
    from conftest import Server

pytestmark = pytest.mark.xdist_group("guest")

MIB = 1 << 20
# All that QEMU has and that take disks; of IDE controllers a machine has one.
CONTROLLERS = [
    name
    for name, kind in KINDS.items()
    if kind.qemu and DeviceType.DISK in kind.accepts and (kind.bus is not Bus.IDE or name == "PIIX4")
]
# Far above what was ever seen: software emulation on a machine that is busy with other tests.
BOOT_TIMEOUT = 240


def test_every_controller_reads_and_writes(
    guest: TinyGuest, serve: Callable[[Path], Server], tmp_path: Path
) -> None:
    images, disks = [], []
    for index, name in enumerate(CONTROLLERS):
        image = tmp_path / f"{name}.vdi"
        drivebay.create(image, size=(16 + index) * MIB)
        with drivebay.open(image, writable=True) as disk:
            disk.write(3 * MIB - 512, name.encode() * 100)
            disk.flush()
        server = serve(image)
        images.append((image, server))
        disks.append(NbdDisk(server.socket, controller=name))

    result = guest.boot(_read_and_write(len(disks)), disks, timeout=BOOT_TIMEOUT)

    for index, (name, (image, server)) in enumerate(zip(CONTROLLERS, images, strict=True)):
        seen = next(mark.split() for mark in result.marks if mark.startswith(f"disk {index} "))
        assert int(seen[3]) == (16 + index) * MIB
        text = name.encode() * 100
        assert f"host {index} {hashlib.sha256(text).hexdigest()}" in result.marks
        server.stop()
        with drivebay.open(image) as disk:
            written = disk.read(5 * MIB + 4096, 2 * MIB)
        assert f"guest {index} {hashlib.sha256(written).hexdigest()}" in result.marks
        assert any(written)


def _read_and_write(disks: int) -> str:
    """Hash what the host wrote (its length differs by controller), write random bytes, read them back."""
    lengths = " ".join(str(100 * len(name)) for name in CONTROLLERS)
    return f"""
        set -- {lengths}
        for number in $(seq 0 {disks - 1}); do
            disk=/dev/disk$number
            sum=$(dd if=$disk bs=512 skip=6143 count=20 2>/dev/null | head -c $1 | sha256sum)
            echo "@@host $number ${{sum%% *}}"
            dd if=/dev/urandom of=/tmp/random bs=1M count=2 2>/dev/null
            dd if=/tmp/random of=$disk bs=4k seek=1281 conv=fsync 2>/dev/null
            echo 3 > /proc/sys/vm/drop_caches
            dd if=$disk bs=4k skip=1281 count=512 2>/dev/null | cmp - /tmp/random
            sum=$(sha256sum < /tmp/random)
            echo "@@guest $number ${{sum%% *}}"
            shift
        done
    """


def test_a_failing_script_tells_its_last_lines(guest: TinyGuest) -> None:
    with pytest.raises(StorageError, match=r"script failed \(end 7\)[^~]*the reason") as caught:
        guest.boot("echo the reason; (exit 7); echo not reached", [], timeout=BOOT_TIMEOUT)
    assert caught.value.kind is ErrorKind.IO
    assert "not reached" not in str(caught.value)


def test_a_guest_that_reboots_too_early_is_an_error(guest: TinyGuest) -> None:
    with pytest.raises(StorageError, match="stopped before its script ended"):
        guest.boot("reboot -f", [], timeout=BOOT_TIMEOUT)


def test_a_server_that_is_not_there_is_named(guest: TinyGuest, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none\.sock"):
        guest.boot("true", [NbdDisk(tmp_path / "none.sock")], timeout=BOOT_TIMEOUT)
