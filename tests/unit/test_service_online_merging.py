"""Merging while a real worker serves the images and a client writes them, each answer verified."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from drivebay.service.merging import consolidate
from support.served_machine import ServedMachine


def _until_it_writes(load: object, more: int = 50) -> None:
    begin = load.rounds  # type: ignore[attr-defined]
    deadline = time.monotonic() + 30
    while load.rounds < begin + more:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("image_format", ["vdi", "vmdk", "vhd", "vhdx", "qcow2"])
@pytest.mark.parametrize("gone", [0, 1, 2], ids=["oldest", "middle", "newest"])
def test_a_snapshot_is_merged_while_the_guest_writes(tmp_path: Path, image_format: str, gone: int) -> None:
    machine = ServedMachine(tmp_path, image_format)
    with machine.running():
        load = machine.load()
        shots = []
        for number in range(3):
            _until_it_writes(load)
            shots.append(machine.take(f"s{number}"))
        _until_it_writes(load)
        machine.lab.delete(machine.vm, shots[gone])
        done = consolidate(machine.lab.home)
        print(f"{len(done.merged)} merges, longest hold {done.longest_hold * 1000:.0f} ms, {done.left}")
        _until_it_writes(load)
        written = load.stop()
        assert not done.left
        assert done.longest_hold > 0
        assert len(machine.chain) == 3
        assert machine.served == machine.chain
    machine.check(written)
