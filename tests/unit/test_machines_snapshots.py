"""Snapshots as plans: table 6.2 and 5.6 of the virtual-storage specification, and its refusals by number."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.diffs import MAX_MEDIA_DEPTH
from drivebay.machines.model import Attachment, Machine, MachineState, Slot
from drivebay.machines.snapshot_names import UniqueName, unique_name
from drivebay.machines.snapshot_tree import (
    MAX_DEPTH,
    by_uuid,
    children,
    find_snapshot,
    path_to_root,
    subtree,
)
from drivebay.machines.snapshots import edit_snapshot, plan_delete, plan_restore, plan_take
from drivebay.registry.medium import DeviceType, MediaTree, MediumType
from support.machines import START, disk, machine, medium, named, snapshot, tree_of, with_diffs

EMPTY = Attachment(Slot("IDE", 1), DeviceType.DVD)
CD = Attachment(Slot("IDE", 0), DeviceType.DVD, named("cd"), temp_eject=True)
FLOPPY = Attachment(Slot("Floppy"), DeviceType.FLOPPY, named("fd"))
MEDIA = [
    medium("normal"),
    medium("immutable", type=MediumType.IMMUTABLE),
    medium("immutable-diff", "immutable", auto_reset=True),
    medium("multi", type=MediumType.MULTIATTACH),
    medium("multi-diff", "multi"),
    medium("through", type=MediumType.WRITETHROUGH),
    medium("shared", type=MediumType.SHAREABLE, variant="fixed"),
    medium("cd", device=DeviceType.DVD, type=MediumType.READONLY),
    medium("fd", device=DeviceType.FLOPPY, type=MediumType.WRITETHROUGH),
]
CAPTURED = ("normal", "immutable-diff", "multi-diff")
EVERY_KIND = (
    disk("normal", 0, nonrotational=True, bandwidth_group="slow"),
    disk("immutable-diff", 1),
    disk("multi-diff", 2),
    disk("through", 3),
    disk("shared", 4),
    CD,
    FLOPPY,
    EMPTY,
)


def _media(one: Machine) -> dict[Slot, object]:
    return {at.slot: at.medium for at in one.hardware.attachments}


def test_taking_puts_a_diff_on_each_disk_that_may_have_one_and_leaves_the_others() -> None:
    before = machine(*EVERY_KIND)
    plan = plan_take(before, tree_of(MEDIA, before), "s1", taken=START)
    assert [diff.parent for diff in plan.diffs] == [named(name) for name in CAPTURED]
    assert [diff.auto_reset for diff in plan.diffs] == [False, True, False]
    assert plan.snapshot.hardware == before.hardware
    expected = {at.slot: at.medium for at in EVERY_KIND} | {
        Slot("SATA", port): diff.uuid for port, diff in enumerate(plan.diffs)
    }
    assert _media(plan.machine) == expected
    flags = [replace(at, medium=None) for at in plan.machine.hardware.attachments]
    assert flags == [replace(at, medium=None) for at in EVERY_KIND]
    assert (plan.machine.current, plan.machine.modified) == (plan.snapshot.uuid, False)


def test_restoring_brings_every_kind_of_attachment_back() -> None:
    before = machine(*EVERY_KIND)
    taken = plan_take(before, tree_of(MEDIA, before), "s1", taken=START)
    other_cd = replace(CD, medium=None, slot=Slot("IDE", 0, 1))
    changed = replace(
        taken.machine, hardware=replace(taken.machine.hardware, attachments=(other_cd,)), modified=True
    )
    changed = replace(
        changed,
        hardware=replace(
            changed.hardware,
            attachments=(*changed.hardware.attachments, *taken.machine.hardware.attachments[:3]),
        ),
    )
    tree = with_diffs(tree_of(MEDIA), taken.diffs, changed)
    plan = plan_restore(changed, tree, taken.snapshot.uuid)
    assert [diff.parent for diff in plan.diffs] == [named(name) for name in CAPTURED]
    assert [at.slot for at in plan.machine.hardware.attachments] == [at.slot for at in EVERY_KIND]
    assert [at.medium for at in plan.machine.hardware.attachments[3:]] == [at.medium for at in EVERY_KIND[3:]]
    assert {one.uuid for one in plan.dropped} == {diff.uuid for diff in taken.diffs}
    assert (plan.machine.current, plan.machine.modified) == (taken.snapshot.uuid, False)


def test_restoring_keeps_a_base_and_a_diff_that_others_need() -> None:
    snapshots = (snapshot("s1", None, disk("a")),)
    holder = machine(disk("d"), disk("fresh", 1), snapshots=snapshots, current=named("s1"))
    media = [medium("a"), medium("d", "a"), medium("fresh"), medium("e", "d")]
    plan = plan_restore(holder, tree_of(media, holder), named("s1"))
    assert (plan.dropped, [one.uuid for one in plan.merging]) == ((), [named("d")])
    used_elsewhere = plan_restore(
        holder, tree_of(media[:3], holder, machine(disk("d"), name="other")), named("s1")
    )
    assert (used_elsewhere.dropped, used_elsewhere.merging) == ((), ())


def test_restoring_an_online_snapshot_leaves_a_saved_machine_and_an_offline_one_a_stopped_one() -> None:
    online, offline = snapshot("s1", None, state_file="Snapshots/a.sav"), snapshot("s2", "s1")
    holder = machine(
        snapshots=(online, offline),
        current=named("s2"),
        state=MachineState.SAVED,
        state_file="Snapshots/mine.sav",
    )
    saved = plan_restore(holder, MediaTree(), named("s1"))
    assert (saved.machine.state, saved.machine.state_file) == (MachineState.SAVED, "Snapshots/a.sav")
    assert saved.state_files == ("Snapshots/mine.sav",)
    stopped = plan_restore(saved.machine, MediaTree(), named("s2"))
    assert (stopped.machine.state, stopped.machine.state_file) == (MachineState.POWERED_OFF, "")
    assert stopped.state_files == ()


def test_a_saved_machines_state_is_shared_with_its_snapshot() -> None:
    saved = machine(state=MachineState.SAVED, state_file="Snapshots/mine.sav")
    plan = plan_take(saved, MediaTree(), "s1", taken=START)
    assert plan.snapshot.state_file == plan.machine.state_file == "Snapshots/mine.sav"
    assert plan_delete(plan.machine, MediaTree(), plan.snapshot.uuid).state_files == ()
    stopped = replace(plan.machine, state=MachineState.POWERED_OFF, state_file="")
    assert plan_delete(stopped, MediaTree(), plan.snapshot.uuid).state_files == ("Snapshots/mine.sav",)


def test_p25_an_online_snapshot_warns_of_disks_that_it_does_not_keep() -> None:
    holder = machine(*EVERY_KIND)
    tree = tree_of(MEDIA, holder)
    assert plan_take(holder, tree, "s1", taken=START).warnings == ()
    online = plan_take(holder, tree, "s1", taken=START, state_file="Snapshots/a.sav")
    assert [warning.split(" is ")[0] for warning in online.warnings] == [
        "the writethrough disk at SATA:3:0",
        "the shareable disk at SATA:4:0",
    ]
    stopped = replace(online.machine, state=MachineState.POWERED_OFF)
    restored = plan_restore(stopped, with_diffs(tree, online.diffs, stopped), online.snapshot.uuid)
    assert restored.warnings == online.warnings


def _line() -> tuple[Machine, MediaTree]:
    """s1 holds a, s2 holds b, the current state c."""
    snapshots = (snapshot("s1", None, disk("a")), snapshot("s2", "s1", disk("b")))
    holder = machine(disk("c"), snapshots=snapshots, current=named("s2"))
    return holder, tree_of([medium("a"), medium("b", "a"), medium("c", "b")], holder)


@pytest.mark.parametrize(("gone", "merging"), [("s1", "a"), ("s2", "b")])
def test_deleting_marks_the_medium_that_its_child_needs(gone: str, merging: str) -> None:
    holder, tree = _line()
    plan = plan_delete(holder, tree, named(gone))
    assert [one.uuid for one in plan.merging] == [named(merging)]
    assert plan.dropped == ()
    assert plan.machine.hardware == holder.hardware
    assert len(plan.machine.snapshots) == 1


def test_deleting_a_tip_deletes_its_diff_and_keeps_its_base() -> None:
    snapshots = (snapshot("s1", None, disk("a")), snapshot("s2", "s1", disk("b"), disk("own", 1)))
    holder = machine(disk("c"), snapshots=snapshots, current=named("s1"))
    tree = tree_of([medium("a"), medium("b", "a"), medium("c", "a"), medium("own")], holder)
    plan = plan_delete(holder, tree, named("s2"))
    assert ([one.uuid for one in plan.dropped], plan.merging) == ([named("b")], ())


def test_deleting_skips_what_snapshots_do_not_keep() -> None:
    holder = machine(*EVERY_KIND[3:], snapshots=(snapshot("s1", None, *EVERY_KIND[3:]),), current=named("s1"))
    plan = plan_delete(holder, tree_of(MEDIA, holder), named("s1"))
    assert (plan.dropped, plan.merging) == ((), ())


def test_deleting_keeps_what_another_state_holds() -> None:
    snapshots = (snapshot("s1", None, disk("a")), snapshot("s2", "s1", disk("a")))
    holder = machine(disk("b"), snapshots=snapshots, current=named("s2"))
    plan = plan_delete(holder, tree_of([medium("a"), medium("b", "a")], holder), named("s1"))
    assert (plan.dropped, plan.merging) == ((), ())


def test_a_base_that_only_another_machine_builds_on_is_just_detached() -> None:
    snapshots = (snapshot("s1", None, disk("a")),)
    holder = machine(snapshots=snapshots, current=named("s1"))
    clone = machine(disk("linked"), name="clone")
    media = [medium("a"), medium("linked", "a")]
    assert plan_delete(holder, tree_of(media, holder, clone), named("s1")).merging == ()
    own = replace(holder, hardware=machine(disk("d")).hardware)
    both = plan_delete(own, tree_of([*media, medium("d", "a")], own, clone), named("s1"))
    assert [one.uuid for one in both.merging] == [named("a")]


def test_deleting_the_current_snapshot_makes_its_parent_the_current_one() -> None:
    holder, tree = _line()
    middle = plan_delete(holder, tree, named("s2")).machine
    assert (middle.current, middle.modified) == (named("s1"), True)
    unrelated = plan_delete(replace(holder, modified=False), tree, named("s1")).machine
    assert (unrelated.current, unrelated.modified) == (named("s2"), False)
    last = plan_delete(unrelated, tree, named("s2")).machine
    assert (last.current, last.snapshots) == (None, ())


def test_e38_snapshots_upon_each_other_end_at_250() -> None:
    holder = machine()
    for number in range(MAX_DEPTH):
        holder = plan_take(holder, MediaTree(), f"n{number}", taken=START).machine
    with pytest.raises(StorageError, match="250") as caught:
        plan_take(holder, MediaTree(), "one more", taken=START)
    assert caught.value.kind is ErrorKind.STATE


def test_e34_e35_a_snapshot_of_a_disk_that_another_machine_writes_is_refused() -> None:
    holder, other = machine(disk("a")), machine(disk("a"), name="other")
    with pytest.raises(StorageError, match=str(named("other"))):
        plan_take(holder, tree_of([medium("a")], holder, other), "s1", taken=START)


def test_e37_no_snapshot_where_the_chain_is_300_images_deep() -> None:
    names = [f"m{number}" for number in range(MAX_MEDIA_DEPTH)]
    media = [medium(name, below) for name, below in zip(names, [None, *names[:-1]], strict=True)]
    holder = machine(disk(names[-1]))
    with pytest.raises(StorageError, match="300"):
        plan_take(holder, tree_of(media, holder), "s1", taken=START)


def test_e45_a_snapshot_with_several_children_and_the_current_one_with_a_child_can_be_deleted() -> None:
    snapshots = (
        snapshot("root", None, disk("a")),
        snapshot("left", "root", disk("b")),
        snapshot("right", "root", disk("c")),
    )
    holder = machine(disk("d"), snapshots=snapshots, current=named("root"))
    media = [medium("a"), medium("b", "a"), medium("c", "a"), medium("d", "a")]
    plan = plan_delete(holder, tree_of(media, holder), named("root"))
    assert [one.parent for one in plan.machine.snapshots] == [None, None]
    assert plan.machine.current is None
    assert [one.uuid for one in plan.merging] == [named("a")]


def test_e46_a_medium_with_several_children_stays_for_them() -> None:
    snapshots = (snapshot("s1", None, disk("a")), snapshot("s2", "s1", disk("b")))
    holder = machine(disk("c"), snapshots=snapshots, current=named("s2"))
    media = [medium("a"), medium("b", "a"), medium("c", "b"), medium("stray", "b")]
    plan = plan_delete(holder, tree_of(media, holder), named("s2"))
    assert ([one.uuid for one in plan.merging], plan.dropped) == ([named("b")], ())


@pytest.mark.parametrize("state", [MachineState.RUNNING, MachineState.PAUSED])
def test_e48_no_restore_while_the_machine_runs(state: MachineState) -> None:
    holder = machine(snapshots=(snapshot("s1", None),), current=named("s1"), state=state)
    with pytest.raises(StorageError, match="drivebay machine stop 'vm'") as caught:
        plan_restore(holder, MediaTree(), named("s1"))
    assert caught.value.kind is ErrorKind.STATE


def test_e4_an_unknown_snapshot_is_named() -> None:
    holder = machine(snapshots=(snapshot("s1", None),))
    for lookup in (lambda: find_snapshot(holder, "s2"), lambda: by_uuid(holder, named("s2"))):
        with pytest.raises(StorageError, match="'vm' has no snapshot") as caught:
            lookup()
        assert caught.value.kind is ErrorKind.NOT_FOUND


def test_a_name_that_several_snapshots_have_is_refused_with_their_uuids() -> None:
    twin = replace(snapshot("twin", None), name="s1")
    holder = machine(snapshots=(snapshot("s1", None), twin))
    with pytest.raises(StorageError) as caught:
        find_snapshot(holder, "s1")
    assert all(str(uuid) in str(caught.value) for uuid in (named("s1"), named("twin")))
    assert find_snapshot(holder, f"{{{named('twin')}}}") is twin


def test_the_tree_is_walked_up_and_down() -> None:
    snapshots = (snapshot("s1", None), snapshot("s2", "s1"), snapshot("s3", "s1"), snapshot("s4", "s3"))
    holder = machine(snapshots=snapshots, current=named("s4"))
    assert [one.name for one in path_to_root(holder)] == ["s4", "s3", "s1"]
    assert [one.name for one in children(holder, named("s1"))] == ["s2", "s3"]
    assert [one.name for one in subtree(holder, named("s1"))] == ["s1", "s2", "s3", "s4"]
    assert [one.name for one in children(holder, None)] == ["s1"]


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 256, str(named("s1"))])
def test_names_that_snapshots_may_not_have(name: str) -> None:
    holder = machine(snapshots=(snapshot("s1", None),))
    for attempt in (
        lambda: plan_take(holder, MediaTree(), name, taken=START),
        lambda: edit_snapshot(holder, named("s1"), name=name),
    ):
        with pytest.raises(StorageError) as caught:
            attempt()
        assert caught.value.kind is ErrorKind.INVALID


def test_a_name_is_made_unique_only_where_it_is_taken() -> None:
    holder = machine(snapshots=(snapshot("s1", None), replace(snapshot("x", None), name="s1 2")))
    when = START + timedelta(hours=1)
    assert unique_name(holder, "new", UniqueName.NUMBER, when) == "new"
    assert unique_name(holder, "s1", UniqueName.NO, when) == "s1"
    assert unique_name(holder, "s1", UniqueName.NUMBER, when) == "s1 3"
    assert unique_name(holder, "s1", UniqueName.TIME, when) == "s1 2026-01-01T13-00-00"


def test_editing_changes_one_snapshot_only() -> None:
    holder = machine(snapshots=(snapshot("s1", None), snapshot("s2", "s1")))
    edited = edit_snapshot(holder, named("s1"), name="new", description="clean")
    assert [(one.name, one.description) for one in edited.snapshots] == [("new", "clean"), ("s2", "")]
    assert edit_snapshot(edited, named("s1"), description="").snapshots[0].name == "new"
