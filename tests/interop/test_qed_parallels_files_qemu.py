"""QED and Parallels files both ways with QEMU: what one writes, the other reads, byte by byte."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from drivebay.engine.disk import Disk
from drivebay.formats import format_named
from drivebay.model import Severity
from support.disks import KIB, MIB, ImageSpec, findings, make_image, open_disk

SIZE = 9 * MIB + 512
LEAKS = 3  # what qemu-img check returns for space that nothing uses: zeros leave it behind

QED = ImageSpec(SIZE, format="qed")
QED_SMALL = ImageSpec(
    SIZE, 4 * KIB, format="qed", options=(("table_size", 2),)
)  # QEMU itself cannot open tables of 1
QED_LARGE = ImageSpec(SIZE, 1 * MIB, format="qed", options=(("table_size", 16),))
PARALLELS = ImageSpec(SIZE, format="parallels")
PARALLELS_SMALL = ImageSpec(SIZE, 64 * KIB, format="parallels")
PARALLELS_ODD = ImageSpec(SIZE, 252 * KIB, format="parallels")
OLD = ImageSpec(SIZE, 64 * KIB, format="parallels", options=(("version", 1),))
OLD_ODD = ImageSpec(SIZE, 63 * 512, format="parallels", options=(("version", 1),))
OURS = [QED, QED_SMALL, QED_LARGE, PARALLELS, PARALLELS_SMALL, PARALLELS_ODD, OLD, OLD_ODD]
THEIRS = [
    (QED, ()),
    (QED_SMALL, ("cluster_size=4096", "table_size=2")),
    (QED_LARGE, ("cluster_size=1M", "table_size=16")),
    (PARALLELS, ()),
    (PARALLELS_SMALL, ("cluster_size=64k",)),
]


def qemu_img(*arguments: str | Path) -> str:
    command = ["qemu-img", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def raw_of(path: Path, kind: str) -> bytes:
    out = path.with_suffix(".out")
    qemu_img("convert", "-f", kind, "-O", "raw", path, out)
    return out.read_bytes()


def content_of(disk: Disk) -> bytes:
    return bytes(disk.read(0, disk.size))


def a_disk(path: Path, size: int = SIZE) -> bytes:
    """A raw disk with data, holes and a ragged end."""
    content = bytearray(size)
    noise = random.Random(size)
    for start, length in ((1000, 3000), (2 * MIB - 100, 200), (4 * MIB, 300 * KIB), (size - 700, 700)):
        content[start : start + length] = noise.randbytes(length)
    path.write_bytes(content)
    return bytes(content)


def scribble(disk: Disk, content: bytearray, seed: int = 7) -> None:
    """Writes, zeros and discards of odd ranges, with flushes between them."""
    noise = random.Random(seed)
    for number in range(60):
        start = noise.randrange(0, disk.size - 512) // 512 * 512
        length = min(noise.choice((512, 4096, 70 * KIB, 600 * KIB)), disk.size - start)
        if noise.random() < 0.7:
            data = noise.randbytes(length)
            disk.write(start, data)
        else:
            data = bytes(length)
            disk.zero(start, length)
        content[start : start + length] = data
        if number % 20 == 19:
            disk.flush()


def require_sound(path: Path, kind: str) -> None:
    assert [found for found in findings(path) if found.severity is not Severity.NOTE] == []
    checked = subprocess.run(["qemu-img", "check", "-f", kind, path], capture_output=True, timeout=60)
    assert checked.returncode in (0, LEAKS), checked


def place(folder: Path, spec: ImageSpec, name: str = "image") -> Path:
    return folder / f"{name}.{format_named(spec.format).extensions[0]}"


@pytest.mark.parametrize("spec", OURS, ids=repr)
def test_qemu_reads_what_is_written_here(tmp_path: Path, spec: ImageSpec) -> None:
    image = place(tmp_path, spec)
    make_image(image, spec)
    content = bytearray(SIZE)
    for seed in (1, 2):
        with open_disk([image]) as disk:
            scribble(disk, content, seed)
            assert content_of(disk) == content
        require_sound(image, spec.format)
    assert raw_of(image, spec.format) == content


@pytest.mark.parametrize("spec", OURS, ids=repr)
def test_what_qemu_writes_into_our_image_is_read_here(tmp_path: Path, spec: ImageSpec) -> None:
    content = a_disk(tmp_path / "in.raw")
    image = place(tmp_path, spec)
    make_image(image, spec)
    qemu_img("convert", "-n", "-f", "raw", "-O", spec.format, tmp_path / "in.raw", image)
    require_sound(image, spec.format)
    with open_disk([image], writable=False) as disk:
        assert content_of(disk) == content


@pytest.mark.parametrize(("spec", "options"), THEIRS, ids=repr)
def test_what_qemu_makes_is_read_and_written_here(
    tmp_path: Path, spec: ImageSpec, options: tuple[str, ...]
) -> None:
    content = bytearray(a_disk(tmp_path / "in.raw"))
    image = place(tmp_path, spec)
    asked = ["-o", ",".join(options)] if options else []
    qemu_img("convert", "-f", "raw", "-O", spec.format, *asked, tmp_path / "in.raw", image)
    require_sound(image, spec.format)
    with open_disk([image]) as disk:
        assert content_of(disk) == content
        scribble(disk, content)
    require_sound(image, spec.format)
    assert raw_of(image, spec.format) == content


@pytest.mark.parametrize("spec", [QED, QED_SMALL], ids=repr)
def test_a_qed_child_of_either_side(tmp_path: Path, spec: ImageSpec) -> None:
    content = bytearray(a_disk(tmp_path / "base.raw"))
    ours, theirs = place(tmp_path, spec, "ours"), place(tmp_path, spec, "theirs")
    make_image(ours, spec, tmp_path / "base.raw")
    qemu_img("create", "-f", "qed", "-b", "base.raw", "-F", "raw", theirs, str(SIZE))
    for image in (ours, theirs):
        expected = bytearray(content)
        with open_disk([image, tmp_path / "base.raw"]) as disk:
            assert disk.read(0, SIZE) == content
            scribble(disk, expected)
        require_sound(image, "qed")
        assert raw_of(image, "qed") == expected
    assert (tmp_path / "base.raw").read_bytes() == content
