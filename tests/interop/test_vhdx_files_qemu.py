"""VHDX files both ways with QEMU: what one writes, the other reads, and either replays our log."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import pytest

from drivebay.blockmap import LogPlace
from drivebay.engine.change import Change
from drivebay.engine.disk import Disk
from drivebay.engine.vhdx_log import VhdxLog
from drivebay.model import Severity
from support.disks import KIB, MIB, ImageSpec, findings, make_image, open_disk, read_layer
from support.vhdx_crash import LoggedFile
from support.vhdx_images import BAT, DATA, LOG, PRESENT
from support.vhdx_images import make_image as image_from_scratch

SIZE = 9 * MIB + 512
DYNAMIC = ImageSpec(SIZE, MIB, "dynamic", "vhdx")
DEFAULT = ImageSpec(SIZE, format="vhdx")
FIXED = ImageSpec(SIZE, 2 * MIB, "fixed", "vhdx")
BIG_LOG = ImageSpec(SIZE, MIB, format="vhdx", options=(("log_size", 4 * MIB),))
OURS = [DYNAMIC, DEFAULT, FIXED, BIG_LOG]
THEIRS = [
    "subformat=dynamic,block_size=1M",
    "subformat=dynamic",
    "subformat=dynamic,block_size=2M,block_state_zero=off",
    "subformat=fixed,block_size=1M",
    "subformat=dynamic,block_size=1M,log_size=3M",
]


def qemu(tool: str, *arguments: str | Path) -> str:
    command = [tool, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def raw_of(path: Path) -> bytes:
    out = path.with_suffix(".out")
    qemu("qemu-img", "convert", "-f", "vhdx", "-O", "raw", path, out)
    return out.read_bytes()


def content_of(disk: Disk) -> bytes:
    return bytes(disk.read(0, disk.size))


def faults(path: Path) -> list[str]:
    return [found.code for found in findings(path) if found.severity is not Severity.NOTE]


def write_everywhere(disk: Disk, seed: int) -> bytearray:
    """Writes, zeros and discards in and across blocks, in no order."""
    content = bytearray(content_of(disk))
    noise = random.Random(seed)
    for _ in range(40):
        length = noise.choice((512, 4 * KIB, 300 * KIB, 2 * MIB))
        start = noise.randrange(0, disk.size - length)
        data = noise.randbytes(length) if noise.random() < 0.7 else bytes(length)
        if any(data):
            disk.write(start, data)
        else:
            disk.zero(start, length)
        content[start : start + length] = data
        if noise.random() < 0.3:
            disk.flush()
    return content


@pytest.mark.parametrize("spec", OURS)
def test_qemu_reads_what_we_write(spec: ImageSpec, tmp_path: Path) -> None:
    path = tmp_path / "ours.vhdx"
    make_image(path, spec)
    with open_disk([path]) as disk:
        content = write_everywhere(disk, seed=1)
    assert "No errors" in qemu("qemu-img", "check", "-f", "vhdx", path)
    assert raw_of(path) == content
    assert faults(path) == []


@pytest.mark.parametrize("options", THEIRS)
def test_we_read_and_write_what_qemu_makes(options: str, tmp_path: Path) -> None:
    raw, path = tmp_path / "disk.raw", tmp_path / "theirs.vhdx"
    before = bytearray(SIZE)
    before[MIB : 2 * MIB] = random.Random(2).randbytes(MIB)
    before[-700:] = b"e" * 700
    raw.write_bytes(before)
    qemu("qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", options, raw, path)
    assert faults(path) == []
    with open_disk([path]) as disk:
        assert content_of(disk) == before
        content = write_everywhere(disk, seed=3)
    assert raw_of(path) == content
    assert faults(path) == []


def test_we_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "both.vhdx"
    make_image(path, DYNAMIC)
    with open_disk([path]) as disk:
        content = write_everywhere(disk, seed=4)
    qemu("qemu-io", "-f", "vhdx", "-c", "write -P 0x5a 7M 64k", "-c", "write -P 0x5b 3145000 2000", path)
    content[7 * MIB : 7 * MIB + 64 * KIB] = b"\x5a" * (64 * KIB)
    content[3145000:3147000] = b"\x5b" * 2000
    with open_disk([path]) as disk:
        assert content_of(disk) == content
        disk.write(7 * MIB + 10, b"again")
    content[7 * MIB + 10 : 7 * MIB + 15] = b"again"
    assert raw_of(path) == content


def test_qemu_does_not_read_sectors_of_4096_bytes(tmp_path: Path) -> None:
    """It says so, which is all that it can do; see the format's chapter."""
    path = tmp_path / "large.vhdx"
    make_image(path, ImageSpec(9 * MIB, MIB, format="vhdx", options=(("logical_sector_size", 4096),)))
    with pytest.raises(subprocess.CalledProcessError) as caught:
        qemu("qemu-img", "info", path)
    assert "not supported" in caught.value.stderr


def test_a_child_reads_through_to_its_parent(tmp_path: Path) -> None:
    """QEMU knows no differencing images; ours on a parent that QEMU wrote."""
    base, child = tmp_path / "base.vhdx", tmp_path / "child.vhdx"
    qemu("qemu-img", "create", "-f", "vhdx", "-o", "block_size=1M", base, str(SIZE))
    qemu("qemu-io", "-f", "vhdx", "-c", "write -P 0x77 1M 3M", base)
    make_image(child, ImageSpec(SIZE, 2 * MIB, format="vhdx"), base)
    assert read_layer(child).facts.parent_modification_uuid == read_layer(base).facts.modification_uuid
    with open_disk([child, base]) as disk:
        assert content_of(disk) == raw_of(base)
        content = write_everywhere(disk, seed=5)
    with open_disk([child, base], writable=False) as disk:
        assert content_of(disk) == content
    assert faults(child) == []


def interrupted(*, in_place: bool) -> LoggedFile:
    """A session of the journal without an end: two blocks are published, in place or only in the log."""
    file = LoggedFile(image_from_scratch(units=2))
    log = VhdxLog(file, LogPlace(LOG, MIB, (64 * KIB, 128 * KIB)))
    log.arm()
    entries = [(3, DATA), (1, DATA + MIB)]
    log.publish([[Change(0, BAT + 8 * n, struct.pack("<Q", place | PRESENT)) for n, place in entries]])
    if not in_place:
        file.data[BAT : BAT + 4096] = bytes(4096)
    return file


@pytest.mark.parametrize("in_place", [True, False])
def test_qemu_replays_our_log(in_place: bool, tmp_path: Path) -> None:
    path = tmp_path / "dirty.vhdx"
    path.write_bytes(interrupted(in_place=in_place).data)
    qemu("qemu-img", "check", "-f", "vhdx", "-r", "all", path)
    assert raw_of(path) == bytes(MIB) + b"\x02" * MIB + bytes(MIB) + b"\x01" * MIB
    assert faults(path) == []


def test_qemu_recovers_from_power_cuts(tmp_path: Path) -> None:
    """A sample of the states that a session may leave: QEMU's replay makes one of the published tables."""
    file = interrupted(in_place=True)
    before, after = bytes(4 * MIB), bytes(MIB) + b"\x02" * MIB + bytes(MIB) + b"\x01" * MIB
    seen = set()
    for number, state in enumerate(file.crash_states(torn=2)):
        path = tmp_path / f"{number}.vhdx"
        path.write_bytes(state.data)
        subprocess.run(["qemu-img", "check", "-q", "-r", "all", path], check=True, timeout=60)
        content = raw_of(path)
        assert content in (before, after), f"event {state.cut}"
        seen.add(content == after)
        for made in (path, path.with_suffix(".out")):
            made.unlink()
    assert seen == {True, False}
