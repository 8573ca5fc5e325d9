"""VHD files both ways with QEMU: it reads and writes ours, and its own open here with equal content."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from drivebay.blockmap import CreateRequest, Layer
from drivebay.formats import probe, vhd
from drivebay.formats.vhd.create import VhdOptions
from drivebay.formats.vhd.sizes import SizeRule
from drivebay.model import Severity
from support.disks import open_disk
from support.interpreter import read_layers
from support.memory_files import MemoryFiles, file_made_by

MIB = 1 << 20
SIZES = [4 * MIB, 5 * MIB + 512, 300 * MIB]


def qemu_img(*arguments: str | Path) -> str:
    command = ["qemu-img", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def seen_by_qemu(path: Path) -> dict[str, Any]:
    # Named, because QEMU takes a fixed VHD for a raw disk.
    result: dict[str, Any] = json.loads(qemu_img("info", "-f", "vpc", "--output=json", path))
    return result


def as_raw(path: Path) -> bytes:
    raw = path.with_suffix(".out")
    qemu_img("convert", "-f", "vpc", "-O", "raw", path, raw)
    return raw.read_bytes()


def opened(path: Path) -> tuple[Layer, bytes]:
    data = path.read_bytes()
    return probe(data[:4096], data[-512:], str(path)).open(MemoryFiles(data, str(path))), data


def faults(layer: Layer, data: bytes) -> list[str]:
    assert vhd.FORMAT.check is not None
    findings = vhd.FORMAT.check(MemoryFiles(data), layer)
    return [found.message for found in findings if found.severity is not Severity.NOTE]


def our_image(path: Path, size: int, variant: str, rule: SizeRule = SizeRule.EXACT) -> int:
    """Make an image; returns its disk's size."""
    assert vhd.FORMAT.create is not None
    wanted = CreateRequest(size, VhdOptions(variant, size_rule=rule), UUID(int=1 << 90), UUID(int=2 << 90))
    path.write_bytes(file_made_by(vhd.FORMAT.create(wanted)))
    return opened(path)[0].facts.size


def a_disk(path: Path, size: int) -> bytes:
    """A raw disk with data, a hole and a ragged end."""
    content = bytearray(size)
    noise = random.Random(size)
    for start, length in ((1000, 3000), (2 * MIB - 100, 200), (size - 700, 700)):
        content[start : start + length] = noise.randbytes(length)
    path.write_bytes(content)
    return bytes(content)


@pytest.mark.parametrize("size", SIZES[:2])
@pytest.mark.parametrize("rule", [SizeRule.EXACT, SizeRule.CHS])
@pytest.mark.parametrize("variant", ["dynamic", "fixed"])
def test_qemu_accepts_what_we_create(tmp_path: Path, variant: str, rule: SizeRule, size: int) -> None:
    image = tmp_path / "ours.vhd"
    made = our_image(image, size, variant, rule)
    seen = seen_by_qemu(image)
    assert (seen["format"], seen["virtual-size"]) == ("vpc", made)
    assert as_raw(image) == bytes(made)


@pytest.mark.parametrize("size", SIZES[:2])
@pytest.mark.parametrize("variant", ["dynamic", "fixed"])
def test_what_qemu_writes_into_our_image_is_read_here(tmp_path: Path, variant: str, size: int) -> None:
    image = tmp_path / "ours.vhd"
    our_image(image, size, variant)
    content = a_disk(tmp_path / "in.raw", size)
    qemu_img("convert", "-n", "-f", "raw", "-O", "vpc", tmp_path / "in.raw", image)
    layer, data = opened(image)
    assert read_layers([(layer, data)], 0, size) == content
    assert faults(layer, data) == []


@pytest.mark.parametrize("size", SIZES[:2])
@pytest.mark.parametrize("variant", ["dynamic", "fixed"])
def test_what_we_write_is_read_by_qemu(tmp_path: Path, variant: str, size: int) -> None:
    image = tmp_path / "ours.vhd"
    our_image(image, size, variant)
    content = a_disk(tmp_path / "in.raw", size)
    with open_disk([image]) as disk:
        for offset in range(0, size, 4096):
            piece = content[offset : offset + 4096]
            if any(piece):
                disk.write(offset, piece)
        disk.flush()
    assert as_raw(image) == content
    assert faults(*opened(image)) == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("force", ["on", "off"])
@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
def test_what_qemu_creates_opens_here_with_its_size(
    tmp_path: Path, subformat: str, force: str, size: int
) -> None:
    image = tmp_path / "theirs.vhd"
    options = f"subformat={subformat},force_size={force}"
    qemu_img("create", "-f", "vpc", "-o", options, image, str(size))
    layer, data = opened(image)
    assert layer.facts.variant == subformat
    assert layer.facts.size == seen_by_qemu(image)["virtual-size"]
    assert faults(layer, data) == []


@pytest.mark.parametrize("size", SIZES[:2])
@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
def test_what_qemu_converts_opens_here(tmp_path: Path, subformat: str, size: int) -> None:
    content = a_disk(tmp_path / "in.raw", size)
    image = tmp_path / "theirs.vhd"
    qemu_img("convert", "-O", "vpc", "-o", f"subformat={subformat}", tmp_path / "in.raw", image)
    layer, data = opened(image)
    read = read_layers([(layer, data)], 0, layer.facts.size)
    assert read[:size] == content
    assert not any(read[size:])
    assert faults(layer, data) == []


def test_a_shadow_of_the_chs_rule_is_qemu_s(tmp_path: Path) -> None:
    """Rounded up, both come to the same sizes."""
    for mib in (1, 7, 64, 129, 1000, 5000, 40000, 130000):
        image = tmp_path / f"{mib}.vhd"
        qemu_img("create", "-q", "-f", "vpc", image, f"{mib}M")
        assert vhd.FORMAT.create is not None
        wanted = CreateRequest(mib * MIB, VhdOptions(size_rule=SizeRule.CHS), UUID(int=1), UUID(int=2))
        ours = file_made_by(vhd.FORMAT.create(wanted))
        facts = vhd.FORMAT.open(MemoryFiles(ours)).facts
        assert facts.size == seen_by_qemu(image)["virtual-size"]
        assert facts.details["stored geometry"] == opened(image)[0].facts.details["stored geometry"]
