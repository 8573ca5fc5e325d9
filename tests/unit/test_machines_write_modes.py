"""Write modes: table 4.2 and sections 4.3 and 5.2 of the virtual-storage specification, row by row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.diffs import MAX_MEDIA_DEPTH, new_diff
from drivebay.machines.model import MachineState, Slot
from drivebay.machines.write_modes import (
    Locking,
    access,
    needs_diff,
    plan_attach,
    require_unwritten,
    reset_plan,
)
from drivebay.registry.medium import DeviceType, MediaTree, MediumType
from support.machines import disk, machine, medium, named, snapshot, tree_of

SLOT = Slot("SATA", 0)
SATA_1 = Slot("SATA", 1)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (MediumType.NORMAL, False),
        (MediumType.IMMUTABLE, True),
        (MediumType.MULTIATTACH, True),
        (MediumType.WRITETHROUGH, False),
        (MediumType.SHAREABLE, False),
        (MediumType.READONLY, False),
    ],
)
def test_a_free_base_needs_a_diff_by_its_type(kind: MediumType, expected: bool) -> None:
    assert needs_diff(tree_of([medium("a", type=kind)]), named("a")) is expected


def test_a_normal_disk_with_children_needs_a_diff_and_its_leaf_does_not() -> None:
    tree = tree_of([medium("a"), medium("b", "a")])
    assert needs_diff(tree, named("a"))
    assert not needs_diff(tree, named("b"))


def test_a_disk_that_a_snapshot_holds_needs_a_diff() -> None:
    holder = machine(snapshots=(snapshot("s1", None, disk("a")),))
    assert needs_diff(tree_of([medium("a")], holder), named("a"))


def test_an_append_only_image_needs_a_diff() -> None:
    assert needs_diff(tree_of([medium("a", format="vmdk", variant="streamOptimized")]), named("a"))


def test_removable_media_never_need_a_diff() -> None:
    holder = machine(snapshots=(snapshot("s1", None, disk("cd", device=DeviceType.DVD)),))
    tree = tree_of([medium("cd", device=DeviceType.DVD, type=MediumType.READONLY)], holder)
    assert not needs_diff(tree, named("cd"))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (MediumType.NORMAL, Locking.EXCLUSIVE),
        (MediumType.WRITETHROUGH, Locking.EXCLUSIVE),
        (MediumType.SHAREABLE, Locking.SHARED),
        (MediumType.READONLY, Locking.READ),
    ],
)
def test_the_lock_at_power_on_of_what_is_attached_directly(kind: MediumType, expected: Locking) -> None:
    assert access(tree_of([medium("a", type=kind)]), named("a")) is expected


@pytest.mark.parametrize("kind", [MediumType.IMMUTABLE, MediumType.MULTIATTACH])
def test_the_diff_of_an_immutable_or_multiattach_disk_is_locked_not_its_base(kind: MediumType) -> None:
    tree = tree_of([medium("a", type=kind), medium("d", "a")])
    assert access(tree, named("d")) is Locking.EXCLUSIVE
    assert access(tree, named("a")) is Locking.READ


def test_the_locks_of_dvds_and_floppies() -> None:
    tree = tree_of(
        [
            medium("cd", device=DeviceType.DVD, type=MediumType.READONLY),
            medium("fd", device=DeviceType.FLOPPY, type=MediumType.WRITETHROUGH),
        ]
    )
    assert access(tree, named("cd")) is Locking.READ
    assert access(tree, named("fd")) is Locking.EXCLUSIVE


def test_a_normal_disk_is_attached_as_it_is() -> None:
    plan = plan_attach(machine(), tree_of([medium("a")]), SLOT, named("a"))
    assert (plan.medium, plan.diff) == (named("a"), None)


@pytest.mark.parametrize(
    ("kind", "auto_reset"), [(MediumType.IMMUTABLE, True), (MediumType.MULTIATTACH, False)]
)
def test_attaching_makes_a_diff_that_is_reset_if_its_base_is_immutable(
    kind: MediumType, auto_reset: bool
) -> None:
    plan = plan_attach(machine(), tree_of([medium("a", type=kind)]), SLOT, named("a"))
    assert plan.diff is not None
    assert plan.medium == plan.diff.uuid
    assert plan.diff.parent == named("a")
    assert plan.diff.auto_reset is auto_reset
    assert plan.diff.path == f"/machines/vm/Snapshots/{{{plan.medium}}}.vdi"


def test_two_machines_get_a_diff_each_of_one_immutable_base() -> None:
    base = medium("a", type=MediumType.IMMUTABLE)
    first = plan_attach(machine(), tree_of([base]), SLOT, named("a"))
    assert first.diff is not None
    holder = machine(disk("x", medium=first.medium))
    tree = tree_of([base, first.diff.medium], holder)
    second = plan_attach(machine(name="other"), tree, SLOT, named("a"))
    assert second.diff is not None
    assert (second.diff.parent, second.medium != first.medium) == (named("a"), True)


def test_smart_attach_takes_up_the_diff_that_the_same_edit_detached() -> None:
    media = [medium("a"), medium("d0", "a"), medium("d1", "a"), medium("e", "a")]
    tree = tree_of(media)
    previous = [disk("d1", 1), disk("d0", 0), disk("e", 2)]
    assert plan_attach(machine(), tree, SATA_1, named("a"), previous).medium == named("d1")
    assert plan_attach(machine(), tree, Slot("SATA", 9), named("a"), previous).medium == named("e")


def test_smart_attach_never_takes_up_a_diff_that_is_in_another_slot_by_now() -> None:
    media = [medium("a"), medium("d0", "a")]
    holder = machine(disk("d0", 3))
    plan = plan_attach(holder, tree_of(media, holder), SATA_1, named("a"), [disk("d0", 1)])
    assert plan.diff is not None
    assert plan.diff.parent == named("a")


def test_smart_attach_goes_on_from_the_nearest_snapshot_that_knows_the_base() -> None:
    media = [medium("a"), medium("b", "a"), medium("c", "b"), medium("z")]
    holder = machine(
        snapshots=(
            snapshot("s1", None, disk("a")),
            snapshot("s2", "s1", disk("b", 1), disk("c", 2)),
            snapshot("s3", "s2", disk("z")),
        ),
        current=named("s3"),
    )
    tree = tree_of(media, holder)
    exact = plan_attach(holder, tree, SATA_1, named("a"))
    deepest = plan_attach(holder, tree, Slot("SATA", 7), named("a"))
    assert exact.diff is not None
    assert deepest.diff is not None
    assert (exact.diff.parent, deepest.diff.parent) == (named("b"), named("c"))


def test_a_diff_that_is_handed_in_gets_the_new_diff_itself() -> None:
    media = [medium("a"), medium("b", "a"), medium("c", "b")]
    holder = machine(snapshots=(snapshot("s1", None, disk("c")),), current=named("s1"))
    plan = plan_attach(holder, tree_of(media, holder), SLOT, named("b"))
    assert plan.diff is not None
    assert plan.diff.parent == named("b")


@pytest.mark.parametrize(
    ("kind", "variant", "expected"),
    [
        ("vdi", "fixed", ("vdi", "")),
        ("vmdk", "twoGbMaxExtentFlat", ("vmdk", "twoGbMaxExtentSparse")),
        ("vmdk", "streamOptimized", ("vmdk", "")),
        ("vhdx", "fixed", ("vhdx", "")),
        ("qcow2", "v2", ("qcow2", "")),
        ("raw", "", ("vdi", "")),
        ("parallels", "dynamic", ("vdi", "")),
    ],
)
def test_a_diff_has_its_parents_format_where_that_can_be(
    kind: str, variant: str, expected: tuple[str, str]
) -> None:
    tree = tree_of([medium("a", format=kind, variant=variant)])
    diff = new_diff(tree, named("a"), "/d")
    assert (diff.format, diff.variant, diff.size) == (*expected, tree.get(named("a")).size)
    assert diff.path.endswith(f".{diff.format}")


@pytest.mark.parametrize("kind", [MediumType.WRITETHROUGH, MediumType.SHAREABLE, MediumType.READONLY])
def test_e34_no_diff_on_what_changes_under_it(kind: MediumType) -> None:
    with pytest.raises(StorageError, match=kind.value) as caught:
        new_diff(tree_of([medium("a", type=kind)]), named("a"), "/d")
    assert caught.value.kind is ErrorKind.STATE


def test_e35_no_diff_on_what_another_machine_may_write() -> None:
    tree = tree_of([medium("a", format="vmdk", variant="streamOptimized")], machine(disk("a"), name="other"))
    with pytest.raises(StorageError, match=str(named("other"))):
        plan_attach(machine(), tree, SLOT, named("a"))
    require_unwritten(tree, named("a"), but=named("other"))


def test_e36_a_medium_is_attached_to_a_machine_once() -> None:
    holder = machine(disk("a", 3))
    with pytest.raises(StorageError, match="SATA:3:0") as caught:
        plan_attach(holder, tree_of([medium("a")], holder), SLOT, named("a"))
    assert caught.value.kind is ErrorKind.IN_USE


def test_e37_a_chain_ends_at_300_images() -> None:
    names = [f"m{number}" for number in range(MAX_MEDIA_DEPTH)]
    media = [medium(name, below) for name, below in zip(names, [None, *names[:-1]], strict=True)]
    tree = tree_of(media)
    new_diff(tree, named(names[-2]), "/d")
    with pytest.raises(StorageError, match="300"):
        new_diff(tree, named(names[-1]), "/d")


def test_no_diff_on_what_is_about_to_be_merged_away() -> None:
    tree = tree_of([medium("a", merging=True), medium("b", "a")])
    with pytest.raises(StorageError, match="tidy"):
        plan_attach(machine(), tree, SLOT, named("a"))


def _immutable() -> MediaTree:
    return tree_of(
        [medium("a", type=MediumType.IMMUTABLE), medium("d", "a", auto_reset=True), medium("plain")]
    )


@pytest.mark.parametrize(
    ("state_file", "state", "expected"),
    [
        (None, MachineState.POWERED_OFF, True),
        (None, MachineState.ABORTED, True),
        (None, MachineState.SAVED, False),
        ("", MachineState.POWERED_OFF, True),
        ("Snapshots/s.sav", MachineState.POWERED_OFF, False),
    ],
)
def test_the_auto_reset_rule(state_file: str | None, state: MachineState, expected: bool) -> None:
    taken = () if state_file is None else (snapshot("s1", None, state_file=state_file),)
    current = named("s1") if taken else None
    holder = machine(disk("d"), disk("plain", 1), snapshots=taken, current=current, state=state)
    resets = reset_plan(holder, _immutable())
    assert [(one.medium.uuid, one.will_reset) for one in resets] == [(named("d"), expected)]
    if taken:
        assert "'s1'" in resets[0].because


def test_only_the_current_snapshot_decides_the_reset() -> None:
    snapshots = (snapshot("s1", None, state_file="Snapshots/s.sav"), snapshot("s2", "s1"))
    holder = machine(disk("d"), snapshots=snapshots, current=named("s2"))
    assert reset_plan(holder, _immutable())[0].will_reset
    assert not reset_plan(replace(holder, current=named("s1")), _immutable())[0].will_reset


def test_auto_reset_is_off_by_choice_or_by_children() -> None:
    base = medium("a", type=MediumType.IMMUTABLE)
    off = reset_plan(machine(disk("d")), tree_of([base, medium("d", "a")]))
    built_on = reset_plan(
        machine(disk("d")), tree_of([base, medium("d", "a", auto_reset=True), medium("e", "d")])
    )
    assert [(one.will_reset, one.because) for one in off + built_on] == [
        (False, "auto-reset is switched off for its differencing image"),
        (False, "other differencing images build on it"),
    ]


def test_a_normal_disks_diff_with_auto_reset_is_reset_too() -> None:
    tree = tree_of([medium("a"), medium("d", "a", auto_reset=True)])
    assert reset_plan(machine(disk("d")), tree)[0].will_reset
