"""Merges of served images whose process, or whose worker, is killed; a client verifies all it has written."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drivebay.service.merging import consolidate
from support.served_machine import ServedMachine
from support.workers import StubbornLoad

KILLS = 6
_FORKS = multiprocessing.get_context("forkserver")  # its children have imported what they need
_FORKS.set_forkserver_preload(["drivebay.service.merging"])


def _tidy(machine: ServedMachine) -> multiprocessing.process.BaseProcess:
    """A process that merges."""
    process = _FORKS.Process(target=consolidate, args=(machine.lab.home,))
    process.start()
    return process


def _with_snapshots(machine: ServedMachine, load: StubbornLoad) -> None:
    """Three snapshots, of which the oldest and the newest are deleted."""
    shots = []
    for number in range(3):
        load.go_on()
        shots.append(machine.take(f"s{number}"))
    load.go_on()
    machine.lab.delete(machine.vm, shots[0])
    machine.lab.delete(machine.vm, shots[2])


@contextmanager
def _merged(folder: Path, image_format: str) -> Iterator[tuple[ServedMachine, StubbornLoad]]:
    """A machine with something to merge, and its guest; after the block all must be merged, and right."""
    machine = ServedMachine.new(folder, image_format)
    with machine.running():
        load = machine.stubborn_load()
        _with_snapshots(machine, load)
        yield machine, load
        done = consolidate(machine.lab.home)
        load.go_on()
        written = load.stop()
        assert not done.left
    consolidate(machine.lab.home)
    assert len(machine.chain) == 2
    machine.check(written)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("image_format", ["vdi", "vhdx", "qcow2"])
def test_the_merging_process_is_killed(tmp_path: Path, image_format: str) -> None:
    chance = random.Random(image_format)
    with _merged(tmp_path, image_format) as (machine, load):
        for _ in range(KILLS):
            process = _tidy(machine)
            time.sleep(chance.uniform(0, 1.5))
            process.kill()
            process.join()
            load.go_on()
    assert machine.worker.poll() in (0, 1)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("image_format", ["vdi", "vmdk", "qcow2"])
def test_the_worker_is_killed(tmp_path: Path, image_format: str) -> None:
    chance = random.Random(image_format)
    with _merged(tmp_path, image_format) as (machine, load):
        for _ in range(KILLS):
            process = _tidy(machine)
            time.sleep(chance.uniform(0, 1.5))
            machine.worker.process.kill()
            machine.worker.process.wait()
            machine.restart()
            load.go_on()
            process.join()
