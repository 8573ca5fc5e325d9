"""``drivebay serve`` as a process: ready when it says so, and gone without a trace."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import drivebay as package
from support.command import COMMAND, drivebay, drivebay_process, failure, serving
from support.nobody import open_folder, run_as_nobody
from support.signals import signal_another_thread

MIB = 1 << 20


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with a short path for sockets, and a disk."""
    with tempfile.TemporaryDirectory(prefix="db-") as name:
        monkeypatch.chdir(name)
        package.create("disk.vdi", size="8M")
        yield Path(name)


def _write(url: str, pattern: int) -> None:
    command = ["qemu-io", "-f", "raw", "-c", f"write -P {pattern} {MIB} 64k", url]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _content() -> bytes:
    with package.open("disk.vdi") as disk:
        return disk.read(MIB, 64 << 10)


@pytest.mark.parametrize("cache", ["writeback", "writethrough", "unsafe", "direct"])
@pytest.mark.usefixtures("folder")
def test_what_a_client_wrote_is_there_after_the_end(cache: str) -> None:
    with serving("disk.vdi", "--cache", cache) as (_, url):
        assert url.startswith("nbd+unix:///disk.vdi?socket=/")
        _write(url, 0x41)
    assert _content() == b"A" * (64 << 10)
    assert not Path(url.partition("=")[2]).parent.exists()


def test_a_given_socket_goes_with_the_server(folder: Path) -> None:
    with serving("disk.vdi", "--socket", "s", "--name", "other name") as (process, url):
        assert url == f"nbd+unix:///other%20name?socket={folder}/s"
        _write(url, 1)
        assert f"process {process.pid} (" in failure(drivebay("serve", "disk.vdi"), 7)
    assert not (folder / "s").exists()


@pytest.mark.usefixtures("folder")
def test_tcp_and_several_images() -> None:
    package.create("b.img", size="1M")
    with serving("disk.vdi", "b.img", "--listen", "127.0.0.1:0") as (process, url):
        assert process.stdout is not None
        other = process.stdout.readline().strip()
        assert url.startswith("nbd://127.0.0.1:")
        assert other == url.replace("disk.vdi", "b.img")
        listed = subprocess.run(["nbdinfo", "--list", "--json", url], check=True, capture_output=True)
        assert [one["export-name"] for one in json.loads(listed.stdout)["exports"]] == ["disk.vdi", "b.img"]


@pytest.mark.usefixtures("folder")
def test_read_only_means_read_only() -> None:
    with serving("disk.vdi", "--read-only") as (_, url):
        facts = json.loads(subprocess.run(["nbdinfo", "--json", url], check=True, capture_output=True).stdout)
        assert facts["exports"][0]["is_read_only"] is True
        assert drivebay("checksum", "disk.vdi").returncode == 0


def test_fork_returns_when_it_listens(folder: Path) -> None:
    done = drivebay_process("serve", "disk.vdi", "--fork", "--socket", "s", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    pid = facts["pid"]
    try:
        assert facts["exports"] == [
            {
                "name": "disk.vdi",
                "url": f"nbd+unix:///disk.vdi?socket={folder}/s",
                "path": "disk.vdi",
                "size": 8 * MIB,
                "writable": True,
            }
        ]
        assert os.getsid(pid) == pid
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {"/dev/null"}
        _write(facts["exports"][0]["url"], 0x42)
    finally:
        os.kill(pid, signal.SIGTERM)
    _wait_for_the_end(pid)
    assert _content() == b"B" * (64 << 10)
    assert not (folder / "s").exists()


def _wait_for_the_end(pid: int) -> None:
    deadline = time.monotonic() + 30
    while (
        Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]
    ):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.usefixtures("folder")
def test_fork_tells_why_it_can_not_start() -> None:
    assert "missing.vdi: cannot open" in failure(drivebay_process("serve", "missing.vdi", "--fork"), 4)
    error = json.loads(drivebay_process("serve", ".", "--fork", "--json").stderr)["error"]
    assert (error["kind"], error["path"], error["exit_code"]) == ("invalid", ".", 2)
    assert "File name too long" in drivebay_process("serve", "x" * 300, "--fork").stderr


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--socket", "s", "--listen", "localhost"], "a socket or a TCP address, not both"),
        (["--listen", "nowhere:port"], "is no address"),
        (["--cache", "fast"], "'fast' is not one of"),
        (["disk.vdi"], "would have the same name"),
        (["--socket", "x" * 200], "x"),
    ],
)
def test_wrong_options_are_refused(options: list[str], part: str) -> None:
    assert part in failure(drivebay("serve", "disk.vdi", *options), 2)


def test_a_file_that_may_not_be_written_is_refused_unless_read_only() -> None:
    imports = "from drivebay.service.serving import DiskServer; from drivebay.errors import StorageError"
    code = (
        "try: DiskServer([sys.argv[1]])\n"
        "except StorageError as error: print(error.exit_code, error)\n"
        "DiskServer([sys.argv[1]], read_only=True).close()\n"
    )
    with open_folder() as folder:
        package.create(folder / "a.vdi", size="8M")
        (folder / "a.vdi").chmod(0o444)
        done = run_as_nobody(imports, code, folder / "a.vdi")
    assert done.returncode == 0, done.stderr
    assert "8 " in done.stdout
    assert "cannot open for writing: Permission denied" in done.stdout
    assert "read-only" in done.stdout


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_in_order(number: signal.Signals) -> None:
    with serving("disk.vdi") as (process, url):
        _write(url, 0x43)
        process.send_signal(number)
        assert process.wait(30) == 0
    assert _content() == b"C" * (64 << 10)


@pytest.mark.usefixtures("folder")
def test_a_signal_that_another_thread_gets_ends_it_too() -> None:
    with serving("disk.vdi") as (process, url):
        _write(url, 0x43)
        signal_another_thread(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.usefixtures("folder")
def test_a_terminal_shows_a_live_line() -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    command = [*COMMAND, "serve", "disk.vdi", "--socket", "s"]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen = _read_until(ours, b"?socket=")
        _write("nbd+unix:///?socket=s", 0x44)
        seen = _read_until(ours, b"written 64 KiB")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    os.close(ours)
    assert b"requests (" in seen


def _read_until(fd: int, part: bytes) -> bytes:
    seen = b""
    deadline = time.monotonic() + 30
    while part not in seen:
        assert time.monotonic() < deadline, seen
        seen += os.read(fd, 4096)
    return seen
