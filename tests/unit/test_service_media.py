"""Media: what may be done with them and what is refused, by the rows of the specification's error table."""

from __future__ import annotations

import dataclasses
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from drivebay.chain import open_image
from drivebay.errors import ErrorKind, StorageError
from drivebay.registry.database import Registry, open_registry
from drivebay.registry.home import find_home
from drivebay.registry.medium import DeviceType, Medium, MediumType, Use
from drivebay.service import deletion, doctor, duplicates, images, media, moving
from drivebay.service.disks import open_disk
from drivebay.service.media_state import MediumState, media_info
from drivebay.service.options import OpenOptions
from drivebay.service.registering import register
from support.images import ImageSpec, make_image


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with open_registry(find_home(tmp_path / "home"), durable=False) as registry:
        yield registry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "images"
    made.mkdir()
    return made


@pytest.fixture
def base(registry: Registry, folder: Path) -> Medium:
    return media.create_medium(registry, str(folder / "base.vdi"), size="8M")


@pytest.fixture
def child(registry: Registry, folder: Path, base: Medium) -> Medium:
    return media.create_medium(registry, str(folder / "child.vdi"), parent=base.path)


def _attach(registry: Registry, medium: Medium, *, machines: int = 1, snapshot: bool = False) -> None:
    with registry.change() as change:
        for _ in range(machines):
            machine = uuid4()
            change.set_uses(machine, [Use(medium.uuid, machine, uuid4() if snapshot else None)])


def _state(registry: Registry, medium: Medium) -> tuple[MediumState, str]:
    with registry.view() as view:
        (info,) = media_info(view, only=medium.uuid)
    return info.condition.state, info.condition.reason


def test_e18_impossible_sizes_and_formats(registry: Registry, folder: Path) -> None:
    wanted: list[dict[str, Any]] = [{"size": "-1"}, {"size": "8M", "format": "nonsense"}]
    for wrong in wanted:
        with pytest.raises(StorageError) as error:
            media.create_medium(registry, str(folder / "new.vdi"), **wrong)
        assert error.value.kind is ErrorKind.INVALID
    assert not list(folder.iterdir())
    with registry.view() as view:
        assert not view.tree.media


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("zero.vdi", {"size": "0"}),
        ("unaligned.vdi", {"size": str((8 << 20) + 1)}),
        ("unaligned.img", {"size": "1000"}),
        ("small.vdi", {"size": "512"}),
        ("large.vhd", {"size": "3T"}),
        ("large.vhdx", {"size": "65T"}),
        ("huge.qcow2", {"size": "16E"}),
        ("alone.vdi", {"size": "8M", "variant": "differencing"}),
    ],
)
def test_e19_sizes_and_variants_that_a_format_cannot_have(
    registry: Registry, folder: Path, name: str, wanted: dict[str, Any]
) -> None:
    with pytest.raises(StorageError, match=r"; (give|use|name|leave) |parent") as error:
        media.create_medium(registry, str(folder / name), **wanted)
    assert error.value.kind is ErrorKind.INVALID
    assert not list(folder.iterdir())
    with registry.view() as view:
        assert not view.tree.media


def test_e20_unsupported_variant(registry: Registry, folder: Path) -> None:
    with pytest.raises(StorageError, match="variant"):
        media.create_medium(registry, str(folder / "new.vdi"), size="8M", variant="split")


def test_e21_e22_missing_file_is_inaccessible(registry: Registry, base: Medium) -> None:
    os.unlink(base.path)
    state, reason = _state(registry, base)
    assert state is MediumState.INACCESSIBLE
    assert "No such file" in reason


def test_e22_nothing_is_overwritten(registry: Registry, folder: Path, base: Medium) -> None:
    (folder / "there.vdi").write_text("precious")
    with pytest.raises(StorageError, match="exists"):
        media.create_medium(registry, str(folder / "there.vdi"), size="8M")
    with pytest.raises(StorageError, match="none is ever overwritten"):
        moving.move_medium(registry, base.path, "there.vdi")
    assert (folder / "there.vdi").read_text() == "precious"


def test_e23_unrecognised_format(registry: Registry, folder: Path) -> None:
    (folder / "empty.vdi").write_bytes(b"")
    with pytest.raises(StorageError):
        register(registry, str(folder / "empty.vdi"))


def test_e24_wrong_device_kind(registry: Registry, folder: Path, base: Medium) -> None:
    (folder / "cd.iso").write_bytes(bytes(4096))
    media.close_medium(registry, base.path)
    with pytest.raises(StorageError, match="--device disk"):
        register(registry, base.path, device=DeviceType.DVD)
    with pytest.raises(StorageError, match="--format raw"):
        register(registry, str(folder / "cd.iso"), device=DeviceType.DISK)
    (disc,) = register(registry, str(folder / "cd.iso"))
    assert (disc.device, disc.type) == (DeviceType.DVD, MediumType.READONLY)


def test_e25_duplicate_uuid_has_three_ways_out(registry: Registry, folder: Path, base: Medium) -> None:
    copy = str(folder / "copy.vdi")
    shutil.copy(base.path, copy)
    with pytest.raises(StorageError, match=r"relink .*adopt .*replace ") as error:
        register(registry, copy)
    assert base.path in error.value.message
    with pytest.raises(StorageError, match="relink"):
        duplicates.relocate_medium(registry, str(base.uuid), copy, gone=True)
    assert duplicates.replace_medium(registry, copy).uuid == base.uuid
    assert duplicates.adopt_image(registry, base.path).uuid not in (base.uuid, None)
    os.rename(copy, folder / "moved.vdi")
    moved = duplicates.relocate_medium(registry, str(base.uuid), str(folder / "moved.vdi"), gone=True)
    assert moved.path == str(folder / "moved.vdi")
    assert _state(registry, moved)[0] is MediumState.CREATED


def test_p2_a_medium_is_found_again_though_another_image_lies_at_its_place(
    registry: Registry, folder: Path, base: Medium, child: Medium
) -> None:
    moved = str(folder / "moved.vdi")
    os.rename(base.path, moved)
    images.create_image(base.path, size="8M")
    assert [(one.code, one.path) for one in doctor.examine(registry)] == [("moved", base.path)]
    assert duplicates.relocate_medium(registry, str(base.uuid), moved, gone=True).path == moved
    assert doctor.examine(registry) == []
    assert _state(registry, child)[0] is MediumState.CREATED
    (other,) = register(registry, base.path)
    assert other.uuid != base.uuid


def test_e25_the_same_file_by_another_name_is_the_same_medium(
    registry: Registry, folder: Path, base: Medium
) -> None:
    os.link(base.path, folder / "hard.vdi")
    os.symlink(base.path, folder / "soft.vdi")
    for name in ("hard.vdi", "soft.vdi", "base.vdi"):
        assert register(registry, str(folder / name)) == [base]


def test_e25_a_uuid_that_is_registered_can_not_be_given(
    registry: Registry, folder: Path, base: Medium
) -> None:
    with pytest.raises(StorageError, match="registered already"):
        media.create_medium(registry, str(folder / "new.vdi"), size="8M", uuid=base.uuid)


def test_e26_another_image_in_a_mediums_place(registry: Registry, base: Medium) -> None:
    os.unlink(base.path)
    images.create_image(base.path, size="8M")
    state, reason = _state(registry, base)
    assert state is MediumState.INACCESSIBLE
    assert "relink" in reason
    assert "adopt" in reason
    with pytest.raises(StorageError, match="another image"):
        register(registry, base.path)
    replaced = duplicates.replace_medium(registry, base.path)
    assert replaced.uuid != base.uuid
    assert _state(registry, replaced)[0] is MediumState.CREATED


def test_e26_an_image_can_take_on_the_identity_of_its_place(registry: Registry, base: Medium) -> None:
    os.unlink(base.path)
    images.create_image(base.path, size="8M")
    assert duplicates.adopt_image(registry, base.path) == base
    assert _state(registry, base)[0] is MediumState.CREATED


def test_e27_unknown_parents_are_found_and_registered(registry: Registry, folder: Path) -> None:
    (folder / "Snapshots").mkdir()
    images.create_image(folder / "raw.img", size="8M")
    images.create_image(folder / "middle.qcow2", parent=folder / "raw.img")
    images.create_image(folder / "Snapshots" / "top.vdi", parent=folder / "middle.qcow2")
    found = register(registry, str(folder / "Snapshots" / "top.vdi"))
    assert [os.path.basename(one.path) for one in found] == ["top.vdi", "middle.qcow2", "raw.img"]
    assert [one.parent for one in found] == [found[1].uuid, found[2].uuid, None]
    assert all(_state(registry, one)[0] is MediumState.CREATED for one in found)


def test_e27_a_parent_that_is_nowhere_is_refused(registry: Registry, folder: Path) -> None:
    images.create_image(folder / "base.vdi", size="8M")
    images.create_image(folder / "child.vdi", parent=folder / "base.vdi")
    os.unlink(folder / "base.vdi")
    with pytest.raises(StorageError, match="--search"):
        register(registry, str(folder / "child.vdi"))
    with registry.view() as view:
        assert not view.tree.media


def test_e28_the_files_parent_is_not_the_registrys(registry: Registry, folder: Path, child: Medium) -> None:
    other = media.create_medium(registry, str(folder / "other.vdi"), size="8M")
    with registry.change() as change:
        change.put_medium(dataclasses.replace(child, parent=other.uuid))
    state, reason = _state(registry, child)
    assert state is MediumState.INACCESSIBLE
    assert str(other.uuid) in reason


@pytest.mark.parametrize("snapshot", [False, True])
def test_e29_close_and_delete_an_attached_medium(registry: Registry, base: Medium, snapshot: bool) -> None:
    _attach(registry, base, snapshot=snapshot)
    for action in (media.close_medium, deletion.delete_medium):
        with pytest.raises(StorageError, match="detach it there") as error:
            action(registry, base.path)
        assert error.value.kind is ErrorKind.IN_USE
    assert os.path.exists(base.path)


@pytest.mark.usefixtures("child")
def test_e29_close_and_delete_a_parent(registry: Registry, base: Medium) -> None:
    for action in (media.close_medium, deletion.delete_medium):
        with pytest.raises(StorageError, match=r"child\.vdi") as error:
            action(registry, base.path)
        assert error.value.kind is ErrorKind.IN_USE


def test_e30_a_device_is_not_deleted_or_moved(
    registry: Registry, base: Medium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stat.S_ISBLK", lambda mode: stat.S_ISREG(mode))  # no test may make a device
    for action in (
        lambda: deletion.delete_medium(registry, base.path),
        lambda: moving.move_medium(registry, base.path, "new"),
    ):
        with pytest.raises(StorageError, match="block device") as error:
            action()
        assert error.value.kind is ErrorKind.UNSUPPORTED
    assert os.path.exists(base.path)


def test_e31_a_locked_medium(registry: Registry, base: Medium) -> None:
    with open_disk(base.path, writable=True):
        state, holder = _state(registry, base)
        assert state is MediumState.LOCKED_WRITE
        assert str(os.getpid()) in holder
        for action in (
            lambda: deletion.delete_medium(registry, base.path),
            lambda: moving.move_medium(registry, base.path, "new"),
            lambda: media.set_type(registry, base.path, MediumType.IMMUTABLE),
            lambda: media.describe_medium(registry, base.path, "text"),
        ):
            with pytest.raises(StorageError, match=str(os.getpid())) as error:
                action()
            assert error.value.kind is ErrorKind.IN_USE
    with open_disk(base.path):
        assert _state(registry, base)[0] is MediumState.LOCKED_READ
    assert _state(registry, base)[0] is MediumState.CREATED


def test_e32_types_that_a_medium_can_not_have(
    registry: Registry, folder: Path, base: Medium, child: Medium
) -> None:
    (folder / "cd.iso").write_bytes(bytes(4096))
    (folder / "boot.flp").write_bytes(bytes(1440 * 1024))
    register(registry, str(folder / "cd.iso"))
    register(registry, str(folder / "boot.flp"))
    refused = [
        (child.path, MediumType.IMMUTABLE, "write mode of its base"),
        (base.path, MediumType.READONLY, "can't be readonly"),
        (str(folder / "cd.iso"), MediumType.NORMAL, "it can be readonly"),
        (str(folder / "boot.flp"), MediumType.IMMUTABLE, "writethrough"),
        (base.path, MediumType.SHAREABLE, "fixed"),
    ]
    for name, wanted, why in refused:
        with pytest.raises(StorageError, match=why) as error:
            media.set_type(registry, name, wanted)
        assert error.value.kind is ErrorKind.STATE
    assert media.set_type(registry, base.path, MediumType.MULTIATTACH).type is MediumType.MULTIATTACH


def test_e32_types_of_attached_media(registry: Registry, base: Medium) -> None:
    _attach(registry, base)
    with pytest.raises(StorageError, match="by a diff only"):
        media.set_type(registry, base.path, MediumType.IMMUTABLE)
    assert media.set_type(registry, base.path, MediumType.WRITETHROUGH).type is MediumType.WRITETHROUGH
    _attach(registry, base)
    with pytest.raises(StorageError, match="more than one machine"):
        media.set_type(registry, base.path, MediumType.NORMAL)


def test_e32_a_fixed_disk_can_be_shared(registry: Registry, folder: Path) -> None:
    fixed = media.create_medium(
        registry, str(folder / "fixed.vdi"), size="8M", variant="fixed", type=MediumType.SHAREABLE
    )
    assert fixed.type is MediumType.SHAREABLE


def test_e33_a_parent_stays_what_can_have_children(registry: Registry, base: Medium, child: Medium) -> None:
    with pytest.raises(StorageError, match=r"child\.vdi") as error:
        media.set_type(registry, base.path, MediumType.WRITETHROUGH)
    assert error.value.kind is ErrorKind.IN_USE
    assert child.parent == base.uuid


def test_e34_no_diff_on_a_writethrough_disk(registry: Registry, folder: Path, base: Medium) -> None:
    media.set_type(registry, base.path, MediumType.WRITETHROUGH)
    with pytest.raises(StorageError, match="writethrough"):
        media.create_medium(registry, str(folder / "new.vdi"), parent=base.path)
    assert not (folder / "new.vdi").exists()


def test_e35_no_diff_on_a_disk_that_a_machine_writes(registry: Registry, folder: Path, base: Medium) -> None:
    _attach(registry, base)
    with pytest.raises(StorageError, match="detach it there"):
        media.create_medium(registry, str(folder / "new.vdi"), parent=base.path)


def test_e39_auto_reset_of_a_base(registry: Registry, base: Medium, child: Medium) -> None:
    with pytest.raises(StorageError, match="immutable") as error:
        media.set_auto_reset(registry, base.path, True)
    assert error.value.kind is ErrorKind.UNSUPPORTED
    assert media.set_auto_reset(registry, child.path, True).auto_reset


def test_e54_moving_nowhere(registry: Registry, base: Medium) -> None:
    with pytest.raises(StorageError, match="already"):
        moving.move_medium(registry, base.path, base.path)
    with pytest.raises(StorageError, match="already"):
        duplicates.relocate_medium(registry, base.path, base.path)


def test_what_a_snapshot_keeps_is_read_only_and_what_it_only_names_is_not(
    registry: Registry, folder: Path, base: Medium
) -> None:
    through = media.create_medium(
        registry, str(folder / "through.vdi"), size="8M", type=MediumType.WRITETHROUGH
    )
    _attach(registry, base, snapshot=True)
    _attach(registry, through, snapshot=True)
    with registry.view() as view:
        why = {info.medium.uuid: info.read_only for info in media_info(view)}
    assert why == {base.uuid: "a snapshot keeps it", through.uuid: ""}


def test_p19_deleting_and_bringing_back(registry: Registry, folder: Path) -> None:
    made = media.create_medium(
        registry, str(folder / "split.vmdk"), size="8M", variant="twoGbMaxExtentFlat", comment="kept"
    )
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    assert len(before) > 1
    deletion.delete_medium(registry, made.path)
    assert not list(folder.iterdir())
    assert deletion.undelete_medium(registry, made.path) == made
    assert {path.name: path.stat().st_ino for path in folder.iterdir()} == before
    deletion.delete_medium(registry, made.path, now=True)
    assert not list(folder.iterdir())
    with pytest.raises(StorageError, match="list --trash"):
        deletion.undelete_medium(registry, made.path)


def test_p19_a_medium_whose_file_is_gone_can_be_deleted(registry: Registry, base: Medium) -> None:
    os.unlink(base.path)
    deletion.delete_medium(registry, base.path)
    with registry.view() as view:
        assert not view.tree.media


def test_undelete_takes_a_file_name_that_only_one_had(registry: Registry, folder: Path, base: Medium) -> None:
    deletion.delete_medium(registry, str(base.uuid))
    assert deletion.undelete_medium(registry, "base.vdi") == base
    deletion.delete_medium(registry, str(base.uuid))
    (folder / "sub").mkdir()
    other = media.create_medium(registry, str(folder / "sub" / "base.vdi"), size="8M")
    deletion.delete_medium(registry, str(other.uuid))
    with pytest.raises(StorageError, match="trash"):
        deletion.undelete_medium(registry, "base.vdi")
    assert deletion.undelete_medium(registry, base.path) == base


@pytest.mark.parametrize("kind", ["vdi", "vmdk", "vhd", "vhdx", "qcow2", "qed"])
def test_children_of_every_format_are_media_of_their_own(registry: Registry, folder: Path, kind: str) -> None:
    """A VHDX child has the disk id of its parent."""
    base = media.create_medium(registry, str(folder / f"a.{kind}"), size="8M")
    child = media.create_medium(registry, str(folder / f"b.{kind}"), parent=base.path)
    assert child.parent == base.uuid != child.uuid
    assert [_state(registry, one) for one in (base, child)] == [(MediumState.CREATED, "")] * 2
    media.close_medium(registry, child.path)
    media.close_medium(registry, base.path)
    found = register(registry, child.path)
    assert [one.path for one in found] == [child.path, base.path]
    assert _state(registry, found[0]) == (MediumState.CREATED, "")


@pytest.fixture(params=["undelete", "add"])
def bring_back(request: pytest.FixtureRequest) -> Callable[[Registry, Medium], tuple[Any, Any]]:
    """What takes a differencing image off the registry, and what brings it back."""

    def steps(registry: Registry, medium: Medium) -> tuple[Any, Any]:
        if request.param == "undelete":
            return (
                lambda: deletion.delete_medium(registry, medium.path),
                lambda: deletion.undelete_medium(registry, medium.path),
            )
        return lambda: media.close_medium(registry, medium.path), lambda: register(registry, medium.path)

    return steps


@pytest.mark.parametrize("change", ["attached", "write-through", "merging"])
def test_a_diff_does_not_come_back_onto_a_parent_that_changes(
    registry: Registry, base: Medium, child: Medium, change: str, bring_back: Any
) -> None:
    away, back = bring_back(registry, child)
    away()
    if change == "attached":
        _attach(registry, base)
    else:
        changed = (
            {"type": MediumType.WRITETHROUGH}
            if change == "write-through"
            else {"parent": None, "merging": True}
        )
        with registry.change() as edit:
            edit.put_medium(dataclasses.replace(base, **changed))
    with pytest.raises(StorageError) as caught:
        back()
    assert caught.value.kind is ErrorKind.STATE
    with registry.view() as view:
        assert child.uuid not in view.tree.media


@pytest.mark.parametrize("kind", ["vdi", "qcow2", "vmdk"])
def test_a_diff_does_not_come_back_onto_a_parent_that_was_written(
    registry: Registry, folder: Path, kind: str
) -> None:
    variant = {"variant": "monolithicFlat"} if kind == "vmdk" else {}
    base = media.create_medium(registry, str(folder / f"base.{kind}"), size="8M", **variant)
    child = media.create_medium(registry, str(folder / f"child.{kind}"), parent=base.path)
    deletion.delete_medium(registry, child.path)
    assert deletion.undelete_medium(registry, child.path) == child
    deletion.delete_medium(registry, child.path)
    with open_disk(base.path, writable=True) as disk:
        disk.write(0, b"other")
    with pytest.raises(StorageError, match="--allow-stale-parent") as caught:
        deletion.undelete_medium(registry, child.path)
    assert caught.value.kind is ErrorKind.STATE
    assert deletion.undelete_medium(registry, child.path, allow_stale_parent=True) == child


def test_a_copy_does_not_take_the_originals_further_file_along(registry: Registry, folder: Path) -> None:
    original, copy = folder / "original.qcow2", folder / "copy.qcow2"
    make_image(original, ImageSpec(8 << 20, format="qcow2", options=(("data_file", "d"),)))
    shutil.copy(original, copy)
    register(registry, str(original))
    register(registry, str(copy))
    (folder / "below").mkdir()
    with pytest.raises(StorageError, match=r"original\.qcow2, too") as caught:
        deletion.delete_medium(registry, str(copy))
    assert caught.value.kind is ErrorKind.STATE
    with pytest.raises(StorageError, match=r"copy\.qcow2, too"):
        moving.move_medium(registry, str(original), str(folder / "below"))
    media.close_medium(registry, str(copy))
    assert (folder / "d").exists()
    moving.move_medium(registry, str(original), str(folder / "below"))
    assert not (folder / "d").exists()


def test_undelete_overwrites_nothing(registry: Registry, base: Medium) -> None:
    deletion.delete_medium(registry, base.path)
    Path(base.path).write_text("new")
    with pytest.raises(StorageError, match="another file"):
        deletion.undelete_medium(registry, base.path)
    os.unlink(base.path)
    assert deletion.undelete_medium(registry, base.path) == base


@pytest.mark.parametrize("variant", ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "monolithicFlat"])
def test_p20_a_set_of_files_moves_together(registry: Registry, folder: Path, variant: str) -> None:
    made = media.create_medium(registry, str(folder / "old.vmdk"), size="8M", variant=variant)
    with open_disk(made.path, writable=True) as disk:
        disk.write(4096, b"data")
    (folder / "below").mkdir()
    moved = moving.move_medium(registry, "old.vmdk", str(folder / "below" / "new"))
    assert moved.path == str(folder / "below" / "new.vmdk")
    assert [path.name for path in folder.iterdir()] == ["below"]
    assert all(path.name.startswith("new") for path in (folder / "below").iterdir())
    with open_disk(moved.path) as disk:
        assert disk.read(4096, 4) == b"data"


@pytest.mark.parametrize("kind", ["vdi", "vmdk", "vhd", "vhdx", "qcow2", "qed"])
@pytest.mark.parametrize("below", ["raw", "vdi"])
def test_children_are_told_when_their_parent_moves(
    registry: Registry, folder: Path, kind: str, below: str
) -> None:
    name = "parent.img" if below == "raw" else "parent.vdi"
    parent = media.create_medium(registry, str(folder / name), size="8M")
    child = media.create_medium(registry, str(folder / f"child.{kind}"), parent=parent.path)
    (folder / "far").mkdir()
    moved = moving.move_medium(registry, parent.path, str(folder / "far" / "renamed"))
    assert _state(registry, child)[0] is MediumState.CREATED
    with open_image(child.path, lock=False) as image:
        names = image.layer.facts.parent_names
    assert not names or "far/renamed" in names[0]
    search = OpenOptions(search=[folder])  # a VDI names its parent by nothing but a UUID
    with open_disk(child.path, search) as disk:
        assert disk.size == parent.size
    assert moving.move_medium(registry, child.path, str(folder / "far")).parent == moved.uuid
    with open_disk(folder / "far" / f"child.{kind}") as disk:
        assert disk.size == parent.size


def test_a_description_is_in_the_image_too(registry: Registry, base: Medium) -> None:
    assert media.describe_medium(registry, base.path, "for the guest").description == "for the guest"
    assert images.image_info(base.path).facts.comment == "for the guest"


def test_a_name_that_several_have_is_refused(registry: Registry, folder: Path, base: Medium) -> None:
    (folder / "other").mkdir()
    media.create_medium(registry, str(folder / "other" / "base.vdi"), size="8M")
    with pytest.raises(StorageError, match="could be any of"):
        media.close_medium(registry, "base.vdi")
    assert media.close_medium(registry, f"{{{base.uuid}}}") == base
    with pytest.raises(StorageError, match="medium list"):
        media.close_medium(registry, str(UUID(int=7)))
