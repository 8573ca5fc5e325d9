"""Checksums and comparisons of whole disks."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from unittest.mock import patch

import pytest

import drivebay
from drivebay.engine.disk import Disk

MIB = 1 << 20


@pytest.fixture
def family(tmp_path: Path) -> tuple[Path, Path, bytes]:
    """A base, a child on it, and what the child shows: data, zeros over data, holes."""
    content = bytearray(12 * MIB)
    base, child = tmp_path / "base.vdi", tmp_path / "child.vdi"
    drivebay.create(base, size="12M")
    with drivebay.open(base, writable=True) as disk:
        for offset, data in ((0, b"base" * 1000), (5 * MIB, b"x" * MIB), (8 * MIB - 7, b"over the edge")):
            disk.write(offset, data)
            content[offset : offset + len(data)] = data
    drivebay.create(child, parent=base)
    with drivebay.open(child, writable=True) as disk:
        disk.write(MIB, b"child")
        disk.zero(5 * MIB, MIB)
    content[MIB : MIB + 5] = b"child"
    content[5 * MIB : 6 * MIB] = bytes(MIB)
    return base, child, bytes(content)


def test_a_checksum_is_that_of_the_content(family: tuple[Path, Path, bytes]) -> None:
    told: list[tuple[int, int]] = []
    with drivebay.open(family[1]) as disk:
        digest = drivebay.checksum(disk, lambda done, total: told.append((done, total)))
    assert digest == hashlib.sha256(family[2]).hexdigest()
    assert told[-1] == (12 * MIB, 12 * MIB)
    assert told == sorted(told)


def test_what_reads_as_zeros_is_not_read(family: tuple[Path, Path, bytes]) -> None:
    with drivebay.open(family[1]) as disk:
        data = sum(extent.length for extent in disk.extents() if extent.state is drivebay.ExtentState.DATA)
        drivebay.checksum(disk)
        assert disk.stats.read_bytes == data < 12 * MIB


def _compare(a: Path, b: Path) -> drivebay.Comparison:
    with drivebay.open(a) as disk_a, drivebay.open(b) as disk_b:
        return drivebay.compare(disk_a, disk_b)


def test_the_same_content_in_other_formats_is_equal(family: tuple[Path, Path, bytes], tmp_path: Path) -> None:
    raw = tmp_path / "copy.raw"
    raw.write_bytes(family[2])
    assert (
        _compare(family[1], raw) == _compare(raw, family[1]) == drivebay.Comparison(None, 12 * MIB, 12 * MIB)
    )


@pytest.mark.parametrize("offset", [0, 3999, 4001, MIB + 4, 5 * MIB, 8 * MIB + 5, 12 * MIB - 1])
def test_the_first_difference_is_found_to_the_byte(
    family: tuple[Path, Path, bytes], tmp_path: Path, offset: int
) -> None:
    changed = bytearray(family[2])
    changed[offset] ^= 0x55
    changed[-1] ^= 0xAA
    raw = tmp_path / "copy.raw"
    raw.write_bytes(changed)
    found = _compare(family[1], raw)
    assert found.offset == offset
    assert not found.equal


@pytest.mark.parametrize("tail", [b"", b"\0\0\1"])
def test_a_longer_disk_is_equal_if_its_rest_is_zeros_as_in_qemu(
    family: tuple[Path, Path, bytes], tmp_path: Path, tail: bytes
) -> None:
    short, long = tmp_path / "short.raw", tmp_path / "long.raw"
    short.write_bytes(family[2])
    long.write_bytes((family[2] + bytes(3 * MIB) + tail).ljust(16 * MIB, b"\0"))
    expected = 15 * MIB + 2 if tail else None
    for a, b in ((short, long), (long, short)):
        assert _compare(a, b).offset == expected
        qemu = subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", a, b], check=False)
        assert qemu.returncode == (1 if tail else 0)


def test_two_empty_giants_are_compared_without_reading(tmp_path: Path) -> None:
    drivebay.create(tmp_path / "a.vdi", size="4T")
    drivebay.create(tmp_path / "b.vdi", size="4T")
    with patch.object(Disk, "read_into", side_effect=AssertionError("read")):
        assert _compare(tmp_path / "a.vdi", tmp_path / "b.vdi").equal
