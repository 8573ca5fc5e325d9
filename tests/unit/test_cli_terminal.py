"""The terminal as a serial console."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivebay.cli import terminal
from drivebay.errors import StorageError


@pytest.fixture
def line() -> Iterator[tuple[str, socket.socket]]:
    with tempfile.TemporaryDirectory(prefix="drivebay-") as folder, socket.socket(socket.AF_UNIX) as server:
        path = str(Path(folder, "serial.sock"))
        server.bind(path)
        server.listen()
        yield path, server


def test_keys_and_output_pass_until_the_user_leaves(
    line: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path, server = line
    reader, writer = os.pipe()
    with open(reader) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        thread = threading.Thread(target=terminal.connect_terminal, args=(path,))
        thread.start()
        guest, _ = server.accept()
        with guest:
            os.write(writer, b"ls\n")
            assert guest.recv(100) == b"ls\n"
            guest.sendall(b"a file\n")
            os.write(writer, b"x\x1dnever sent")
            assert guest.recv(100) == b"x"
            thread.join(30)
            assert not thread.is_alive()
            assert guest.recv(100) == b""
    os.close(writer)
    assert capfd.readouterr().out == "a file\n"


def test_the_guests_end_ends_it_and_a_pipes_end_does_not(
    line: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path, server = line
    with open(os.devnull) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        thread = threading.Thread(target=terminal.connect_terminal, args=(path,))
        thread.start()
        guest, _ = server.accept()
        with guest:
            guest.sendall(b"the last words\n")
        thread.join(30)
    assert not thread.is_alive()
    assert capfd.readouterr().out == "the last words\n"


def test_a_line_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(StorageError, match=r"none\.sock"):
            terminal.connect_terminal(str(tmp_path / "none.sock"))
