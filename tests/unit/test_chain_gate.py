"""What an image may make us open, and what not: further files and parents by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drivebay.chain import files as chain_files
from drivebay.chain import open_chain, open_layer
from drivebay.chain.gate import Gate
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import CacheMode
from support.toy_format import know_toys, make_toy


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    know_toys(monkeypatch)


def _refused(
    name: str, image: Path, kind: ErrorKind = ErrorKind.READ_ONLY, search: tuple[Path, ...] = ()
) -> str:
    with pytest.raises(StorageError) as caught:
        Gate(search).admit(name, str(image))
    assert (caught.value.kind, caught.value.path) == (kind, str(image))
    return caught.value.message


@pytest.mark.parametrize("name", ["a.bin", "below/a.bin", "./a.bin", "../home/a.bin", "no/such/file"])
def test_names_in_the_images_folder_and_below_are_admitted(tmp_path: Path, name: str) -> None:
    found = Gate().admit(name, str(tmp_path / "home" / "disk.toy"))
    assert found == os.path.normpath(tmp_path / "home" / name)


def test_an_absolute_name_in_the_images_folder_is_admitted(tmp_path: Path) -> None:
    assert Gate().admit(str(tmp_path / "a.bin"), str(tmp_path / "disk.toy")) == str(tmp_path / "a.bin")


@pytest.mark.parametrize(
    "name", ["/etc/shadow", "../outside/a.bin", "link/a.bin", "below/../../outside/a.bin"]
)
def test_names_that_lead_out_are_refused_with_the_place_to_grant(tmp_path: Path, name: str) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    home.mkdir()
    outside.mkdir()
    (home / "link").symlink_to(outside)
    message = _refused(name, home / "disk.toy")
    place = "/etc" if name[0] == "/" else str(outside)
    assert "outside of the image's folder, so it was not opened" in message
    assert message.endswith(f"--search {place}")
    if name[0] != "/":
        for grant in (outside, tmp_path, outside / "a.bin"):
            (outside / "a.bin").touch()
            assert Gate([grant]).admit(name, str(home / "disk.toy")) == str(outside / "a.bin")


def test_a_folder_with_a_like_name_is_another_folder(tmp_path: Path) -> None:
    _refused("../home-two/a.bin", tmp_path / "home" / "disk.toy")


@pytest.mark.parametrize("name", ["", ".", "a\0b", "\ud800", "../home"])
def test_what_is_no_file_name_is_damage(tmp_path: Path, name: str) -> None:
    assert "as the name of a file" in _refused(name, tmp_path / "home" / "disk.toy", ErrorKind.CORRUPT)


def test_a_device_is_refused_even_in_the_images_folder(tmp_path: Path) -> None:
    device = next(
        (
            Path(root, name)
            for root, _, names in os.walk("/dev")
            for name in names
            if Path(root, name).is_block_device()
        ),
        None,
    )
    if device is None:
        device = tmp_path / "device"
        try:
            os.mknod(device, 0o600 | 0o060000, os.makedev(7, 200))
        except PermissionError:
            pytest.skip("there is no block device here, and this user can't make one")
    message = _refused(device.name, device.parent / "disk.toy")
    assert f"a device, so it was not opened. If you trust the image, allow it: --search {device}" in message
    assert Gate([device]).admit(device.name, str(device.parent / "disk.toy")) == str(device)


def test_an_image_of_several_files_is_opened_locked_and_closed_whole(tmp_path: Path) -> None:
    disk = make_toy(tmp_path / "disk.toy", extents=["one.bin", "sub/two.bin"])
    for name in ("one.bin", "sub/two.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"data")
    before = len(os.listdir("/proc/self/fd"))
    with open_chain(disk, writable=True, cache=CacheMode.WRITEBACK) as chain:
        sources = chain.layers[0].sources
        assert [source.path for source in sources] == [
            str(disk),
            str(tmp_path / "one.bin"),
            str(tmp_path / "sub/two.bin"),
        ]
        assert all(source.writable for source in sources)
        for path in (tmp_path / "one.bin", disk):
            with pytest.raises(StorageError, match="in use"):
                open_chain(path, format_name="raw")
    open_chain(tmp_path / "one.bin", format_name="raw", writable=True).close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_direct_goes_for_further_files_too(tmp_path: Path) -> None:
    disk = make_toy(tmp_path / "disk.toy", extents=["one.bin"])
    (tmp_path / "one.bin").write_bytes(bytes(4096))
    with open_chain(disk, cache=CacheMode.DIRECT) as chain:
        assert [type(source).__name__ for source in chain.layers[0].sources] == ["DirectSource"] * 2


@pytest.mark.parametrize("extents", [["one.bin", "./one.bin"], ["disk.toy"], ["one.bin", "link.bin"]])
def test_one_file_twice_in_an_image_is_damage(tmp_path: Path, extents: list[str]) -> None:
    disk = make_toy(tmp_path / "disk.toy", extents=extents)
    (tmp_path / "one.bin").touch()
    (tmp_path / "link.bin").symlink_to("one.bin")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StorageError, match="names the same file twice"):
        open_layer(str(disk))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_further_file_outside_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    disk = make_toy(tmp_path / "home" / "disk.toy", extents=["../secret"])
    opened = []
    really = os.open

    def watch(path: str, *rest: int) -> int:
        opened.append(path)
        return really(path, *rest)

    monkeypatch.setattr(chain_files.os, "open", watch)
    with pytest.raises(StorageError, match="outside of the image's folder"):
        open_chain(disk)
    assert str(secret) not in opened
    open_chain(disk, search=[secret]).close()
    assert str(secret) in opened


def test_a_link_that_takes_a_further_files_place_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, extent = tmp_path / "secret", tmp_path / "home" / "one.bin"
    disk = make_toy(tmp_path / "home" / "disk.toy", extents=["one.bin"])
    extent.touch()
    admit = Gate.admit

    def admit_and_swap(gate: Gate, name: str, image: str) -> str:
        found = admit(gate, name, image)
        extent.rename(secret)
        extent.symlink_to(secret)
        return found

    monkeypatch.setattr(Gate, "admit", admit_and_swap)
    with pytest.raises(StorageError, match="this is a symbolic link"):
        open_chain(disk)


def test_a_bundle_opens_as_its_descriptor(tmp_path: Path) -> None:
    make_toy(tmp_path / "disk.hdd" / "DiskDescriptor.xml", extents=["data.hds"])
    (tmp_path / "disk.hdd" / "data.hds").touch()
    with open_chain(tmp_path / "disk.hdd") as chain:
        assert [os.path.basename(source.path) for source in chain.layers[0].sources] == [
            "DiskDescriptor.xml",
            "data.hds",
        ]
