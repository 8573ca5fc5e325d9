"""The kernel's package: found, downloaded, cut down; with a real dpkg and a stand-in for apt."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.qemu.kernel_package import cached_kernel, package_names
from support.kernels import PLAIN_KERNEL, write_package

APT_CACHE = """#!/bin/sh
for name; do :; done
[ "$name" != linux-image-amd64 ] || echo "Depends: linux-image-6.1-amd64 (= 6.1.1)"
"""
# The lists are missing until they are updated.
APT_GET = """#!/bin/sh
echo "$@" >> {folder}/calls
case "$*" in
    *update*) touch {folder}/lists ;;
    *download*linux-image-6.1-amd64) [ -e {folder}/lists ] && cp {folder}/kernel.deb . ;;
    *) exit 1 ;;
esac
"""
SUDO = """#!/bin/sh
shift
exec "$@"
"""


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with apt's stand-in, first in the PATH; its file ``calls`` tells how apt was called."""
    folder = tmp_path / "apt"
    tree = write_package(folder / "tree")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        "Package: linux-image-6.1-amd64\nVersion: 6.1.1\nArchitecture: amd64\nMaintainer: t <t@localhost>\n"
        "Description: t\n"
    )
    subprocess.run(
        ["dpkg-deb", "-b", tree, folder / "kernel.deb"], check=True, capture_output=True, timeout=60
    )
    for name, text in (("apt-cache", APT_CACHE), ("apt-get", APT_GET), ("sudo", SUDO)):
        (folder / name).write_text(text.replace("{folder}", str(folder)))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_the_kernel_is_downloaded_once(apt: Path, tmp_path: Path) -> None:
    (apt / "lists").touch()
    told: list[str] = []
    kernel = cached_kernel(tmp_path / "cache", ["ahci"], told.append)
    assert kernel.image.read_bytes() == PLAIN_KERNEL
    assert set(kernel.files) == {"ahci", "libahci", "lib_ata"}
    calls = (apt / "calls").read_text()
    assert cached_kernel(tmp_path / "cache", ["ahci"], told.append) == kernel
    assert (apt / "calls").read_text() == calls
    assert len(told) == 1


def test_missing_lists_are_updated(apt: Path, tmp_path: Path) -> None:
    told: list[str] = []
    cached_kernel(tmp_path / "cache", ["ahci"], told.append)
    assert [call.split()[-1] for call in (apt / "calls").read_text().splitlines()] == [
        "linux-image-6.1-amd64",
        "update",
        "linux-image-6.1-amd64",
    ]
    assert "updating" in told[-1]


def test_another_list_of_modules_makes_another_copy(apt: Path, tmp_path: Path) -> None:
    (apt / "lists").touch()
    cached_kernel(tmp_path / "cache", ["ahci"], lambda _: None)
    kernel = cached_kernel(tmp_path / "cache", ["ahci", "other"], lambda _: None)
    assert "other" in kernel.files


def test_what_an_interrupted_run_left_is_removed(apt: Path, tmp_path: Path) -> None:
    (apt / "lists").touch()
    leftover = tmp_path / "cache/making-x"
    (leftover / "tree").mkdir(parents=True)
    cached_kernel(tmp_path / "cache", ["ahci"], lambda _: None)
    assert sorted(path.name.partition("-")[0] for path in (tmp_path / "cache").iterdir()) == [
        "kernel",
        "lock",
    ]


def test_a_damaged_package_leaves_nothing_behind(apt: Path, tmp_path: Path) -> None:
    (apt / "lists").touch()
    (apt / "kernel.deb").write_bytes(b"!<arch>\n")
    with pytest.raises(StorageError, match="dpkg-deb -x") as caught:
        cached_kernel(tmp_path / "cache", ["ahci"], lambda _: None)
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


def test_a_system_without_apt_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StorageError, match="DRIVEBAY_GUEST_KERNEL") as caught:
        cached_kernel(tmp_path / "cache", ["ahci"], lambda _: None)
    assert caught.value.kind is ErrorKind.NOT_FOUND


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as caught:
        cached_kernel(tmp_path / "file/cache", ["ahci"], lambda _: None)
    assert caught.value.path == str(tmp_path / "file/cache")


DEBIAN = {
    "linux-image-amd64": "linux-image-6.1.0-56-amd64 (= 6.1.192-2)",
    "linux-image-6.1.0-56-amd64": "kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool",
}
UBUNTU = {
    "linux-image-generic": "linux-image-6.8.0-31-generic, linux-modules-extra-6.8.0-31-generic, microcode",
    "linux-image-6.8.0-31-generic": "kmod, linux-modules-6.8.0-31-generic",
    "linux-modules-extra-6.8.0-31-generic": "linux-image-6.8.0-31-generic | linux-image-unsigned-6.8.0-31",
}


@pytest.mark.parametrize(
    ("packages", "expected"),
    [
        (DEBIAN, {"linux-image-6.1.0-56-amd64"}),
        (
            UBUNTU,
            {
                "linux-image-6.8.0-31-generic",
                "linux-modules-6.8.0-31-generic",
                "linux-modules-extra-6.8.0-31-generic",
            },
        ),
        ({}, set()),
    ],
)
def test_the_kernels_packages_are_found_by_dependency(packages: dict[str, str], expected: set[str]) -> None:
    assert set(package_names(lambda name: packages.get(name, ""))) == expected
