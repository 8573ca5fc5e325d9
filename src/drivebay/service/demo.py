"""The demo: a real guest catches a virus on a differencing disk, and the disk is thrown away.

It checks itself: where something is not as told, it raises StorageError.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from drivebay.engine.disk import Disk
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import Extent
from drivebay.qemu import GuestResult, NbdDisk, TinyGuest
from drivebay.service.content import checksum
from drivebay.service.demo_parts import file_system, served
from drivebay.service.disks import open_disk
from drivebay.service.images import create_image
from drivebay.service.sizes import format_size

_SIZE = 64 << 20
_BLOCK = 1 << 20
_BOOT_TIMEOUT = 120
_LETTER = "Dear reader, this disk is clean.\n"
_CHECKPOINT = "letter.txt"

_INFECT = f"""
mount -t ext4 /dev/disk0 /mnt
echo "@@says the letter: $(cat /mnt/{_CHECKPOINT})"
echo "all your files belong to the virus" > /mnt/{_CHECKPOINT}
dd if=/dev/urandom of=/mnt/virus.bin bs=64k count=48 2>/dev/null
sync
echo "@@says the letter now: $(cat /mnt/{_CHECKPOINT})"
echo "@@infected"
umount /mnt
"""

_LOOK = f"""
mount -t ext4 -o ro /dev/disk0 /mnt
echo "@@says the letter: $(cat /mnt/{_CHECKPOINT})"
[ "$(cat /mnt/{_CHECKPOINT})" = "{_LETTER.strip()}" ]
[ ! -e /mnt/virus.bin ]
echo "@@clean"
umount /mnt
"""


class Teller(Protocol):
    """Whoever tells the story to the user."""

    def chapter(self, title: str) -> None:
        """A new step begins."""

    def say(self, text: str) -> None:
        """Something that drivebay did or found."""

    def guest(self, text: str) -> None:
        """Something that the guest said."""

    def extents(self, extents: Sequence[Extent]) -> None:
        """What the active image holds."""


@dataclass(frozen=True, slots=True)
class _Stage:
    """What all steps share."""

    folder: Path
    guest: TinyGuest
    teller: Teller

    @property
    def base(self) -> Path:
        return self.folder / "base.vdi"

    @property
    def child(self) -> Path:
        return self.folder / "child.vdi"

    def boot(self, script: str) -> GuestResult:
        """Boot the guest from the child, which a server process of its own serves."""
        with served(self.child, self.folder / "disk.sock") as url:
            self.teller.say(f"served by a process of its own: {url}")
            disk = NbdDisk(self.folder / "disk.sock", controller="ahci")
            result = self.guest.boot(script, [disk], on_line=self._hear, timeout=_BOOT_TIMEOUT)
        self.teller.say(f"the guest has shut down after {result.seconds:.0f} s; its writes are flushed")
        return result

    def _hear(self, line: str) -> None:
        _, says, text = line.partition("@@says ")
        if says:
            self.teller.guest(text)


def run_demo(teller: Teller) -> None:
    """Tell the story and leave nothing behind. Raises StorageError for what is missing or not as told."""
    teller.chapter("Getting ready")
    guest = TinyGuest.prepare(on_status=teller.say)
    how = "KVM" if guest.accelerator == "kvm" else "software emulation, for this processor offers no KVM"
    teller.say(f"the guest is a tiny Linux in QEMU; it runs with {how}")
    with tempfile.TemporaryDirectory(prefix="drivebay-demo-") as folder:
        stage = _Stage(Path(folder), guest, teller)
        sum_of_base = _make_base(stage)
        _make_child(stage)
        _infect(stage, sum_of_base)
        _start_again(stage, sum_of_base)
    teller.chapter("Done: the virus went with the child, and the base never noticed")


def _make_base(stage: _Stage) -> str:
    stage.teller.chapter("1. A base disk with a small file system")
    create_image(stage.base, size=_SIZE)
    content = file_system({_CHECKPOINT: _LETTER}, _SIZE, stage.folder)
    with open_disk(stage.base, writable=True) as disk:
        written = _copy(content, disk)
        digest = checksum(disk)
    content.unlink()
    used = format_size(stage.base.stat().st_size)
    stage.teller.say(f"base.vdi: a dynamic VDI of {format_size(_SIZE)}; its file has {used}")
    stage.teller.say(f"{format_size(written)} of ext4 written through drivebay's Python API")
    stage.teller.say(f"its checksum: {digest[:16]}...")
    return digest


def _copy(content: Path, disk: Disk) -> int:
    """Write what is not zero of a raw file, in pieces of 64 KiB; the answer is how many bytes that were."""
    piece, written = 64 << 10, 0
    with content.open("rb") as file:
        for offset in range(0, disk.size, piece):
            data = file.read(piece)
            if data.count(0) != len(data):
                disk.write(offset, data)
                written += len(data)
    return written


def _make_child(stage: _Stage) -> None:
    create_image(stage.child, parent=stage.base)
    stage.teller.say(f"child.vdi: a differencing VDI on it, {_allocated(stage.child)} blocks of its own")


def _allocated(path: Path) -> int:
    with open_disk(path) as disk:
        return sum(extent.length for extent in _own(disk)) // _BLOCK


def _own(disk: Disk) -> list[Extent]:
    return [extent for extent in disk.extents() if extent.depth == 0]


def _infect(stage: _Stage, sum_of_base: str) -> None:
    stage.teller.chapter("2. A guest boots with the child on SATA (AHCI), and catches a virus")
    result = stage.boot(_INFECT)
    _require("infected" in result.marks, "the guest did not say that it was infected")
    stage.teller.chapter("3. Where did the writes go?")
    with open_disk(stage.child) as disk:
        own = _own(disk)
        infected = checksum(disk)
    stage.teller.extents(own)
    _require(bool(own), "the child holds no blocks, although the guest wrote to it")
    _require(infected != sum_of_base, "the child still shows what the base holds")
    stage.teller.say(f"drivebay map: {_allocated(stage.child)} blocks of 1 MiB are in child.vdi now")
    _check_base(stage, sum_of_base)


def _check_base(stage: _Stage, sum_of_base: str) -> None:
    with open_disk(stage.base) as disk:
        _require(checksum(disk) == sum_of_base, "the base has changed")
    stage.teller.say(f"base.vdi has not changed: its checksum is still {sum_of_base[:16]}...")


def _start_again(stage: _Stage, sum_of_base: str) -> None:
    stage.teller.chapter("4. Throw the child away, make it again, boot again")
    os.unlink(stage.child)
    _make_child(stage)
    result = stage.boot(_LOOK)
    _require("clean" in result.marks, "the guest did not say that the disk is clean")
    stage.teller.say("the guest compared the letter and looked for the virus: the disk is clean")
    _check_base(stage, sum_of_base)


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise StorageError(
            ErrorKind.STATE, f"the demo went wrong: {otherwise}; please report it", operation="demo"
        )
