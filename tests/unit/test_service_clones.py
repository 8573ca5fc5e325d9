"""Copies of machines (virtual-storage specification, 7.2): every mode shows what its source shows."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.clone_mode import CloneMode
from drivebay.machines.model import Machine, MachineState, Slot
from drivebay.registry.medium import MediumType
from drivebay.service.clones import clone_machine
from support.machines import medium, named
from support.real_lab import RealLab

SATA, THROUGH = Slot("SATA", 0), Slot("SATA", 1)


@pytest.fixture
def lab(tmp_path: Path) -> RealLab:
    """Snapshots a, b (on a) and c (on a, too); the current state is on c. A write-through disk beside."""
    lab = RealLab(tmp_path)
    holder = lab.machine("one")
    for slot, name, kind in ((SATA, "one", MediumType.NORMAL), (THROUGH, "t", MediumType.WRITETHROUGH)):
        lab.add(medium(name, type=kind))
        lab.attach(holder, slot, named(name))
    lab.write(holder, THROUGH, 1, 77)
    lab.write(holder, SATA, 0, 1)
    lab.write(holder, SATA, 3, 5)
    first = lab.take(holder, "a")
    lab.write(holder, SATA, 0, 2)
    lab.take(holder, "b")
    lab.write(holder, SATA, 0, 3)
    lab.restore(holder, first)
    lab.write(holder, SATA, 1, 4)
    lab.take(holder, "c")
    lab.write(holder, SATA, 2, 6)
    return lab


def _shown(lab: RealLab, machine: UUID) -> dict[str, object]:
    """What each state shows, by the snapshot's name."""
    names = {one.uuid: one.name for one in lab.machines[machine].snapshots}
    return {names[state] if state else "": shown for state, shown in lab.shown(machine).items()}


def _clone(lab: RealLab, **options: object) -> Machine:
    return clone_machine(lab.home, "one", folder=str(lab.folder / "copy"), **options).machine  # type: ignore[arg-type]


def test_the_current_state_becomes_one_image_for_each_disk(lab: RealLab) -> None:
    before = _shown(lab, named("one"))
    clone = _clone(lab)
    assert clone.name == "one Clone"
    assert _shown(lab, clone.uuid) == {"": before[""]}
    media = [lab.media[at.medium] for at in clone.hardware.attachments if at.medium]
    assert [one.parent for one in media] == [None, None]
    assert [one.type for one in media] == [MediumType.NORMAL, MediumType.WRITETHROUGH]
    assert [os.path.basename(one.path) for one in media] == [
        f"{{{media[0].uuid}}}.vdi",
        "one Clone-disk1.vdi",
    ]


def test_all_is_copied_image_by_image(lab: RealLab) -> None:
    clone = _clone(lab, mode=CloneMode.ALL, name="two")
    assert _shown(lab, clone.uuid) == _shown(lab, named("one"))
    assert not {one.uuid for one in clone.snapshots} & {
        one.uuid for one in lab.machines[named("one")].snapshots
    }
    before = {one.path for one in lab.media.values()}
    assert str(lab.folder / "copy" / "two.vdi") in before  # called like the machine
    lab.write(clone.uuid, SATA, 0, 99)
    assert _shown(lab, named("one"))[""] != _shown(lab, clone.uuid)[""]


def test_a_snapshot_with_what_descends_from_it(lab: RealLab) -> None:
    before = _shown(lab, named("one"))
    clone = _clone(lab, mode=CloneMode.MACHINE_AND_CHILDREN, snapshot="b")
    assert _shown(lab, clone.uuid) == {"b": before["b"], "": before["b"]}
    chain = list(lab.tree.chain(clone.hardware.attachments[0].medium or clone.uuid))
    assert len(chain) == 2  # what b holds in one image, and the current state's


def test_a_linked_clone_builds_on_the_snapshot(lab: RealLab) -> None:
    before = _shown(lab, named("one"))
    clone = _clone(lab, snapshot="a", linked=True)
    assert _shown(lab, clone.uuid) == {"": before["a"]}
    own = lab.tree.get(clone.hardware.attachments[0].medium or clone.uuid)
    assert (own.parent, os.path.dirname(own.path)) == (named("one"), str(lab.folder / "copy" / "Snapshots"))
    assert clone.hardware.attachments[1].medium == named("t")


def test_e49_a_linked_clone_needs_a_snapshot(lab: RealLab) -> None:
    for options in ({"linked": True}, {"linked": True, "snapshot": "a", "mode": CloneMode.ALL}):
        with pytest.raises(StorageError, match="snapshot"):
            _clone(lab, **options)


def test_an_interrupted_clone_leaves_nothing_behind(lab: RealLab) -> None:
    files, media = sorted(lab.folder.rglob("*.vdi")), lab.media

    def interrupt(done: int, total: int) -> None:
        assert 0 < done <= total
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _clone(lab, progress=interrupt)
    assert (sorted(lab.folder.rglob("*.vdi")), lab.media) == (files, media)
    assert not (lab.folder / "copy").exists()


def test_names_that_clash_are_refused(lab: RealLab) -> None:
    with pytest.raises(StorageError, match="already") as caught:
        _clone(lab, name="one")
    assert caught.value.kind is ErrorKind.IN_USE


def test_what_a_running_machine_writes_is_not_copied(lab: RealLab, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = replace(lab.machines[named("one")], state=MachineState.RUNNING)
    for module in ("drivebay.service.clones", "drivebay.service.machines.live"):
        monkeypatch.setattr(f"{module}.load_live", lambda *_: runs)
    with pytest.raises(StorageError, match="clone a snapshot") as caught:
        _clone(lab)
    assert caught.value.kind is ErrorKind.STATE
    with pytest.raises(StorageError, match="a snapshot does not keep this disk; stop it, or make a linked"):
        _clone(lab, snapshot=runs.snapshots[0].name)
    assert _clone(lab, snapshot=runs.snapshots[0].name, linked=True).name == "one Clone"
