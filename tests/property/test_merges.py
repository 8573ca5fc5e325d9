"""Any two neighbours of any chain, merged in either direction: what lies above shows the same."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import drivebay
from drivebay.chain import create_image
from drivebay.chain.merge import Direction, ImageName, holds_any, merge
from support.shadow import ShadowDisk, assert_same
from support.variants import KIB, MIB, Kind

SIZE = 8 * MIB
UNITS = (512, 4 * KIB, 64 * KIB, 512 * KIB, MIB, 2 * MIB)
KINDS = (
    Kind("vdi"),
    Kind("vdi", None, 512 * KIB),
    Kind("qcow2"),
    Kind("qcow2", "v2"),
    Kind("qcow2", None, 4 * KIB),
    Kind("qcow2", None, None, (("extended_l2", True),)),
    Kind("qcow2", None, None, (("extended_l2", True), ("data_file", "{name}.data"))),
    Kind("qcow2", None, None, (("data_file", "{name}.data"),)),
    Kind("qed"),
    Kind("vhd"),
    Kind("vhdx"),
    Kind("vmdk"),
    Kind("vmdk", None, None, (("zeroed_grain", True),)),
)


class Family:
    """Images on each other, top first, each with random changes of its own; the top shows ``content``."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.draw = random.Random(seed)
        self.paths: list[Path] = []
        self.content = bytearray(SIZE)
        alike = self.draw.random() < 0.5
        first = self.draw.choice(KINDS)
        for number in range(4):
            kind = first if alike else self.draw.choice(KINDS)
            path = folder / f"{number}.{kind.spec(SIZE).extension}"
            self._create(path, kind)
            self.paths.insert(0, path)
            with drivebay.open(path, writable=True) as disk:
                shadow = ShadowDisk(disk, self.content)
                for _ in range(self.draw.randrange(12) if number else 12):
                    self._step(shadow)

    def _create(self, path: Path, kind: Kind) -> None:
        parent = self.paths[0] if self.paths else None
        create_image(
            path,
            size=None if parent else SIZE,
            parent=parent,
            format_name=kind.format,
            options=kind.options_for(path.name),
        )

    def _step(self, shadow: ShadowDisk) -> None:
        unit = self.draw.choice(UNITS)
        offset = self.draw.randrange(SIZE // unit) * unit
        length = min(unit * self.draw.choice((1, 1, 2, 3)), SIZE - offset)
        match self.draw.randrange(6):
            case 0 | 1:
                shadow.write(offset, self.draw.randbytes(length))
            case 2:
                shadow.write(offset, bytes(length))
            case 3:
                shadow.zero(offset, length, unmap=False)
            case 4:
                shadow.zero(offset, length)
            case 5:
                shadow.discard(offset, length)

    def require_whole(self) -> None:
        with drivebay.open(self.paths[0]) as disk:
            assert_same(disk.read(0, SIZE), self.content, 0)
        for path in self.paths:
            found = [each for each in drivebay.check(path) if each.severity is drivebay.Severity.ERROR]
            assert found == [], path


@pytest.mark.parametrize("seed", range(60))
def test_what_lies_above_shows_the_same(tmp_path: Path, seed: int) -> None:
    family = Family(tmp_path, seed)
    direction = family.draw.choice(list(Direction))
    first = family.draw.randrange(3 if direction is Direction.BACKWARD else 2)
    pair = [ImageName(str(path)) for path in family.paths[first:]]
    merge(pair, direction)
    family.require_whole()
    assert not holds_any(pair[1 if direction is Direction.FORWARD else 0])
