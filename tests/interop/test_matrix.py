"""Every kind of image, both ways, with every other program at hand: byte by byte.

The results become a table at the end of the run (tests/conftest.py); docs/formats/interop.md has it.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import drivebay
from drivebay.model import Severity
from support.disks import open_disk
from support.images import findings, make_image
from support.interop import LIMITS, THEIRS, Theirs, limit_of
from support.readers import BUNDLE_READERS, DRIVERS, READERS, Read, qemu_img
from support.variants import Kind, child_kinds, writable_kinds

# Some of the libraries leave files open, and Python says so in whatever test runs when it notices.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

MIB = 1 << 20
SIZE = 6 * MIB
CHECKED = ("vdi", "vmdk", "vhdx", "qcow2", "qed", "parallels")  # what `qemu-img check` knows
Record = Callable[[str, object], None]


def a_disk(size: int = SIZE) -> bytes:
    """Noise in pieces of many sizes at odd places, with holes between."""
    noise = random.Random(size)
    content = bytearray(size)
    for start in (0, 100_001, 700_000, 3 * MIB - 700, 4 * MIB + 4096, size - 3000):
        length = min(noise.choice((700, 4096, 70_001)), size - start)
        content[start : start + length] = noise.randbytes(length)
    return bytes(content)


def our_image(
    folder: Path, kind: Kind, parent: Path | None = None, content: bytes = b""
) -> tuple[Path, bytes]:
    """An image that we made, with pieces written from the last to the first; what the disk contains."""
    path = folder / f"{'child' if parent else 'image'}.{kind.spec(SIZE).extension}"
    make_image(path, kind.spec(SIZE), parent)
    with open_disk([path, parent] if parent else [path]) as disk:
        whole = bytearray(content.ljust(disk.size, b"\0"))
        new = a_disk()
        pieces = [(0, 700), (100_001, 4096), (2 * MIB - 300, 600), (5 * MIB + 512, 70_000), (SIZE - 512, 512)]
        for start, length in reversed(pieces):
            piece = new[start : start + length] if parent is None else bytes([7]) * length
            disk.write(start, piece)
            whole[start : start + length] = piece
    return path, bytes(whole)


def readers_of(kind: Kind) -> dict[str, Read]:
    return BUNDLE_READERS if kind.variant == "bundle" else READERS.get(kind.format, {})


WE_WRITE = [(kind, tool) for kind in writable_kinds() for tool in readers_of(kind)]


@pytest.mark.parametrize(("kind", "tool"), WE_WRITE, ids=[f"{kind}-{tool}" for kind, tool in WE_WRITE])
def test_they_read_what_we_write(kind: Kind, tool: str, tmp_path: Path, record_property: Record) -> None:
    path, content = our_image(tmp_path, kind)
    limit = limit_of(tool, str(kind))
    if limit is None:
        assert readers_of(kind)[tool](path) == content
        if tool == "qemu-img" and kind.format in CHECKED:
            qemu_img("check", "-f", DRIVERS[kind.format], path, folder=tmp_path)
    record_property("interop", (str(kind), "written here", tool, limit or "equal"))


CHILDREN = [
    kind for kind in child_kinds() if kind.format in ("qcow2", "qed", "vmdk") and kind in writable_kinds()
]


@pytest.mark.parametrize("kind", CHILDREN, ids=str)
def test_qemu_reads_our_children(kind: Kind, tmp_path: Path, record_property: Record) -> None:
    base, content = our_image(tmp_path, kind)
    child, content = our_image(tmp_path, kind, base, content)
    limit = limit_of("qemu-img", str(kind)) or limit_of("qemu-img child", str(kind))
    if limit is None:
        assert READERS[kind.format]["qemu-img"](child) == content
    record_property("interop", (f"{kind} (child)", "written here", "qemu-img", limit or "equal"))


@pytest.mark.parametrize("kind", [kind for kind in writable_kinds() if kind.format in DRIVERS], ids=str)
def test_qemu_writes_into_our_images(kind: Kind, tmp_path: Path, record_property: Record) -> None:
    path, _ = our_image(tmp_path, kind)
    limit = limit_of("qemu-img", str(kind)) or limit_of("qemu-img writes", str(kind))
    if limit is None:
        with drivebay.open(path, format=kind.format) as disk:
            content = a_disk(disk.size)
        (tmp_path / "in.raw").write_bytes(content)
        driver = DRIVERS[kind.format]
        qemu_img("convert", "-n", "-f", "raw", "-O", driver, tmp_path / "in.raw", path, folder=tmp_path)
        with drivebay.open(path, format=kind.format) as disk:
            assert disk.read(0, disk.size) == content
        assert [found for found in findings(path) if found.severity is Severity.ERROR] == []
    record_property("interop", (str(kind), "made here, written there", "qemu-img", limit or "equal"))


@pytest.mark.parametrize("theirs", THEIRS, ids=str)
def test_we_read_what_qemu_writes(theirs: Theirs, tmp_path: Path, record_property: Record) -> None:
    content = a_disk(theirs.size)
    (tmp_path / "in.raw").write_bytes(content)
    path = tmp_path / f"theirs.{theirs.extension}"
    arguments = ["-o", theirs.options.format(folder=tmp_path)] if theirs.options else []
    arguments += ["-c"] if theirs.compressed else []
    qemu_img("convert", "-f", "raw", "-O", DRIVERS[theirs.format], *arguments, tmp_path / "in.raw", path)
    with drivebay.open(path, search=tmp_path, format=theirs.format) as disk:
        assert disk.read(0, theirs.size) == content
        assert drivebay.checksum(disk)
    assert [found for found in findings(path) if found.severity is Severity.ERROR] == []
    record_property("interop", (str(theirs), "written there", "qemu-img", "equal"))


@pytest.mark.parametrize("name", ["qcow2", "qed", "vmdk", "qcow"])
def test_we_read_qemu_s_children(name: str, tmp_path: Path, record_property: Record) -> None:
    content = bytearray(a_disk())
    (tmp_path / "in.raw").write_bytes(content)
    base, child = tmp_path / f"base.{name}", tmp_path / f"child.{name}"
    qemu_img("convert", "-f", "raw", "-O", name, tmp_path / "in.raw", base)
    qemu_img("create", "-f", name, "-b", base.name, "-F", name, child)
    for start, length in ((64 << 10, 100), (3 * MIB, 70_000)):
        content[start : start + length] = b"\x05" * length
    qemu_io(child, name, "write -P 5 65536 100", "write -P 5 3M 70000")
    with drivebay.open(child) as disk:
        assert disk.read(0, disk.size) == content
    record_property("interop", (f"{name} (child)", "written there", "qemu-img", "equal"))


def qemu_io(path: Path, name: str, *commands: str) -> None:
    arguments = [part for command in commands for part in ("-c", command)]
    done = subprocess.run(
        ["qemu-io", "-f", name, *arguments, path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_limit_is_used() -> None:
    known = {str(kind) for kind in writable_kinds()}
    for (_, kind), reason in LIMITS.items():
        assert any(name.startswith(kind) for name in known), f"{kind}: {reason}"
