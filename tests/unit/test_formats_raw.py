"""Raw images: the file is the disk."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from drivebay.blockmap import (
    Allocator,
    CreateRequest,
    FileExtent,
    FormatOptions,
    Linear,
    Match,
    ParentLink,
)
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import raw
from drivebay.model import NULL_UUID, physical_geometry
from support.interpreter import read_layers
from support.memory_files import MemoryFiles, file_made_by

IMAGE, MODIFICATION = UUID(int=1), UUID(int=2)


def request(size: int, *, variant: str | None = None, **fields: Any) -> CreateRequest:
    block_size = fields.pop("block_size", None)
    return CreateRequest(size, FormatOptions(variant, block_size), IMAGE, MODIFICATION, **fields)


@pytest.mark.parametrize(("stored", "size"), [(512, 512), (513, 1024), (1, 512), (1 << 20, 1 << 20)])
def test_the_file_is_the_disk(stored: int, size: int) -> None:
    data = bytes(range(1, 256)) * (stored // 255 + 1)
    layer = raw.FORMAT.open(MemoryFiles(data[:stored], "disk.img"))
    assert layer.segments == (Linear(0, size, 0, 0),)
    assert (layer.facts.size, layer.facts.pchs) == (size, physical_geometry(size))
    assert layer.plan is not None
    assert layer.plan.allocator is Allocator.NONE
    assert read_layers([(layer, data[:stored])], 0, size) == data[:stored].ljust(size, b"\0")


def test_an_empty_file_is_no_disk() -> None:
    with pytest.raises(StorageError, match="empty") as caught:
        raw.FORMAT.open(MemoryFiles(b"", "disk.img"))
    assert caught.value.kind is ErrorKind.CORRUPT


def test_the_name_is_the_identity() -> None:
    def facts_of(path: str) -> Any:
        return raw.FORMAT.open(MemoryFiles(bytes(512), path)).facts

    assert facts_of("/a/disk.img").uuid == facts_of("/b/disk.img").uuid == raw.identity("disk.img")
    assert facts_of("/a/disk.img").uuid != facts_of("/a/disk2.img").uuid
    assert facts_of("/a/disk.img").modification_uuid == NULL_UUID


def test_the_identity_never_changes() -> None:
    assert raw.identity("disk.img") == UUID("ff2b2ec0-be21-587d-b66b-54ed19cb1a1d")


def test_a_name_that_is_no_text_has_an_identity() -> None:
    assert raw.identity("disk\udcff.img") != raw.identity("disk\udcfe.img")


def test_raw_never_claims_more_than_maybe() -> None:
    assert raw.FORMAT.probe(b"", b"") is raw.FORMAT.probe(bytes(4096), bytes(512)) is Match.MAYBE


@pytest.mark.parametrize(("variant", "reserve"), [(None, False), ("dynamic", False), ("fixed", True)])
def test_a_new_image_is_one_extent(variant: str | None, reserve: bool) -> None:
    assert raw.FORMAT.create is not None
    changes = list(raw.FORMAT.create(request(1536, variant=variant)))
    assert changes == [FileExtent(0, 1536, reserve)]
    assert raw.FORMAT.open(MemoryFiles(file_made_by(changes), "new.img")).facts.size == 1536


@pytest.mark.parametrize(
    "wanted",
    [
        request(0),
        request(-512),
        request(1000),
        request(512, variant="differencing"),
        request(512, block_size=4096),
        request(512, parent=ParentLink(IMAGE, MODIFICATION, "p")),
    ],
)
def test_what_raw_cannot_be_is_refused(wanted: CreateRequest) -> None:
    assert raw.FORMAT.create is not None
    with pytest.raises(StorageError) as caught:
        raw.FORMAT.create(wanted)
    assert caught.value.kind is ErrorKind.INVALID


def _with_table_at(offset: int, size: int = 1 << 16) -> bytes:
    data = bytearray(size)
    data[offset : offset + 8] = b"EFI PART"
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "sector_size"),
    [
        (bytes(1 << 16), 512),
        (_with_table_at(512), 512),
        (_with_table_at(4096), 4096),
        (_with_table_at(4096, (1 << 16) + 512), 512),
        (_with_table_at(4096)[:512] + b"EFI PART" + _with_table_at(4096)[520:], 512),
    ],
)
def test_the_partition_table_tells_the_sector_size(data: bytes, sector_size: int) -> None:
    assert raw.FORMAT.open(MemoryFiles(data, "disk.img")).facts.sector_size == sector_size


@pytest.mark.parametrize(("size", "sector_size"), [(4096 + 512, 4096), (4096, 1024), (4096, 0)])
def test_sectors_that_cannot_be(size: int, sector_size: int) -> None:
    assert raw.FORMAT.create is not None
    asked = CreateRequest(size, raw.RawOptions(sector_size=sector_size), IMAGE, MODIFICATION)
    with pytest.raises(StorageError) as caught:
        raw.FORMAT.create(asked)
    assert caught.value.kind is ErrorKind.INVALID


def test_large_sectors() -> None:
    assert raw.FORMAT.create is not None
    asked = CreateRequest(8192, raw.RawOptions(sector_size=4096), IMAGE, MODIFICATION)
    assert list(raw.FORMAT.create(asked)) == [FileExtent(0, 8192)]
