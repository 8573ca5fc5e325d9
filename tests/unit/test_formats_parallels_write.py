"""Parallels images and bundles written by the engine: marks, the places of new blocks, snapshots."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from drivebay.engine.source import FileSource
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.parallels.header import MAGIC_1
from support.disks import open_disk
from support.parallels_images import (
    BLOCK,
    ROOT,
    SECTORS,
    TOP,
    make_descriptor,
    make_image,
    make_old,
)


def entries(data: bytes, count: int = 4) -> tuple[int, ...]:
    return struct.unpack_from(f"<{count}I", data, 64)


def test_the_mark_is_set_while_the_image_is_written(tmp_path: Path) -> None:
    image = tmp_path / "image.hdd"
    image.write_bytes(make_image([0, 1], blocks=1, in_use=0, flags=1))
    with open_disk([image]) as disk:
        assert image.read_bytes()[44:48] == bytes(4)
        disk.write(0, b"x")
        disk.flush()
        assert image.read_bytes()[44:56] == b"Ynot" + struct.pack("<II", SECTORS, 0)
    assert image.read_bytes()[44:48] == b"v2.1"


def test_a_descriptor_is_not_written(tmp_path: Path) -> None:
    descriptor = make_descriptor([{TOP: "a.raw"}, {TOP: "b.hds"}], {TOP: ROOT})
    assert len(descriptor) % 512
    (tmp_path / "image.hdd").write_bytes(descriptor)
    (tmp_path / "a.raw").write_bytes(bytes(2 * BLOCK))
    (tmp_path / "b.hds").write_bytes(make_image(sectors=2 * SECTORS, entries=2, blocks=0))
    with open_disk([tmp_path / "image.hdd"]) as disk:
        disk.write(0, b"x" * disk.size)
        disk.flush()
    assert (tmp_path / "image.hdd").read_bytes() == descriptor


def test_new_blocks_keep_to_the_grid_of_either_layout(tmp_path: Path) -> None:
    for name, data in (("new.hdd", make_image([1], blocks=1)), ("old.hdd", make_old([1], blocks=1))):
        image = tmp_path / name
        image.write_bytes(data)
        with open_disk([image]) as disk:
            disk.write(disk.size - 512, b"x" * 512)
            disk.write(disk.size // 2, b"y" * 512)
    assert entries((tmp_path / "new.hdd").read_bytes()) == (1, 0, 3, 2)
    assert entries((tmp_path / "old.hdd").read_bytes()) == (1, 0, 1 + 2 * 63, 1 + 63)


@pytest.mark.parametrize(
    "data",
    [make_image([1, 1]), make_image([4]), make_old([1, 2]), make_image([1], entries=2000, first=2 * BLOCK)],
    ids=["doubled", "outside", "overlapping", "in the table"],
)
def test_damaged_tables_are_not_written(tmp_path: Path, data: bytes) -> None:
    image = tmp_path / "image.hdd"
    image.write_bytes(data)
    with open_disk([image]) as disk, pytest.raises(StorageError) as caught:
        disk.write(0, b"x" * 512)
    assert caught.value.kind is ErrorKind.CORRUPT
    assert image.read_bytes() == data


def test_a_split_bundle(tmp_path: Path) -> None:
    image = tmp_path / "DiskDescriptor.hdd"
    half = {"sectors": 2 * SECTORS, "entries": 2}
    image.write_bytes(
        make_descriptor([{TOP: "a.hds"}, {TOP: "b.hds"}, {TOP: "c.raw"}], {TOP: ROOT}, sectors=6 * SECTORS)
    )
    (tmp_path / "a.hds").write_bytes(make_image([0, 1], blocks=1, **half))
    (tmp_path / "b.hds").write_bytes(make_image(blocks=0, **half))
    (tmp_path / "c.raw").write_bytes(bytes(2 * BLOCK))
    expected = bytearray(6 * BLOCK)
    expected[BLOCK : 2 * BLOCK] = b"\1" * BLOCK
    with open_disk([image]) as disk:
        for start in (512, 2 * BLOCK - 1024, 4 * BLOCK - 512, 5 * BLOCK):
            expected[start : start + 2048] = b"z" * 2048
            disk.write(start, b"z" * 2048)
        assert disk.read(0, 6 * BLOCK) == expected
    with open_disk([image], writable=False) as disk:
        assert disk.read(0, 6 * BLOCK) == expected
    assert entries((tmp_path / "a.hds").read_bytes(), 2) == (2, 1)
    assert sorted(entries((tmp_path / "b.hds").read_bytes(), 2)) == [1, 2]
    assert [(tmp_path / name).read_bytes()[44:48] for name in ("a.hds", "b.hds")] == [b"v2.1"] * 2
    assert (tmp_path / "c.raw").read_bytes()[BLOCK : BLOCK + 2048] == b"z" * 2048


def test_a_bundle_whose_pieces_have_tables_of_different_sizes(tmp_path: Path) -> None:
    """In the older layout a piece's blocks begin right behind its table."""
    image = tmp_path / "DiskDescriptor.hdd"
    old = {"magic": MAGIC_1, "sectors": 4 * SECTORS, "data_offset": 0}
    descriptor = make_descriptor([{TOP: "a.hds"}, {TOP: "b.hds"}], {TOP: ROOT}, sectors=8 * SECTORS)
    image.write_bytes(descriptor)
    (tmp_path / "a.hds").write_bytes(make_image(blocks=0, first=4608, entries=1100, **old))
    (tmp_path / "b.hds").write_bytes(make_image([1], blocks=1, first=512, **old))
    with open_disk([image]) as disk:
        for start in (0, 5 * BLOCK):
            disk.write(start, b"z" * 512)
        assert disk.read(4 * BLOCK, BLOCK + 512) == b"\1" * BLOCK + b"z" * 512
    assert entries((tmp_path / "a.hds").read_bytes()) == (9, 0, 0, 0)
    assert entries((tmp_path / "b.hds").read_bytes()) == (1, 1 + SECTORS, 0, 0)


def test_a_flush_syncs_only_what_it_changed_beyond_the_data(tmp_path: Path) -> None:
    """Data may be in any file, so the first sync is for all; then only one file's table changes."""
    image = tmp_path / "DiskDescriptor.hdd"
    pieces = [f"{number}.hds" for number in range(4)]
    shots = [{TOP: name} for name in pieces]
    image.write_bytes(make_descriptor(shots, {TOP: ROOT}, sectors=16 * SECTORS))
    for name in pieces:
        (tmp_path / name).write_bytes(make_image(blocks=0))
    synced: list[str] = []

    class CountedSource(FileSource):
        def sync(self) -> None:
            synced.append(Path(self.path).name)
            super().sync()

    def counted(fd: int, path: str, writable: bool) -> FileSource:
        return CountedSource(fd, path, writable=writable)

    with open_disk([image], source=counted) as disk:
        disk.write(0, b"armed")
        disk.flush()
        synced.clear()
        disk.write(5 * BLOCK, b"new")
        disk.flush()
        assert sorted(synced[:-1]) == sorted([*pieces, image.name])
        assert synced[-1] == "1.hds"
