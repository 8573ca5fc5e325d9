"""Blocks that an image has in part only: read, written and dropped over a parent with data."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivebay.model import Severity
from support.chains import build_chain, kind_case
from support.disks import findings, images_of, open_disk
from support.interpreter import read_layers, state_at
from support.shadow import RandomSteps, ShadowDisk, assert_same, check_extents, states
from support.thinning import can_be_thinned, thin_out
from support.variants import Kind, child_kinds, layer_of


def _has_bitmaps(kind: Kind) -> bool:
    layer = layer_of(kind, kind.size, child=True)
    return layer is not None and any(getattr(segment, "presence", None) for segment in layer.segments)


KINDS = [kind for kind in child_kinds() if _has_bitmaps(kind)]


@pytest.fixture(params=KINDS, ids=str)
def chain(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[list[Path], bytearray, int]:
    """A child with partly present blocks on a full parent, what the disk contains, and the block size."""
    case = kind_case(request.param, "child")
    paths, _ = build_chain(tmp_path, case.specs, seed=6, fill_top=True)
    assert can_be_thinned(paths[0])
    assert thin_out(paths[0], seed=3) >= 1
    images = images_of(paths)
    return paths, bytearray(read_layers(images, 0, images[0][0].facts.size)), case.block


def test_it_reads_what_its_bitmaps_say(chain: tuple[list[Path], bytearray, int]) -> None:
    paths, content, _ = chain
    assert not [found for found in findings(paths[0]) if found.severity is Severity.ERROR]
    images = images_of(paths)
    with open_disk(paths, writable=False) as disk:
        assert_same(disk.read(0, disk.size), content, 0)
        for offset in range(0, disk.size - 4096, 40_000):
            assert_same(disk.read(offset + 3, 999), content[offset + 3 : offset + 1002], offset)
        check_extents(disk, content)
        for start, length, state, depth in states(disk):
            piece = state_at(images, start + length // 2)
            assert (piece.state, piece.depth) == (state, depth)


def test_a_random_guest_writes_over_it(chain: tuple[list[Path], bytearray, int]) -> None:
    paths, content, block = chain
    steps = RandomSteps(8, block)
    for _ in range(2):
        with open_disk(paths) as disk:
            shadow = ShadowDisk(disk, content)
            for _ in range(12):
                steps.step(shadow)
            shadow.verify()
    assert_same(read_layers(images_of(paths), 0, len(content)), content, 0)
    assert not [found for found in findings(paths[0]) if found.severity is Severity.ERROR]
