"""Image files and chains for tests, opened directly: so that any source can stand in for a file."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from drivebay.blockmap import CreateRequest, FileExtent, FormatOptions, Layer, ParentLink
from drivebay.engine.direct import DirectSource
from drivebay.engine.disk import Disk
from drivebay.engine.source import FileSource, OpenedLayer
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import format_named
from drivebay.model import CacheMode, Finding
from support.interpreter import Image

KIB = 1 << 10
MIB = 1 << 20
MakeSource = Callable[[int, str, bool], FileSource]

_identities = itertools.count(1)


def plain_source(fd: int, path: str, writable: bool) -> FileSource:
    """A source through the page cache."""
    return FileSource(fd, path, writable=writable)


def direct_source(fd: int, path: str, writable: bool) -> FileSource:
    """A source past the page cache."""
    return DirectSource(fd, path, writable=writable)


class OpenFile:
    """The `Files` gate over an open file."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self.path = path
        self.part = ""
        self.size = os.fstat(fd).st_size

    def beside(self, name: str) -> OpenFile:
        """As `Files.beside`; any name will do here."""
        path = os.path.join(os.path.dirname(self.path), name)
        return OpenFile(os.open(path, os.O_RDONLY), path)

    def read(self, offset: int, length: int) -> bytes:
        """As `Files.read`."""
        return os.pread(self._fd, length, offset)


@dataclass(frozen=True)
class ImageSpec:
    """One image to be made; ``size`` and ``block`` in bytes."""

    size: int
    block: int | None = None
    variant: str = "dynamic"
    format: str = "vdi"


def make_image(path: Path, spec: ImageSpec, parent: Path | None = None) -> None:
    """Create the image of ``spec`` at ``path``, which must not exist."""
    with path.open("xb") as file:
        if spec.format == "raw":
            file.truncate(spec.size)
            return
        link = None
        if parent is not None:
            facts = read_layer(parent).facts
            link = ParentLink(facts.uuid, facts.modification_uuid, parent.name)
        request = CreateRequest(
            spec.size,
            FormatOptions("differencing" if link else spec.variant, spec.block),
            uuid.UUID(int=next(_identities)),
            uuid.UUID(int=next(_identities)),
            parent=link,
        )
        create = format_named(spec.format).create
        assert create is not None
        for change in create(request):
            if isinstance(change, FileExtent):
                file.truncate(max(change.offset + change.length, os.fstat(file.fileno()).st_size))
            else:
                file.seek(change.offset)
                file.write(change.data)


def _format_of(path: str) -> str:
    return Path(path).suffix[1:]


def read_layer(path: Path) -> Layer:
    """The description of the image at ``path``."""
    with path.open("rb") as file:
        return format_named(_format_of(path.name)).open(OpenFile(file.fileno(), str(path)))


def open_layer(path: Path, *, writable: bool = False, source: MakeSource = plain_source) -> OpenedLayer:
    """Open one image."""
    fd = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
    return open_fd(fd, str(path), writable=writable, source=source)


def open_fd(fd: int, path: str, *, writable: bool = False, source: MakeSource = plain_source) -> OpenedLayer:
    """Open the image in ``fd``, and own it."""
    try:
        layer = format_named(_format_of(path)).open(OpenFile(fd, path))
        return OpenedLayer(layer, (source(fd, path, writable),))
    except BaseException:
        os.close(fd)
        raise


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
            opened.sources[0].close()
        raise


def findings(path: Path) -> list[Finding]:
    """What the format's check has to say about the image."""
    with path.open("rb") as file:
        gate = OpenFile(file.fileno(), str(path))
        known = format_named(_format_of(path.name))
        layer = known.open(gate)
        return list(known.check(gate, layer)) if known.check else []


def images_of(paths: Iterable[Path]) -> list[Image]:
    """The chain as the interpreter takes it: descriptions and bytes, top first."""
    return [(read_layer(path), path.read_bytes()) for path in paths]


def copy_sparse(path: Path, folder: Path) -> Path:
    """A copy of ``path`` in ``folder``, with its holes."""
    copy = folder / path.name
    with path.open("rb") as source, copy.open("xb") as target:
        position, end = 0, path.stat().st_size
        while position < end:
            try:
                start = os.lseek(source.fileno(), position, os.SEEK_DATA)
            except OSError:  # nothing but a hole is left
                break
            position = os.lseek(source.fileno(), start, os.SEEK_HOLE)
            os.pwrite(target.fileno(), os.pread(source.fileno(), position - start, start), start)
        target.truncate(end)
    return copy


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
