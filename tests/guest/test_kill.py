"""The server is killed amid a guest's writes: nothing flushed is lost, and the guest goes on."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import drivebay
from drivebay.qemu import NbdDisk, TinyGuest

if TYPE_CHECKING:
    from conftest import Server

pytestmark = pytest.mark.xdist_group("guest")

MIB = 1 << 20
RECORD = 64 << 10
RECORDS = 80
# Four records lie in each VDI block, and come in a mixed order: some allocate, others find their block there.
STRIDE = 37
SPACING = 4
NOISE_AT = 32 * MIB
NOISE = 8 * MIB
KILL_AFTER = (10, 30, 55)
BOOT_TIMEOUT = 280

WORKLOAD = f"""
    dd if=/dev/urandom of=/tmp/noise bs=1M count={NOISE // MIB} 2>/dev/null
    noise() {{ dd if=/tmp/noise of=/dev/disk0 bs=1M seek={NOISE_AT // MIB} conv=fsync 2>/dev/null; }}
    (while [ ! -e /tmp/enough ]; do noise; done; noise; touch /tmp/calm) &
    for number in $(seq 0 {RECORDS - 1}); do
        yes "record $number" | head -c {RECORD} > /tmp/record
        at=$((number * {STRIDE} % {RECORDS} * {SPACING}))
        dd if=/tmp/record of=/dev/disk0 bs={RECORD} seek=$at conv=fsync 2>/dev/null
        echo "@@flushed $number"
    done
    touch /tmp/enough
    while [ ! -e /tmp/calm ]; do sleep 0.1; done
    echo 3 > /proc/sys/vm/drop_caches
    dd if=/dev/disk0 bs=1M skip={NOISE_AT // MIB} count={NOISE // MIB} 2>/dev/null | cmp - /tmp/noise
    echo "@@noise"
"""


@dataclass
class Killer:
    """Follows the guest's marks; after some it kills the server, copies the image and starts it again."""

    server: Server
    folder: Path
    flushed: list[int] = field(default_factory=list)
    copies: list[tuple[Path, tuple[int, ...]]] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def follow(self, line: str) -> None:
        word, _, number = line.rpartition(" ")
        if word != "@@flushed":
            return
        self.flushed.append(int(number))
        if int(number) in KILL_AFTER:
            self.threads.append(threading.Thread(target=self._strike))
            self.threads[-1].start()

    def _strike(self) -> None:
        time.sleep(
            0.01 * (1 + len(self.copies))
        )  # the next record is under way, at a different point each time
        self.server.kill()
        told = tuple(self.flushed)
        copy = self.folder / f"killed-{len(self.copies)}.vdi"
        shutil.copyfile(self.server.image, copy)
        self.copies.append((copy, told))
        self.server.start()


@pytest.mark.timeout(600)
def test_kill_9_loses_no_flushed_write_and_the_guest_goes_on(
    guest: TinyGuest, serve: Callable[[Path], Server], tmp_path: Path
) -> None:
    image = tmp_path / "disk.vdi"
    drivebay.create(image, size=64 * MIB)
    server = serve(image)
    killer = Killer(server, tmp_path)
    disks = [NbdDisk(server.socket, reconnect_delay=60)]

    result = guest.boot(WORKLOAD, disks, on_line=killer.follow, timeout=BOOT_TIMEOUT)
    for thread in killer.threads:
        thread.join()
    server.stop()

    assert "noise" in result.marks
    assert not [line for line in result.lines if "error" in line.lower()]
    assert killer.flushed == list(range(RECORDS))
    assert len(killer.copies) == len(KILL_AFTER)
    for copy, told in killer.copies:
        assert len(told) > 10
        assert _lost(copy, told) == []
    assert _lost(image, tuple(range(RECORDS))) == []


def _lost(image: Path, numbers: tuple[int, ...]) -> list[int]:
    """The records of ``numbers`` that ``image`` does not hold."""
    with drivebay.open(image) as disk:
        return [number for number in numbers if disk.read(_offset(number), RECORD) != _record(number)]


def _offset(number: int) -> int:
    return number * STRIDE % RECORDS * SPACING * RECORD


def _record(number: int) -> bytes:
    line = f"record {number}\n".encode()
    return (line * (RECORD // len(line) + 1))[:RECORD]
