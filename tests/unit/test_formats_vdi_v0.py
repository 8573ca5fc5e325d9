"""VDI headers of version 0, and undo images: read, never written."""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

import pytest

import drivebay
from drivebay.chain import open_chain
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import vdi
from drivebay.formats.vdi.header import FREE, SIGNATURE, ZERO
from drivebay.model import NULL_UUID, Finding, Geometry
from support.interpreter import read_layers
from support.memory_files import MemoryFiles
from support.vdi_images import make_image

BLOCK = 1 << 20
UUID_0 = UUID("7af70a11-f976-4c15-a644-ba3ddd4e8e3b")
PARENT = UUID("11111111-2222-3333-4444-555555555555")
MAP = 420
ENTRIES = (1, FREE, ZERO, 0)
SIZE = 3 * BLOCK + 512


def make(entries: tuple[int, ...] = ENTRIES, units: int = 2, **fields: object) -> bytes:
    """An image by the layout of docs/formats/vdi.md; block n of the file is filled with byte n + 1."""
    values = {
        "type": 1,
        "flags": 0,
        "comment": b"old",
        "size": SIZE,
        "block": BLOCK,
        "blocks": len(entries),
        "allocated": units,
        "uuid": UUID_0,
        "parent": NULL_UUID,
        "version": 1,
        **fields,
    }
    get = values.__getitem__
    head = b"<<< innotek VirtualBox Disk Image >>>\n".ljust(64, b"\0")
    head += struct.pack("<II", SIGNATURE, get("version"))
    head += struct.pack("<II256s", get("type"), get("flags"), get("comment"))
    head += struct.pack("<4I", 100, 16, 63, 512)
    head += struct.pack("<Q3I", get("size"), get("block"), get("blocks"), get("allocated"))
    uuids = (get("uuid"), NULL_UUID, get("parent"))
    head += b"".join(uuid.bytes_le for uuid in uuids)  # type: ignore[attr-defined]
    assert len(head) == MAP
    data = b"".join(bytes([unit + 1]) * BLOCK for unit in range(units))
    return head + struct.pack(f"<{len(entries)}I", *entries) + data


def content() -> bytes:
    return b"\2" * BLOCK + bytes(2 * BLOCK) + b"\1" * 512


def findings(data: bytes) -> list[Finding]:
    files = MemoryFiles(data)
    assert vdi.FORMAT.check is not None
    return list(vdi.FORMAT.check(files, vdi.FORMAT.open(files)))


def test_the_header_is_read() -> None:
    layer = vdi.FORMAT.open(MemoryFiles(make()))
    facts = layer.facts
    assert (facts.variant, facts.size, facts.block_size, facts.uuid) == ("dynamic", SIZE, BLOCK, UUID_0)
    assert (facts.comment, facts.differencing, facts.lchs) == ("old", False, Geometry(0, 0, 0))
    assert facts.details["header version"] == "0.1"
    assert (layer.plan, layer.refusal) == (None, "a VDI with a header of version 0 is only read; convert it")


@pytest.mark.parametrize("version", [0, 1])
def test_the_interpreter_reads_the_content(version: int) -> None:
    data = make(version=version)
    layer = vdi.FORMAT.open(MemoryFiles(data))
    assert read_layers([(layer, data)], 0, SIZE) == content()


def test_the_engine_reads_the_content_alone_and_below_a_child(tmp_path: Path) -> None:
    path, child = tmp_path / "old.vdi", tmp_path / "child.vdi"
    path.write_bytes(make())
    with drivebay.open(path) as disk:
        assert disk.read(0, SIZE) == content()
        assert disk.read(BLOCK - 512, 1024) == content()[BLOCK - 512 : BLOCK + 512]
    drivebay.create(child, parent=path)
    with drivebay.open(child, writable=True) as disk:
        disk.write(512, b"new")
        assert disk.read(0, SIZE) == b"\2" * 512 + b"new" + content()[515:]
    with pytest.raises(StorageError, match="can't be written: a VDI with a header of version 0") as caught:
        open_chain(path, writable=True)
    assert caught.value.kind is ErrorKind.UNSUPPORTED


@pytest.mark.parametrize(
    ("image_type", "parent", "differencing"), [(3, PARENT, True), (3, NULL_UUID, False), (4, PARENT, True)]
)
def test_undo_and_differencing_images(image_type: int, parent: UUID, differencing: bool) -> None:
    facts = vdi.FORMAT.open(MemoryFiles(make(type=image_type, parent=parent))).facts
    assert (facts.differencing, facts.parent_uuid) == (differencing, parent)


def test_an_undo_image_of_version_1_reads_through_its_parent(tmp_path: Path) -> None:
    base = make_image(entries=(0, 1, FREE, FREE), units=2, blocks_allocated=2, uuid=PARENT)
    undo = make_image(entries=(FREE, 0, FREE, FREE), units=1, blocks_allocated=1, type=3, parent_uuid=PARENT)
    (tmp_path / "base.vdi").write_bytes(base)
    (tmp_path / "undo.vdi").write_bytes(undo)
    with drivebay.open(tmp_path / "undo.vdi") as disk:
        assert disk.read(0, 2 * BLOCK) == b"\1" * (2 * BLOCK)
        assert disk.read(2 * BLOCK, 2 * BLOCK) == bytes(2 * BLOCK)


@pytest.mark.parametrize(
    ("field", "value", "offset", "kind"),
    [
        ("type", 0, 72, ErrorKind.CORRUPT),
        ("flags", 2, 76, ErrorKind.UNSUPPORTED),
        ("size", 0, 352, ErrorKind.CORRUPT),
        ("size", 513, 352, ErrorKind.CORRUPT),
        ("block", 3 << 20, 360, ErrorKind.CORRUPT),
        ("blocks", 3, 364, ErrorKind.CORRUPT),
        ("blocks", 0xFFFFFFFF, 364, ErrorKind.CORRUPT),
        ("blocks", 300_000, 364, ErrorKind.UNSUPPORTED),
        ("allocated", 5, 368, ErrorKind.CORRUPT),
        ("uuid", NULL_UUID, 372, ErrorKind.CORRUPT),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object, offset: int, kind: ErrorKind) -> None:
    with pytest.raises(StorageError, match="VDI header: the ") as caught:
        vdi.FORMAT.open(MemoryFiles(make(**{field: value})))
    assert (caught.value.kind, caught.value.offset) == (kind, offset)


def test_check_finds_damage_where_it_lies() -> None:
    assert findings(make()) == []
    told = {(found.code, found.offset) for found in findings(make(entries=(1, 1, 7, 0), allocated=1))}
    assert told == {("doubled", MAP + 4), ("outside", MAP + 8), ("counter-low", 368)}
    (no_parent,) = findings(make(type=4))
    assert (no_parent.code, no_parent.offset) == ("no-parent", 404)


def test_a_block_outside_of_the_file_is_an_error_not_other_bytes(tmp_path: Path) -> None:
    path = tmp_path / "old.vdi"
    path.write_bytes(make(entries=(1, 7, 2, 0)))
    with drivebay.open(path) as disk:
        assert disk.read(0, 512) == b"\2" * 512
        for start in (BLOCK, 2 * BLOCK):
            with pytest.raises(StorageError) as caught:
                disk.read(start, 512)
            assert caught.value.kind is ErrorKind.CORRUPT


def test_the_smallest_image_opens_and_a_shorter_one_does_not() -> None:
    data = make(entries=(FREE,), units=0, size=512)
    assert vdi.FORMAT.open(MemoryFiles(data)).facts.size == 512
    for length in (423, 400, 72):
        with pytest.raises(StorageError) as caught:
            vdi.FORMAT.open(MemoryFiles(data[:length]))
        assert caught.value.kind is ErrorKind.CORRUPT
