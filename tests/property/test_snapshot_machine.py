"""A state machine over snapshots: plans against a plain model that knows no images.

The model says for each state of each machine what its disks show, and takes write-through and shareable
disks out of the states: there is one content of each, whatever is restored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from drivebay.errors import StorageError
from drivebay.machines.model import Slot
from drivebay.machines.snapshots import descendants
from drivebay.registry.medium import MediumType
from support.machines import medium, named
from support.snapshot_model import Content, Lab, State

SLOTS = [Slot("SATA", port) for port in range(4)]
TYPES = [
    MediumType.NORMAL,
    MediumType.NORMAL,
    MediumType.IMMUTABLE,
    MediumType.MULTIATTACH,
    MediumType.WRITETHROUGH,
]
MACHINES = [named("one"), named("two")]


class SnapshotMachine(RuleBasedStateMachine):
    """Two machines that share bases, as immutable, multi-attach and snapshotted ones may be."""

    snapshots = Bundle("snapshots")

    def __init__(self) -> None:
        super().__init__()
        self.lab = self.make_lab()
        self.model: dict[UUID, dict[UUID | None, State]] = {}
        self.number = 0
        self.value = 0
        for name in ("one", "two"):
            self.model[self.lab.machine(name)] = {None: {}}

    def make_lab(self) -> Lab:
        """In memory: thousands of steps."""
        return Lab()

    def fresh(self, what: str) -> str:
        """A name that nothing has yet."""
        self.number += 1
        return f"{what}{self.number}"

    @rule(holder=st.sampled_from(MACHINES), slot=st.sampled_from(SLOTS), kind=st.sampled_from(TYPES))
    def create_and_attach(self, holder: UUID, slot: Slot, kind: MediumType) -> None:
        if slot in self.model[holder][None]:
            return
        made = medium(self.fresh("disk"), type=kind)
        self.lab.add(made)
        self.lab.attach(holder, slot, made.uuid)
        self.model[holder][None][slot] = {}

    @rule(holder=st.sampled_from(MACHINES), slot=st.sampled_from(SLOTS), pick=st.integers(0, 50))
    def attach_again(self, holder: UUID, slot: Slot, pick: int) -> None:
        if slot in self.model[holder][None] or not self.lab.media:
            return
        chosen = list(self.lab.media)[pick % len(self.lab.media)]
        try:
            self.lab.attach(holder, slot, chosen)
        except StorageError:
            return
        there = self.lab.medium_at(holder, slot)
        self.model[holder][None][slot] = self.lab.view(self.lab.tree, there)

    @rule(holder=st.sampled_from(MACHINES), slot=st.sampled_from(SLOTS))
    def detach(self, holder: UUID, slot: Slot) -> None:
        if self.model[holder][None].pop(slot, None) is not None:
            self.lab.detach(holder, slot)

    @rule(
        holder=st.sampled_from(MACHINES),
        slot=st.sampled_from(SLOTS),
        sectors=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    )
    def write(self, holder: UUID, slot: Slot, sectors: list[int]) -> None:
        if slot not in self.model[holder][None]:
            return
        there = self.lab.medium_at(holder, slot)
        for sector in sectors:
            self.value += 1
            self.lab.write(holder, slot, sector, self.value)
            for content in self._showing(there):
                content[sector] = self.value

    def _showing(self, there: UUID) -> Iterator[Content]:
        """What the model says of each state that holds this very image."""
        for holder, one in self.lab.machines.items():
            states = [(None, one.hardware), *((kept.uuid, kept.hardware) for kept in one.snapshots)]
            for state, hardware in states:
                for at in hardware.attachments:
                    if at.medium == there:
                        assert state is None or not self.lab.captured(there)
                        yield self.model[holder][state][at.slot]

    @rule(target=snapshots, holder=st.sampled_from(MACHINES), online=st.booleans())
    def take(self, holder: UUID, online: bool) -> tuple[UUID, UUID]:
        name = self.fresh("snap")
        states = self.model[holder]
        try:
            taken = self.lab.take(holder, name, f"Snapshots/{name}.sav" if online else "")
        except StorageError:  # a disk that the other machine writes, too
            return holder, named("nothing")
        states[taken] = {slot: dict(content) for slot, content in states[None].items()}
        return holder, taken

    @rule(chosen=snapshots)
    def restore(self, chosen: tuple[UUID, UUID]) -> None:
        holder, snapshot = chosen
        states = self.model[holder]
        if snapshot not in states:
            return
        self.lab.restore(holder, snapshot)
        states[None] = {slot: dict(content) for slot, content in states[snapshot].items()}

    @rule(chosen=snapshots)
    def delete(self, chosen: tuple[UUID, UUID]) -> None:
        holder, snapshot = chosen
        if snapshot in self.model[holder]:
            self.lab.delete(holder, snapshot)
            del self.model[holder][snapshot]

    @rule()
    def consolidate(self) -> None:
        self.lab.consolidate()
        tree = self.lab.tree
        for one in tree.media.values():
            children = tree.children(one.uuid)
            assert not one.merging or len(children) > 1 or any(child.auto_reset for child in children)

    @rule(holder=st.sampled_from(MACHINES))
    def power_cycle(self, holder: UUID) -> None:
        for slot in self.lab.power_on(holder):
            there = self.lab.medium_at(holder, slot)
            _, below, *_ = self.lab.tree.chain(there)
            for content in self._showing(there):
                content.clear()
                content.update(self.lab.view(self.lab.tree, below.uuid))

    @rule(pick=st.integers(0, 50), kind=st.sampled_from([MediumType.NORMAL, MediumType.IMMUTABLE]))
    def change_type(self, pick: int, kind: MediumType) -> None:
        tree = self.lab.tree
        free = [
            one
            for one in self.lab.media.values()
            if one.parent is None and not one.merging and not tree.uses_of(one.uuid)
            if one.type in (MediumType.NORMAL, MediumType.IMMUTABLE, MediumType.MULTIATTACH)
        ]
        if free:
            chosen = free[pick % len(free)]
            self.lab.set_type(replace(chosen, type=kind))

    @invariant()
    def every_state_shows_what_it_should(self) -> None:
        for holder, states in self.model.items():
            assert self.lab.shown(holder) == states

    @invariant()
    def nothing_builds_on_what_is_written(self) -> None:
        tree = self.lab.tree
        for use in tree.uses:
            assert use.snapshot is not None or not tree.children(use.medium)
            assert use.medium in tree.media

    @invariant()
    def what_is_merged_away_is_used_by_nobody(self) -> None:
        tree = self.lab.tree
        for one in tree.media.values():
            assert not (one.merging and tree.uses_of(one.uuid))
            assert not one.merging or one.type is MediumType.NORMAL
            assert one.uuid not in {below.uuid for below in descendants(tree, one.uuid)}


TestSnapshotMachine = SnapshotMachine.TestCase
TestSnapshotMachine.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
