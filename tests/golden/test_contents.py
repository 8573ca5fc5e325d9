"""Images that VirtualBox and QEMU wrote, read through the whole product: chain, engine and checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

import drivebay
from support.corpus import CorpusImage, all_images, expected_sha256, images, needs_corpus, unpack_case

pytestmark = needs_corpus

# VirtualBox merged a snapshot below this child and left it with its parent's old modification UUID.
STALE = "vdi-merge-down/m3"
FLAT_VMDK = ("vmdk-fixed", "vmdk-esx")

SMALL = 64 << 20  # bytes that are also read one after the other

Unpack = Callable[[str], Path]


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Unpack:
    """Unpacks a case once."""
    root = tmp_path_factory.mktemp("corpus")

    def unpack(case: str) -> Path:
        return root / case if (root / case).exists() else unpack_case(case, root)

    return unpack


def _open(image: CorpusImage, folder: Path) -> drivebay.Disk:
    stale = image.id == STALE
    return drivebay.open(folder / image.files[0], search=folder, allow_stale_parent=stale)


def _with_hash() -> list[CorpusImage]:
    return [image for image in all_images() if image.content_sha256]


@pytest.mark.parametrize("image", _with_hash(), ids=lambda image: image.id)
def test_the_disk_reads_as_virtualbox_exported_it(image: CorpusImage, unpacked: Unpack) -> None:
    with _open(image, unpacked(image.case)) as disk:
        assert disk.size == image.virtual_size
        assert drivebay.checksum(disk) == expected_sha256(image)  # which does not read holes
        if image.virtual_size <= SMALL:
            assert hashlib.sha256(disk.read(0, disk.size)).hexdigest() == expected_sha256(image)


@pytest.mark.parametrize("image", all_images(), ids=lambda image: image.id)
def test_check_finds_nothing_wrong(image: CorpusImage, unpacked: Unpack) -> None:
    findings = drivebay.check(unpacked(image.case) / image.files[0])
    assert [found for found in findings if found.severity is not drivebay.Severity.NOTE] == []


@pytest.mark.parametrize(
    "image", [image for image in all_images() if image.entry.get("data_ranges")], ids=lambda image: image.id
)
def test_known_ranges_read_right(image: CorpusImage, unpacked: Unpack) -> None:
    if image.misread:
        pytest.skip(image.misread)
    with _open(image, unpacked(image.case)) as disk:
        for known in image.entry["data_ranges"]:
            data = disk.read(known["offset"], known["length"])
            assert hashlib.sha256(data).hexdigest() == known["sha256"]


def test_a_parent_that_virtualbox_left_stale_is_refused_with_both_uuids(unpacked: Unpack) -> None:
    image = next(image for image in images("vdi") if image.id == STALE)
    with pytest.raises(drivebay.StorageError, match="allow-stale-parent") as caught:
        drivebay.open(unpacked(image.case) / image.files[0])
    assert str(image.parent_modification_uuid) in str(caught.value)


@pytest.mark.parametrize("case", FLAT_VMDK)
def test_a_flat_extent_reads_as_a_raw_disk(case: str, unpacked: Unpack) -> None:
    image = next(image for image in images("vmdk") if image.case == case)
    flat = next(name for name in image.files if name.endswith("-flat.vmdk"))
    with drivebay.open(unpacked(case) / flat, format="raw") as disk:
        assert drivebay.checksum(disk) == image.content_sha256
