"""A random guest over the whole matrix, held against a shadow and the slow interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivebay.engine.disk import Disk
from drivebay.model import Severity
from support.chains import CACHED, EACH_KIND, HUGE, MATRIX, Stage
from support.disks import files_of, findings, images_of
from support.interpreter import read_layers, state_at
from support.shadow import ShadowDisk, assert_same, check_extents, states

_STEPS = 12
_HUGE_STEPS = 4
_MOST_TO_INTERPRET = 32 << 20


@pytest.mark.parametrize("case", [*MATRIX, *HUGE, *EACH_KIND, *CACHED], ids=str)
def test_a_random_guest_reads_what_it_wrote(stage: Stage) -> None:
    steps = stage.steps(seed=7)
    parents = contents_of(stage.paths[1:])
    for _ in range(2):  # the second time on what the first has left
        with stage.open() as disk:
            shadow = ShadowDisk(disk, stage.content)
            for _ in range(_STEPS if len(stage.content) < _MOST_TO_INTERPRET else _HUGE_STEPS):
                steps.step(shadow)
            shadow.verify()
            check_extents(disk, shadow.content)
            disk.flush()
            _hold_against_interpreter(disk, stage.paths, shadow.content)
    assert contents_of(stage.paths[1:]) == parents
    assert not [f for f in findings(stage.paths[0]) if f.severity is not Severity.NOTE]


def contents_of(paths: list[Path]) -> list[bytes]:
    return [file.read_bytes() for path in paths for file in files_of(path)]


def test_there_are_enough_variants() -> None:
    assert len({case.kind for case in EACH_KIND}) >= 40


def _hold_against_interpreter(disk: Disk, paths: list[Path], content: bytearray) -> None:
    if len(content) > _MOST_TO_INTERPRET:
        return
    images = images_of(paths)
    assert_same(read_layers(images, 0, len(content)), content, 0)
    for start, length, state, depth in states(disk):
        for position in (start, start + length // 2, start + length - 1):
            piece = state_at(images, position)
            assert (piece.state, piece.depth) == (state, depth), f"at {position}"
