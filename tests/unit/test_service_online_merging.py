"""Merging while a real worker serves the images and a client writes them, each answer verified."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from drivebay.errors import StorageError
from drivebay.registry.database import Change
from drivebay.service import online_merging
from drivebay.service.merging import consolidate
from drivebay.service.runtime import record
from drivebay.service.runtime.record import read_machine
from drivebay.service.served import Served
from support.served_machine import ServedMachine


@pytest.mark.parametrize("image_format", ["vdi", "vmdk", "vhd", "vhdx", "qcow2"])
@pytest.mark.parametrize("gone", [0, 1, 2], ids=["oldest", "middle", "newest"])
def test_a_snapshot_is_merged_while_the_guest_writes(tmp_path: Path, image_format: str, gone: int) -> None:
    machine = ServedMachine.new(tmp_path, image_format)
    with machine.running():
        load = machine.load()
        shots = []
        for number in range(3):
            load.go_on()
            shots.append(machine.take(f"s{number}"))
        load.go_on()
        machine.lab.delete(machine.vm, shots[gone])
        done = consolidate(machine.lab.home)
        print(f"{len(done.merged)} merges, longest hold {done.longest_hold * 1000:.0f} ms, {done.left}")
        load.go_on()
        written = load.stop()
        assert not done.left
        assert done.longest_hold > 0
        assert len(machine.chain) == 3
        assert machine.served == machine.chain
    machine.check(written)


@pytest.mark.parametrize("image_format", ["vdi", "vhdx", "qcow2"])
def test_images_below_two_running_machines_are_merged(tmp_path: Path, image_format: str) -> None:
    """A linked clone builds on the second snapshot; the first one is deleted while both guests write."""
    machine = ServedMachine.new(tmp_path, image_format)
    with machine.running():
        load = machine.load()
        load.go_on()
        first = machine.take("first")
        load.go_on()
        common = load.stop()
        clone = machine.linked_clone(machine.take("second"))
        with clone.running():
            loads = [machine.load(2, common), clone.load(3, common)]
            for each in loads:
                each.go_on()
            machine.lab.delete(machine.vm, first)
            done = consolidate(machine.lab.home)
            for each in loads:
                each.go_on()
            written = [each.stop() for each in loads]
            assert (len(done.merged), done.left) == (1, ())
            assert (machine.served, clone.served) == (machine.chain, clone.chain)
            assert machine.chain[1:] == clone.chain[1:]
            assert len(clone.chain) == 2
    machine.check(written[0])
    clone.check(written[1])


STEPS = [(online_merging, "merge", False), (online_merging, "record_merge", True), (Served, "rebase", True)]


@pytest.mark.parametrize("images", [3, 2], ids=["in between", "at the end"])
@pytest.mark.parametrize(("owner", "step", "late"), STEPS, ids=[step for _, step, _ in STEPS])
def test_interrupted_anywhere_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, step: str, late: bool, images: int
) -> None:
    """Also when the worker has begun to write an image that the registry has below the active one."""
    monkeypatch.setattr(online_merging, "LITTLE", 0)
    monkeypatch.setattr(online_merging, "_PATIENT_ROUNDS", 1)  # one image more, and then the end
    machine = ServedMachine.new(tmp_path)
    with machine.running():
        load = machine.load()
        load.go_on(10)
        shot = machine.take("s")
        load.go_on(10)
        machine.lab.delete(machine.vm, shot)
        _interrupt(monkeypatch, machine, (owner, step), images, late=late)
        load.go_on(10)
        assert consolidate(machine.lab.home).left == ()
        load.go_on(10)
        written = load.stop()
        assert machine.served == machine.chain
        assert len(machine.chain) == 1
    machine.check(written)


def _interrupt(
    monkeypatch: pytest.MonkeyPatch,
    machine: ServedMachine,
    what: tuple[Any, str],
    images: int,
    *,
    late: bool,
) -> None:
    """Let a step fail, once the worker serves so many images, as if the process had ended there."""
    step = getattr(*what)

    def stop(*arguments: object, **options: object) -> object:
        reached = len(machine.served) == images
        result = step(*arguments, **options) if late or not reached else None
        if reached:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patched:
        patched.setattr(*what, stop)
        with pytest.raises(KeyboardInterrupt):
            consolidate(machine.lab.home)


@pytest.mark.parametrize("active", [False, True], ids=["in between", "at the end"])
def test_a_worker_that_is_started_while_a_merge_is_recorded_opens_nothing_that_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, active: bool
) -> None:
    """The one before ended after it had been told of the shorter chain."""
    machine = ServedMachine.new(tmp_path)
    restarted = threading.Thread(target=machine.restart)

    def ends_here(_: Change) -> None:
        if not restarted.ident and len(machine.served) < len(machine.chain):
            machine.worker.process.kill()
            machine.worker.process.wait()
            restarted.start()
            restarted.join(2)

    with machine.running():
        load = machine.stubborn_load()
        shots = [machine.take(name) for name in "ab"]
        load.go_on()
        machine.lab.delete(machine.vm, shots[active])
        with monkeypatch.context() as patched:
            patched.setattr(Change, "mirror_media", ends_here)
            consolidate(machine.lab.home)
        restarted.join()
        load.go_on()
        written = load.stop()
        assert machine.served == machine.chain
    machine.check(written)


def test_while_its_images_are_merged_a_machine_gets_another_supervisor_but_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "_PATIENCE", 0.1)
    machine = ServedMachine.new(tmp_path)
    merge, looks = online_merging.merge, []

    def look(*arguments: Any, **options: Any) -> None:
        plan = read_machine(machine.lab.home, machine.vm, machine.run_folder, served=True)[1]
        with pytest.raises(StorageError, match="in use"):
            read_machine(machine.lab.home, machine.vm, machine.run_folder)
        looks.append(plan.specs[0].paths)
        merge(*arguments, **options)

    with machine.running():
        load = machine.load()
        shots = [machine.take(name) for name in "ab"]
        load.go_on()
        machine.lab.delete(machine.vm, shots[0])
        before = tuple(machine.chain)
        monkeypatch.setattr(online_merging, "merge", look)
        assert len(consolidate(machine.lab.home).merged) == 1
        written = load.stop()
    assert looks == [before]
    machine.check(written)
