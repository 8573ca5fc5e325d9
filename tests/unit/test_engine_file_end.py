"""Files that end within a sector or a block: writes behind their end are not cut off again."""

from __future__ import annotations

from pathlib import Path

from drivebay.engine.batch import Outcome
from support.disks import open_disk
from support.qcow2_images import CLUSTER, DATA, make_image, own


def test_a_raw_file_that_ends_within_a_sector(tmp_path: Path) -> None:
    path = tmp_path / "odd.img"
    path.write_bytes(b"\1" * 1000)
    with open_disk([path]) as disk:
        disk.write(0, b"armed")
        assert disk.write_batch([(1000, memoryview(b"\2" * 24))]) == [Outcome.DONE]
        disk.write(1000, b"\3")
        assert disk.read(1000, 24) == b"\3" + b"\2" * 23


def test_a_cluster_that_the_file_ends_within(tmp_path: Path) -> None:
    path = tmp_path / "short.qcow2"
    path.write_bytes(make_image(entries={0: own(0)}, clusters=1)[: DATA + 512])
    with open_disk([path]) as disk:
        disk.write(0, b"armed")
        assert disk.write_batch([(3072, memoryview(b"\2" * 1024))]) == [Outcome.DONE]
        disk.write(2048, b"\3" * 512)
        assert disk.read(2048, 2048) == b"\3" * 512 + bytes(512) + b"\2" * 1024
    assert path.stat().st_size == DATA + CLUSTER
