"""VDI files both ways with QEMU: ours are accepted by qemu-img, its own open here with equal content."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from drivebay.blockmap import CreateRequest, FormatOptions, Layer
from drivebay.formats import probe, vdi
from drivebay.model import Finding
from support.interpreter import read_layers
from support.memory_files import MemoryFiles, file_made_by

MIB = 1 << 20
SIZES = [4 * MIB, 5 * MIB + 512]


def qemu_img(*arguments: str | Path) -> str:
    command = ["qemu-img", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def info(path: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(qemu_img("info", "--output=json", path))
    return result


def opened(path: Path) -> tuple[Layer, bytes]:
    data = path.read_bytes()
    return probe(data[:4096], data[-512:], str(path)).open(MemoryFiles(data, str(path))), data


def findings(layer: Layer, data: bytes) -> list[Finding]:
    assert vdi.FORMAT.check is not None
    return list(vdi.FORMAT.check(MemoryFiles(data), layer))


def our_image(path: Path, size: int, variant: str) -> Path:
    assert vdi.FORMAT.create is not None
    wanted = CreateRequest(
        size, FormatOptions(variant), UUID(int=1 << 90), UUID(int=2 << 90), comment="interop"
    )
    path.write_bytes(file_made_by(vdi.FORMAT.create(wanted)))
    return path


def a_disk(path: Path, size: int) -> bytes:
    """A raw disk with data, a hole and a ragged end."""
    content = bytearray(size)
    noise = random.Random(size)
    for start, length in ((1000, 3000), (2 * MIB - 100, 200), (size - 700, 700)):
        content[start : start + length] = noise.randbytes(length)
    path.write_bytes(content)
    return bytes(content)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", ["dynamic", "fixed"])
def test_qemu_accepts_what_we_create(tmp_path: Path, variant: str, size: int) -> None:
    image = our_image(tmp_path / "ours.vdi", size, variant)
    seen = info(image)
    assert (seen["format"], seen["virtual-size"]) == ("vdi", size)
    assert "No errors" in qemu_img("check", image)
    qemu_img("convert", "-O", "raw", image, tmp_path / "out.raw")
    assert (tmp_path / "out.raw").read_bytes() == bytes(size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", ["dynamic", "fixed"])
def test_what_qemu_writes_into_our_image_is_read_here(tmp_path: Path, variant: str, size: int) -> None:
    content = a_disk(tmp_path / "in.raw", size)
    image = our_image(tmp_path / "ours.vdi", size, variant)
    qemu_img("convert", "-n", "-f", "raw", "-O", "vdi", tmp_path / "in.raw", image)
    layer, data = opened(image)
    assert read_layers([(layer, data)], 0, size) == content
    assert findings(layer, data) == []
    assert layer.facts.comment == "interop"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("static", ["on", "off"])
def test_what_qemu_converts_opens_here(tmp_path: Path, static: str, size: int) -> None:
    content = a_disk(tmp_path / "in.raw", size)
    image = tmp_path / "theirs.vdi"
    qemu_img("convert", "-O", "vdi", "-o", f"static={static}", tmp_path / "in.raw", image)
    layer, data = opened(image)
    assert layer.facts.variant == {"on": "fixed", "off": "dynamic"}[static]
    assert layer.facts.details["creator"] == "QEMU VM Virtual Disk Image"
    assert read_layers([(layer, data)], 0, size) == content
    assert findings(layer, data) == []


@pytest.mark.parametrize("static", ["on", "off"])
def test_what_qemu_creates_opens_here(tmp_path: Path, static: str) -> None:
    image = tmp_path / "theirs.vdi"
    qemu_img("create", "-f", "vdi", "-o", f"static={static}", image, "4M")
    layer, data = opened(image)
    assert (layer.facts.size, layer.facts.block_size) == (4 * MIB, MIB)
    assert read_layers([(layer, data)], 0, 4 * MIB) == bytes(4 * MIB)
    assert findings(layer, data) == []
