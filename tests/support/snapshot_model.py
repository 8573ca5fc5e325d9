"""Machines with snapshots in memory: plans carried out on images that are dicts, beside a plain model.

An image is a dict of sector to value and reads through to its parent. The model knows no images at all:
every state of every machine just says what each of its disks shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

from drivebay.machines.diffs import NewDiff
from drivebay.machines.model import Attachment, Hardware, Machine, Slot
from drivebay.machines.snapshots import (
    DeletePlan,
    RestorePlan,
    plan_delete,
    plan_restore,
    plan_take,
)
from drivebay.machines.write_modes import forgotten_down_to, is_captured, plan_attach, reset_plan
from drivebay.registry.medium import DeviceType, MediaTree, Medium
from support.machines import START, named, tree_of

Content = dict[int, int]
State = dict[Slot, Content]  # what each disk shows


class MemoryImages:
    """Images by their medium's UUID."""

    def __init__(self) -> None:
        self.blocks: dict[UUID, Content] = {}

    def view(self, tree: MediaTree, medium: UUID) -> Content:
        """What reading the whole disk gives."""
        shown: Content = {}
        for one in reversed(list(tree.chain(medium))):
            shown |= self.blocks[one.uuid]
        return shown

    def merge(self, source: UUID, target: UUID, *, backward: bool) -> None:
        """Backward, a child into its parent: the child's win. Forward: the child's own stay."""
        lower, upper = self.blocks[target], self.blocks[source]
        if not backward:
            lower, upper = upper, lower
        self.blocks[target] = lower | upper
        del self.blocks[source]


class Lab:
    """Machines on media in memory, changed by plans only, as the service changes real ones."""

    def __init__(self) -> None:
        self.images = MemoryImages()
        self.media: dict[UUID, Medium] = {}
        self.machines: dict[UUID, Machine] = {}

    @property
    def tree(self) -> MediaTree:
        """All media, as the machines use them."""
        return tree_of(self.media.values(), *self.machines.values())

    def machine(self, name: str) -> UUID:
        """A new machine."""
        made = Machine(named(name), name, f"/machines/{name}", modified=False)
        self.machines[made.uuid] = made
        return made.uuid

    def set_type(self, medium: Medium) -> None:
        """Record a medium as it is to be."""
        self.media[medium.uuid] = medium

    def view(self, tree: MediaTree, medium: UUID) -> Content:
        """What the disk shows."""
        return self.images.view(tree, medium)

    def add(self, medium: Medium) -> None:
        """A new, empty image."""
        self.media[medium.uuid] = medium
        self.images.blocks[medium.uuid] = {}

    def _make(self, diffs: Iterable[NewDiff]) -> None:
        for diff in diffs:
            assert diff.parent in self.media
            self.add(diff.medium)

    def _finish(self, plan: RestorePlan | DeletePlan) -> None:
        for one in plan.merging:
            self.media[one.uuid] = replace(one, merging=True)
        for one in plan.dropped:
            assert not self.tree.children(one.uuid)
            del self.media[one.uuid], self.images.blocks[one.uuid]

    def attach(self, machine: UUID, slot: Slot, medium: UUID, previous: tuple[Attachment, ...] = ()) -> None:
        """As the command does it: with a diff where there must be one."""
        holder = self.machines[machine]
        plan = plan_attach(holder, self.tree, slot, medium, previous)
        self._make([plan.diff] if plan.diff else [])
        self._set(holder, (*holder.hardware.attachments, Attachment(slot, medium=plan.medium)))

    def detach(self, machine: UUID, slot: Slot) -> None:
        """The medium stays registered."""
        holder = self.machines[machine]
        self._set(holder, tuple(at for at in holder.hardware.attachments if at.slot != slot))

    def _set(self, machine: Machine, attachments: tuple[Attachment, ...]) -> None:
        self.machines[machine.uuid] = replace(machine, hardware=Hardware(attachments=attachments))

    def take(self, machine: UUID, name: str, state_file: str = "") -> UUID:
        """A snapshot of the current state; its UUID."""
        plan = plan_take(
            self.machines[machine], self.tree, name, taken=START, state_file=state_file, uuid=named(name)
        )
        self._make(plan.diffs)
        self.machines[machine] = plan.machine
        return plan.snapshot.uuid

    def restore(self, machine: UUID, snapshot: UUID) -> None:
        """The current state is lost."""
        plan = plan_restore(self.machines[machine], self.tree, snapshot)
        self._make(plan.diffs)
        self.machines[machine] = plan.machine
        self._finish(plan)

    def delete(self, machine: UUID, snapshot: UUID) -> None:
        """No state's contents change."""
        plan = plan_delete(self.machines[machine], self.tree, snapshot)
        self.machines[machine] = plan.machine
        self._finish(plan)

    def power_on(self, machine: UUID) -> list[Slot]:
        """Diffs that are to be reset are emptied; the slots of those."""
        resets = [one for one in reset_plan(self.machines[machine], self.tree) if one.will_reset]
        for one in resets:
            below = forgotten_down_to(self.tree, one.medium)
            self.set_type(replace(one.medium, parent=below.uuid))
            self.images.blocks[one.medium.uuid] = {}
        return [one.attachment.slot for one in resets]

    def write(self, machine: UUID, slot: Slot, sector: int, value: int) -> None:
        """As the guest writes: to the attached image itself, which nothing may build on."""
        medium = self.medium_at(machine, slot)
        assert not self.tree.children(medium)
        self.images.blocks[medium][sector] = value

    def medium_at(self, machine: UUID, slot: Slot) -> UUID:
        """What is attached there."""
        for at in self.machines[machine].hardware.attachments:
            if at.slot == slot and at.medium is not None:
                return at.medium
        raise AssertionError(f"nothing at {slot}")

    def consolidate(self) -> int:
        """Merge what is marked and has one child left, delete what has none; the number of images gone."""
        count = 0
        while (found := self._next_merging()) is not None:
            count += 1
            children = self.tree.children(found.uuid)
            if not children:
                del self.media[found.uuid], self.images.blocks[found.uuid]
            elif found.parent is None or count % 2:
                self._merge_backward(children[0], found)
            else:
                self._merge_forward(found, children[0])
        return count

    def _next_merging(self) -> Medium | None:
        tree = self.tree
        for one in self.media.values():
            if one.merging and not tree.uses_of(one.uuid) and len(tree.children(one.uuid)) < 2:
                return one
        return None

    def _merge_backward(self, child: Medium, target: Medium) -> None:
        self.images.merge(child.uuid, target.uuid, backward=True)
        for grandchild in self.tree.children(child.uuid):
            self.media[grandchild.uuid] = replace(grandchild, parent=target.uuid)
        self.media[target.uuid] = replace(target, merging=child.merging, auto_reset=child.auto_reset)
        del self.media[child.uuid]
        for one in list(self.machines.values()):
            self.machines[one.uuid] = repointed(one, child.uuid, target.uuid)

    def _merge_forward(self, source: Medium, child: Medium) -> None:
        self.images.merge(source.uuid, child.uuid, backward=False)
        self.media[child.uuid] = replace(child, parent=source.parent)
        del self.media[source.uuid]

    def shown(self, machine: UUID) -> dict[UUID | None, State]:
        """What the disks of each state of a machine show."""
        holder, tree = self.machines[machine], self.tree
        states = [(None, holder.hardware), *((one.uuid, one.hardware) for one in holder.snapshots)]
        return {
            name: {
                at.slot: self.images.view(tree, at.medium)
                for at in hardware.attachments
                if at.device is DeviceType.DISK and at.medium is not None
            }
            for name, hardware in states
        }

    def captured(self, medium: UUID) -> bool:
        """Whether snapshots keep its contents."""
        return is_captured(self.tree, self.media[medium])


def repointed(machine: Machine, old: UUID, new: UUID) -> Machine:
    """The machine with one medium in another's place, in all of its states."""

    def moved(hardware: Hardware) -> Hardware:
        changed = tuple(replace(at, medium=new) if at.medium == old else at for at in hardware.attachments)
        return replace(hardware, attachments=changed)

    snapshots = tuple(replace(one, hardware=moved(one.hardware)) for one in machine.snapshots)
    return replace(machine, hardware=moved(machine.hardware), snapshots=snapshots)
