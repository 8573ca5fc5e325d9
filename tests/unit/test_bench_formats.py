"""The benchmark's images in all formats, and the load of first writes, with the real servers."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import wire
from bench.formats import FORMATS
from bench.images import empty_image, format_copy, raw_disk
from bench.load import allocating_load
from bench.peers import DRIVEBAY, QEMU_NBD, Server, running
from bench.plan import MIB

import drivebay

NAMES = [name for name in FORMATS if name != "raw"]


@pytest.mark.parametrize("name", NAMES)
def test_copies_hold_the_numbers_of_their_pages(name: str, tmp_path: Path) -> None:
    raw = raw_disk(tmp_path, 4 * MIB)
    image = format_copy(raw, name, FORMATS[name])
    with drivebay.open(image.path) as disk:
        assert disk.read(0, disk.size) == wire.pages(0, 4 * MIB // wire.PAGE)


@pytest.mark.parametrize("server", [DRIVEBAY, QEMU_NBD], ids=lambda server: server.name)
@pytest.mark.parametrize("name", NAMES)
def test_first_writes_reach_each_stride_once(name: str, server: Server, tmp_path: Path) -> None:
    image = empty_image(tmp_path, name, FORMATS[name], 16 * MIB)
    load = allocating_load(length=wire.PAGE, depth=4, stride=2 * MIB, size=16 * MIB)
    assert load.count == 8
    with running(server, image) as process, process.connect() as client:
        assert client.finish(load) > 0
    with drivebay.open(image.path) as disk:
        for start in range(0, 16 * MIB, 2 * MIB):
            page = disk.read(start, wire.PAGE)
            assert page == wire.pages(start // wire.PAGE, 1)
            assert disk.read(start + wire.PAGE, wire.PAGE) == bytes(wire.PAGE)
