"""QED images written by the engine: the header's flags, and tables that must not be written."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from drivebay.errors import ErrorKind, StorageError
from support.disks import open_disk
from support.qed_images import CLUSTER, DATA, L1, L2, make_image


def written(path: Path, **fields: Any) -> tuple[bytes, bytes]:
    """The headers while the image is written and after it was closed."""
    image = path / "image.qed"
    image.write_bytes(make_image(**fields))
    with open_disk([image]) as disk:
        disk.write(0, b"x" * 512)
        disk.flush()
        during = image.read_bytes()[:64]
    return during, image.read_bytes()[:64]


def flags(header: bytes) -> tuple[int, int]:
    features, _, autoclear = struct.unpack_from("<3Q", header, 16)
    return features, autoclear


def test_the_flags_of_an_image_that_was_not_closed(tmp_path: Path) -> None:
    during, after = written(tmp_path, features=2, autoclear_features=0x100, entries={0: DATA})
    assert flags(during) == (2, 0)
    assert flags(after) == (0, 0)


def test_a_sound_image_keeps_its_header(tmp_path: Path) -> None:
    during, after = written(tmp_path)
    assert during == after == make_image()[:64]


def test_reading_changes_nothing(tmp_path: Path) -> None:
    image = tmp_path / "image.qed"
    image.write_bytes(make_image(features=2, autoclear_features=1, entries={0: DATA}))
    before = image.read_bytes()
    with open_disk([image]) as disk:
        assert disk.read(0, 4) == b"\1" * 4
    assert image.read_bytes() == before


UNSAFE: list[dict[str, Any]] = [
    {"entries": {0: DATA, 1: DATA}},
    {"entries": {0: DATA + 4 * CLUSTER}},
    {"entries": {0: DATA + 512}},
    {"entries": {0: 2}},
    {"tables": {0: 1 << 40}},
    {"entries": {0: L1}},
    {"entries": {0: L2}},
    {"tables": {1: L2}, "size": 600 * CLUSTER, "entries": {0: DATA}},
]


@pytest.mark.parametrize("fields", UNSAFE, ids=repr)
def test_damaged_tables_are_not_written(tmp_path: Path, fields: dict[str, Any]) -> None:
    image = tmp_path / "image.qed"
    image.write_bytes(make_image(features=2, **fields))
    before = image.read_bytes()
    with open_disk([image]) as disk, pytest.raises(StorageError) as caught:
        disk.write(4 * CLUSTER, b"x" * 512)
    assert caught.value.kind is ErrorKind.CORRUPT
    assert image.read_bytes() == before
