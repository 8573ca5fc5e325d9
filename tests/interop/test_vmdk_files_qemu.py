"""VMDK files exchanged with QEMU: made there and read here, written here and read and checked there."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

import drivebay
from drivebay.model import Severity
from support.images import ImageSpec, findings, make_image, read_layer

MIB = 1 << 20
SIZE = 5 * MIB - 512
QEMU_MAKES = (
    "monolithicSparse",
    "twoGbMaxExtentSparse",
    "monolithicFlat",
    "twoGbMaxExtentFlat",
    "streamOptimized",
)
WE_WRITE = (
    "monolithicSparse",
    "twoGbMaxExtentSparse",
    "monolithicFlat",
    "twoGbMaxExtentFlat",
    "vmfs",
    "vmfsSparse",
)


def qemu_img(*arguments: str | Path) -> str:
    command = ["qemu-img", *(str(argument) for argument in arguments)]
    done = subprocess.run(command, check=False, capture_output=True, timeout=120, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def a_disk() -> bytes:
    """Runs of noise between zeros."""
    noise = random.Random(7)
    content = bytearray(SIZE)
    for start in (0, 100_000, 700_000, 3 * MIB + 5, SIZE - 3000):
        length = min(noise.randrange(1, 200_000), SIZE - start)
        content[start : start + length] = noise.randbytes(length)
    return bytes(content)


def read_here(path: Path) -> bytes:
    with drivebay.open(path, search=[path.parent]) as disk:
        return bytes(disk.read(0, disk.size))


def read_there(path: Path) -> bytes:
    raw = path.with_suffix(".raw")
    qemu_img("convert", "-f", "vmdk", "-O", "raw", path, raw)
    return raw.read_bytes()


def complaints(path: Path) -> list[str]:
    return [found.message for found in findings(path) if found.severity is not Severity.NOTE]


@pytest.mark.parametrize("subformat", QEMU_MAKES)
def test_made_by_qemu(tmp_path: Path, subformat: str) -> None:
    raw, path = tmp_path / "disk.img", tmp_path / "disk.vmdk"
    raw.write_bytes(a_disk())
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw, path)
    assert read_layer(path).facts.variant == subformat
    assert read_here(path) == a_disk()
    assert complaints(path) == []


def test_zeroed_grains_made_by_qemu(tmp_path: Path) -> None:
    path = tmp_path / "disk.vmdk"
    qemu_img("create", "-f", "vmdk", "-o", "zeroed_grain=on", path, str(SIZE - SIZE % 65536))
    commands = ["-c", "write -P 9 0 256k", "-c", "write -z 64k 64k"]
    subprocess.run(
        ["qemu-io", "-f", "vmdk", *commands, str(path)], check=True, capture_output=True, timeout=60
    )
    assert read_here(path)[: 4 << 16] == b"\t" * 65536 + bytes(65536) + b"\t" * 131072


@pytest.mark.parametrize("variant", WE_WRITE)
def test_written_here(tmp_path: Path, variant: str) -> None:
    path, content = tmp_path / "disk.vmdk", a_disk()
    make_image(path, ImageSpec(SIZE, variant=variant, format="vmdk"))
    before = read_layer(path).facts
    _write(path, content)
    facts = read_layer(path).facts
    assert facts.content_id != before.content_id
    assert facts.modification_uuid != before.modification_uuid
    assert read_there(path) == content
    assert complaints(path) == []
    qemu_img("check", path)


def _write(path: Path, content: bytes) -> None:
    """Write all of ``content`` that isn't zeros, backwards and in odd pieces."""
    with drivebay.open(path, writable=True) as disk:
        for start in range(len(content) - len(content) % 50_000, -1, -50_000):
            piece = content[start : start + 50_000]
            if any(piece):
                disk.write(start, piece)
        disk.flush()


def test_zeroed_grains_written_here(tmp_path: Path) -> None:
    path = tmp_path / "disk.vmdk"
    make_image(path, ImageSpec(SIZE, format="vmdk", options=(("zeroed_grain", True),)))
    _write(path, b"\5" * SIZE)
    with drivebay.open(path, writable=True) as disk:
        disk.zero(65536, 131072)
        disk.flush()
    assert read_there(path) == b"\5" * 65536 + bytes(131072) + b"\5" * (SIZE - 196608)
    qemu_img("check", path)


def test_a_child_made_here_on_a_base_made_by_qemu(tmp_path: Path) -> None:
    raw, base, child = tmp_path / "disk.img", tmp_path / "base.vmdk", tmp_path / "child.vmdk"
    raw.write_bytes(a_disk())
    qemu_img("convert", "-f", "raw", "-O", "vmdk", raw, base)
    make_image(child, ImageSpec(SIZE, format="vmdk"), base)
    _write(child, b"\3" * 100_000)
    assert read_there(child) == b"\3" * 100_000 + a_disk()[100_000:]
    assert complaints(child) == []


def test_a_child_made_by_qemu_on_a_base_made_here(tmp_path: Path) -> None:
    base, child = tmp_path / "base.vmdk", tmp_path / "child.vmdk"
    make_image(base, ImageSpec(SIZE, format="vmdk"))
    _write(base, a_disk())
    qemu_img("create", "-f", "vmdk", "-F", "vmdk", "-b", base, child)
    facts = read_layer(child).facts
    assert facts.differencing
    assert facts.parent_content_id == read_layer(base).facts.content_id
    assert read_here(child) == a_disk()


def test_a_base_that_changed_behind_its_child_is_told_by_both(tmp_path: Path) -> None:
    base, child = tmp_path / "base.vmdk", tmp_path / "child.vmdk"
    make_image(base, ImageSpec(SIZE, format="vmdk"))
    qemu_img("create", "-f", "vmdk", "-F", "vmdk", "-b", base, child)
    _write(base, b"\1" * 512)
    with pytest.raises(drivebay.StorageError, match="changed behind"):
        drivebay.open(child)
    with pytest.raises(AssertionError):
        read_there(child)
