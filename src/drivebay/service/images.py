"""Images as files: what they say about themselves, and whether they are sound."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from drivebay import chain
from drivebay.chain import close_layers, open_chain, open_image, open_layer
from drivebay.chain.apply import Progress
from drivebay.chain.candidate import Wanted
from drivebay.chain.gate import Gate
from drivebay.chain.parent_time import time_note
from drivebay.engine.source import OpenedLayer
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import Finding, ImageFacts, Severity
from drivebay.service.format_options import read_options
from drivebay.service.options import DEFAULT, OpenOptions, Path
from drivebay.service.sizes import parse_size


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image's facts, and the bytes that its files are long (``file_size``) and take (``disk_usage``).

    ``files`` are their paths, the image's own first; ``notes`` tell what is odd about its parent.
    """

    path: str
    facts: ImageFacts
    file_size: int
    disk_usage: int
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


def image_info(path: Path, options: OpenOptions = DEFAULT) -> ImageInfo:
    """What the image says, its parents aside. Takes no lock: an image in use can be looked at."""
    opened = open_layer(os.fspath(path), options.format, search=options.search, part=options.part, lock=False)
    try:
        return _info(opened, options)
    finally:
        close_layers([opened])


def chain_info(path: Path, options: OpenOptions = DEFAULT) -> Sequence[ImageInfo]:
    """What the image and all its parents say, the image first. Takes no locks."""
    with open_chain(
        path,
        part=options.part,
        format_name=options.format,
        search=options.search,
        allow_stale_parent=options.allow_stale_parent,
        lock=False,
    ) as opened:
        return [_info(layer, options) for layer in opened.layers]


def _info(opened: OpenedLayer, options: OpenOptions) -> ImageInfo:
    usage = sum(os.fstat(source.fd).st_blocks * 512 for source in opened.sources)
    files = tuple(source.path for source in opened.sources)
    size = sum(source.size for source in opened.sources)
    note = time_note(Wanted(files[0], opened.layer.facts), Gate(options.search))
    return ImageInfo(files[0], opened.layer.facts, size, usage, files, (note,) if note else ())


def check_image(path: Path, options: OpenOptions = DEFAULT) -> Sequence[Finding]:
    """What is wrong with this image; its parents are not needed. Raises StorageError, as opening does."""
    with open_image(os.fspath(path), options.format, search=options.search, part=options.part) as image:
        check = image.format.check
        findings = list(check(image.files, image.layer)) if check else []
        note = time_note(Wanted(image.files.path, image.layer.facts), Gate(options.search))
    return [*findings, Finding(Severity.NOTE, "parent-modified", note)] if note else findings


def create_image(
    path: Path,
    *,
    size: int | str | None = None,
    parent: Path | None = None,
    parent_format: str | None = None,
    format: str | None = None,
    variant: str | None = None,
    block_size: int | str | None = None,
    options: Mapping[str, object] | None = None,
    uuid: UUID | str | None = None,
    comment: str = "",
    progress: Progress | None = None,
) -> ImageInfo:
    """Make a new image of ``size`` (bytes, or text like ``"10G"``), or a differencing one on ``parent``.

    ``format`` follows from the name's extension (VDI where that tells nothing), ``variant`` is one of the
    format's; ``parent_format`` is the parent's, where its content shall not decide. ``options`` are more
    options of the format (`list_formats` tells them); values may be text, sizes as people write them.
    Where the parent is the image itself (a Parallels bundle), it keeps its state as a snapshot, and gets an
    empty one on top. Raises StorageError; an existing file is never overwritten, a failure leaves nothing
    behind.
    """
    given = {"variant": variant, "block_size": block_size}
    given = {name: value for name, value in given.items() if value is not None}
    chain.create_image(
        path,
        size=None if size is None else parse_size(size),
        parent=parent,
        parent_format=parent_format,
        format_name=format,
        options=read_options(chain.format_for(os.fspath(path), format), {**(options or {}), **given}),
        uuid=None if uuid is None else _parse_uuid(uuid),
        comment=comment,
        progress=progress,
    )
    return image_info(path, OpenOptions(format))


def _parse_uuid(text: UUID | str) -> UUID:
    try:
        return UUID(str(text))
    except ValueError:
        raise StorageError(
            ErrorKind.INVALID, f"{str(text)[:60]!r} is no UUID; write it like {uuid4()}", operation="create"
        ) from None
