"""The OWN_PLACE allocator: data files, in which every block has the place that it has on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drivebay.engine.disk import Disk
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.qcow2.extensions import DATA_FILE, Extension
from support.disks import KIB, ImageSpec, findings, make_image, open_disk, read_layer
from support.qcow2_images import CLUSTER, COPIED, snapshot_entry
from support.qcow2_images import make_image as image_bytes
from support.shadow import RandomSteps, ShadowDisk

BLOCK = 64 * KIB
SIZE = 20 * BLOCK - 3 * 512  # the disk ends within a block
EXTENDED = pytest.mark.parametrize("extended", [False, True], ids=["plain", "extended"])


def make(folder: Path, name: str = "image", parent: Path | None = None, **options: object) -> Path:
    path = folder / f"{name}.qcow2"
    chosen = {"data_file": f"{name}.data", **options}
    make_image(path, ImageSpec(SIZE, format="qcow2", options=tuple(chosen.items())), parent)
    return path


def scribble(disk: Disk, content: bytearray, seed: int) -> None:
    steps, shadow = RandomSteps(seed, BLOCK), ShadowDisk(disk, content)
    for _ in range(120):
        steps.step(shadow)
    disk.flush()


@EXTENDED
@pytest.mark.parametrize("seed", range(3))
def test_a_raw_data_file_is_always_the_disk_by_itself(tmp_path: Path, extended: bool, seed: int) -> None:
    image = make(tmp_path, data_file_raw=True, extended_l2=extended)
    data, content = tmp_path / "image.data", bytearray(SIZE)
    for opening in range(2):
        with open_disk([image]) as disk:
            scribble(disk, content, seed * 2 + opening)
            assert data.read_bytes() == content
    assert findings(image) == []


@EXTENDED
def test_the_data_file_ends_where_the_disk_does(tmp_path: Path, extended: bool) -> None:
    image, data = make(tmp_path, extended_l2=extended), tmp_path / "image.data"
    os.truncate(data, 5 * BLOCK - 512)
    for _ in range(2):
        with open_disk([image]) as disk:
            disk.write(SIZE - 100, b"end")
            disk.write(0, b"begin")
        assert data.stat().st_size == SIZE
    with open_disk([image], writable=False) as disk:
        assert disk.read(SIZE - 100, 100) == b"end".ljust(100, b"\0")


@EXTENDED
def test_what_was_in_a_new_blocks_place_is_not_seen(tmp_path: Path, extended: bool) -> None:
    image = make(tmp_path, extended_l2=extended)
    (tmp_path / "image.data").write_bytes(b"old" * (SIZE // 3))
    with open_disk([image]) as disk:
        disk.write(BLOCK + 4096, b"new")
        disk.write(3 * BLOCK + 5, b"new")
        disk.write_batch([(5 * BLOCK + 512, memoryview(b"n" * 512))])
    with open_disk([image], writable=False) as disk:
        wanted = bytearray(SIZE)
        wanted[BLOCK + 4096 : BLOCK + 4099] = wanted[3 * BLOCK + 5 : 3 * BLOCK + 8] = b"new"
        wanted[5 * BLOCK + 512 : 5 * BLOCK + 1024] = b"n" * 512
        assert disk.read(0, SIZE) == wanted


@EXTENDED
def test_a_block_that_was_zeroed_gives_its_space_back_and_is_written_again(
    tmp_path: Path, extended: bool
) -> None:
    base = make(tmp_path, "base")
    with open_disk([base]) as disk:
        disk.write(0, b"p" * SIZE)
    image = make(tmp_path, parent=base, extended_l2=extended)
    with open_disk([image, base]) as disk:
        disk.write(0, b"c" * 10 * BLOCK)
        disk.flush()
        full = (tmp_path / "image.data").stat().st_blocks
        disk.discard(2 * BLOCK, 4 * BLOCK)
        disk.write(3 * BLOCK + 1000, b"again")  # before the discard is durable
        disk.flush()
        assert (tmp_path / "image.data").stat().st_blocks <= full - 3 * BLOCK // 512 + 16
    with open_disk([image, base], writable=False) as disk:
        wanted = bytearray(b"c" * 10 * BLOCK + b"p" * (SIZE - 10 * BLOCK))
        wanted[2 * BLOCK : 6 * BLOCK] = bytes(4 * BLOCK)
        wanted[3 * BLOCK + 1000 : 3 * BLOCK + 1005] = b"again"
        assert disk.read(0, SIZE) == wanted
    assert findings(image) == []


def test_a_block_that_is_partly_there_is_completed_in_its_place(tmp_path: Path) -> None:
    base = make(tmp_path, "base")
    with open_disk([base]) as disk:
        disk.write(0, b"p" * SIZE)
    image = make(tmp_path, parent=base, extended_l2=True)
    content = bytearray(b"p" * SIZE)
    _let_some_be_there(image, content)
    with open_disk([image, base]) as disk:
        assert disk.read(0, SIZE) == content
        disk.write(9 * 2048 + 100, b"new")
        content[9 * 2048 + 100 : 9 * 2048 + 103] = b"new"
        disk.zero(BLOCK, 2048)
        disk.discard(2 * BLOCK, BLOCK)
        content[BLOCK : BLOCK + 2048] = bytes(2048)
        content[2 * BLOCK : 3 * BLOCK] = bytes(BLOCK)
        assert disk.read(0, SIZE) == content
    with open_disk([image, base], writable=False) as disk:
        assert disk.read(0, SIZE) == content
    assert (tmp_path / "image.data").read_bytes()[2 * BLOCK : 3 * BLOCK] == bytes(BLOCK)
    assert findings(image) == []


def _let_some_be_there(image: Path, content: bytearray) -> None:
    """Of 3 blocks: 8 subclusters of data, 8 of zeros, the rest the parent's; the places hold old bytes."""
    with open_disk([image, image.with_name("base.qcow2")]) as disk:
        disk.write(0, b"o" * 3 * BLOCK)
    table = read_layer(image).segments[0]
    with image.open("r+b") as file:
        file.seek(table.root)  # type: ignore[union-attr]
        leaf = int.from_bytes(file.read(8), "big") & ~COPIED
        for block in range(3):
            file.seek(leaf + block * 16 + 8)
            file.write((0x0000_FF00).to_bytes(4, "big") + (0x0000_00FF).to_bytes(4, "big"))
            begin = block * BLOCK
            content[begin : begin + 8 * 2048] = b"o" * 8 * 2048
            content[begin + 8 * 2048 : begin + 16 * 2048] = bytes(8 * 2048)


def hand_made(folder: Path, entries: dict[int, int], **fields: object) -> Path:
    path = folder / "made.qcow2"
    name = Extension(DATA_FILE, b"made.data", 0)
    path.write_bytes(image_bytes(incompatible=4, extensions=[name], entries=entries, clusters=0, **fields))  # type: ignore[arg-type]
    (folder / "made.data").write_bytes(b"a" * CLUSTER + b"b" * CLUSTER + b"c" * CLUSTER)
    return path


@pytest.mark.parametrize(
    "entry",
    [2 * CLUSTER | COPIED, CLUSTER, COPIED],
    ids=["another's place", "not its own", "the first place"],
)
def test_a_block_in_another_place_is_read_found_and_not_written(tmp_path: Path, entry: int) -> None:
    image = hand_made(tmp_path, {1: entry})
    with open_disk([image], writable=False) as disk:
        where = entry & ~COPIED
        assert disk.read(CLUSTER, CLUSTER) == (tmp_path / "made.data").read_bytes()[where : where + CLUSTER]
    assert [found.code for found in findings(image)] == ["misplaced"]
    with (
        open_disk([image]) as disk,
        pytest.raises(StorageError, match="its place in the data file") as caught,
    ):
        disk.write(0, b"x")
    assert caught.value.kind is ErrorKind.CORRUPT


def test_what_a_shortened_data_file_has_lost_is_found(tmp_path: Path) -> None:
    image = hand_made(
        tmp_path, {0: COPIED, 1: CLUSTER | COPIED, 2: 2 * CLUSTER | COPIED, 3: 3 * CLUSTER | COPIED | 1}
    )
    os.truncate(tmp_path / "made.data", CLUSTER + 1024)
    (found,) = findings(image)
    assert found.code == "outside"
    assert ": 1;" in found.message
    with open_disk([image], writable=False) as disk:
        assert disk.read(CLUSTER, CLUSTER) == b"b" * 1024 + bytes(CLUSTER - 1024)
        with pytest.raises(StorageError, match="outside"):
            disk.read(2 * CLUSTER, 1)
    (tmp_path / "made.data").unlink()
    with pytest.raises((StorageError, FileNotFoundError)):
        findings(image)


def test_blocks_in_their_places_are_sound(tmp_path: Path) -> None:
    image = hand_made(tmp_path, {0: COPIED, 2: 2 * CLUSTER | COPIED, 3: 1})
    assert findings(image) == []
    with open_disk([image]) as disk:
        disk.write(CLUSTER, b"new")
        assert disk.read(0, 3 * CLUSTER) == b"a" * CLUSTER + b"new".ljust(CLUSTER, b"\0") + b"c" * CLUSTER


def test_internal_snapshots_beside_a_data_file_forbid_writing(tmp_path: Path) -> None:
    layer = read_layer(hand_made(tmp_path, {0: COPIED}, snapshot_entries=[snapshot_entry()]))
    assert layer.plan is None
    assert "internal snapshots" in str(layer.refusal)
