"""Making an image file: whole, durable and under its name, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterable
from uuid import UUID, uuid4

from drivebay.blockmap import (
    CreateRequest,
    FileChange,
    FileExtent,
    FileWrite,
    Format,
    FormatOptions,
    ParentLink,
)
from drivebay.chain.resolve import close_layers, open_layer
from drivebay.engine.source import FileSource
from drivebay.errors import ErrorKind, StorageError, from_os_error
from drivebay.formats import FORMATS, format_named
from drivebay.model import ImageFacts, physical_geometry

Progress = Callable[[int, int], None]  # bytes done, bytes in all

_NEW = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_RESERVE_STEP = 256 << 20
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def create_image(
    path: str | os.PathLike[str],
    *,
    size: int | None = None,
    parent: str | os.PathLike[str] | None = None,
    format_name: str | None = None,
    variant: str | None = None,
    block_size: int | None = None,
    uuid: UUID | None = None,
    comment: str = "",
    progress: Progress | None = None,
) -> None:
    """Make a new image of ``size`` bytes, or a differencing one on ``parent`` and as large as it.

    The format follows from the name's extension, VDI where that tells nothing. An existing file is
    never overwritten, and a failure leaves nothing behind. Raises StorageError.
    """
    name = os.fspath(path)
    chosen = _format_for(name, format_name)
    if chosen.create is None:
        raise StorageError(
            ErrorKind.UNSUPPORTED,
            f"drivebay can't make {chosen.name} images; choose another format",
            path=name,
            operation="create",
        )
    options = chosen.options(variant=variant, block_size=block_size)
    request = _request(name, size, parent, options=options, uuid=uuid or uuid4(), comment=comment)
    write_image(name, chosen.create(request), progress)


def _format_for(path: str, format_name: str | None) -> Format:
    extension = os.path.splitext(path)[1].removeprefix(".").lower()
    by_name = next((candidate for candidate in FORMATS if extension in candidate.extensions), None)
    if format_name is None:
        return by_name or FORMATS[0]
    chosen = format_named(format_name)
    if by_name not in (None, chosen):
        raise StorageError(
            ErrorKind.INVALID,
            f"the name says {by_name.name}, but a {chosen.name} image is asked for; "
            f"let the name end in .{chosen.extensions[0]}",
            path=path,
            operation="create",
        )
    return chosen


def _request(
    path: str,
    size: int | None,
    parent: str | os.PathLike[str] | None,
    *,
    options: FormatOptions,
    uuid: UUID,
    comment: str,
) -> CreateRequest:
    if (size is None) == (parent is None):
        raise StorageError(
            ErrorKind.INVALID,
            "a new image needs either a size or a parent (whose size it takes); give one of the two",
            path=path,
            operation="create",
        )
    if parent is None:
        assert size is not None
        pchs = physical_geometry(size)
        return CreateRequest(size, options, uuid, uuid4(), comment=comment, pchs=pchs)
    facts = _facts_of_parent(os.path.realpath(parent))
    relative = os.path.relpath(parent, os.path.dirname(path) or ".")
    return CreateRequest(
        facts.size,
        options,
        uuid,
        uuid4(),
        parent=ParentLink(facts.uuid, facts.modification_uuid, relative),
        comment=comment,
        pchs=facts.pchs,
        lchs=facts.lchs,
    )


def _facts_of_parent(path: str) -> ImageFacts:
    """What a parent says of itself; refused while somebody writes it: the child would be stale at once."""
    opened = open_layer(path)
    close_layers([opened])
    return opened.layer.facts


def write_image(path: str, changes: Iterable[FileChange], progress: Progress | None = None) -> None:
    """Apply ``changes`` to an empty file and give it the name ``path``, which must be free.

    ``progress`` is told of the host's space being reserved. Raises StorageError.
    """
    try:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        _write_aside(path, changes, progress)
    except OSError as error:
        raise from_os_error(error, "create", path=path) from error


def _write_aside(path: str, changes: Iterable[FileChange], progress: Progress | None) -> None:
    folder, name = os.path.split(path)
    aside = os.path.join(folder, f".{name[:200]}.{secrets.token_hex(4)}.new")
    source = FileSource(os.open(aside, os.O_RDWR | _NEW, 0o666), aside, writable=True)
    try:
        for change in changes:
            _apply(source, change, progress)
        source.sync()
        _publish(aside, path)
        _sync_folder(folder or ".")
    finally:
        source.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)


def _apply(source: FileSource, change: FileChange, progress: Progress | None) -> None:
    if isinstance(change, FileWrite):
        source.write(change.data, change.offset)
    elif change.reserve:
        _reserve(source, change, progress)
    else:
        source.extend(change.offset + change.length)


def _reserve(source: FileSource, extent: FileExtent, progress: Progress | None) -> None:
    for done in range(0, extent.length, _RESERVE_STEP):
        step = min(_RESERVE_STEP, extent.length - done)
        source.reserve(extent.offset + done, step)
        if progress is not None:
            progress(done + step, extent.length)


def _publish(aside: str, path: str) -> None:
    try:
        os.link(aside, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No hard links here: take the name with an empty file, then put the image in its place.
        os.close(os.open(path, os.O_WRONLY | _NEW))
        os.rename(aside, path)


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
