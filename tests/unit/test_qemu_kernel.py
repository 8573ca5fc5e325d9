"""The guest's kernel: what is taken from a package's folder."""

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.qemu import elf
from drivebay.qemu.bzimage import uncompressed_kernel
from drivebay.qemu.compression import decompress
from drivebay.qemu.kernel import GuestKernel
from drivebay.qemu.kernel_package import distil
from support.kernels import PLAIN_KERNEL, bzimage, module, program, write_package


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "package")


def test_modules_come_after_what_they_need_without_the_builtin_ones(package: Path) -> None:
    modules = GuestKernel.open(package).modules(["ahci", "crc32c_generic"])
    assert [module.name for module in modules] == ["lib_ata", "libahci", "ahci"]
    assert all(module.content.startswith(b"\x7fELF") for module in modules)


def test_a_module_that_is_not_there_is_named(package: Path) -> None:
    with pytest.raises(StorageError, match="no module floppy") as caught:
        GuestKernel.open(package).modules(["floppy"])
    assert caught.value.kind is ErrorKind.NOT_FOUND


def test_a_folder_without_a_kernel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="vmlinuz") as caught:
        GuestKernel.open(tmp_path)
    assert (caught.value.kind, caught.value.path) == (ErrorKind.NOT_FOUND, str(tmp_path))


def test_the_small_copy_serves_as_the_package_does(package: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    kernel = GuestKernel.open(package)
    distil(kernel, ["ahci"], small)
    copy = GuestKernel.open(small)
    assert copy.image.name == "vmlinux"
    assert copy.image.read_bytes() == PLAIN_KERNEL
    assert copy.modules(["ahci"]) == kernel.modules(["ahci"])
    assert set(copy.files) == {"ahci", "libahci", "lib_ata"}
    assert copy.image_for(efi=False) == copy.image
    assert copy.image_for(efi=True).read_bytes() == kernel.image.read_bytes()


def test_efi_firmware_needs_the_packed_image(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(PLAIN_KERNEL)
    kernel = GuestKernel.open(tmp_path)
    assert kernel.image_for(efi=False).name == "vmlinux"
    with pytest.raises(StorageError, match="BIOS") as caught:
        kernel.image_for(efi=True)
    assert caught.value.kind is ErrorKind.NOT_FOUND


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_the_uncompressed_kernel_comes_out_of_a_bzimage(compress: Callable[[bytes], bytes]) -> None:
    assert uncompressed_kernel(bzimage(compress(PLAIN_KERNEL))) == PLAIN_KERNEL


@pytest.mark.parametrize(
    "image",
    [
        b"",
        bytes(4096),
        bzimage(b"\xfd7zXZ\0 damaged"),
        bzimage(lzma.compress(b"no ELF file")),
        bzimage(lzma.compress(PLAIN_KERNEL))[:3000],
        bzimage(b"BZh unknown"),
    ],
)
def test_an_image_that_cannot_be_taken_apart_is_left_as_it_is(image: bytes) -> None:
    assert uncompressed_kernel(image) is None


def test_zstd_goes_through_its_program() -> None:
    # One Zstandard frame with one raw block, as RFC 8878 section 3.1.1 describes it.
    frame = b"\x28\xb5\x2f\xfd" + b"\x20\x05" + ((5 << 3) | 1).to_bytes(3, "little") + b"hello"
    assert decompress(frame) == b"hello"
    with pytest.raises(StorageError, match="damaged compressed data") as caught:
        decompress(frame[:-3])
    assert caught.value.kind is ErrorKind.CORRUPT


def test_static_programs_ask_for_no_loader() -> None:
    assert elf.is_static(program(1))
    assert not elf.is_static(program(3))


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", program(1)[:66]])
def test_a_broken_program_is_a_storage_error(data: bytes) -> None:
    with pytest.raises(StorageError, match="ELF") as caught:
        elf.is_static(data)
    assert caught.value.kind is ErrorKind.CORRUPT


@pytest.mark.parametrize("data", [b"", bytes(100), module("a")[:100], program(1)])
def test_a_broken_module_is_a_storage_error(data: bytes) -> None:
    with pytest.raises(StorageError, match="ELF") as caught:
        elf.module_dependencies(data)
    assert caught.value.kind is ErrorKind.CORRUPT
