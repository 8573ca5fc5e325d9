"""The demo's props, its complaints and its end; `make demo` tells the story itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

import drivebay as package
from drivebay.errors import StorageError
from drivebay.registry.home import Home
from drivebay.service import demo, demo_guest, demo_parts
from drivebay.service.machines.lifecycle import create_machine
from support.command import drivebay, failure


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for all that the demo leaves, if it does."""
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
        demo.require(False, "the base has changed")


def test_the_file_system_holds_the_files_and_is_written_to_a_disk(folder: Path) -> None:
    image = demo_parts.file_system({"letter.txt": "hello"}, 8 << 20, folder)
    command = ["/sbin/debugfs", "-R", "cat letter.txt", image]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "hello"
    assert [entry.name for entry in folder.iterdir()] == [image.name]
    package.create(folder / "a.vdi", size="8M")
    with package.open(folder / "a.vdi", writable=True) as disk:
        demo_parts.write_content(disk, image)
        assert disk.read(0, 8 << 20) == image.read_bytes()


@pytest.mark.parametrize("script", [demo_guest.LOOK, demo_guest.INFECT])
def test_the_guests_scripts_have_no_syntax_errors(script: str) -> None:
    subprocess.run(["busybox", "sh", "-n"], input=script, text=True, check=True, timeout=60)


def test_a_run_tells_what_the_guest_said() -> None:
    run = demo_parts.Run(("boot", "found normal clean", "says hello", "end 0"), 1.0)
    assert run.marked("found ") == ["normal clean"]
    assert run.marked("says ") == ["hello"]


def test_a_failure_leaves_no_home() -> None:
    home = _home_of_a_failure()
    assert not os.path.exists(os.path.dirname(home.folder))


def _home_of_a_failure() -> Home:
    with contextlib.suppress(ZeroDivisionError), demo_parts.temporary_home() as home:
        create_machine(home, "patient")
        raise ZeroDivisionError
    return home


def test_a_machine_that_does_not_end_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_parts, "is_running", lambda *_: True)
    monkeypatch.setattr(demo_parts, "_END_TIMEOUT", 0.0)
    with pytest.raises(StorageError, match="00000007} does not end; look for its processes"):
        demo_parts._wait_for_end(demo_parts.find_home("/nowhere"), UUID(int=7))


def test_a_signal_comes_after_what_must_not_be_interrupted() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it is raised by the context's end
        with demo_parts._signals_wait():
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")
        done.append("not this")
    assert done == ["all of it"]


@pytest.mark.timeout(300)
@pytest.mark.xdist_group("guest")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_file_and_no_process(folder: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "drivebay", "demo"]
    runtime = folder / "run"
    runtime.mkdir(mode=0o700)
    environment = os.environ | {"TMPDIR": str(folder), "XDG_RUNTIME_DIR": str(runtime)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        while not _processes(folder, "qemu.pid"):
            assert process.poll() is None, "the demo ended by itself"
            time.sleep(0.05)
        process.send_signal(number)
        told = process.communicate(timeout=200)[0]
    assert process.returncode == (130 if number == signal.SIGINT else 128 + number), told
    assert not _processes(folder, "")
    assert [path for path in folder.rglob("*") if path not in (runtime, runtime / "drivebay")] == []


def _processes(folder: Path, word: str) -> list[bytes]:
    """Command lines of others that name a file of this folder, and ``word``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in line and word.encode() in line and path.parent.name != str(os.getpid()):
            found.append(line)
    return found
