"""Entries of parents' tables, and absurd ones: what a layer's number or an offset does to the map's bits."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from drivebay.errors import ErrorKind, StorageError
from support.disks import KIB, MIB, ImageSpec, make_image, open_disk
from support.vhdx_images import DATA, PARTIAL, PRESENT, RATIO, child


def test_a_parents_block_that_has_only_some_sectors_of_a_granule(tmp_path: Path) -> None:
    base, child = tmp_path / "base.vhd", tmp_path / "child.vhd"
    make_image(base, ImageSpec(4 * MIB, block=2 * MIB, format="vhd"))
    with open_disk([base]) as disk:
        disk.write(0, b"\7" * (2 * MIB))
        disk.flush()
    make_image(child, ImageSpec(4 * MIB, block=64 * KIB, format="vhd"), base)
    _clear_first_half_of_bitmap_byte(base, 40)  # sectors 320 to 323
    with open_disk([child, base], writable=False) as disk:
        assert disk.read(0, 2 * MIB) == b"\7" * (320 * 512) + bytes(4 * 512) + b"\7" * (2 * MIB - 324 * 512)


def _clear_first_half_of_bitmap_byte(path: Path, byte: int) -> None:
    data = bytearray(path.read_bytes())
    (table,) = struct.unpack_from(">Q", data, 512 + 16)
    (sector,) = struct.unpack_from(">I", data, table)
    assert data[sector * 512 + byte] == 0xFF
    data[sector * 512 + byte] = 0x0F
    path.write_bytes(data)


@pytest.mark.parametrize("offset", [1 << 48, 5 << 53, (1 << 54) - 1, 1 << 40])
def test_a_compressed_cluster_far_behind_the_file_is_corrupt(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "disk.qcow2"
    make_image(path, ImageSpec(4 * MIB, block=64 * KIB, format="qcow2"))
    with open_disk([path]) as disk:
        disk.write(0, b"\1" * (128 * KIB))
        disk.flush()
    data = bytearray(path.read_bytes())
    (level1,) = struct.unpack_from(">Q", data, 40)
    level2 = struct.unpack_from(">Q", data, level1)[0] & ((1 << 56) - 512)
    struct.pack_into(">Q", data, level2 + 8, 1 << 62 | offset)
    path.write_bytes(data)
    with open_disk([path], writable=False) as disk:
        assert disk.read(0, 64 * KIB) == b"\1" * (64 * KIB)
        with pytest.raises(StorageError) as caught:
            disk.read(64 * KIB, 512)
    assert (caught.value.kind, caught.value.path) == (ErrorKind.CORRUPT, str(path))


def test_a_cow_extent_with_an_entry_into_its_own_header_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "disk.vmdk"
    make_image(path, ImageSpec(8 * MIB, variant="vmfsSparse", format="vmdk"))
    with open_disk([path]) as disk:
        disk.write(0, b"\1" * 512)
        disk.flush()
    extent = tmp_path / "disk-delta.vmdk"
    data = bytearray(extent.read_bytes())
    (leaf,) = struct.unpack_from("<I", data, 2048)
    struct.pack_into("<I", data, leaf * 512 + 4 * 9, 2)  # sector 2 is the header's third
    extent.write_bytes(data)
    disk = open_disk([path])
    with pytest.raises(StorageError, match="own tables") as caught:
        disk.write(9 * 512, b"\2" * 512)
    assert caught.value.kind is ErrorKind.CORRUPT
    disk.close()
    assert extent.read_bytes() == data


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({0: DATA | PARTIAL, RATIO: DATA | PRESENT}, "another one points to"),
        ({0: DATA | PRESENT, RATIO: 1 << 40 | PRESENT}, "outside the file"),
    ],
)
def test_a_vhdx_whose_bitmaps_lie_elsewhere_is_not_written(
    tmp_path: Path, entries: dict[int, int], reason: str
) -> None:
    base, path = tmp_path / "base.img", tmp_path / "child.vhdx"
    base.write_bytes(bytes(4 * MIB))
    path.write_bytes(child(entries=entries, units=1))
    disk = open_disk([path, base])
    with pytest.raises(StorageError, match=reason) as caught:
        disk.write(2 * MIB, b"new")
    assert caught.value.kind is ErrorKind.CORRUPT
    disk.close()
    assert path.read_bytes() == child(entries=entries, units=1)
