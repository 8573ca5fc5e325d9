"""Consolidation of machines that don't run: what every state shows, what is left on disk, and resuming."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

import drivebay
from drivebay.chain.merge import Direction
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import MachineState, Slot
from drivebay.machines.store import save
from drivebay.registry.database import open_registry
from drivebay.registry.medium import MediumType
from drivebay.service import merging
from drivebay.service.merging import consolidate
from drivebay.service.runtime.saved_state import StateHeader, read_header, write_header
from support.command import drivebay_json
from support.machines import medium, named
from support.real_lab import RealLab

SLOT = Slot("SATA", 0)


class Fixture:
    """A machine with a disk, three snapshots, and changes between them."""

    def __init__(self, folder: Path, image_format: str = "vdi") -> None:
        self.lab = RealLab(folder, image_format)
        self.vm = self.lab.machine("vm")
        self.lab.add(medium("disk"))
        self.lab.attach(self.vm, SLOT, named("disk"))
        self.shots: list[UUID] = []
        for number in range(3):
            self._write(number)
            self.shots.append(self.lab.take(self.vm, f"s{number}"))
        self._write(3)

    def _write(self, number: int) -> None:
        for sector in range(number, 8, 2):
            self.lab.write(self.vm, SLOT, sector, 100 * number + sector + 1)

    def files(self) -> set[str]:
        media = {one.path for one in self.lab.media.values()}
        assert all(os.path.exists(path) for path in media)
        return {str(path) for path in self.lab.folder.rglob("*.v*") if path.suffix != ".json"} - media

    def check(self, before: object, media: int) -> None:
        assert self.lab.shown(self.vm) == before
        assert len(self.lab.media) == media
        assert self.files() == set()


@pytest.fixture(params=["vdi", "vmdk", "vhd", "vhdx"])
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> Fixture:
    return Fixture(tmp_path, request.param)


@pytest.mark.parametrize("gone", [(0,), (1,), (2,), (0, 1), (2, 1), (0, 2), (0, 1, 2)])
def test_deleted_snapshots_leave_no_images(tmp_path: Path, gone: tuple[int, ...]) -> None:
    parts = Fixture(tmp_path)
    for number in gone:
        parts.lab.delete(parts.vm, parts.shots[number])
        before = parts.lab.shown(parts.vm)
        done = consolidate(parts.lab.home)
        assert not done.left
        assert len(done.merged) == 1
        assert consolidate(parts.lab.home) == merging.Consolidated((), ())
        parts.check(before, 4 - gone.index(number) - 1)


def test_all_at_once_in_other_formats(parts: Fixture) -> None:
    for shot in parts.shots:
        parts.lab.delete(parts.vm, shot)
    before = parts.lab.shown(parts.vm)
    told: list[tuple[int, int]] = []
    assert len(consolidate(parts.lab.home, lambda *each: told.append(each), machine=parts.vm).merged) == 3
    parts.check(before, 1)
    assert told


def test_an_image_with_two_children_waits_for_the_last(tmp_path: Path) -> None:
    parts = Fixture(tmp_path)
    lab, vm = parts.lab, parts.vm
    lab.restore(vm, parts.shots[0])  # a second branch
    lab.write(vm, SLOT, 9, 999)
    branch = lab.take(vm, "branch")
    lab.delete(vm, parts.shots[0])
    before = lab.shown(vm)
    count = len(lab.media)
    assert consolidate(lab.home).merged == ()
    parts.check(before, count)
    lab.delete(vm, branch)
    for shot in parts.shots[1:]:
        lab.delete(vm, shot)
    before = lab.shown(vm)
    assert not consolidate(lab.home).left
    parts.check(before, 1)


def test_interrupted_anywhere_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of a merge fails once, as if the process had ended there."""
    for name in ("merge", "relink", "kept_empty", "record_merge"):
        for late in (False, True):
            folder = tmp_path / f"{name}-{late}"
            folder.mkdir()
            parts = Fixture(folder)
            parts.lab.delete(parts.vm, parts.shots[0])
            parts.lab.delete(parts.vm, parts.shots[1])
            before = parts.lab.shown(parts.vm)
            for _ in range(2):
                _interrupt(monkeypatch, name, late=late, parts=parts)
                assert parts.lab.shown(parts.vm) == before
            assert consolidate(parts.lab.home).left == ()
            parts.check(before, 2)


def _interrupt(monkeypatch: pytest.MonkeyPatch, name: str, *, late: bool, parts: Fixture) -> None:
    step = getattr(merging, name)

    def stop(*arguments: object, **options: object) -> object:
        if late:
            step(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(merging, name, stop)
        with pytest.raises(KeyboardInterrupt):
            consolidate(parts.lab.home)


def test_a_merge_that_was_begun_ends_before_its_images_take_part_in_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended between its last steps, a child names what is below the emptied image already."""
    monkeypatch.setattr(merging, "_direction", lambda _parent, _child: Direction.FORWARD)
    parts = Fixture(tmp_path)
    parts.lab.delete(parts.vm, parts.shots[2])
    _interrupt(monkeypatch, "relink", late=True, parts=parts)
    parts.lab.delete(parts.vm, parts.shots[1])
    before = parts.lab.shown(parts.vm)
    for _ in range(2):
        _interrupt(monkeypatch, "record_merge", late=False, parts=parts)
        assert parts.lab.shown(parts.vm) == before
    assert not consolidate(parts.lab.home).left
    parts.check(before, 2)


def test_a_merge_waits_for_one_that_cannot_end_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "_direction", lambda _parent, _child: Direction.FORWARD)
    parts = Fixture(tmp_path)
    lab = parts.lab
    lab.delete(parts.vm, parts.shots[2])
    _interrupt(monkeypatch, "relink", late=True, parts=parts)
    lab.delete(parts.vm, parts.shots[1])
    before = lab.shown(parts.vm)
    media = {one.path: one for one in lab.media.values()}
    top = lab.media[lab.medium_at(parts.vm, SLOT)]
    with drivebay.open(top.path, search=list(media)):
        done = consolidate(lab.home)
    assert not done.merged
    assert lab.shown(parts.vm) == before
    assert len(consolidate(lab.home).merged) == 2
    parts.check(before, 2)


@pytest.mark.parametrize("direction", list(Direction))
def test_both_directions_end_the_same(
    tmp_path: Path, direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "_direction", lambda _parent, _child: direction)
    parts = Fixture(tmp_path)
    parts.lab.delete(parts.vm, parts.shots[1])
    before = parts.lab.shown(parts.vm)
    assert len(consolidate(parts.lab.home).merged) == 1
    parts.check(before, 3)


def test_images_in_use_are_left_for_later(tmp_path: Path) -> None:
    parts = Fixture(tmp_path)
    parts.lab.delete(parts.vm, parts.shots[1])
    before = parts.lab.shown(parts.vm)
    media = {one.path: one for one in parts.lab.media.values()}
    top = parts.lab.media[parts.lab.medium_at(parts.vm, SLOT)]
    with drivebay.open(top.path, writable=True, search=list(media)):
        done = consolidate(parts.lab.home)
        assert not done.merged
        assert "in use" in done.left[0].reason
    assert len(consolidate(parts.lab.home).merged) == 1
    parts.check(before, 3)


def test_a_saved_guest_goes_on_with_the_merged_image(tmp_path: Path) -> None:
    parts = Fixture(tmp_path)
    lab, vm = parts.lab, parts.vm
    for shot in parts.shots:
        lab.delete(vm, shot)
    before, machine = lab.shown(vm), lab.machines[vm]
    state = Path(machine.folder) / "state.sav"
    state.touch()
    known: dict[str, list[object]] = {str(SLOT): ["of the image that goes"], "SATA:1:0": ["of another one"]}
    write_header(str(state), StateHeader("pc", "tcg", "10", known))
    with open_registry(lab.home) as registry, registry.change() as change:
        save(change, replace(machine, state=MachineState.SAVED, state_file=state.name))
    consolidate(lab.home)
    parts.check(before, 1)
    assert lab.medium_at(vm, SLOT) == named("disk")
    assert read_header(str(state)).disks == {"SATA:1:0": ["of another one"]}


def test_what_must_not_change_is_not_merged(tmp_path: Path) -> None:
    parts = Fixture(tmp_path)
    lab = parts.lab
    for shot in parts.shots:
        lab.delete(parts.vm, shot)
    before, media = lab.shown(parts.vm), lab.media
    top = media[lab.medium_at(parts.vm, SLOT)]
    lab.set_type(replace(media[named("disk")], type=MediumType.IMMUTABLE))
    lab.set_type(replace(top, auto_reset=True))
    consolidate(lab.home)
    assert lab.shown(parts.vm) == before
    assert named("disk") in lab.media
    assert top.uuid in lab.media
    assert len(lab.media) == 3  # the two in the middle have become one


def test_what_a_snapshot_keeps_is_never_reset_and_takes_what_is_below(tmp_path: Path) -> None:
    parts = Fixture(tmp_path)
    lab = parts.lab
    kept = list(lab.tree.chain(lab.medium_at(parts.vm, SLOT)))[1]  # the newest snapshot's
    lab.set_type(replace(kept, auto_reset=True))
    lab.delete(parts.vm, parts.shots[1])
    before = lab.shown(parts.vm)
    done = consolidate(lab.home)
    assert not done.left
    assert len(done.merged) == 1
    parts.check(before, 3)


def test_a_base_that_nobody_needs_any_more_stays_the_users(tmp_path: Path) -> None:
    """Specification, 5.6: it was to be merged with a child, but that was deleted before."""
    parts = Fixture(tmp_path)
    lab = parts.lab
    for shot in parts.shots:
        lab.delete(parts.vm, shot)
    chain = [one.uuid for one in lab.tree.chain(lab.medium_at(parts.vm, SLOT))]
    lab.detach(parts.vm, SLOT)
    with open_registry(lab.home) as registry, registry.change() as change:
        for uuid in chain[:-1]:
            change.remove_medium(uuid)
    assert consolidate(lab.home) == merging.Consolidated((), ())
    assert not lab.media[named("disk")].merging
    assert os.path.exists(lab.media[named("disk")].path)


def test_what_takes_a_kept_state_is_reset_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image of the one that is merged away was not to forget anything at a power-on."""
    monkeypatch.setattr(merging, "_direction", lambda _parent, _child: Direction.BACKWARD)
    parts = Fixture(tmp_path)
    lab = parts.lab
    parent = list(lab.tree.chain(lab.medium_at(parts.vm, SLOT)))[1]
    lab.set_type(replace(parent, auto_reset=True))
    lab.delete(parts.vm, parts.shots[2])
    before = lab.shown(parts.vm)
    assert [one.kept.uuid for one in consolidate(lab.home).merged if one.kept] == [parent.uuid]
    assert not lab.media[parent.uuid].auto_reset
    parts.check(before, 3)


def test_a_machine_that_is_not_there(tmp_path: Path) -> None:
    parts = Fixture(tmp_path)
    with pytest.raises(StorageError) as caught:
        consolidate(parts.lab.home, machine="nobody")
    assert caught.value.kind is ErrorKind.NOT_FOUND


def test_the_command_tells_what_is_gone_and_what_is_left(tmp_path: Path) -> None:
    parts = Fixture(tmp_path)
    parts.lab.delete(parts.vm, parts.shots[1])
    top = parts.lab.media[parts.lab.medium_at(parts.vm, SLOT)]
    with drivebay.open(top.path, search=[one.path for one in parts.lab.media.values()]):
        told = drivebay_json("--home", parts.lab.home.folder, "medium", "tidy", "--json")
        assert not told["merged"]
        assert "in use" in told["left"][0]["reason"]
    told = drivebay_json("--home", parts.lab.home.folder, "medium", "tidy", "--machine", "vm", "--json")
    assert len(told["merged"]) == 1
    assert not os.path.exists(told["merged"][0]["gone"])
    assert os.path.exists(told["merged"][0]["into"])
    assert not told["left"]
