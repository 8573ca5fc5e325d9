"""Servers: addresses, names, and giving everything back."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from pathlib import Path

import pytest

import drivebay
from drivebay.errors import ErrorKind, StorageError
from drivebay.service.addresses import TcpAddress, UnixAddress, parse_tcp
from drivebay.service.serving import DiskServer


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a disk.vdi"
    drivebay.create(path, size="8M")
    return path


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:1234", TcpAddress("127.0.0.1", 1234)),
        ("localhost", TcpAddress("localhost", 10809)),
        ("[::1]:0", TcpAddress("::1", 0)),
        ("[::1]", TcpAddress("::1", 10809)),
    ],
)
def test_addresses_are_read(text: str, address: TcpAddress) -> None:
    assert parse_tcp(text) == address


@pytest.mark.parametrize(
    "text", ["", ":", ":80", "host:", "host:x", "host:65536", "host:-1", "::1", "::1:80", "[]:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(StorageError, match=r"is no address; write it like 127\.0\.0\.1:10809"):
        parse_tcp(text)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (UnixAddress("/run/a b.sock"), "nbd+unix:///x%2Fy%20%C3%A4.vdi?socket=/run/a%20b.sock"),
        (TcpAddress("::1", 10809), "nbd://[::1]/x%2Fy%20%C3%A4.vdi"),
        (TcpAddress("localhost", 1), "nbd://localhost:1/x%2Fy%20%C3%A4.vdi"),
    ],
)
def test_urls_are_quoted(address: UnixAddress | TcpAddress, url: str) -> None:
    assert address.url("x/y ä.vdi") == url


def _open_files() -> list[str]:
    """What this process has open; a server's eventfd goes with the object, for it may be woken late."""
    files = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            files.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(name for name in files if "eventfd" not in name)


def _size(url: str) -> int:
    return int(subprocess.run(["nbdinfo", "--size", url], check=True, capture_output=True, timeout=30).stdout)


def test_the_url_works_and_everything_is_given_back(image: Path) -> None:
    threads, files = threading.active_count(), _open_files()
    with drivebay.serve(image) as url:
        folder = Path(url.partition("?socket=")[2]).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert _size(url) == 8 << 20
    assert not folder.exists()
    assert threading.active_count() == threads
    assert _open_files() == files
    drivebay.open(image, writable=True).close()


def test_a_given_socket_and_a_given_port(image: Path, tmp_path: Path) -> None:
    with drivebay.serve(image, socket=tmp_path / "s", read_only=True, name="x") as url:
        assert url == f"nbd+unix:///x?socket={tmp_path}/s"
        assert _size(url) == 8 << 20
    with drivebay.serve(image, listen="127.0.0.1:0") as url:
        assert url.startswith("nbd://127.0.0.1:")
        assert _size(url) == 8 << 20
    with pytest.raises(StorageError, match="a socket or a TCP address, not both"):
        drivebay.serve(image, socket="s", listen="localhost")


def test_several_images_are_exports_of_their_own(image: Path, tmp_path: Path) -> None:
    drivebay.create(tmp_path / "b.img", size="1M")
    with DiskServer([image, tmp_path / "b.img"]) as server, server.in_thread():
        assert [_size(disk.url) for disk in server.disks] == [8 << 20, 1 << 20]
        assert [disk.name for disk in server.disks] == ["a disk.vdi", "b.img"]
        assert (
            _size(server.disks[0].url.replace(server.disks[0].url.split("?")[0], "nbd+unix:///")) == 8 << 20
        )


def test_names_must_be_clear(image: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    drivebay.create(tmp_path / "other" / image.name, size="8M")
    both = [image, tmp_path / "other" / image.name]
    with pytest.raises(StorageError, match="would have the same name"):
        DiskServer(both)
    with pytest.raises(StorageError, match="one name cannot serve for 2 images"):
        DiskServer(both, name="x")
    with pytest.raises(StorageError, match="nothing to serve"):
        DiskServer([])


def test_a_failure_to_listen_gives_everything_back(image: Path, tmp_path: Path) -> None:
    threads, files = threading.active_count(), _open_files()
    (tmp_path / "taken").write_text("a file")
    for socket in (tmp_path / "taken", tmp_path / "missing" / "s", tmp_path / ("x" * 120)):
        with pytest.raises(StorageError):
            DiskServer([image], address=UnixAddress(str(socket)))
    assert threading.active_count() == threads
    assert _open_files() == files
    assert (tmp_path / "taken").read_text() == "a file"


def test_one_bad_image_of_several_closes_the_others(image: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        DiskServer([image, tmp_path / "missing.vdi"])
    assert caught.value.kind is ErrorKind.NOT_FOUND
    drivebay.open(image, writable=True).close()


def test_serving_a_base_and_its_child_at_once_is_refused(image: Path, tmp_path: Path) -> None:
    drivebay.create(tmp_path / "child.vdi", parent=image)
    with pytest.raises(StorageError, match=f"this process {os.getpid()}"):
        DiskServer([image, tmp_path / "child.vdi"])
    with DiskServer([image, tmp_path / "child.vdi"], read_only=True) as server:
        assert len(server.disks) == 2


def test_a_table_unsafe_to_write_is_refused_before_anybody_connects(tmp_path: Path) -> None:
    image = tmp_path / "a.vdi"
    drivebay.create(image, size="4M")
    with drivebay.open(image, writable=True) as disk:
        disk.write(0, bytes([1]) * (2 << 20))
    with image.open("r+b") as file:  # both entries of the map point to block 0
        file.seek(1 << 20)
        file.write(bytes(8))
    before = image.read_bytes()
    with pytest.raises(StorageError, match="check"), drivebay.serve(image, socket=tmp_path / "s"):
        pass
    with drivebay.serve(image, socket=tmp_path / "s", read_only=True):
        pass
    assert image.read_bytes() == before
