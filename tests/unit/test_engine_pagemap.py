"""Pages of the map: the budget, what must stay, what was built too early, and granules."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drivebay.blockmap import BlockState, Layer, Linear
from drivebay.engine.disk import Disk
from drivebay.engine.mapentry import pack
from drivebay.engine.pagemap import PAGE_BYTES, PageMap
from drivebay.engine.source import FileSource, OpenedLayer
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import ImageFacts
from support.disks import KIB, MIB, ImageSpec, make_image, open_layer
from support.threads import Gate, start

BLOCK = 512 * KIB
PAGE = 512 * BLOCK


def empty(folder: Path, size: int, block: int = BLOCK, name: str = "a.vdi") -> OpenedLayer:
    make_image(folder / name, ImageSpec(size, block))
    return open_layer(folder / name)


def load(page_map: PageMap, index: int) -> None:
    page_map.install(index, *page_map.build(range(index, index + 1))[0], range(index, index + 1))


def test_the_oldest_page_goes_first(tmp_path: Path) -> None:
    page_map = PageMap([empty(tmp_path, 8 * PAGE)], 8 * PAGE, 3 * PAGE_BYTES)
    for index in range(5):
        load(page_map, index)
    assert list(page_map.pages) == [2, 3, 4]


def test_pinned_and_needed_pages_stay_beyond_the_budget(tmp_path: Path) -> None:
    page_map = PageMap([empty(tmp_path, 8 * PAGE)], 8 * PAGE, PAGE_BYTES)
    load(page_map, 0)
    page_map.set_block(0, BLOCK, pack(BlockState.ZERO, 0))
    for index in range(1, 4):
        load(page_map, index)
    assert list(page_map.pages) == [0, 3]
    page_map.install(4, *page_map.build(range(4, 5))[0], range(3, 6))
    assert list(page_map.pages) == [0, 3, 4]
    page_map.unpin()
    load(page_map, 5)
    assert list(page_map.pages) == [5]


def test_an_eviction_makes_pages_stale_that_are_being_built(tmp_path: Path) -> None:
    """The page may have been there meanwhile, changed and gone: what was read before is old."""
    page_map = PageMap([empty(tmp_path, 8 * PAGE)], 8 * PAGE, PAGE_BYTES)
    load(page_map, 0)
    before = page_map.changes
    load(page_map, 1)
    assert page_map.changes != before


def test_a_block_over_several_granules_and_pages(tmp_path: Path) -> None:
    page_map = PageMap([empty(tmp_path, 1200 * MIB, 64 * MIB)], 1200 * MIB, 1 << 20)
    for index in page_map.span(0, 1200 * MIB):
        load(page_map, index)
    page_map.set_block(448 * MIB, 64 * MIB, pack(BlockState.DATA, 0, 1 << 30, in_place=True))
    page_map.set_block(512 * MIB, 64 * MIB, pack(BlockState.ZERO, 0))
    pieces = list(page_map.pieces(0, 1200 * MIB))
    assert [(p.start // MIB, p.length // MIB, p.state, p.offset) for p in pieces] == [
        (0, 448, BlockState.ABSENT, 0),
        (448, 64, BlockState.DATA, 1 << 30),
        (512, 64, BlockState.ZERO, 0),
        (576, 624, BlockState.ABSENT, 0),
    ]
    assert page_map.pinned == {0, 1}


@pytest.mark.parametrize(
    ("blocks", "granule"),
    [((BLOCK,), BLOCK), ((2 * MIB, BLOCK), BLOCK), ((64 * MIB,), MIB), ((64 * MIB, 2 * MIB), MIB)],
)
def test_the_granule_is_the_finest_block(tmp_path: Path, blocks: tuple[int, ...], granule: int) -> None:
    layers = [empty(tmp_path, 64 * MIB, block, f"{number}.vdi") for number, block in enumerate(blocks)]
    assert PageMap(layers, 64 * MIB, 1 << 20).granule == granule


def test_a_layer_with_finer_blocks_drops_all_pages(tmp_path: Path) -> None:
    page_map = PageMap([empty(tmp_path, 8 * MIB, 2 * MIB)], 8 * MIB, 1 << 20)
    load(page_map, 0)
    page_map.push(empty(tmp_path, 8 * MIB, 2 * MIB, "same.vdi"))
    assert list(page_map.pages) == [0]
    page_map.push(empty(tmp_path, 8 * MIB, BLOCK, "finer.vdi"))
    assert list(page_map.pages) == []
    assert page_map.granule == BLOCK
    assert [page_map.depth_of(source) for source in range(3)] == [2, 1, 0]


def test_more_files_than_the_map_can_number(tmp_path: Path) -> None:
    layer = empty(tmp_path, 8 * MIB)
    many = OpenedLayer(layer.layer, layer.sources * 2048)
    PageMap([many], 8 * MIB, 1 << 20)
    with pytest.raises(StorageError) as caught:
        PageMap([many, layer], 8 * MIB, 1 << 20)
    assert caught.value.kind is ErrorKind.UNSUPPORTED


class SlowTable(FileSource):
    """The first read of the table after the gate is set stops there, with what it has read."""

    gate: Gate | None = None

    def read_into(self, view: memoryview, offset: int) -> None:
        super().read_into(view, offset)
        gate, self.gate = self.gate, None
        if gate is not None:
            gate.stop_here()


def test_a_page_that_was_read_before_its_table_changed_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.vdi"
    make_image(path, ImageSpec(4 * PAGE, BLOCK))
    layer = open_layer(path, writable=True, source=lambda fd, name, rw: SlowTable(fd, name, writable=rw))
    source = layer.sources[0]
    assert isinstance(source, SlowTable)
    with Disk([layer], writable=True, map_budget=PAGE_BYTES) as disk:
        disk.write(3 * PAGE, b"elsewhere", fua=True)
        gate = source.gate = Gate()
        early = start(lambda: disk.read(0, 5))
        gate.wait_reached()
        disk.write(0, b"later", fua=True)
        disk.read(PAGE, 5)  # the page of the write is evicted
        gate.set()
        assert early.result(60) in (bytes(5), b"later")
        assert disk.read(0, 5) == b"later"


def test_a_file_with_places_that_an_entry_cannot_hold() -> None:
    """Nothing but a hole is so long, but where it is taken, entries would name other files."""
    length = 1 << 58
    fd = os.memfd_create("hole")
    os.truncate(fd, length)
    layer = Layer(ImageFacts("test", "test", length), (Linear(0, length, 0, 0),))
    source = FileSource(fd, "/memory", writable=False)
    with pytest.raises(StorageError, match="shorten it") as caught:
        PageMap([OpenedLayer(layer, (source,))], length, PAGE_BYTES)
    assert caught.value.kind is ErrorKind.UNSUPPORTED
    source.close()
