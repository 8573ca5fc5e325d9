"""The initramfs: what cpio itself reads from our archive, and its determinism."""

import stat
import subprocess
from pathlib import Path

from drivebay.qemu import cpio, initramfs
from drivebay.qemu.kernel import Module

FILES = [
    cpio.directory("etc"),
    cpio.regular("etc/odd", b"12345"),
    cpio.regular("run", b"#!/bin/sh\n", executable=True),
    cpio.symlink("link", "etc/odd"),
]


MEMBERS = ("modules/order", "modules/second.ko", "bin/busybox")


def extract(archive: bytes, folder: Path) -> None:
    subprocess.run(
        ["busybox", "cpio", "-i"], input=archive, cwd=folder, check=True, capture_output=True, timeout=60
    )


def test_cpio_reads_names_contents_modes_and_links(tmp_path: Path) -> None:
    extract(cpio.archive(FILES), tmp_path)
    assert (tmp_path / "etc/odd").read_bytes() == b"12345"
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "etc/odd").stat().st_mode) == 0o644
    assert (tmp_path / "link").readlink() == Path("etc/odd")


def test_the_header_is_the_one_of_the_kernel_documentation() -> None:
    archive = cpio.archive([cpio.regular("ab", b"xyz")])
    fields = [archive[6 + 8 * index : 14 + 8 * index] for index in range(13)]
    assert archive[:6] == b"070701"
    assert [int(field, 16) for field in fields] == [1, 0o100644, 0, 0, 1, 0, 3, 0, 0, 0, 0, 3, 0]
    assert archive[110:116] == b"ab\0\0\0\0"[:6]
    assert len(archive) % 4 == 0
    assert b"TRAILER!!!\0" in archive


def test_the_same_files_give_the_same_bytes() -> None:
    assert cpio.archive(FILES) == cpio.archive(FILES)


def test_the_guest_gets_its_modules_in_order_and_its_script(tmp_path: Path) -> None:
    modules = [Module("first", b"1"), Module("second", b"2")]
    drives = [
        initramfs.GuestDrive("disk0", "drivebay0"),
        initramfs.GuestDrive("slot/My NVMe:1:0", "VB 1", namespace=2),
        initramfs.GuestDrive("slot/Floppy:0:1", unit=1),
    ]
    archive = initramfs.build(b"BUSYBOX", modules, drives, "echo @@hello\n")
    # The device node needs privileges to extract: everything else is looked at.
    subprocess.run(
        ["busybox", "cpio", "-id", "init", "script", "drives", *MEMBERS],
        input=archive,
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert (tmp_path / "modules/order").read_text() == "first\nsecond\n"
    assert (tmp_path / "modules/second.ko").read_bytes() == b"2"
    assert (tmp_path / "drives").read_text().splitlines() == [
        "disk0\tserial\tdrivebay0",
        "slot/My NVMe:1:0\tnamespace2\tVB 1",
        "slot/Floppy:0:1\tfloppy\t1",
    ]
    assert (tmp_path / "script").read_text() == "echo @@hello\n"
    assert (tmp_path / "bin/busybox").read_bytes() == b"BUSYBOX"
    assert (tmp_path / "init").stat().st_mode & stat.S_IXUSR


def test_init_is_a_script_without_syntax_errors(tmp_path: Path) -> None:
    archive = initramfs.build(b"", [], [], "")
    subprocess.run(["busybox", "cpio", "-i", "init"], input=archive, cwd=tmp_path, check=True, timeout=60)
    subprocess.run(["busybox", "sh", "-n", tmp_path / "init"], check=True, timeout=60)
