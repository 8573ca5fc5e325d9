"""Changing the headers of an image in place: edits and repairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from drivebay.blockmap import FileChange, FileCopy, FileEdit, FileReplace, FileWrite, HeaderEdit, RepairStep
from drivebay.chain.apply import apply_change
from drivebay.chain.files import ImageFile
from drivebay.chain.image import OpenedImage
from drivebay.chain.replacing import replace_content
from drivebay.engine.source import FileSource
from drivebay.errors import ErrorKind, StorageError, from_os_error

_PIECE = 1 << 20


def edit_header(image: OpenedImage, edit: HeaderEdit) -> None:
    """Make the changes of ``edit`` to an image that was opened writable. Raises StorageError."""
    if image.format.edit is None:
        raise _unsupported(image, "has no header that could be edited")
    _apply(image, list(image.format.edit(image.files, image.layer, edit)))


def repair_steps(image: OpenedImage) -> list[RepairStep]:
    """What a repair would do. Raises StorageError."""
    if image.format.repair is None:
        raise _unsupported(image, "can't be repaired by drivebay")
    return list(image.format.repair(image.files, image.layer))


def apply_step(image: OpenedImage, step: RepairStep) -> None:
    """Do one step to an image that was opened writable. Raises StorageError."""
    _apply(image, step.changes)


def _parts(file: ImageFile, change: FileChange | FileCopy) -> Iterator[FileChange]:
    """A copy in pieces that fit into memory; any other change as it is."""
    if not isinstance(change, FileCopy):
        yield change
        return
    for done in range(0, change.length, _PIECE):
        length = min(_PIECE, change.length - done)
        data = file.read(change.source + done, length)
        yield FileWrite(change.offset + done, data.ljust(length, b"\0"), change.file)


def _unsupported(image: OpenedImage, what: str) -> StorageError:
    return StorageError(
        ErrorKind.UNSUPPORTED,
        f"the format {image.format.name} {what}; drivebay formats shows which formats can be",
        path=image.files.path,
        operation="edit",
    )


def _apply(image: OpenedImage, changes: Iterable[FileEdit]) -> None:
    """Each change is durable before the next begins: the format chose their order."""
    for change in changes:
        file = image.files.beside(change.file) if change.file else image.files
        if isinstance(change, FileReplace):
            replace_content(file, change.data)
            continue
        source = FileSource(file.fd, file.path, writable=True)
        try:
            for part in _parts(file, change):
                apply_change(source, part)
            source.sync()
        except OSError as error:
            raise from_os_error(error, "write", path=file.path) from error
