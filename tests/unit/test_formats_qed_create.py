"""New QED images, and edits of their headers."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from drivebay.blockmap import CreateRequest, HeaderEdit, ParentLink
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import qed
from drivebay.formats.qed import QedOptions
from support.memory_files import MemoryFiles, file_made_by, files_made_by
from support.qed_images import CLUSTER, make_image

SOME = UUID(int=1)


def created(
    size: int = 1 << 20, parent: ParentLink | None = None, comment: str = "", **options: Any
) -> bytes:
    assert qed.FORMAT.create is not None
    request = CreateRequest(size, QedOptions(**options), SOME, SOME, parent=parent, comment=comment)
    return file_made_by(qed.FORMAT.create(request))


def facts_of(data: bytes) -> Any:
    return qed.FORMAT.open(MemoryFiles(data, "image.qed")).facts


def link(path: str = "base.img", kind: str = "raw") -> ParentLink:
    return ParentLink(SOME, SOME, path, format=kind)


@pytest.mark.parametrize(("cluster", "table"), [(4096, 1), (4096, 16), (65536, 4), (1 << 20, 16)])
def test_a_new_image_is_empty_and_sound(cluster: int, table: int) -> None:
    data = created(block_size=cluster, table_size=table)
    assert len(data) == cluster * (1 + table)
    files = MemoryFiles(data, "image.qed")
    layer = qed.FORMAT.open(files)
    assert (layer.facts.size, layer.facts.block_size) == (1 << 20, cluster)
    assert layer.facts.details["table size"] == table
    assert qed.FORMAT.check is not None
    assert list(qed.FORMAT.check(files, layer)) == []


def test_the_header_comes_last() -> None:
    assert qed.FORMAT.create is not None
    *_, last = qed.FORMAT.create(CreateRequest(512, QedOptions(), SOME, SOME))
    assert last.offset == 0
    assert getattr(last, "data", b"")[:4] == b"QED\0"


@pytest.mark.parametrize(("kind", "recorded"), [("raw", "raw"), ("qcow2", None)])
def test_a_child_names_its_parent(kind: str, recorded: str | None) -> None:
    facts = facts_of(created(parent=link("dir/base", kind)))
    assert (facts.differencing, facts.parent_names, facts.parent_format) == (True, ("dir/base",), recorded)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": 1000},
        {"block_size": 2048},
        {"block_size": 128 << 20},
        {"block_size": 12288},
        {"table_size": 0},
        {"table_size": 3},
        {"table_size": 32},
        {"size": (512 * 512 * 4096) + 512, "block_size": 4096, "table_size": 1},
        {"variant": "fixed"},
        {"variant": "differencing"},
        {"variant": "dynamic", "parent": link()},
        {"comment": "none"},
        {"parent": link("")},
        {"parent": link("x" * 1024)},
    ],
)
def test_what_qed_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(StorageError) as caught:
        created(**wrong)
    assert caught.value.kind is ErrorKind.INVALID


def edited(data: bytes, change: HeaderEdit) -> bytes:
    files = MemoryFiles(data, "image.qed")
    assert qed.FORMAT.edit is not None
    return files_made_by(qed.FORMAT.edit(files, qed.FORMAT.open(files), change), {"": data})[""]


def test_a_base_gets_a_parent_and_loses_it() -> None:
    child = edited(make_image(), HeaderEdit(parent_path="new.img", parent_format="raw"))
    assert (facts_of(child).parent_names, facts_of(child).parent_format) == (("new.img",), "raw")
    probed = edited(child, HeaderEdit(parent_format="vdi"))
    assert (facts_of(probed).parent_names, facts_of(probed).parent_format) == (("new.img",), None)
    assert edited(probed, HeaderEdit(parent_path="")) == make_image()[:64] + child[64:]


def test_a_new_name_does_not_overwrite_the_old_one() -> None:
    data = make_image(backing=b"old.img")
    after = edited(data, HeaderEdit(parent_path="a longer name.img"))
    assert facts_of(after).parent_names == ("a longer name.img",)
    assert after[64:71] == b"old.img"
    assert facts_of(edited(after, HeaderEdit(parent_path="3.img"))).parent_names == ("3.img",)


def test_the_longest_name_fits_a_small_header() -> None:
    data = make_image(backing=b"x" * (CLUSTER - 64), name_offset=CLUSTER - 1023, name_size=1023)
    assert facts_of(edited(data, HeaderEdit(parent_path="y" * 1023))).parent_names == ("y" * 1023,)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (HeaderEdit(uuid=SOME), ErrorKind.UNSUPPORTED),
        (HeaderEdit(comment="no"), ErrorKind.UNSUPPORTED),
        (HeaderEdit(parent_format="raw"), ErrorKind.INVALID),
        (HeaderEdit(parent_path="x" * 1024), ErrorKind.INVALID),
    ],
)
def test_what_cannot_be_edited(change: HeaderEdit, kind: ErrorKind) -> None:
    with pytest.raises(StorageError) as caught:
        edited(make_image(), change)
    assert caught.value.kind is kind
