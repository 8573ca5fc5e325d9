"""Changing a VHDX image's id and its link to the parent."""

from __future__ import annotations

from uuid import UUID

import pytest

from drivebay.blockmap import HeaderEdit
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import vhdx
from drivebay.model import NULL_UUID, Geometry, ImageFacts
from support.memory_files import MemoryFiles, files_made_by
from support.vhdx_images import (
    DATA_WRITE,
    DISK_ID,
    FILE_WRITE,
    LINKAGE,
    PARENT,
    child,
    dirty,
    log_entry,
    make_image,
    ring,
)

NEW = UUID("11111111-2222-3333-4444-555555555555")


def facts_of(data: bytes) -> ImageFacts:
    return vhdx.FORMAT.open(MemoryFiles(data, "image.vhdx")).facts


def edited(data: bytes, wanted: HeaderEdit) -> bytes:
    files = MemoryFiles(data, "image.vhdx")
    assert vhdx.FORMAT.edit is not None
    assert vhdx.FORMAT.check is not None
    result = files_made_by(vhdx.FORMAT.edit(files, vhdx.FORMAT.open(files), wanted), {"": data})[""]
    after = MemoryFiles(result)
    assert list(vhdx.FORMAT.check(after, vhdx.FORMAT.open(after))) == []
    return result


def refused(data: bytes, wanted: HeaderEdit) -> StorageError:
    with pytest.raises(StorageError) as caught:
        edited(data, wanted)
    assert caught.value.path == "image.vhdx"
    return caught.value


def test_nothing_to_change() -> None:
    assert edited(make_image(), HeaderEdit()) == make_image()


def test_the_disk_s_id() -> None:
    facts = facts_of(edited(make_image(), HeaderEdit(uuid=NEW)))
    assert (facts.uuid, facts.modification_uuid) == (NEW, DATA_WRITE)
    assert facts.details["file write GUID"] != str(FILE_WRITE)


def test_the_modification_uuid() -> None:
    facts = facts_of(edited(make_image(), HeaderEdit(modification_uuid=NEW)))
    assert (facts.uuid, facts.modification_uuid) == (DISK_ID, NEW)


def test_the_parent_s_modification_uuid() -> None:
    facts = facts_of(edited(child(), HeaderEdit(parent_modification_uuid=NEW)))
    assert (facts.parent_modification_uuid, facts.parent_names) == (NEW, ("base.vhdx",))


def test_a_new_path_replaces_all_old_ones() -> None:
    values = {**PARENT, "absolute_win32_path": "\\\\?\\c:\\base.vhdx", "mine": "kept"}
    facts = facts_of(edited(child(values=values), HeaderEdit(parent_path="../new/parent.vhdx")))
    assert facts.parent_names == ("../new/parent.vhdx", "parent.vhdx")
    assert facts.parent_modification_uuid == LINKAGE
    assert "parent absolute_win32_path" not in facts.details


def test_many_edits_find_room() -> None:
    data = child()
    for number in range(40):
        data = edited(data, HeaderEdit(parent_path=f"{'x' * 20 * number}/base.vhdx"))
    assert facts_of(data).parent_names[0] == f"{'x' * 780}/base.vhdx"


@pytest.mark.parametrize(
    "wanted",
    [
        HeaderEdit(parent_uuid=NEW),
        HeaderEdit(parent_format="vhdx"),
        HeaderEdit(comment=""),
        HeaderEdit(pchs=Geometry(1, 1, 1)),
        HeaderEdit(lchs=Geometry(1, 1, 1)),
    ],
)
def test_what_vhdx_has_no_place_for(wanted: HeaderEdit) -> None:
    assert refused(child(), wanted).kind is ErrorKind.UNSUPPORTED


def test_what_can_t_be() -> None:
    assert refused(make_image(), HeaderEdit(uuid=NULL_UUID)).kind is ErrorKind.INVALID
    assert refused(make_image(), HeaderEdit(parent_path="base.vhdx")).kind is ErrorKind.INVALID
    with pytest.raises(StorageError, match="can't record"):
        edited(child(), HeaderEdit(parent_path="a\\b"))


def test_a_log_to_be_replayed_forbids_edits() -> None:
    error = refused(dirty(ring({0: log_entry([])})), HeaderEdit(uuid=NEW))
    assert error.kind is ErrorKind.STATE
    assert "repair" in error.message
