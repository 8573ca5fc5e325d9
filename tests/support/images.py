"""Image files for tests: made, described, checked and copied, in any format and without the engine."""

from __future__ import annotations

import contextlib
import itertools
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from drivebay.blockmap import (
    CreateRequest,
    FileCopy,
    FileEdit,
    FileExtent,
    FileReplace,
    Format,
    Layer,
    ParentLink,
)
from drivebay.chain.candidate import identity_uuid
from drivebay.chain.image import DESCRIPTOR, image_file
from drivebay.formats import FORMATS, format_named
from drivebay.model import Finding, physical_geometry
from support.interpreter import Image
from support.open_file import OpenFile

_identities = itertools.count(1)


@dataclass(frozen=True)
class ImageSpec:
    """One image to be made; ``size`` and ``block`` in bytes.

    ``variant`` is the format's own choice where it is ``None``; ``options`` are further fields of the
    format's options, as pairs. Where it isn't ``linked``, the image itself doesn't record its parent.
    """

    size: int
    block: int | None = None
    variant: str | None = None
    format: str = "vdi"
    options: tuple[tuple[str, object], ...] = ()
    linked: bool = True

    @property
    def extension(self) -> str:
        """How the image's name ends, without the dot."""
        return format_named(self.format).extensions[0]


def make_image(path: Path, spec: ImageSpec, parent: Path | None = None, **request: object) -> None:
    """Create the image of ``spec`` at ``path``, which must not exist; further fields of `CreateRequest`.

    A bundle is a folder at ``path``.
    """
    if spec.format == "raw":
        with path.open("xb") as file:
            file.truncate(spec.size)
        return
    kind = format_named(spec.format)
    assert kind.create is not None
    assert not path.exists()
    link = link_to(parent, path.parent) if parent and spec.linked else None
    apply_changes(path, kind.create(request_for(path.name, spec, link, **request)))


def request_for(
    name: str, spec: ImageSpec, parent: ParentLink | None = None, **more: object
) -> CreateRequest:
    """What the format of ``spec`` is asked for, for an image called ``name``."""
    options = format_named(spec.format).options
    chosen = named_options(spec.options, name)
    fields: dict[str, object] = {
        "size": spec.size,
        "options": options(variant=spec.variant, block_size=spec.block, **chosen),  # type: ignore[arg-type]
        "uuid": uuid.UUID(int=next(_identities) << 64),
        "modification_uuid": uuid.UUID(int=next(_identities) << 64),
        "parent": parent,
        "pchs": physical_geometry(spec.size),
        "name": name,
    }
    return CreateRequest(**fields | more)  # type: ignore[arg-type]


def named_options(options: Iterable[tuple[str, object]], name: str) -> dict[str, object]:
    """The options of an image called ``name``, which texts among them may hold as ``{name}``."""
    return {key: value.format(name=name) if isinstance(value, str) else value for key, value in options}


def link_to(parent: Path, folder: Path) -> ParentLink:
    """What a child in ``folder`` records about ``parent``."""
    facts = read_layer(parent).facts
    return ParentLink(
        identity_uuid(facts, str(parent)),
        facts.modification_uuid,
        os.path.relpath(parent, folder),
        absolute=str(parent.resolve()),
        format=facts.format,
        content_id=facts.content_id,
        sector_size=facts.sector_size,
    )


def apply_changes(path: Path, changes: Iterable[FileEdit]) -> None:
    """Make ``changes`` to the image at ``path`` and to the files beside it."""
    with contextlib.ExitStack() as stack:
        files: dict[str, int] = {}
        for change in changes:
            if change.file not in files:
                place = path.parent / change.file if change.file else path
                place.parent.mkdir(exist_ok=True)
                files[change.file] = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
                stack.callback(os.close, files[change.file])
            apply_change(files[change.file], change)


def apply_change(fd: int, change: FileEdit) -> None:
    """Make one change to the file in ``fd``."""
    if isinstance(change, FileReplace):
        os.ftruncate(fd, 0)
        assert os.pwrite(fd, change.data, 0) == len(change.data)
    elif isinstance(change, FileCopy):
        data = os.pread(fd, change.length, change.source).ljust(change.length, b"\0")
        assert os.pwrite(fd, data, change.offset) == len(data)
    elif isinstance(change, FileExtent):
        os.ftruncate(fd, max(change.offset + change.length, os.fstat(fd).st_size))
    else:
        assert os.pwrite(fd, change.data, change.offset) == len(change.data)


def format_of(path: Path | str) -> Format:
    """The format by the name's extension, that of the folder for a bundle's descriptor."""
    named = Path(path).parent if Path(path).name == DESCRIPTOR else Path(path)
    extension = named.suffix[1:]
    return next(kind for kind in FORMATS if extension == kind.name or extension in kind.extensions)


@contextlib.contextmanager
def opened_files(path: Path, part: str = "") -> Iterator[tuple[OpenFile, Format]]:
    """The files of the image at ``path``, for reading, and its format."""
    path = main_file(path)
    files = OpenFile(os.open(path, os.O_RDONLY), str(path), part=part)
    try:
        yield files, format_of(path)
    finally:
        files.close()


def read_layer(path: Path, part: str = "") -> Layer:
    """The description of the image at ``path``."""
    with opened_files(path, part) as (files, kind):
        return kind.open(files)


def findings(path: Path) -> list[Finding]:
    """What the format's check has to say about the image."""
    with opened_files(path) as (files, kind):
        return list(kind.check(files, kind.open(files))) if kind.check else []


def make_writable(path: Path) -> None:
    """What `drivebay repair` does where the image demands it before it is written again."""
    with opened_files(path) as (files, kind):
        layer = kind.open(files)
        steps = [] if layer.plan is not None or kind.repair is None else list(kind.repair(files, layer))
    for step in steps:
        assert not step.loses, step.message
        apply_changes(path, step.changes)


def main_file(path: Path) -> Path:
    """The image itself: of a bundle, the descriptor in its folder."""
    return Path(image_file(str(path)))


def files_of(path: Path) -> list[Path]:
    """All files of the image, itself first: in the order of the layer's sources."""
    main = main_file(path)
    return [main, *(main.parent / name for name in read_layer(path).sources)]


def images_of(paths: Iterable[Path]) -> list[Image]:
    """The chain as the interpreter takes it: descriptions and bytes, top first."""
    return [(read_layer(path), *(file.read_bytes() for file in files_of(path))) for path in paths]


def copy_image(path: Path, folder: Path) -> Path:
    """A copy of the image with all its files in ``folder``, with their holes."""
    place = folder / path.name if path.is_dir() else folder
    place.mkdir(exist_ok=True)
    for file in files_of(path):
        copy_sparse(file, place)
    return folder / path.name


def copy_sparse(path: Path, folder: Path) -> Path:
    """A copy of the file ``path`` in ``folder``, with its holes."""
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
