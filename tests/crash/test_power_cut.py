"""Power cuts at every point of recorded runs hurt no flushed and no untouched sector (design, section 5)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from support.chains import build_chain
from support.crash import Examiner, Guest, Recording, Script, record
from support.crash_cases import BLOCKS, CrashCase, crash_cases
from support.crash_scripts import allocate, anything, reuse, zeros
from support.disks import KIB, MIB, ImageSpec, read_layer
from support.qemu_check import QemuCheck
from support.recording import Change, stage_of

BLOCK = 512 * KIB
SIZE = BLOCKS * BLOCK
CHAINS = (
    CrashCase("vdi-fixed", (ImageSpec(SIZE, BLOCK, "fixed"),), BLOCK),
    CrashCase(
        "vdi-mixed",
        (ImageSpec(SIZE - MIB - 3 * KIB, MIB), ImageSpec(SIZE, BLOCK), ImageSpec(SIZE, BLOCK)),
        BLOCK,
    ),
    CrashCase("parallels-states", (ImageSpec(SIZE, BLOCK, format="parallels", linked=False),) * 2, BLOCK),
)
CASES = [*crash_cases(), *CHAINS]
SCRIPTS: dict[str, Script] = {
    "allocate": allocate,
    "reuse": reuse,
    "zeros": zeros,
    "anything": anything(1),
    "anything else": anything(2),
}
TORN = 3  # for each prefix of the changes
WRITE_AGAIN_EVERY = 97
ASK_QEMU_EVERY = 61


def run(folder: Path, case: CrashCase, script: Script) -> Recording:
    paths, content = build_chain(folder, case.specs, seed=2, fill_top=script is not allocate)
    return record(paths, content, script, case.block)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_power_cuts_hurt_nothing(
    case: CrashCase, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    examined = 0
    for number, script in enumerate(SCRIPTS):
        folder = tmp_path / str(number)
        folder.mkdir()
        recording = run(folder, case, SCRIPTS[script])
        parents = [path.read_bytes() for path in recording.paths[1:]]
        examined += _examine(recording, f"{script} on {case}", number)
        assert [path.read_bytes() for path in recording.paths[1:]] == parents
    cases = sum(each.format == case.format for each in CASES)
    record_property("crash states", (case.format, cases, examined))


def _examine(recording: Recording, name: str, seed: int) -> int:
    examiner = Examiner(recording)
    qemu = QemuCheck(recording.paths)
    for number, state in enumerate(recording.states(seed, TORN)):
        found = examiner.damage(state)
        assert found is None, f"{name}: {found}"
        if number % WRITE_AGAIN_EVERY == 0:
            examiner.write_again(state)
        if number % ASK_QEMU_EVERY == 0:
            assert qemu.damage(state.files) is None, f"{name}, after {state.cut} events, {state.how}"
    return examiner.examined


@pytest.mark.parametrize("script", ["allocate", "reuse"])
def test_the_stages_of_an_epoch_are_in_order(tmp_path: Path, script: str) -> None:
    case = next(case for case in CASES if case.format == "vdi" and len(case.specs) == 2)
    recording = run(tmp_path, case, SCRIPTS[script])
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

    paths, content = build_chain(tmp_path, (ImageSpec(SIZE, BLOCK),), seed=2)
    events = record(paths, content, in_place_only, BLOCK).events
    syncs = [number for number, event in enumerate(events) if event.change is Change.SYNC]
    assert len(syncs) == 1 + 2 + 1  # the marks; the new block; the write in place; the empty flush: none
