"""Disks of image files, opened directly: so that any source can stand in for a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from drivebay.blockmap import Layer
from drivebay.chain.replay import ReplayedSource
from drivebay.engine.direct import DirectSource
from drivebay.engine.disk import Disk
from drivebay.engine.source import FileSource, OpenedLayer
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import CacheMode
from support.images import (
    ImageSpec,
    apply_change,
    copy_image,
    copy_sparse,
    files_of,
    findings,
    format_of,
    images_of,
    main_file,
    make_image,
    read_layer,
)
from support.open_file import OpenFile

__all__ = [
    "KIB",
    "MIB",
    "ImageSpec",
    "MakeSource",
    "copy_image",
    "copy_sparse",
    "direct_folder",
    "direct_source",
    "files_of",
    "findings",
    "format_of",
    "images_of",
    "make_image",
    "open_disk",
    "open_fd",
    "open_layer",
    "plain_source",
    "read_layer",
]

KIB = 1 << 10
MIB = 1 << 20
MakeSource = Callable[[int, str, bool], FileSource]


def plain_source(fd: int, path: str, writable: bool) -> FileSource:
    """A source through the page cache."""
    return FileSource(fd, path, writable=writable)


def direct_source(fd: int, path: str, writable: bool) -> FileSource:
    """A source past the page cache."""
    return DirectSource(fd, path, writable=writable)


def open_layer(path: Path, *, writable: bool = False, source: MakeSource = plain_source) -> OpenedLayer:
    """Open one image."""
    path = main_file(path)
    fd = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
    return open_fd(fd, str(path), writable=writable, source=source)


def open_fd(
    fd: int,
    path: str,
    *,
    writable: bool = False,
    source: MakeSource = plain_source,
    others: Mapping[str, int] | None = None,
) -> OpenedLayer:
    """Open the image in ``fd``, with further files by name, and own them."""
    files = OpenFile(fd, path, flags=os.O_RDWR if writable else os.O_RDONLY, others=others)
    try:
        layer = format_of(path).open(files)
        if layer.replay and writable:
            replay(fd, layer)
            layer = format_of(path).open(files)
        taken = files.take(layer.sources)
    except BaseException:
        files.close()
        raise
    sources = [source(fd, path, writable) for fd, path in taken]
    if layer.replay:
        sources[0] = ReplayedSource(fd, path, layer.replay)
    return OpenedLayer(layer, tuple(sources))


def replay(fd: int, layer: Layer) -> None:
    """Make the changes that the image's log still holds."""
    for change in (change for stage in layer.replay for change in stage):
        assert change.file == ""
        apply_change(fd, change)


def open_disk(
    paths: Sequence[Path],
    *,
    writable: bool = True,
    cache: CacheMode = CacheMode.WRITEBACK,
    source: MakeSource | None = None,
    map_budget: int = 64 * MIB,
) -> Disk:
    """The disk of a chain, top first; only the top is opened for writing."""
    make = source or (direct_source if cache is CacheMode.DIRECT else plain_source)
    layers: list[OpenedLayer] = []
    try:
        for depth, path in enumerate(paths):
            layers.append(open_layer(path, writable=writable and depth == 0, source=make))
        return Disk(layers, writable=writable, cache=cache, map_budget=map_budget)
    except BaseException:
        for opened in layers:
            for each in opened.sources:
                each.close()
        raise


def direct_folder(candidates: Iterable[Path]) -> Path:
    """The first folder whose file system does unbuffered I/O. Raises StorageError where none does."""
    for folder in candidates:
        probe = folder / f".unbuffered-{os.getpid()}"
        try:
            fd = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
        except OSError:
            continue
        finally:
            probe.unlink(missing_ok=True)
        os.close(fd)
        return folder
    raise StorageError(
        ErrorKind.UNSUPPORTED,
        "no folder for unbuffered I/O; run the tests with --basetemp on a disk (not on tmpfs)",
    )
