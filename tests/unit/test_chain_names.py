"""Parents that are known by name: formats without UUIDs, and chains that mix formats."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import pytest

import drivebay
from drivebay.chain import create_image, open_chain
from drivebay.errors import ErrorKind, StorageError
from support.toy_format import know_toys, make_toy, read_toy

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    know_toys(monkeypatch)


def _names(path: Path, **options: object) -> list[str]:
    with open_chain(path, **options) as chain:  # type: ignore[arg-type]
        return [os.path.relpath(layer.sources[0].path, path.parent) for layer in chain.layers]


def _failure(path: Path, kind: ErrorKind, **options: object) -> str:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StorageError) as caught:
        open_chain(path, **options)  # type: ignore[arg-type]
    assert caught.value.kind is kind, caught.value
    assert len(os.listdir("/proc/self/fd")) == before, "files were left open"
    return str(caught.value)


def test_each_name_counts_from_the_folder_of_the_image_that_records_it(tmp_path: Path) -> None:
    make_toy(tmp_path / "a" / "b" / "base.toy")
    make_toy(tmp_path / "a" / "middle.toy", parents=["b/base.toy"])
    top = make_toy(tmp_path / "top.toy", parents=["a/middle.toy"])
    assert _names(top) == ["top.toy", "a/middle.toy", "a/b/base.toy"]


def test_the_first_name_that_leads_to_a_fitting_image_is_taken(tmp_path: Path) -> None:
    uuid = str(uuid4())
    make_toy(tmp_path / "other.toy", uuid=str(uuid4()))
    (tmp_path / "damaged.vdi").write_bytes(b"no header")
    make_toy(tmp_path / "base.toy", uuid=uuid)
    names = ["missing.toy", "damaged.vdi", "other.toy", "base.toy"]
    assert _names(make_toy(tmp_path / "top.toy", parents=names, parent_uuid=uuid))[1] == "base.toy"


def test_a_uuid_finds_the_parent_that_no_name_finds(tmp_path: Path) -> None:
    uuid = str(uuid4())
    make_toy(tmp_path / "renamed.toy", uuid=uuid)
    assert _names(make_toy(tmp_path / "top.toy", parents=["old.toy"], parent_uuid=uuid))[1] == "renamed.toy"


def test_a_named_file_goes_before_recorded_names(tmp_path: Path) -> None:
    make_toy(tmp_path / "base.toy")
    copy = make_toy(tmp_path / "copy" / "base.toy")
    top = make_toy(tmp_path / "top.toy", parents=["base.toy"])
    assert _names(top)[1] == "base.toy"
    assert _names(top, search=[copy])[1] == "copy/base.toy"
    assert _names(top, search=[tmp_path / "copy"])[1] == "base.toy"


def test_a_granted_folder_is_looked_into_for_the_name(tmp_path: Path) -> None:
    make_toy(tmp_path / "pool" / "base.toy")
    top = make_toy(tmp_path / "home" / "top.toy", parents=["/where/it/was/base.toy"])
    message = _failure(top, ErrorKind.NOT_FOUND)
    assert f"its parent '/where/it/was/base.toy' was not found (looked in {tmp_path}/home)" in message
    assert _names(top, search=[tmp_path / "pool"])[1] == "../pool/base.toy"


def test_a_parent_that_was_moved_along_with_its_child_is_found_beside_it(tmp_path: Path) -> None:
    make_toy(tmp_path / "base.toy")
    for name in ("/where/it/was/base.toy", "../gone/base.toy", "gone/base.toy"):
        top = make_toy(tmp_path / "top.toy", parents=[name])
        assert _names(top)[1] == "base.toy"
        top.unlink()


def test_a_neighbour_is_not_taken_for_a_parent_that_is_still_there(tmp_path: Path) -> None:
    elsewhere = make_toy(tmp_path / "pool" / "base.toy")
    make_toy(tmp_path / "home" / "base.toy")
    top = make_toy(tmp_path / "home" / "top.toy", parents=[str(elsewhere)])
    assert f"--search {tmp_path}/pool" in _failure(top, ErrorKind.READ_ONLY)


def test_an_image_with_its_missing_parents_name_is_not_its_own_parent(tmp_path: Path) -> None:
    top = make_toy(tmp_path / "same.toy", parents=["/where/it/was/same.toy"])
    assert "was not found" in _failure(top, ErrorKind.NOT_FOUND)


def test_a_renamed_parent_can_be_named(tmp_path: Path) -> None:
    renamed = make_toy(tmp_path / "renamed.toy")
    top = make_toy(tmp_path / "top.toy", parents=["old.toy"])
    _failure(top, ErrorKind.NOT_FOUND)
    assert _names(top, search=[renamed])[1] == "renamed.toy"


def test_a_parent_outside_needs_a_grant(tmp_path: Path) -> None:
    make_toy(tmp_path / "pool" / "base.toy")
    top = make_toy(tmp_path / "home" / "top.toy", parents=["../pool/base.toy"])
    message = _failure(top, ErrorKind.READ_ONLY)
    assert message.endswith(f"allow it: --search {tmp_path}/pool")
    for grant in (tmp_path / "pool", tmp_path / "pool" / "base.toy"):
        assert _names(top, search=[grant])[1] == "../pool/base.toy"


def test_an_image_that_names_itself_is_a_loop(tmp_path: Path) -> None:
    top = make_toy(tmp_path / "top.toy", parents=["top.toy"])
    for writable in (False, True):
        message = _failure(top, ErrorKind.CORRUPT, writable=writable)
        assert f"its parent 'top.toy' is its own descendant {top}: a loop" in message


def test_a_loop_through_links_and_folders_is_found(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(".")
    make_toy(tmp_path / "base.toy", parents=["link/link/top.toy"])
    os.link(tmp_path / "base.toy", tmp_path / "hard.toy")
    assert ": a loop" in _failure(make_toy(tmp_path / "top.toy", parents=["hard.toy"]), ErrorKind.CORRUPT)


def test_several_images_in_one_file_are_a_chain_not_a_loop(tmp_path: Path) -> None:
    def part(**header: object) -> dict[str, object]:
        return {"parent_part": "", "parents": [], **header}

    path = make_toy(
        tmp_path / "disk.toy",
        parents=["disk.toy"],
        parent_part="second",
        in_part={"second": part(parents=["disk.toy"], parent_part="first"), "first": part()},
    )
    assert _names(path, writable=True) == ["disk.toy"] * 3
    assert _names(path, part="second") == ["disk.toy"] * 2
    make_toy(
        tmp_path / "disk.toy", parents=["disk.toy"], parent_part="a", in_part={"a": {"parent_part": "a"}}
    )
    assert "a loop" in _failure(path, ErrorKind.CORRUPT)


def test_the_recorded_format_is_not_probed(tmp_path: Path) -> None:
    base = make_toy(tmp_path / "base.img", parents=["/etc/shadow"])  # a guest wrote this header
    top = make_toy(tmp_path / "top.toy", parents=["base.img"], parent_format="raw")
    with open_chain(top) as chain:
        assert [layer.layer.facts.format for layer in chain.layers] == ["toy", "raw"]
        assert chain.layers[1].layer.facts.size == base.stat().st_size
    assert "a header" not in _failure(
        make_toy(top, parents=["base.img"], parent_format="vdi"), ErrorKind.NOT_FOUND
    )


@pytest.mark.parametrize(
    ("recorded", "found", "stale"), [(1, 2, True), (1, 1, False), (None, 2, False), (1, None, False)]
)
def test_content_ids_are_compared(
    tmp_path: Path, recorded: int | None, found: int | None, stale: bool
) -> None:
    base = make_toy(tmp_path / "base.toy", content=found)
    top = make_toy(tmp_path / "top.toy", parents=["base.toy"], parent_content=recorded)
    if stale:
        message = _failure(top, ErrorKind.STATE)
        for part in (str(base), "0x00000001", "0x00000002", "--allow-stale-parent"):
            assert part in message
    assert len(_names(top, allow_stale_parent=stale)) == 2


def test_a_modification_alone_links_where_there_are_names(tmp_path: Path) -> None:
    recorded, other = str(uuid4()), str(uuid4())
    make_toy(tmp_path / "renamed.toy", modification=recorded)
    top = make_toy(tmp_path / "top.toy", parents=["base.toy"], parent_modification=recorded)
    assert _names(top)[1] == "renamed.toy"
    make_toy(tmp_path / "base.toy", modification=other)
    assert "has changed behind it" in _failure(top, ErrorKind.STATE)
    assert _names(top, allow_stale_parent=True)[1] == "base.toy"


def test_a_vdi_child_knows_a_parent_without_uuid_by_its_name(tmp_path: Path) -> None:
    base = make_toy(tmp_path / "base.toy")
    child = tmp_path / "child.vdi"
    create_image(child, parent=base)
    assert _names(child) == ["child.vdi", "base.toy"]
    renamed = base.rename(tmp_path / "renamed.toy")
    _failure(child, ErrorKind.NOT_FOUND)
    assert _names(child, search=[renamed])[1] == "renamed.toy"
    with pytest.raises(StorageError, match="was not found"):
        open_chain(child, search=[make_toy(tmp_path / "other" / "x.toy", uuid=str(uuid4()))])


def test_a_child_records_all_that_its_format_may_want(tmp_path: Path) -> None:
    base = make_toy(tmp_path / "base.toy", uuid=str(uuid4()), content=7)
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.toy").symlink_to("base.toy")
    create_image(tmp_path / "sub" / "top.toy", parent=tmp_path / "link.toy")
    made = read_toy(tmp_path / "sub" / "top.toy")
    assert made["parents"] == ["../base.toy"]
    assert made["link"] == [read_toy(base)["uuid"], str(base), "toy", 7, 512]


def test_a_parents_format_can_be_given(tmp_path: Path) -> None:
    make_toy(tmp_path / "base.img")
    with pytest.raises(StorageError, match="begins with a toy header"):
        create_image(tmp_path / "top.toy", parent=tmp_path / "base.img")
    create_image(tmp_path / "top.toy", parent=tmp_path / "base.img", parent_format="raw")
    assert read_toy(tmp_path / "top.toy")["link"][2] == "raw"


@pytest.mark.parametrize("child", ["child.qed", "child.vmdk", "child.vdi"])
def test_a_parent_of_two_formats_is_told_how_to_be_found(tmp_path: Path, child: str) -> None:
    create_image(tmp_path / "base.qcow2", size=MIB)
    (tmp_path / "base.qcow2").rename(tmp_path / "base.img")
    create_image(tmp_path / child, parent=tmp_path / "base.img", parent_format="qcow2")
    message = _failure(tmp_path / child, ErrorKind.NOT_FOUND)
    assert (
        f"(--format is the child's format), let its name end as its format's names do, and then: "
        f"drivebay set {tmp_path / child} parent IMAGE" in message
    )
    (tmp_path / "base.img").rename(tmp_path / "base.qcow2")
    drivebay.edit(tmp_path / child, parent=tmp_path / "base.qcow2")
    assert _names(tmp_path / child) == [child, "base.qcow2"]


def test_a_renamed_parent_that_only_a_name_leads_to_can_be_recorded(tmp_path: Path) -> None:
    create_image(tmp_path / "base.vdi", size=MIB)
    create_image(tmp_path / "child.qcow2", parent=tmp_path / "base.vdi")
    renamed = (tmp_path / "base.vdi").rename(tmp_path / "other.vdi")
    message = _failure(tmp_path / "child.qcow2", ErrorKind.NOT_FOUND, search=[renamed])
    assert f"if it has another name now: drivebay set {tmp_path / 'child.qcow2'} parent IMAGE" in message
    drivebay.edit(tmp_path / "child.qcow2", parent=renamed)
    assert _names(tmp_path / "child.qcow2") == ["child.qcow2", "other.vdi"]
