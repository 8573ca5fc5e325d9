"""Sources: exact transfers, the file's end, zeroing; the same for unbuffered ones with any alignment."""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from drivebay.blockmap import Layer, Linear
from drivebay.engine import source
from drivebay.engine.direct import DirectSource
from drivebay.engine.pagemap import PageMap
from drivebay.engine.source import AT_ONCE, FileSource, OpenedLayer
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import ImageFacts
from support.disks import direct_folder
from support.patience import PATIENCE
from support.threads import Gate, run_all, start

MakeFile = Callable[[bytes], FileSource]
_REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(params=[FileSource, DirectSource])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeFile]:
    """Opens a new file with a given content."""
    path = direct_folder((tmp_path, Path("/var/tmp"), _REPOSITORY)) / f"source-{os.getpid()}.img"

    def make_source(content: bytes) -> FileSource:
        path.write_bytes(content)
        kind: type[FileSource] = request.param
        return kind(os.open(path, os.O_RDWR), str(path), writable=True)

    yield make_source
    path.unlink(missing_ok=True)


def read(file: FileSource, offset: int, length: int) -> bytes:
    view = memoryview(bytearray(b"\xa5" * length))
    file.read_into(view, offset)
    return bytes(view)


def test_the_rest_of_the_last_sector_reads_as_zeros(make: MakeFile) -> None:
    file = make(b"x" * 1000)
    assert file.size == 1000
    assert read(file, 0, 1024) == b"x" * 1000 + bytes(24)
    assert read(file, 990, 20) == b"x" * 10 + bytes(10)
    assert read(file, 1010, 14) == bytes(14)


@pytest.mark.parametrize(("offset", "length"), [(0, 1025), (1000, 25), (1024, 1), (4096, 512)])
def test_reading_beyond_the_last_sector_is_an_error(make: MakeFile, offset: int, length: int) -> None:
    with pytest.raises(StorageError, match="ends here") as caught:
        read(make(b"x" * 1000), offset, length)
    assert caught.value.kind is ErrorKind.IO


def test_a_file_that_was_truncated_is_an_error(make: MakeFile) -> None:
    file = make(b"x" * 8192)
    os.truncate(file.path, 4096)
    assert read(file, 0, 4096) == b"x" * 4096
    with pytest.raises(StorageError, match="truncated"):
        read(file, 4000, 512)


def test_random_transfers_against_a_shadow(make: MakeFile) -> None:
    draw, data = random.Random(5), np.random.default_rng(5).bytes
    shadow = bytearray(data(300_000))
    file = make(bytes(shadow))
    for number in range(150):
        offset = draw.randrange(320_000)
        length = draw.choice((1, 100, 512, 4096, 4097, draw.randrange(1, 200_000)))
        if number % 3 == 2:
            length = min(length, len(shadow) - offset)
            if length > 0:
                file.zero_range(offset, length, punch=number % 2 == 0)
                shadow[offset : offset + length] = bytes(length)
        else:
            new = data(length)
            file.write(new, offset)
            shadow.extend(bytes(max(offset - len(shadow), 0)))
            shadow[offset : offset + length] = new
        start = draw.randrange(len(shadow))
        count = draw.randrange(len(shadow) - start + 1)
        assert read(file, start, count) == shadow[start : start + count]
        assert file.size == len(shadow) == os.stat(file.path).st_size
    assert Path(file.path).read_bytes() == shadow


def test_more_than_one_bounce_buffer(make: MakeFile) -> None:
    data = np.random.default_rng(1).bytes(3_000_001)
    file = make(bytes(100))
    file.write(data, 77)
    assert read(file, 77, len(data)) == data


def test_extending_reads_as_zeros_and_never_shrinks(make: MakeFile) -> None:
    file = make(b"x" * 700)
    file.extend(5000)
    file.extend(3000)
    assert file.size == os.stat(file.path).st_size == 5000
    assert read(file, 0, 5000) == b"x" * 700 + bytes(4300)


def test_reserving_takes_the_space(make: MakeFile) -> None:
    file = make(b"")
    file.reserve(4096, 65536)
    assert file.size == 4096 + 65536
    assert os.stat(file.path).st_blocks * 512 >= 65536


def test_neighbours_in_one_sector_do_not_undo_each_other(make: MakeFile) -> None:
    """Writes, zeroes and an extending write next to each other, none of them aligned."""
    file = make(b"\xff" * 8191)

    def write(slot: int) -> None:
        for value in range(150):
            file.write(bytes([value]) * 100, slot * 100)

    def zero() -> None:
        for _ in range(75):
            file.write(b"\xff" * 100, 500)
            file.zero_range(500, 100, punch=True)
            assert read(file, 500, 100) == bytes(100)

    def grow() -> None:
        for number in range(100):
            file.write(b"g" * 97, 8191 + 97 * number)

    run_all(*(lambda slot=slot: write(slot) for slot in range(4)), zero, grow)
    assert read(file, 0, 600) == b"\x95" * 400 + b"\xff" * 100 + bytes(100)
    assert read(file, 8191, 9700) == b"g" * 9700


def test_cutting_back_a_padded_write_does_not_cut_what_was_added(
    make: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unbuffered write at an odd end is padded, and the file cut back, while another thread extends it."""
    file = make(b"x" * 700)
    truncate, gate = os.ftruncate, Gate()

    def truncate_slowly(fd: int, size: int) -> None:
        if size == 700:
            gate.stop_here()
        truncate(fd, size)

    monkeypatch.setattr(os, "ftruncate", truncate_slowly)
    writing = start(lambda: file.write(b"y" * 10, 690))
    gate.reached.wait(0.2 if type(file) is FileSource else PATIENCE)
    extending = start(lambda: file.extend(100_000))
    with contextlib.suppress(TimeoutError):
        extending.result(0.1)  # it may have to wait for the write
    gate.set()
    writing.result(PATIENCE)
    extending.result(PATIENCE)
    assert file.size == os.stat(file.path).st_size == 100_000


def test_short_reads_and_writes_go_on(make: MakeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv, pwrite = os.preadv, os.pwrite
    data = np.random.default_rng(2).bytes(40_000)
    file = make(bytes(40_000))
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset: preadv(fd, [views[0][:4096]], offset))
    monkeypatch.setattr(os, "pwrite", lambda fd, view, offset: pwrite(fd, view[:8192], offset))
    file.write(data, 0)
    assert read(file, 0, 40_000) == data
    assert read(file, 777, 30_000) == data[777:30_777]


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV])
def test_zeros_are_written_where_the_host_cannot_zero(
    make: MakeFile, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(source, "_fallocate", refuse)
    file = make(b"x" * 3_000_000)
    file.zero_range(100, 2_500_000, punch=True)
    assert read(file, 0, 3_000_000) == b"x" * 100 + bytes(2_500_000) + b"x" * 499_900


def test_other_failures_to_zero_are_told(make: MakeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(source, "_fallocate", refuse)
    file = make(b"x" * 4096)
    with pytest.raises(OSError, match="full"):
        file.zero_range(0, 512, punch=False)


def test_transfers_at_once_never_wait() -> None:
    fd = os.memfd_create("cached")
    os.pwrite(fd, b"cached" * 100, 0)
    file = FileSource(fd, "/cached", writable=True)
    view = memoryview(bytearray(6))
    assert file.try_read((view,), 6, AT_ONCE if file.reads_at_once else 0) == 6
    assert bytes(view) == b"cached"
    assert file.try_write(memoryview(b"abc"), 0) == 3
    assert read(file, 0, 6) == b"abched"


@pytest.mark.parametrize("known", [(True, True), (True, False), (False, False)])
def test_reads_wait_only_where_no_file_system_knows_better(known: tuple[bool, ...]) -> None:
    """One that knows no such reads must not make the others wait."""
    files = []
    for at_once in known:
        fd = os.memfd_create("any")
        os.pwrite(fd, b"x" * 4096, 0)
        files.append(FileSource(fd, "/any", writable=False))
        files[-1].reads_at_once = at_once
        files[-1].try_read = partial(_read_if_known, fd, at_once)
    facts = ImageFacts("test", "test", 8192)
    layer = Layer(facts, (Linear(0, 4096, 0, 0), Linear(4096, 4096, 1, 0)))
    page_map = PageMap([OpenedLayer(layer, tuple(files))], 8192, 4096)
    assert page_map.read_flags == (AT_ONCE if any(known) else 0)
    for reader in page_map.readers:
        assert reader((memoryview(bytearray(4)),), 0, page_map.read_flags) == 4


def _read_if_known(fd: int, at_once: bool, views: Sequence[memoryview], offset: int, flags: int) -> int:
    assert at_once or not flags
    return os.preadv(fd, views, offset)


def test_unbuffered_sources_leave_everything_for_later(tmp_path: Path) -> None:
    path = direct_folder((tmp_path, Path("/var/tmp"), _REPOSITORY)) / f"later-{os.getpid()}.img"
    path.write_bytes(bytes(4096))
    file = DirectSource(os.open(path, os.O_RDWR), str(path), writable=True)
    path.unlink()
    view = memoryview(bytearray(512))
    with pytest.raises(BlockingIOError):
        file.try_read((view,), 0, AT_ONCE)
    with pytest.raises(BlockingIOError):
        file.try_write(view, 0)
    file.close()


def test_a_file_system_without_unbuffered_io_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "no O_DIRECT here")

    monkeypatch.setattr("fcntl.fcntl", refuse)
    with pytest.raises(StorageError, match="another cache mode") as caught:
        DirectSource(os.memfd_create("tmpfs"), "/tmpfs", writable=True)
    assert caught.value.kind is ErrorKind.UNSUPPORTED
