"""Which format a file is in: the content decides, and a name that contradicts it is an error."""

from __future__ import annotations

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import FORMATS, format_named, probe
from support.vdi_images import make_image
from support.vhd_images import make_fixed

VDI_HEAD = make_image()[:4096]


@pytest.mark.parametrize(
    ("head", "path", "name"),
    [
        (VDI_HEAD, "a.vdi", "vdi"),
        (VDI_HEAD, "a.VDI", "vdi"),
        (VDI_HEAD, "disk", "vdi"),
        (VDI_HEAD, "disk.backup", "vdi"),
        (VDI_HEAD[:68], "short.vdi", "vdi"),
        (bytes(4096), "disk.img", "raw"),
        (bytes(4096), "disk", "raw"),
        (bytes(4096), "/dev/sda", "raw"),
        (b"", "empty.raw", "raw"),
        (VDI_HEAD[64:], "moved", "raw"),
    ],
)
def test_the_content_decides(head: bytes, path: str, name: str) -> None:
    assert probe(head, head[-512:], path).name == name


@pytest.mark.parametrize("head", [b"", bytes(4096), VDI_HEAD[:67]])
def test_a_vdi_name_without_a_vdi_header_is_corrupt(head: bytes) -> None:
    with pytest.raises(StorageError, match="no vdi header") as caught:
        probe(head, head[-512:], "folder/a.vdi")
    assert (caught.value.kind, caught.value.path) == (ErrorKind.CORRUPT, "folder/a.vdi")


@pytest.mark.parametrize("path", ["a.raw", "a.img", "a.iso", "a.dd", "a.bin", "a.IMG"])
def test_a_vdi_header_under_a_raw_name_needs_a_word(path: str) -> None:
    with pytest.raises(StorageError, match="--format vdi or --format raw") as caught:
        probe(VDI_HEAD, VDI_HEAD[-512:], path)
    assert caught.value.kind is ErrorKind.INVALID


FIXED_VHD = make_fixed(VDI_HEAD)


@pytest.mark.parametrize(("path", "name"), [("a.vhd", "vhd"), ("a.vdi", "vdi")])
def test_the_name_decides_where_the_content_is_two_formats(path: str, name: str) -> None:
    assert probe(FIXED_VHD[:4096], FIXED_VHD[-512:], path).name == name


@pytest.mark.parametrize("path", ["disk", "disk.vmdk", "disk.img"])
def test_two_formats_under_another_name_need_a_word(path: str) -> None:
    with pytest.raises(StorageError, match="--format vdi or --format vhd") as caught:
        probe(FIXED_VHD[:4096], FIXED_VHD[-512:], path)
    assert caught.value.kind is ErrorKind.INVALID


def test_formats_are_found_by_name() -> None:
    assert [format_named(known.name) for known in FORMATS] == list(FORMATS)
    assert format_named("VDI").name == "vdi"


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(StorageError, match=r"vdi, .*raw") as caught:
        format_named("vdx")
    assert caught.value.kind is ErrorKind.INVALID


def test_raw_is_asked_last() -> None:
    assert FORMATS[-1].name == "raw"
