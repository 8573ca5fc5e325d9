"""Our NBD server with the tools that people use: nbdinfo, nbdcopy, qemu-img and qemu-io."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivebay.chain import create_image, open_chain
from drivebay.engine.disk import Disk
from support.nbd_server import serving

MIB = 1 << 20
SIZE = 24 * MIB
BASE = 0x55
CHILD = 0xAA


def tool(*command: str | Path, code: int = 0) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def opened(path: Path, *, writable: bool) -> Disk:
    return Disk(open_chain(path, writable=writable).layers, writable=writable)


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A child on a base. MiB 0-3 hold the base's data, MiB 2-5 the child's, MiB 8 a child's zero."""
    base, child = tmp_path / "base.vdi", tmp_path / "child.vdi"
    create_image(base, size=SIZE)
    with opened(base, writable=True) as disk:
        disk.write(0, bytes([BASE]) * (4 * MIB))
        disk.write(8 * MIB, bytes([BASE]) * MIB)
    create_image(child, parent=base)
    with opened(child, writable=True) as disk:
        disk.write(2 * MIB, bytes([CHILD]) * (4 * MIB))
        disk.zero(8 * MIB, MIB)
    return child


EXPECTED = bytes([BASE]) * (2 * MIB) + bytes([CHILD]) * (4 * MIB) + bytes(SIZE - 6 * MIB)


@pytest.fixture
def served(chain: Path) -> Iterator[tuple[str, Disk]]:
    """The chain on offer: its URL and the disk."""
    with opened(chain, writable=True) as disk, serving(disk) as (path, _):
        yield f"nbd+unix:///disk0?socket={path}", disk


@pytest.fixture
def url(served: tuple[str, Disk]) -> str:
    return served[0]


def test_nbdinfo_shows_the_export(url: str) -> None:
    facts: dict[str, Any] = json.loads(tool("nbdinfo", "--json", url))
    assert facts["protocol"] == "newstyle-fixed"
    assert facts["structured"] is True
    export = facts["exports"][0]
    assert export["contexts"] == ["base:allocation", "qemu:allocation-depth"]
    assert export["export-size"] == SIZE
    assert export["description"] == "number 0"
    assert (export["block_size_minimum"], export["block_size_preferred"]) == (1, 65536)
    assert export["block_size_maximum"] == 32 * MIB
    for ability in ("fua", "flush", "trim", "zero", "fast_zero", "df", "cache", "multi_conn"):
        assert export[f"can_{ability}"] is True
    assert export["is_read_only"] is False


def test_nbdinfo_lists_all_exports(chain: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.vdi"
    create_image(other, size=MIB)
    with (
        opened(chain, writable=False) as one,
        opened(other, writable=True) as two,
        serving(one, two) as (path, _),
    ):
        facts = json.loads(tool("nbdinfo", "--json", "--list", f"nbd+unix:///?socket={path}"))
        assert [each["export-name"] for each in facts["exports"]] == ["disk0", "disk1"]
        assert [each["is_read_only"] for each in facts["exports"]] == [True, False]


def runs(url: str, *options: str) -> list[tuple[int, int, int]]:
    """What ``nbdinfo --map`` shows, in MiB, neighbours merged."""
    found: list[tuple[int, int, int]] = []
    for each in json.loads(tool("nbdinfo", "--json", *options, url)):
        start, length, kind = each["offset"] // MIB, each["length"] // MIB, each["type"]
        if found and found[-1][2] == kind:
            start, length = found[-1][0], found.pop()[1] + length
        found.append((start, length, kind))
    return found


def test_nbdinfo_maps_both_contexts(url: str) -> None:
    assert runs(url, "--map") == [(0, 6, 0), (6, 18, 3)]
    assert runs(url, "--map=qemu:allocation-depth") == [
        (0, 2, 2),
        (2, 4, 1),
        (6, 2, 0),
        (8, 1, 1),
        (9, 15, 0),
    ]


def test_qemu_img_map_and_compare(url: str, tmp_path: Path) -> None:
    mapped = json.loads(tool("qemu-img", "map", "--output=json", url))
    data = [(each["start"] // MIB, each["length"] // MIB) for each in mapped if each["data"]]
    assert data == [(0, 6)]
    same = tmp_path / "same.raw"
    same.write_bytes(EXPECTED)
    assert "identical" in tool("qemu-img", "compare", "-F", "raw", "-f", "raw", url, same)
    same.write_bytes(EXPECTED[:-1] + b"x")
    tool("qemu-img", "compare", "-F", "raw", "-f", "raw", url, same, code=1)


@pytest.mark.parametrize(
    "command", [("nbdcopy",), ("nbdcopy", "--synchronous"), ("qemu-img", "convert", "-O", "raw")]
)
def test_copies_out_are_equal(url: str, tmp_path: Path, command: tuple[str, ...]) -> None:
    copy = tmp_path / "copy.raw"
    tool(*command, url, copy)
    assert copy.read_bytes() == EXPECTED


@pytest.mark.parametrize(
    "command",
    [
        ("nbdcopy", "--flush"),
        ("nbdcopy", "--synchronous", "--destination-is-zero"),
        ("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw"),
    ],
)
def test_copies_in_are_equal_after_opening_again(tmp_path: Path, command: tuple[str, ...]) -> None:
    image, source = tmp_path / "new.vdi", tmp_path / "source.raw"
    rng = random.Random(3)
    content = bytearray(SIZE)
    for start in (0, 5 * MIB + 512, 17 * MIB + 4096):
        content[start : start + 2 * MIB + 77] = rng.randbytes(2 * MIB + 77)
    source.write_bytes(content)
    create_image(image, size=SIZE)
    with opened(image, writable=True) as disk, serving(disk) as (path, _):
        tool(*command, source, f"nbd+unix:///disk0?socket={path}")
    with opened(image, writable=False) as disk:
        assert disk.read(0, SIZE) == content
    tool("qemu-img", "compare", "-f", "vdi", "-F", "raw", image, source)


def test_nbdcopy_from_server_to_server(url: str, tmp_path: Path) -> None:
    image = tmp_path / "target.vdi"
    create_image(image, size=SIZE)
    with opened(image, writable=True) as disk:
        with serving(disk) as (path, _):
            tool("nbdcopy", "--requests=32", "--connections=4", url, f"nbd+unix:///disk0?socket={path}")
        assert disk.read(0, SIZE) == EXPECTED


def qemu_io(url: str, *commands: str, code: int = 0) -> str:
    arguments = [part for command in commands for part in ("-c", command)]
    return tool("qemu-io", "-f", "raw", *arguments, url, code=code)


def test_qemu_io_writes_zeroes_and_discards(served: tuple[str, Disk]) -> None:
    url, disk = served
    qemu_io(
        url,
        "write -P 0x11 0 64k",
        "write -P 0x22 1000k 100k",
        "write -f -P 0x33 3333333 12345",
        "write -z 1M 64k",
        "write -z -u 2M 1M",
        "write -z -n 6M 1M",
        "discard 4M 1M",
        "flush",
        "read -P 0x11 0 64k",
        "read -P 0x22 1000k 24k",
        "read -P 0 1M 64k",
        "read -P 0x22 1088k 12k",
        "read -P 0 2M 1M",
        "read -P 0x33 3333333 12345",
        "read -P 0 4M 1M",
        "aio_read 0 1M",
        "aio_write -P 0x44 10M 3M",
        "aio_flush",
        "read -P 0x44 10M 3M",
    )
    assert disk.read(10 * MIB, MIB) == b"\x44" * MIB
    assert disk.read(2 * MIB, MIB) == bytes(MIB)
    assert disk.stats.flushes > 0


def test_qemu_io_on_a_read_only_export(chain: Path) -> None:
    with opened(chain, writable=False) as disk, serving(disk) as (path, _):
        url = f"nbd+unix:///disk0?socket={path}"
        tool("qemu-io", "-r", "-f", "raw", "-c", "read -P 0x55 0 1M", url)
        refused = subprocess.run(
            ["qemu-io", "-f", "raw", "-c", "write 0 1k", url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Permission denied" in refused.stderr


def test_an_unknown_export_is_refused_by_name(served: tuple[str, Disk]) -> None:
    refused = subprocess.run(
        ["nbdinfo", served[0].replace("disk0", "other")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode != 0
    assert "other" in refused.stderr
