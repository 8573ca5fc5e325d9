"""Power cuts at every point of recorded runs hurt no flushed and no untouched sector (design, section 5)."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from support.chains import build_chain
from support.crash import Examiner, Guest, Recording, Script, crash_states, record
from support.crash_scripts import BLOCK, allocate, anything, reuse, zeros
from support.disks import KIB, MIB, ImageSpec, read_layer
from support.recording import Change, stage_of

SIZE = 6 * BLOCK
CHAINS = {
    "dynamic": (ImageSpec(SIZE, BLOCK),),
    "fixed": (ImageSpec(SIZE, BLOCK, "fixed"),),
    "differencing": (ImageSpec(SIZE, BLOCK), ImageSpec(SIZE, BLOCK)),
    "mixed": (ImageSpec(SIZE - MIB - 3 * KIB, MIB), ImageSpec(SIZE, BLOCK), ImageSpec(SIZE, BLOCK)),
}
SCRIPTS: dict[str, Script] = {
    "allocate": allocate,
    "reuse": reuse,
    "zeros": zeros,
    "anything": anything(1),
}
TORN = 3
WRITE_AGAIN_EVERY = 97
STATES_AT_LEAST = 2000


def run(folder: Path, chain: str, script: Script) -> Recording:
    paths, content = build_chain(folder, CHAINS[chain], seed=2, fill_top=script is not allocate)
    return record(paths, content, script)


def test_power_cuts_hurt_nothing(tmp_path: Path) -> None:
    examined = 0
    for number, (chain, script) in enumerate(itertools.product(CHAINS, SCRIPTS)):
        folder = tmp_path / str(number)
        folder.mkdir()
        recording = run(folder, chain, SCRIPTS[script])
        parents = [path.read_bytes() for path in recording.paths[1:]]
        examined += _examine(recording, f"{script} on {chain}", number)
        assert [path.read_bytes() for path in recording.paths[1:]] == parents
    assert examined >= STATES_AT_LEAST
    print(f"{examined} crash states")


def _examine(recording: Recording, name: str, seed: int) -> int:
    examiner = Examiner(recording)
    for number, state in enumerate(crash_states(recording, seed, TORN)):
        found = examiner.damage(state)
        assert found is None, f"{name}: {found}"
        if number % WRITE_AGAIN_EVERY == 0:
            examiner.write_again(state)
    return examiner.examined


@pytest.mark.parametrize("script", ["allocate", "reuse"])
def test_the_stages_of_an_epoch_are_in_order(tmp_path: Path, script: str) -> None:
    recording = run(tmp_path, "differencing", SCRIPTS[script])
    layer = read_layer(recording.paths[0])
    stages = [stage_of(event, layer) for event in recording.events]
    order = [stage for stage, _ in itertools.groupby(stages)]
    assert "entries" in order
    for number, stage in enumerate(order):
        if stage == "entries":
            assert order[number - 2 : number + 2] == ["reserve", "barrier", "entries", "barrier"]
    assert order[:2] == ["reserve", "barrier"], "the marks change before the first write"


def test_a_flush_of_nothing_new_is_one_sync(tmp_path: Path) -> None:
    def in_place_only(guest: Guest) -> None:
        guest.write(0, b"x" * 4096, fua=True)
        guest.write(0, b"y" * 4096)
        guest.flush()
        guest.flush()

    events = record(*build_chain(tmp_path, CHAINS["dynamic"], seed=2), in_place_only).events
    syncs = [number for number, event in enumerate(events) if event.change is Change.SYNC]
    assert len(syncs) == 1 + 2 + 1  # the marks; the new block; the write in place; the empty flush: none
