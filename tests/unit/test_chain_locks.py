"""Locks between processes: ours, and QEMU's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drivebay.chain import create_image, open_chain
from drivebay.chain.files import open_file
from drivebay.chain.holders import describe_holder
from drivebay.chain.locks import LockMode, lock_file
from drivebay.errors import ErrorKind, StorageError

HOLD = (
    "import sys; from drivebay.chain import open_chain\n"
    "chain = open_chain(sys.argv[1], writable=sys.argv[2] == 'write')\n"
    "print('held', flush=True); sys.stdin.read()"
)


@contextmanager
def _holder(command: list[object]) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:  # type: ignore[arg-type]
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "held"
        yield process
        process.communicate("")


def _held(image: Path, how: str) -> list[object]:
    return [sys.executable, "-c", HOLD, image, how]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.vdi"
    create_image(path, size=4 << 20)
    return path


@pytest.mark.parametrize(
    ("held", "wanted", "refused"),
    [("write", "write", True), ("write", "read", True), ("read", "write", True), ("read", "read", False)],
)
def test_one_writer_or_many_readers(image: Path, held: str, wanted: str, refused: bool) -> None:
    with _holder(_held(image, held)) as process:
        if not refused:
            open_chain(image, writable=wanted == "write").close()
            return
        with pytest.raises(StorageError) as caught:
            open_chain(image, writable=wanted == "write")
    assert caught.value.kind is ErrorKind.IN_USE
    assert f"process {process.pid} ({sys.executable}" in caught.value.message
    assert f"on host {os.uname().nodename} holds its lock, since 20" in caught.value.message


def test_the_lock_ends_with_its_holder(image: Path) -> None:
    with _holder(_held(image, "write")):
        pass
    open_chain(image, writable=True).close()


def test_a_parent_is_locked_for_reading(image: Path, tmp_path: Path) -> None:
    children = [tmp_path / "one.vdi", tmp_path / "two.vdi"]
    for child in children:
        create_image(child, parent=image)
    one, two = (open_chain(child, writable=True) for child in children)
    with one, two, pytest.raises(StorageError, match=f"this process {os.getpid()} "):
        open_chain(image, writable=True)
    with open_chain(image, writable=True), pytest.raises(StorageError, match="in use") as caught:
        open_chain(children[0])
    assert caught.value.path == str(image)


def test_without_lock_an_image_in_use_can_be_looked_at(image: Path) -> None:
    with _holder(_held(image, "write")):
        open_chain(image, lock=False).close()


def test_a_holder_that_nobody_sees_is_told_so(image: Path) -> None:
    fd = open_file(str(image), writable=True)
    lock_file(fd, str(image), LockMode.WRITE)
    assert "a process that this user can't see" in describe_holder(fd, 0)
    os.close(fd)


def _qemu(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60, check=False)


def test_qemu_is_kept_out_while_we_write(image: Path, tmp_path: Path) -> None:
    with _holder(_held(image, "write")):
        for refused in (
            _qemu("qemu-img", "info", image),
            _qemu("qemu-img", "convert", "-O", "raw", image, tmp_path / "copy.raw"),
            _qemu("qemu-io", "-c", "write 0 512", image),
        ):
            assert refused.returncode == 1
            assert "lock" in refused.stderr
        assert _qemu("qemu-img", "info", "--force-share", image).returncode == 0


def test_qemu_reads_beside_us_but_does_not_write(image: Path, tmp_path: Path) -> None:
    with _holder(_held(image, "read")):
        assert _qemu("qemu-img", "info", image).returncode == 0
        assert _qemu("qemu-img", "convert", "-O", "raw", image, tmp_path / "copy.raw").returncode == 0
        refused = _qemu("qemu-io", "-c", "write 0 512", image)
        assert refused.returncode == 1
        assert 'Failed to get "write" lock' in refused.stderr


@contextmanager
def _qemu_nbd(image: Path, *options: str) -> Iterator[int]:
    pid_file = image.with_suffix(".pid")
    address = image.with_suffix(".sock")
    command = [
        "qemu-nbd",
        "--fork",
        f"--pid-file={pid_file}",
        f"--socket={address}",
        "--persistent",
        *options,
    ]
    subprocess.run([*command, image], check=True, timeout=60)
    pid = int(pid_file.read_text())
    try:
        yield pid
    finally:
        os.kill(pid, 15)


@pytest.mark.parametrize("writable", [False, True])
def test_we_are_kept_out_while_qemu_writes(image: Path, writable: bool) -> None:
    with _qemu_nbd(image) as pid, pytest.raises(StorageError) as caught:
        open_chain(image, writable=writable)
    assert caught.value.kind is ErrorKind.IN_USE
    assert f"process {pid} (qemu-nbd --fork" in caught.value.message


def test_we_read_beside_qemu_but_do_not_write(image: Path) -> None:
    with _qemu_nbd(image, "--read-only") as pid:
        open_chain(image).close()
        with pytest.raises(StorageError, match=f"process {pid} "):
            open_chain(image, writable=True)
