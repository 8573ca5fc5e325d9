"""Closing a disk that others still use: nobody reads or writes through a file that is closed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from drivebay.engine.batch import Outcome
from drivebay.engine.disk import Disk
from drivebay.engine.pagemap import PageMap
from drivebay.engine.source import Buffer, FileSource
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.parallels.header import IN_USE, IN_USE_OFFSET
from support.disks import KIB, ImageSpec, make_image, open_disk, open_layer
from support.parallels_images import make_image as parallels_image
from support.threads import Gate, start

BLOCK = 512 * KIB


class SlowSource(FileSource):
    """Reads and writes stop at a gate; says whether a file was used after it was closed."""

    gate: Gate | None = None
    closed = False

    def _stop(self) -> None:
        if self.gate is not None:
            self.gate.stop_here()
        assert not self.closed, "the file is closed; its number may be another file's by now"

    def read_into(self, view: memoryview, offset: int) -> None:
        self._stop()
        super().read_into(view, offset)

    def write(self, data: Buffer, offset: int) -> None:
        self._stop()
        super().write(data, offset)

    def close(self) -> None:
        self.closed = True
        super().close()


@pytest.fixture
def slow(tmp_path: Path) -> tuple[Disk, SlowSource, Path]:
    sources: list[SlowSource] = []

    def make(fd: int, name: str, writable: bool) -> FileSource:
        sources.append(SlowSource(fd, name, writable=writable))
        return sources[-1]

    path = tmp_path / "slow.vdi"
    make_image(path, ImageSpec(8 * BLOCK, BLOCK))
    disk = open_disk([path], source=make)
    disk.write(0, b"x" * BLOCK, fua=True)
    return disk, sources[0], path


CALLS: dict[str, Callable[[Disk], object]] = {
    "read": lambda disk: disk.read(0, 512),
    "write in place": lambda disk: disk.write(0, b"last" * 128),
    "write a new block": lambda disk: disk.write(BLOCK, b"last" * 128),
    "zero": lambda disk: disk.zero(BLOCK + 100, 100),
    "discard": lambda disk: disk.discard(0, BLOCK),
}


@pytest.mark.parametrize("name", CALLS)
def test_closing_waits_for_what_is_under_way(slow: tuple[Disk, SlowSource, Path], name: str) -> None:
    disk, source, path = slow
    gate = source.gate = Gate()
    call = start(lambda: CALLS[name](disk))
    if name in ("read", "write in place", "write a new block"):
        gate.wait_reached()
    else:
        call.result(60)
    closing = start(disk.close)
    gate.set()
    closing.result(60)
    call.result(60)
    assert source.closed
    with open_disk([path], writable=False) as other:
        expected = {
            "write in place": b"last" * 128,
            "discard": bytes(512),
        }.get(name, b"x" * 512)
        assert other.read(0, 512) == expected
        assert other.read(BLOCK, 4) == (b"last" if name == "write a new block" else bytes(4))


def test_what_comes_after_closing_is_refused(slow: tuple[Disk, SlowSource, Path]) -> None:
    disk, _, _ = slow
    with disk.quiesce():
        waiting = start(lambda: disk.write(0, b"too late"))
        disk.close()
        with pytest.raises(StorageError, match="closed"):
            waiting.result(60)
    later: tuple[Callable[[Disk], object], ...] = (
        *CALLS.values(),
        lambda disk: disk.flush(),
        lambda disk: list(disk.extents()),
        lambda disk: disk.prefetch(0, 1),
        lambda disk: disk.zero_is_fast(0, 1),
    )
    for call in later:
        with pytest.raises(StorageError) as caught:
            call(disk)
        assert caught.value.kind is ErrorKind.STATE
    request = [(0, memoryview(bytearray(512)))]
    assert disk.read_batch(request) == [Outcome.LATER]
    assert disk.write_batch(request) == [Outcome.LATER]


def test_extents_that_were_begun_end_with_an_error(slow: tuple[Disk, SlowSource, Path]) -> None:
    disk, _, _ = slow
    extents = disk.extents()
    disk.close()
    with pytest.raises(StorageError, match="closed"):
        list(extents)


def test_an_image_whose_snapshot_failed_is_in_use_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, above = tmp_path / "old.hdd", tmp_path / "new.hdd"
    path.write_bytes(parallels_image())
    above.write_bytes(parallels_image())
    with open_disk([path]) as disk:
        disk.write(0, b"before")
        assert _in_use(path)
        with monkeypatch.context() as patch:
            patch.setattr(PageMap, "push", _too_many)
            layer = open_layer(above, writable=True)
            with pytest.raises(StorageError, match="too many"):
                disk.push(layer)
        assert not _in_use(path)
        request = [(0, memoryview(b"after"))]
        assert disk.write_batch(request) == [Outcome.LATER]
        disk.write(0, b"after")
        assert _in_use(path)
        assert disk.write_batch(request) == [Outcome.DONE]
    assert not _in_use(path)


def _too_many(_map: PageMap, _layer: object) -> None:
    raise StorageError(ErrorKind.UNSUPPORTED, "too many files")


def _in_use(path: Path) -> bool:
    return path.read_bytes()[IN_USE_OFFSET:][:4] == IN_USE.to_bytes(4, "little")
