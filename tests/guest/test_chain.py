"""A guest's file system on a differencing chain, over a reboot and through other eyes."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import drivebay
from drivebay.qemu import GuestResult, NbdDisk, TinyGuest

if TYPE_CHECKING:
    from conftest import Server

pytestmark = pytest.mark.xdist_group("guest")

MIB = 1 << 20
SIZE = 96 * MIB
BOOT_TIMEOUT = 240

INSTALL = """
    mke2fs -q /dev/disk0 > /dev/null
    mount -t ext4 /dev/disk0 /mnt
    dd if=/dev/urandom of=/mnt/large bs=1M count=20 2>/dev/null
    mkdir /mnt/small
    for number in $(seq 200); do echo "file $number" > /mnt/small/$number; done
    (cd /mnt && sha256sum large small/*) > /tmp/sums
    cp /tmp/sums /mnt/sums
    umount /mnt
"""

CHANGE = """
    mount -t ext4 /dev/disk0 /mnt
    cd /mnt
    sha256sum -s -c sums
    echo "@@verified"
    rm small/1??
    dd if=/dev/urandom of=large bs=4k seek=1000 count=500 conv=notrunc 2>/dev/null
    cp large copy
    sync
    sum=$(sha256sum < large)
    echo "@@large ${sum%% *}"
    cd /
    umount /mnt
"""

VERIFY = """
    mount -t ext4 -o ro /dev/disk0 /mnt
    cmp /mnt/large /mnt/copy
    sum=$(sha256sum < /mnt/large)
    echo "@@large ${sum%% *}"
    echo "@@files $(ls /mnt/small | wc -l)"
    umount /mnt
"""


@pytest.mark.timeout(900)
def test_a_file_system_survives_a_snapshot_and_reboots(
    guest: TinyGuest, serve: Callable[[Path], Server], tmp_path: Path
) -> None:
    base, child = tmp_path / "base.vdi", tmp_path / "child.vdi"

    def boot(image: Path, script: str) -> GuestResult:
        server = serve(image)
        result = guest.boot(script, [NbdDisk(server.socket)], timeout=BOOT_TIMEOUT)
        server.stop()
        assert not [line for line in result.lines if "error" in line.lower()]
        return result

    drivebay.create(base, size=SIZE)
    boot(base, INSTALL)
    before = _sha256(base.read_bytes())
    drivebay.create(child, parent=base)
    changed = boot(child, CHANGE)
    again = boot(child, VERIFY)

    assert "verified" in changed.marks
    large = next(mark for mark in changed.marks if mark.startswith("large "))
    assert large in again.marks
    assert "files 100" in again.marks
    assert _sha256(base.read_bytes()) == before
    assert f"large {_sha256(_file_in(child, 'large', tmp_path))}" == large
    assert f"large {_sha256(_file_in(base, 'large', tmp_path))}" != large


def _file_in(image: Path, name: str, folder: Path) -> bytes:
    """A file of the image's file system, read by the host's own tools, which must find it without faults."""
    plain = folder / f"{image.stem}.raw"
    with drivebay.open(image) as disk, plain.open("wb") as output:
        for offset in range(0, SIZE, MIB):
            output.write(disk.read(offset, MIB))
    subprocess.run(["/sbin/e2fsck", "-fn", plain], check=True, capture_output=True, timeout=120)
    done = subprocess.run(
        ["/sbin/debugfs", "-R", f"cat /{name}", plain], check=True, capture_output=True, timeout=120
    )
    return done.stdout


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
