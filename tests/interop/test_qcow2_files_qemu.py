"""QCOW2 and QCOW files both ways with QEMU: what one tool writes, the other reads, byte by byte."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from support.disks import open_disk
from support.images import ImageSpec, findings, images_of, make_image, read_layer
from support.interpreter import read_layers

MIB = 1 << 20
SIZE = 6 * MIB
VARIANTS = [
    "compat=0.10",
    "compat=1.1",
    "cluster_size=512",
    "cluster_size=4k",
    "cluster_size=2M",
    "extended_l2=on",
    "extended_l2=on,cluster_size=16k",
    "refcount_bits=1",
    "refcount_bits=2",
    "refcount_bits=8",
    "refcount_bits=64,cluster_size=512",
    "preallocation=metadata",
]
each_variant = pytest.mark.parametrize("options", VARIANTS)


def run(*command: str | Path, folder: Path | None = None) -> str:
    words = list(map(str, command))
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def a_disk(path: Path, seed: int = 1) -> bytes:
    """A raw disk with noise, text, holes and a ragged end."""
    content = bytearray(SIZE)
    noise = random.Random(seed)
    for number in range(12):
        start = noise.randrange(SIZE - 100_000)
        data = noise.randbytes(noise.randrange(1, 70_000)) if number % 2 else b"text" * 15_000
        content[start : start + len(data)] = data
    content[-700:] = noise.randbytes(700)
    path.write_bytes(content)
    return bytes(content)


def scribble(paths: list[Path], content: bytearray, seed: int, count: int = 30) -> None:
    """Writes, zeros and discards through the engine, checked against ``content``."""
    noise = random.Random(seed)
    with open_disk(paths) as disk:
        for _ in range(count):
            start = noise.randrange(SIZE // 512) * 512
            length = min(noise.randrange(1, 300) * 512, SIZE - start)
            choice = noise.random()
            data = noise.randbytes(length) if choice < 0.7 else bytes(length)
            if choice < 0.7:
                disk.write(start, data)
            elif choice < 0.85:
                disk.zero(start, length)
            else:
                disk.discard(start, length)
            content[start : start + length] = data
        assert disk.read(0, SIZE) == content
        disk.flush()


def read_by_qemu(image: Path) -> bytes:
    raw = image.with_suffix(".read.raw")
    run("qemu-img", "convert", "-O", "raw", image, raw)
    return raw.read_bytes()


@each_variant
def test_what_qemu_writes_is_read_here(tmp_path: Path, options: str) -> None:
    content = a_disk(tmp_path / "in.raw")
    image = tmp_path / "theirs.qcow2"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", options, tmp_path / "in.raw", image)
    assert read_layers(images_of([image]), 0, SIZE) == content
    with open_disk([image], writable=False) as disk:
        assert disk.read(0, SIZE) == content
    assert findings(image) == []


@pytest.mark.parametrize(
    "options", ["compression_type=zlib", "compression_type=zstd", "cluster_size=512", "cluster_size=2M"]
)
def test_compressed_clusters_are_read_and_overwritten(tmp_path: Path, options: str) -> None:
    content = bytearray(a_disk(tmp_path / "in.raw"))
    image = tmp_path / "theirs.qcow2"
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, tmp_path / "in.raw", image)
    assert read_layers(images_of([image]), 0, SIZE) == content
    assert findings(image) == []
    scribble([image], content, 5)
    assert read_by_qemu(image) == content
    run("qemu-img", "check", image)


@each_variant
def test_what_we_write_is_read_by_qemu(tmp_path: Path, options: str) -> None:
    image = tmp_path / "image.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, str(SIZE))
    content = bytearray(SIZE)
    for seed in range(2):
        scribble([image], content, seed)
        assert read_by_qemu(image) == content
        run("qemu-img", "check", image)
    run("qemu-io", "-c", "write -P 9 1M 200k", image)
    content[MIB : MIB + (200 << 10)] = b"\x09" * (200 << 10)
    with open_disk([image], writable=False) as disk:
        assert disk.read(0, SIZE) == content
    assert findings(image) == []


@pytest.mark.parametrize(
    "spec",
    [
        ImageSpec(SIZE, format="qcow2"),
        ImageSpec(SIZE, format="qcow2", variant="v2"),
        ImageSpec(SIZE, 512, format="qcow2", options=(("refcount_bits", 1),)),
        ImageSpec(SIZE, 2 * MIB, format="qcow2"),
        ImageSpec(SIZE, format="qcow2", options=(("extended_l2", True),)),
        ImageSpec(SIZE, format="qcow2", options=(("lazy_refcounts", True),)),
    ],
    ids=str,
)
def test_what_we_create_is_written_by_qemu(tmp_path: Path, spec: ImageSpec) -> None:
    image = tmp_path / "ours.qcow2"
    make_image(image, spec)
    run("qemu-img", "check", image)
    content = a_disk(tmp_path / "in.raw")
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", tmp_path / "in.raw", image)
    with open_disk([image], writable=False) as disk:
        assert disk.read(0, SIZE) == content
    assert findings(image) == []


@pytest.mark.parametrize("raw", [False, True])
def test_an_external_data_file(tmp_path: Path, raw: bool) -> None:
    image = tmp_path / "ours.qcow2"
    make_image(image, ImageSpec(SIZE, format="qcow2", options=(("data_file", "d"), ("data_file_raw", raw))))
    content = a_disk(tmp_path / "in.raw")
    run("qemu-img", "check", image, folder=tmp_path)  # it takes names for those in its own folder
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", tmp_path / "in.raw", image, folder=tmp_path)
    assert read_layers(images_of([image]), 0, SIZE) == content
    assert findings(image) == []


def test_internal_snapshots_stay_as_they_are(tmp_path: Path) -> None:
    image = tmp_path / "image.qcow2"
    content = bytearray(a_disk(tmp_path / "in.raw"))
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", tmp_path / "in.raw", image)
    kept: dict[str, bytes] = {}
    for number in range(3):
        run("qemu-img", "snapshot", "-c", f"s{number}", image)
        kept[f"s{number}"] = bytes(content)
        scribble([image], content, number, 12)
        run("qemu-img", "check", image)
    assert [part.name for part in read_layer(image).facts.parts] == list(kept)
    for name, wanted in kept.items():
        assert read_layers([(read_layer(image, name), image.read_bytes())], 0, SIZE) == wanted
    assert read_by_qemu(image) == content
    run("qemu-img", "snapshot", "-d", "s1", image)
    run("qemu-img", "snapshot", "-a", "s2", image)
    content[:] = kept["s2"]
    scribble([image], content, 9)
    assert read_by_qemu(image) == content
    run("qemu-img", "check", image)


@pytest.mark.parametrize("options", ["compat=0.10", "extended_l2=on", "cluster_size=4k"])
def test_a_child_of_each_kind(tmp_path: Path, options: str) -> None:
    base, child = tmp_path / "base.qcow2", tmp_path / "child.qcow2"
    content = bytearray(a_disk(tmp_path / "in.raw"))
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", tmp_path / "in.raw", base)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base.name, "-F", "qcow2", "-o", options, child)
    before = base.read_bytes()
    scribble([child, base], content, 3)
    assert read_by_qemu(child) == content
    assert base.read_bytes() == before
    run("qemu-img", "check", child)


def test_our_child_is_read_by_qemu(tmp_path: Path) -> None:
    base, child = tmp_path / "base.qcow2", tmp_path / "child.qcow2"
    content = bytearray(a_disk(tmp_path / "in.raw"))
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", tmp_path / "in.raw", base)
    make_image(child, ImageSpec(SIZE, format="qcow2"), base)
    assert read_by_qemu(child) == content
    scribble([child, base], content, 4)
    assert read_by_qemu(child) == content


def test_bitmaps_go_stale_when_we_write(tmp_path: Path) -> None:
    image = tmp_path / "image.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, str(SIZE))
    run("qemu-img", "bitmap", "--add", image, "changes")
    assert read_layer(image).facts.details["state of the bitmaps"] == "consistent"
    assert findings(image) == []
    content = bytearray(SIZE)
    scribble([image], content, 1, 3)
    assert read_layer(image).facts.details["state of the bitmaps"] == "stale"
    assert read_by_qemu(image) == content


def test_qcow_is_read(tmp_path: Path) -> None:
    content = bytearray(a_disk(tmp_path / "in.raw"))
    base, child = tmp_path / "base.qcow", tmp_path / "child.qcow"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow", tmp_path / "in.raw", base)
    run("qemu-img", "create", "-q", "-f", "qcow", "-b", base.name, "-F", "qcow", child)
    run("qemu-io", "-c", "write -P 7 100k 300k", child)
    assert read_layers(images_of([base]), 0, SIZE) == content
    content[100 << 10 : 400 << 10] = b"\x07" * (300 << 10)
    assert read_layers(images_of([child, base]), 0, SIZE) == content
    with open_disk([child, base], writable=False) as disk:
        assert disk.read(0, SIZE) == content
