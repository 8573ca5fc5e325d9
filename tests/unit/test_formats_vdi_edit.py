"""Editing VDI headers: what changes, and that nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

import drivebay
from drivebay.blockmap import FileWrite, HeaderEdit
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import vdi
from drivebay.model import NULL_UUID, Geometry, ImageFacts
from support.memory_files import MemoryFiles
from support.vdi_images import make_image

PARENT = UUID("11111111-2222-3333-4444-555555555555")
CHILD = {"type": 4, "parent_uuid": PARENT}
NEW = UUID("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee")


def edited(data: bytes, wanted: HeaderEdit) -> bytes:
    files = MemoryFiles(data)
    assert vdi.FORMAT.edit is not None
    (change,) = vdi.FORMAT.edit(files, vdi.FORMAT.open(files), wanted)
    assert isinstance(change, FileWrite)
    assert (change.offset, len(change.data), change.file) == (0, 512, "")  # one sector: atomic
    return change.data + data[512:]


def facts(data: bytes) -> ImageFacts:
    return vdi.FORMAT.open(MemoryFiles(data)).facts


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("uuid", NEW),
        ("modification_uuid", NEW),
        ("modification_uuid", NULL_UUID),
        ("parent_uuid", NEW),
        ("parent_modification_uuid", NEW),
        ("comment", "größer"),
        ("comment", ""),
        ("pchs", Geometry(8, 16, 63)),
        ("lchs", Geometry(5, 255, 63)),
        ("lchs", Geometry(0, 0, 0)),
    ],
)
def test_one_field_changes_and_no_other(field: str, value: Any) -> None:
    before = make_image(type=4, parent_uuid=PARENT, comment=b"a longer comment", flags=0x100)
    after = edited(before, HeaderEdit(**{field: value}))
    assert getattr(facts(after), field) == value
    changed = [at for at in range(len(before)) if before[at] != after[at]]
    start, length = {
        "uuid": (392, 16),
        "modification_uuid": (408, 16),
        "parent_uuid": (424, 16),
        "parent_modification_uuid": (440, 16),
        "comment": (84, 256),
        "pchs": (348, 16),
        "lchs": (456, 16),
    }[field]
    assert all(start <= at < start + length for at in changed)


def test_several_fields_change_at_once() -> None:
    wanted = HeaderEdit(uuid=NEW, comment="both")
    after = facts(edited(make_image(), wanted))
    assert (after.uuid, after.comment) == (NEW, "both")


@pytest.mark.parametrize(
    ("image", "wanted", "kind", "part"),
    [
        ({}, {"uuid": NULL_UUID}, ErrorKind.INVALID, "null UUID"),
        ({}, {"parent_uuid": PARENT}, ErrorKind.INVALID, "a base, which has no parent"),
        (CHILD, {"parent_uuid": NULL_UUID}, ErrorKind.INVALID, "would lose"),
        (
            {"type": 4, "parent_uuid": PARENT, "uuid": NEW},
            {"parent_uuid": NEW},
            ErrorKind.INVALID,
            "own parent",
        ),
        (
            {"type": 4, "parent_uuid": PARENT},
            {"parent_uuid": NEW, "uuid": NEW},
            ErrorKind.INVALID,
            "own parent",
        ),
        ({}, {"comment": "x" * 256}, ErrorKind.INVALID, "at most 255 bytes"),
        ({}, {"comment": "a\0b"}, ErrorKind.INVALID, "no NUL"),
        ({}, {"pchs": Geometry(16384, 16, 63)}, ErrorKind.INVALID, "the limits are (16383, 16, 63)"),
        ({}, {"lchs": Geometry(-1, 1, 1)}, ErrorKind.INVALID, "the limits are (1024, 255, 63)"),
        ({"header_size": 384}, {"lchs": Geometry(1, 1, 1)}, ErrorKind.UNSUPPORTED, "no place for a logical"),
        ({}, {"parent_path": "x"}, ErrorKind.UNSUPPORTED, "no place for its parent's path"),
        ({}, {"parent_format": "raw"}, ErrorKind.UNSUPPORTED, "no place for its parent's format"),
    ],
)
def test_what_cannot_be_is_refused(
    image: dict[str, Any], wanted: dict[str, Any], kind: ErrorKind, part: str
) -> None:
    with pytest.raises(StorageError) as caught:
        edited(make_image(**image), HeaderEdit(**wanted))
    assert caught.value.kind is kind
    assert part in caught.value.message


def test_a_base_may_forget_a_parent() -> None:
    after = edited(make_image(parent_uuid=PARENT), HeaderEdit(parent_uuid=NULL_UUID))
    assert facts(after).parent_uuid == NULL_UUID


def test_a_child_is_linked_to_another_parent(tmp_path: Path) -> None:
    base, other, child = (tmp_path / f"{name}.vdi" for name in ("base", "other", "child"))
    drivebay.create(base, size="4M")
    drivebay.create(other, size="4M")
    drivebay.create(child, parent=base)
    with drivebay.open(other, writable=True) as disk:
        disk.write(0, b"other")
    base.unlink()
    with pytest.raises(StorageError, match="was not found"):
        drivebay.open(child)
    drivebay.edit(child, parent=other)
    with drivebay.open(child) as disk:
        assert disk.read(0, 5) == b"other"
    drivebay.edit(other, uuid=str(uuid4()))
    with pytest.raises(StorageError, match="was not found"):
        drivebay.open(child)


def test_a_child_that_names_no_parent_gets_the_whole_link(tmp_path: Path) -> None:
    base, child = tmp_path / "base.vdi", tmp_path / "child.vdi"
    made = drivebay.create(base, size="4M")
    child.write_bytes(make_image(type=4))
    found = drivebay.edit(child, parent=base).facts
    assert (found.parent_uuid, found.parent_modification_uuid) == (
        made.facts.uuid,
        made.facts.modification_uuid,
    )
    drivebay.open(child).close()
