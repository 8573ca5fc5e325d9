"""The state machine of test_snapshot_machine over a real registry, with real images and killed processes."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from uuid import UUID

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant, rule

from drivebay.errors import StorageError
from drivebay.service.clones import clone_machine
from drivebay.service.rebuild import rebuild_registry
from support.dying import dies_at
from support.real_lab import RealLab
from support.snapshot_model import Lab

from .test_snapshot_machine import MACHINES, SnapshotMachine


class RealSnapshotMachine(SnapshotMachine):
    """The same rules, and processes that die in the middle of a command."""

    image_format = "vdi"

    def make_lab(self) -> Lab:
        self.folder = Path(tempfile.mkdtemp(prefix="drivebay-test-"))
        self.real = RealLab(self.folder, self.image_format)
        return self.real

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(holder=st.sampled_from(MACHINES), step=st.integers(0, 12))
    def die_taking(self, holder: UUID, step: int) -> None:
        name = self.fresh("dead")
        before = {one.uuid for one in self.lab.machines[holder].snapshots}
        dies_at(step, lambda: self.lab.take(holder, name))
        for new in {one.uuid for one in self.lab.machines[holder].snapshots} - before:
            states = self.model[holder]
            states[new] = {slot: dict(content) for slot, content in states[None].items()}

    @rule(chosen=SnapshotMachine.snapshots, step=st.integers(0, 12))
    def die_restoring(self, chosen: tuple[UUID, UUID], step: int) -> None:
        holder, snapshot = chosen
        states = self.model[holder]
        if snapshot not in states:
            return
        before = self.lab.machines[holder].hardware
        dies_at(step, lambda: self.lab.restore(holder, snapshot))
        if self.lab.machines[holder].hardware != before:
            states[None] = {slot: dict(content) for slot, content in states[snapshot].items()}

    @rule(chosen=SnapshotMachine.snapshots, step=st.integers(0, 12))
    def die_deleting(self, chosen: tuple[UUID, UUID], step: int) -> None:
        holder, snapshot = chosen
        if snapshot not in self.model[holder]:
            return
        dies_at(step, lambda: self.lab.delete(holder, snapshot))
        if snapshot not in {one.uuid for one in self.lab.machines[holder].snapshots}:
            del self.model[holder][snapshot]

    @rule(chosen=SnapshotMachine.snapshots, linked=st.booleans())
    def clone(self, chosen: tuple[UUID, UUID], linked: bool) -> None:
        holder, snapshot = chosen
        if snapshot not in self.model[holder] or len(self.model) > 3:
            return
        made = clone_machine(
            self.real.home, str(holder), self.fresh("clone"), snapshot=str(snapshot), linked=linked
        ).machine
        kept = self.model[holder][snapshot]
        self.model[made.uuid] = {None: {slot: dict(content) for slot, content in kept.items()}}

    @rule()
    def rebuild(self) -> None:
        before = self.real.media
        for suffix in ("", "-wal", "-shm"):
            Path(self.real.home.registry + suffix).unlink(missing_ok=True)
        report = rebuild_registry(self.real.home, [str(self.folder)])
        assert (report.notes, self.real.media) == ((), before)

    @invariant()
    def no_file_is_left_over_and_none_is_missing(self) -> None:
        states = {
            os.path.join(one.folder, name)
            for one in self.real.machines.values()
            for name in (one.state_file, *(kept.state_file for kept in one.snapshots))
            if name
        }
        assert self.real.files() == states | {one.path for one in self.real.tree.media.values()}


class Qcow2SnapshotMachine(RealSnapshotMachine):
    """A format that knows its parent by its path."""

    image_format = "qcow2"


SETTINGS = settings(
    max_examples=6, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestVdi = RealSnapshotMachine.TestCase
TestVdi.settings = SETTINGS
TestQcow2 = Qcow2SnapshotMachine.TestCase
TestQcow2.settings = SETTINGS


def test_a_killed_process_is_noticed(tmp_path: Path) -> None:
    lab = RealLab(tmp_path)
    holder = lab.machine("one")
    assert dies_at(0, lambda: lab.take(holder, "s1"))
    assert not dies_at(1000, lambda: lab.take(holder, "s2"))
    assert [one.name for one in lab.machines[holder].snapshots] == ["s2"]
    with pytest.raises(StorageError):
        lab.restore(holder, holder)
