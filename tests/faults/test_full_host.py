"""A host that is really full: a tiny file system where mounting works, and a limit on file sizes."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from drivebay.engine.disk import Disk
from drivebay.errors import ErrorKind, StorageError
from support.disks import KIB, MIB, ImageSpec, findings, make_image, open_disk
from support.shadow import ShadowDisk

BLOCK = 512 * KIB
SIZE = 16 * BLOCK
ROOM = 5 * MIB
Free = Callable[[], None]


@contextlib.contextmanager
def tiny_file_system(folder: Path) -> Iterator[Free]:
    """A tmpfs on ``folder``; raises CalledProcessError where mounting is not allowed."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tiny", str(folder)]
    subprocess.run(mount, check=True, stderr=subprocess.DEVNULL)
    try:
        yield partial(_remount, folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _remount(folder: Path) -> None:
    subprocess.run(["mount", "-o", f"remount,size={4 * ROOM}", str(folder)], check=True)


@contextlib.contextmanager
def tiny_files() -> Iterator[Free]:
    """No file of this process grows beyond the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    free = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (soft, hard))
    try:
        yield free
    finally:
        free()


@pytest.fixture(params=["file system", "file size"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Free]]:
    """A folder that is soon full, and what makes room in it. Without the right to mount: file sizes only."""
    with contextlib.ExitStack() as stack:
        if request.param == "file system":
            with contextlib.suppress(subprocess.CalledProcessError, FileNotFoundError):
                yield tmp_path, stack.enter_context(tiny_file_system(tmp_path))
                return
        yield tmp_path, stack.enter_context(tiny_files())


def fill(shadow: ShadowDisk) -> int:
    """Write block after block until the host is full; returns the one that failed."""
    done: list[int] = []

    def write_all() -> None:
        for block in range(SIZE // BLOCK):
            shadow.write(block * BLOCK, bytes([block + 1]) * BLOCK)
            done.append(block)

    with pytest.raises(StorageError, match=r"free space on the host|make it smaller") as caught:
        write_all()
    assert caught.value.kind is ErrorKind.NO_SPACE
    return len(done)


def test_a_full_host_fails_writes_and_nothing_else(host: tuple[Path, Free]) -> None:
    folder, free = host
    path = folder / "disk.vdi"
    make_image(path, ImageSpec(SIZE, BLOCK))
    with open_disk([path]) as disk:
        shadow = ShadowDisk(disk, bytearray(SIZE))
        failed = fill(shadow)
        assert 2 <= failed < SIZE // BLOCK - 2
        _works_without_new_blocks(shadow, failed)
        free()
        for block in range(failed, SIZE // BLOCK):
            shadow.write(block * BLOCK + 100, b"room again" * 100)
        shadow.verify()
    assert [finding.code for finding in findings(path)] in ([], ["unused"])
    with open_disk([path], writable=False) as disk:
        ShadowDisk(disk, shadow.content).verify()


def _works_without_new_blocks(shadow: ShadowDisk, failed: int) -> None:
    for _ in range(3):
        with pytest.raises(StorageError) as caught:
            shadow.disk.write(failed * BLOCK, b"x" * BLOCK)
        assert caught.value.kind is ErrorKind.NO_SPACE
    shadow.verify()
    shadow.write(1000, b"in place")
    shadow.zero(15 * BLOCK, BLOCK)
    shadow.flush()
    shadow.verify()
    shadow.discard(0, BLOCK)  # makes room by itself
    shadow.flush()
    shadow.write(failed * BLOCK, b"y" * BLOCK)
    shadow.flush()
    shadow.verify()


def test_what_was_flushed_before_it_was_full_is_there(host: tuple[Path, Free]) -> None:
    folder, free = host
    path = folder / "disk.vdi"
    make_image(path, ImageSpec(SIZE, BLOCK))
    disk = open_disk([path])
    shadow = ShadowDisk(disk, bytearray(SIZE))
    fill(shadow)
    disk.flush()
    _leave_behind(disk)
    free()
    with open_disk([path]) as again:
        shadow = ShadowDisk(again, shadow.content)
        shadow.verify()
        shadow.write(9 * BLOCK, b"goes on" * 1000, fua=True)
        shadow.verify()


def _leave_behind(disk: Disk) -> None:
    """End as a killed process does: nothing is flushed, the files are closed."""
    for opened in disk.layers:
        os.close(opened.sources[0].fd)
