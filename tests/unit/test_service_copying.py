"""Copies of chains whose images have different sizes: each has its own, and hides what it hid."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

import drivebay
from drivebay.registry.medium import DeviceType, Medium, MediumType
from drivebay.service.copying import Run, copy_run
from support.images import ImageSpec, make_image, read_layer
from support.variants import MIB

CHAINS = ([4, 8], [8, 4], [8, 4, 8], [4, 8, 6])
FORMATS = ("vdi", "qcow2", "qed", "vmdk")


def _medium(path: Path, size: int) -> Medium:
    return Medium(
        uuid.uuid4(), str(path), path.suffix[1:], DeviceType.DISK, MediumType.NORMAL, None, size, ""
    )


def _family(folder: Path, name: str, sizes: list[int]) -> list[Medium]:
    """Images of ``sizes`` (MiB), base first, each with bytes of its own near its end; top first."""
    media: list[Medium] = []
    for number, size in enumerate(sizes):
        path = folder / f"{number}.{name}"
        make_image(path, ImageSpec(size * MIB, format=name), Path(media[0].path) if media else None)
        with drivebay.open(path, writable=True) as disk:
            disk.write(size * MIB - 70_000 * (number + 1), bytes([number + 1]) * 65_536)
            disk.write(number * 4096, bytes([number + 11]) * 4096)
        media.insert(0, _medium(path, read_layer(path).facts.size))
    return media


def _shows(medium: Medium) -> bytes:
    with drivebay.open(medium.path) as disk:
        content: bytes = disk.read(0, disk.size)
        return content


@pytest.mark.parametrize("sizes", CHAINS, ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_image_by_image(tmp_path: Path, name: str, sizes: list[int]) -> None:
    source = _family(tmp_path, name, sizes)
    copies: list[Medium] = []
    for number in reversed(range(len(source))):
        one = source[number]
        copy = _medium(tmp_path / f"copy{number}.{name}", one.size)
        copy_run(Run(tuple(source[number:]), 1), copy, copies, lambda _: None)
        copies.insert(0, copy)
        assert _shows(copy) == _shows(one)


@pytest.mark.parametrize("name", FORMATS)
def test_a_smaller_image_between_goes_on_hiding_what_is_below_it(tmp_path: Path, name: str) -> None:
    source = _family(tmp_path, name, [8, 4, 8])
    copy = _medium(tmp_path / f"copy.{name}", 8 * MIB)
    copy_run(Run(tuple(source), 2), copy, source[2:], lambda _: None)
    assert _shows(copy) == _shows(source[0])
