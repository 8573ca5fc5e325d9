"""Logs that an interrupted writer left: done before anybody writes, shown to who only reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drivebay.chain import open_chain, open_image
from drivebay.chain.replay import ReplayedSource
from drivebay.engine.source import FileSource
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import CacheMode
from support.toy_format import HEAD, SIZE, know_toys, make_toy, read_toy

END = HEAD + SIZE
LOG = [[HEAD + 10, "first"], [HEAD + 12, "over"], [HEAD + 100, 50], [HEAD + 120, "in"], [END + 512, 512]]


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    know_toys(monkeypatch)


def _image(folder: Path) -> Path:
    disk = make_toy(folder / "disk.toy", log=LOG)
    with disk.open("r+b") as file:
        file.seek(HEAD)
        file.write(b"x" * 4096)
    return disk


def _expected() -> bytes:
    data = bytearray(b"x" * 4096)
    data[10:16] = b"fiover"
    data[100:150] = bytes(50)
    data[120:122] = b"in"
    return bytes(data)


def test_a_reader_sees_what_the_log_says_and_changes_nothing(tmp_path: Path) -> None:
    disk = _image(tmp_path)
    before = disk.read_bytes()
    for cache in (CacheMode.WRITEBACK, CacheMode.DIRECT):
        with open_chain(disk, cache=cache) as chain:
            source = chain.layers[0].sources[0]
            assert source.size == END + 1024
            for start, length in ((0, 4096), (8, 4), (11, 3), (99, 60), (121, 1)):
                view = memoryview(bytearray(b"?" * length))
                source.read_into(view, HEAD + start)
                assert view == _expected()[start : start + length]
            tail = memoryview(bytearray(b"?" * 1536))
            source.read_into(tail, END - 512)
            assert tail == bytes(1536)
            with pytest.raises(BlockingIOError):
                source.try_read([tail], 0, os.RWF_NOWAIT)
            with pytest.raises(StorageError, match="the file ends here"):
                source.read_into(memoryview(bytearray(1024)), END + 512)
    assert disk.read_bytes() == before


def test_a_writer_finds_it_done_and_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = _image(tmp_path)
    log = []
    sync = FileSource.sync

    def note(source: FileSource) -> None:
        log.append(read_toy(Path(source.path))["log"])
        sync(source)

    monkeypatch.setattr(FileSource, "sync", note)
    with open_chain(disk, writable=True) as chain:
        assert type(chain.layers[0].sources[0]) is FileSource
        assert chain.layers[0].sources[0].size == END + 1024
        assert not chain.layers[0].layer.replay
    assert log == [LOG, []]
    assert disk.read_bytes()[HEAD : HEAD + 4096] == _expected()
    assert disk.stat().st_size == END + 1024


def test_who_only_looks_into_the_header_writes_nothing(tmp_path: Path) -> None:
    disk = _image(tmp_path)
    before = disk.read_bytes()
    with open_image(str(disk)) as image:
        assert image.layer.replay
    assert disk.read_bytes() == before


def test_a_full_host_leaves_the_log_to_be_replayed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = _image(tmp_path)

    def refuse(_source: FileSource, _data: bytes, _offset: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(FileSource, "write", refuse)
        with pytest.raises(StorageError, match="cannot replay the log") as caught:
            open_chain(disk, writable=True)
        assert caught.value.kind is ErrorKind.NO_SPACE
    assert read_toy(disk)["log"] == LOG
    open_chain(disk, writable=True).close()
    assert read_toy(disk)["log"] == []


def test_a_replayed_source_is_a_source_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"a" * 700)
    source = ReplayedSource(os.open(path, os.O_RDONLY), str(path), ())
    view = memoryview(bytearray(1024))
    source.read_into(view, 0)
    assert view == b"a" * 700 + bytes(324)
    source.close()
