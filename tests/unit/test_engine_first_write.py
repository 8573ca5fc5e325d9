"""First writes in batches: into which blocks they go, and what they leave to the blocking form."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from drivebay.engine.batch import Outcome
from drivebay.engine.source import FileSource
from support.disks import KIB, MIB, ImageSpec, make_image, open_disk
from support.shadow import ShadowDisk
from support.vmdk_images import made

DONE, LATER = Outcome.DONE, Outcome.LATER
SECTOR = 512
SLOT = 100 * KIB

IMAGES = {
    "qcow2": ImageSpec(5 * MIB + 512, 64 * KIB, format="qcow2"),
    "qcow2-small": ImageSpec(MIB + 512, 4 * KIB, format="qcow2"),
    "qcow2-large": ImageSpec(9 * MIB + 512, 2 * MIB, format="qcow2"),
    "vdi": ImageSpec(5 * MIB + 512, MIB),
    "vhd": ImageSpec(7 * MIB, 2 * MIB, format="vhd"),
    "vhdx": ImageSpec(70 * MIB, 32 * MIB, format="vhdx"),
    "qed": ImageSpec(5 * MIB + 512, 64 * KIB, format="qed"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_batches_of_first_writes(tmp_path: Path, name: str) -> None:
    spec = IMAGES[name]
    path = tmp_path / f"disk.{spec.format}"
    make_image(path, spec)
    chance = random.Random(1)
    with open_disk([path]) as disk:
        shadow = ShadowDisk(disk, bytearray(disk.size))
        shadow.write(0, b"first")  # arms the disk
        done = 0
        for _ in range(40):
            requests = []
            for slot in chance.sample(range(disk.size // SLOT), 8):  # they don't overlap
                length = chance.choice((1, SECTOR, 4 * KIB, 70 * KIB))
                offset = slot * SLOT + chance.randrange(SLOT - length)
                requests.append((offset, chance.randbytes(length)))
            requests.append((disk.size - 100, chance.randbytes(100)))
            done += shadow.write_batch(requests).count(DONE)
            shadow.read_batch([(offset, len(data)) for offset, data in requests])
        shadow.verify()
        assert done > 20
    with open_disk([path], writable=False) as disk:
        ShadowDisk(disk, shadow.content).verify()


def _two_extents(folder: Path, sectors: int) -> Path:
    """Two sparse extents of so many sectors, and then zeros."""
    lines = ["# Disk DescriptorFile", "version=1", "CID=12345678", "parentCID=ffffffff"]
    lines.append('createType="twoGbMaxExtentSparse"')
    for number in (1, 2):
        extent = made("twoGbMaxExtentSparse", size=sectors * SECTOR)["disk-s001.vmdk"]
        (folder / f"disk-s00{number}.vmdk").write_bytes(extent)
        lines.append(f'RW {sectors} SPARSE "disk-s00{number}.vmdk"')
    lines.append("RW 400 ZERO")
    (folder / "disk.vmdk").write_text("\n".join([*lines, ""]))
    return folder / "disk.vmdk"


@pytest.mark.parametrize("sectors", [200, 256])
def test_a_block_ends_where_its_table_ends(tmp_path: Path, sectors: int) -> None:
    """Granules of the map that two tables share must not become one block of one of them."""
    path = _two_extents(tmp_path, sectors)
    border, end = sectors * SECTOR, 2 * sectors * SECTOR
    with open_disk([path]) as disk:
        shadow = ShadowDisk(disk, bytearray(disk.size))
        shadow.write(0, b"first")
        for offset in (border - SECTOR, border, end - SECTOR):
            shadow.write_batch([(offset, bytes([offset // SECTOR % 255 + 1]) * SECTOR)])
            shadow.verify()
        assert disk.write_batch([(end, memoryview(b"x")), (end - 1, memoryview(b"xx"))]) == [LATER] * 2
        shadow.verify()
    with open_disk([path], writable=False) as disk:
        ShadowDisk(disk, shadow.content).verify()


def test_what_needs_no_mark_is_armed_at_once(tmp_path: Path) -> None:
    for format, expected in (("qcow2", DONE), ("vdi", LATER), ("vhdx", LATER)):
        path = tmp_path / f"disk.{format}"
        make_image(path, ImageSpec(64 * MIB, format=format))
        with open_disk([path]) as disk:
            request = [(MIB, memoryview(b"first"))]
            assert disk.write_batch(request) == [LATER], "the table must be verified first"
            disk.verify_writable()
            assert disk.write_batch(request) == [expected], format
            if expected is DONE:
                assert disk.read(MIB, 5) == b"first"


class Uncached(FileSource):
    """A file of which nothing is in the host's cache; counts who asks."""

    def __init__(self, fd: int, path: str, *, writable: bool) -> None:
        super().__init__(fd, path, writable=writable)
        self.reads_at_once = True
        self.try_read = self._not_now
        self.asked = 0

    def _not_now(self, _views: Sequence[memoryview], _offset: int, _flags: int) -> int:
        self.asked += 1
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _uncached(fd: int, path: str, writable: bool) -> FileSource:
    return Uncached(fd, path, writable=writable)


@pytest.mark.parametrize("format", ["vdi", "qcow2"])
def test_pages_come_at_once_if_the_table_is_at_hand(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"disk.{format}"
    make_image(path, ImageSpec(64 * MIB, format=format))
    with open_disk([path]) as disk:
        disk.write(MIB, b"data")
        disk.write(40 * MIB, b"more")
    view = memoryview(bytearray(4))
    with open_disk([path]) as disk:
        assert disk.read_batch([(MIB, view)]) == [DONE]
        assert bytes(view) == b"data"


@pytest.mark.parametrize("format", ["vdi", "qcow2"])
def test_a_table_that_must_be_waited_for_is_left_to_the_blocking_form(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"disk.{format}"
    make_image(path, ImageSpec(64 * MIB, format=format))
    with open_disk([path], source=_uncached) as disk:
        disk.verify_writable()
        (source,) = disk.layers[0].sources
        assert isinstance(source, Uncached)
        view = memoryview(bytearray(4))
        assert disk.read_batch([(at * MIB, view) for at in range(8)]) == [LATER] * 8
        assert source.asked == 1, "one answer is enough for all of the batch"
        disk.write(MIB, b"data")
        assert disk.write_batch([(MIB + 4, memoryview(b"more"))]) == [DONE]
        assert disk.read(MIB, 8) == b"datamore"


def test_ranges_before_and_behind_the_disk_load_no_page(tmp_path: Path) -> None:
    path = tmp_path / "disk.vdi"
    make_image(path, ImageSpec(1536 * MIB))
    with open_disk([path]) as disk:
        view = memoryview(bytearray(512))
        for offset in (-512, 1 << 40, 1 << 62):
            assert disk.read_batch([(offset, view)]) == [LATER]
        assert not disk.stats.map_bytes
