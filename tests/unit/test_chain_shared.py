"""Fixed images with several writers."""

from __future__ import annotations

from pathlib import Path

import pytest

import drivebay
from drivebay.chain import create_image, open_chain
from drivebay.engine.disk import Disk
from drivebay.errors import ErrorKind, StorageError
from drivebay.service.disks import open_disk
from drivebay.service.options import OpenOptions

MIB = 1 << 20
FIXED = [
    ("disk.raw", {}),
    ("disk.vdi", {"variant": "fixed"}),
    ("disk.vhd", {"variant": "fixed"}),
    ("disk.vmdk", {"variant": "monolithicFlat"}),
]


def _shared(path: Path) -> Disk:
    return open_disk(path, OpenOptions(shared=True), writable=True)


@pytest.mark.parametrize(("name", "options"), FIXED)
def test_two_writers_see_each_other_and_change_no_header(
    tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    path = tmp_path / name
    drivebay.create(path, size=8 * MIB, **options)  # type: ignore[arg-type]
    before = drivebay.info(path).facts
    content = bytearray(8 * MIB)
    with _shared(path) as one, _shared(path) as other:
        for number, disk in enumerate((one, other, one, other)):
            place = number * MIB * 2 - number * 100
            disk.write(place, bytes([number + 1]) * MIB)
            content[place : place + MIB] = bytes([number + 1]) * MIB
        one.discard(3 * MIB, MIB)
        content[3 * MIB : 4 * MIB] = bytes(MIB)
        other.zero(100, 5000)
        content[100:5100] = bytes(5000)
        one.flush()
        assert one.read(0, one.size) == other.read(0, other.size) == content
    assert drivebay.info(path).facts == before
    with drivebay.open(path) as disk:
        assert disk.read(0, disk.size) == content


def test_those_who_do_not_share_are_kept_out(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    drivebay.create(path, size=MIB)
    with _shared(path):
        for writable in (True, False):
            with pytest.raises(StorageError) as caught:
                open_chain(path, writable=writable)
            assert caught.value.kind is ErrorKind.IN_USE
    for writable in (True, False):
        with open_chain(path, writable=writable), pytest.raises(StorageError) as caught:
            _shared(path)
        assert caught.value.kind is ErrorKind.IN_USE


def test_what_cannot_be_shared(tmp_path: Path) -> None:
    base = tmp_path / "fixed.vdi"
    drivebay.create(base, size=MIB, variant="fixed")
    create_image(tmp_path / "child.vdi", parent=base)
    drivebay.create(tmp_path / "grows.vdi", size=MIB)
    drivebay.create(tmp_path / "log.vhdx", size=MIB, variant="fixed")
    for name in ("child.vdi", "grows.vdi", "log.vhdx"):
        with pytest.raises(StorageError, match="several machines can't write it at once") as caught:
            _shared(tmp_path / name)
        assert caught.value.kind is ErrorKind.UNSUPPORTED
        open_chain(tmp_path / name, writable=True).close()  # nothing is left open
