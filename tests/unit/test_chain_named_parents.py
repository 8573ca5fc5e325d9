"""Chains whose parents are known, so that none is searched for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import drivebay
from drivebay.blockmap import HeaderEdit
from drivebay.chain import create_image, open_chain
from drivebay.chain.edit import edit_header
from drivebay.chain.resolve import open_image
from drivebay.errors import ErrorKind, StorageError

MIB = 1 << 20


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """A chain over three folders, top first."""
    base = tmp_path / "bases" / "base.vdi"
    paths = [tmp_path / "tops" / "top.vdi", tmp_path / "middles" / "middle.vdi", base]
    for path in paths:
        path.parent.mkdir()
    drivebay.create(base, size=MIB)
    create_image(paths[1], parent=base)
    create_image(paths[0], parent=paths[1])
    return paths


def test_exactly_the_named_ones_are_opened(paths: list[Path]) -> None:
    copy = paths[2].with_name("copy.vdi")
    shutil.copy(paths[2], copy)
    with pytest.raises(StorageError):
        open_chain(paths[0])  # it would have to be searched for
    for base in (paths[2], copy):
        with open_chain(paths[0], parents=[paths[1], base]) as chain:
            assert [layer.sources[0].path for layer in chain.layers] == [*map(str, paths[:2]), str(base)]


def test_links_are_verified(paths: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other.vdi"
    drivebay.create(other, size=MIB)
    for parents, said in (
        ([paths[1], other], "another image"),
        ([other], "another image"),
        ([paths[1]], "not known"),
        ([*paths[1:], other], "it has no parent"),
        ([], "not known"),
    ):
        with pytest.raises(StorageError, match=said) as caught:
            open_chain(paths[0], parents=parents)
        assert caught.value.kind is ErrorKind.STATE


def test_what_a_merge_has_emptied_is_left_out(paths: list[Path]) -> None:
    """Its child names the parent below it already; whoever named the parents doesn't know that yet."""
    with open_image(str(paths[2])) as base:
        link = HeaderEdit(
            parent_uuid=base.layer.facts.uuid, parent_modification_uuid=base.layer.facts.modification_uuid
        )
    with open_image(str(paths[0]), writable=True) as top:
        edit_header(top, link)
    with open_chain(paths[0], parents=paths[1:]) as chain:
        assert [layer.sources[0].path for layer in chain.layers] == [str(paths[0]), str(paths[2])]


def test_a_parent_that_changed_is_stale_here_too(paths: list[Path]) -> None:
    with drivebay.open(paths[1], search=paths, writable=True) as disk:
        disk.write(0, b"behind its child")
    with pytest.raises(StorageError, match="changed behind it"):
        open_chain(paths[0], parents=paths[1:])
    open_chain(paths[0], parents=paths[1:], allow_stale_parent=True).close()


def test_formats_are_not_probed_where_they_are_known(tmp_path: Path) -> None:
    base = tmp_path / "base.bin"
    drivebay.create(tmp_path / "inner.vdi", size=MIB)
    shutil.copy(tmp_path / "inner.vdi", base)  # a raw disk with a VDI's header in it
    with open_chain(base, format_name="raw") as chain:
        size = chain.layers[0].layer.facts.size
    create_image(tmp_path / "top.vdi", parent=base, parent_format="raw")
    with open_chain(tmp_path / "top.vdi", parents=[base], parent_formats=["raw"]) as chain:
        assert chain.layers[1].layer.facts.format == "raw"
        assert chain.layers[1].layer.facts.size == size


def test_states_within_a_bundle_need_no_names(tmp_path: Path) -> None:
    bundle = tmp_path / "disk.hdd"
    drivebay.create(bundle, size=4 * MIB, variant="bundle")
    create_image(bundle, parent=bundle)
    with open_chain(bundle, parents=[]) as chain:
        assert len(chain.layers) == 2
