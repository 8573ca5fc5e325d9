"""Power cuts at every point of a merge: what is above shows the same, and the merge can be resumed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import drivebay
from drivebay.chain.merge import Direction, ImageName, Manner, merge
from drivebay.chain.relink import relink
from drivebay.engine.source import FileSource
from support.power_cut import crash_states
from support.recording import Log, RecordingSource

SIZE = 4 << 20
FORMATS = ("vdi", "vhd", "vhdx", "vmdk", "qcow2", "qed")
RESUME_EVERY = 23
_bytes = np.random.default_rng(3).bytes


def _family(folder: Path, format: str) -> tuple[list[Path], bytes]:
    """Four images, top first, and what the top shows."""
    content = bytearray(SIZE)
    draw = random.Random(4)
    paths: list[Path] = []
    for number, kind in enumerate(("vdi", format, format, "vdi")):
        path = folder / f"{number}.{kind}"
        block = {"block_size": "1M"} if kind in ("vdi", "vhdx") else {}
        if paths:
            drivebay.create(path, parent=paths[0], **block)  # type: ignore[arg-type]
        else:
            drivebay.create(path, size=SIZE, **block)  # type: ignore[arg-type]
        with drivebay.open(path, writable=True) as disk:
            for _ in range(3):
                offset, length = draw.randrange(SIZE - 70_000), draw.choice((600, 5000, 70_000))
                content[offset : offset + length] = _bytes(length)
                disk.write(offset, content[offset : offset + length])
            content[number << 20 : (number << 20) + 300_000] = bytes(300_000)
            disk.zero(number << 20, 300_000)
        paths.insert(0, path)
    return paths, bytes(content)


def _names(paths: list[Path]) -> list[ImageName]:
    return [ImageName(str(path)) for path in paths]


def _tidy(paths: list[Path], direction: Direction, *, resumed: bool) -> None:
    """A merge of the two images in the middle, and the new link."""
    top, child, parent, base = _names(paths)
    merge([child, parent, base], direction, resumed=resumed, manner=Manner(batch=1 << 20))
    relink(*((top, parent) if direction is Direction.BACKWARD else (child, base)))


def _restore(files: Mapping[str, bytes | bytearray]) -> None:
    for path, data in files.items():
        Path(path).write_bytes(data)


def _shows(path: Path) -> bytes:
    with drivebay.open(path) as disk:
        content: bytes = disk.read(0, disk.size)
        return content


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("format", FORMATS)
def test_power_cuts_during_a_merge(
    tmp_path: Path, format: str, direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, content = _family(tmp_path, format)
    before = {str(path): path.read_bytes() for path in paths}
    log = Log()

    def source(fd: int, path: str, *, writable: bool) -> FileSource:
        return RecordingSource(fd, path, writable=writable, log=log)

    with monkeypatch.context() as patched:
        patched.setattr("drivebay.chain.image.FileSource", source)
        patched.setattr("drivebay.chain.edit.FileSource", source)
        _tidy(paths, direction, resumed=False)
    assert _shows(paths[0]) == content
    after = {str(path): path.read_bytes() for path in paths}
    for number, state in enumerate(crash_states(before, log.events, 1, 1, 60)):
        _restore(state.files)
        assert _shows(paths[0]) == content, f"after {state.cut} events, {state.how}"
        if number % RESUME_EVERY == 0:
            if _unfinished(paths, direction):
                _tidy(paths, direction, resumed=True)
            assert _shows(paths[0]) == content
    _restore(after)
    paths[1 if direction is Direction.BACKWARD else 2].unlink()
    assert _shows(paths[0]) == content


def _unfinished(paths: list[Path], direction: Direction) -> bool:
    """Forward, the child that has its new link is done."""
    from drivebay.chain.relink import is_linked

    names = _names(paths)
    return direction is Direction.BACKWARD or not is_linked(names[1], names[3])
