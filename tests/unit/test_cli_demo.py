"""The demo's props and its complaints; `make demo` tells the story itself."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import drivebay as package
from drivebay.errors import StorageError
from drivebay.service import demo, demo_parts
from support.command import drivebay, failure


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="db-") as name:
        yield Path(name)


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "the package qemu-system-x86" in failure(drivebay("demo"), 4)
    monkeypatch.setattr(demo_parts, "_SBIN", str(tmp_path))
    with pytest.raises(StorageError, match=r"mke2fs is not installed; install it .*e2fsprogs"):
        demo_parts.file_system({}, 1 << 20, tmp_path)


def test_a_promise_that_does_not_hold_is_an_error() -> None:
    with pytest.raises(StorageError, match="the demo went wrong: the base has changed; please report it"):
        demo._require(False, "the base has changed")


def test_the_file_system_holds_the_files(folder: Path) -> None:
    image = demo_parts.file_system({"letter.txt": "hello"}, 8 << 20, folder)
    command = ["/sbin/debugfs", "-R", "cat letter.txt", image]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "hello"
    assert [entry.name for entry in folder.iterdir()] == [image.name]


def test_the_server_is_a_process_that_must_end_well(folder: Path) -> None:
    package.create(folder / "a.vdi", size="8M")
    with demo_parts.served(folder / "a.vdi", folder / "s") as url:
        assert url == f"nbd+unix:///a.vdi?socket={folder}/s"
        with pytest.raises(StorageError, match=r"process \d+ .* serve"):
            package.open(folder / "a.vdi", writable=True)
    package.open(folder / "a.vdi", writable=True).close()


def test_a_server_that_can_not_start_is_told(folder: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"the server failed: error: .*missing\.vdi: cannot open"),
        demo_parts.served(folder / "missing.vdi", folder / "s"),
    ):
        raise AssertionError("it did start")
