"""Merging two neighbours of a chain: block by block, so that it needs hardly any space (specification, 5.5).

A batch of blocks is copied into the target and flushed; only then is it dropped from the source, which gives
its space back at once. So wherever the power is cut, each block is in one of the two or in both, what lies
above them shows the same, and to merge them again is to go on. Where the host's space is scarce, a batch is
one block.

BACKWARD, the child's blocks go into the parent. Before the first of them, the parent gets the UUID of a new
modification, and the child records that; in between it takes any state of its parent for the right one, so
that a power cut leaves nothing stale. FORWARD, what the parent has and the child
doesn't goes into the child; neither says that it changed, for what it shows is the same.

When `merge` returns, the source holds nothing that counts, but the links are as they were: `relink` the
children of the source that goes.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import groupby
from typing import NamedTuple

from drivebay.chain.apply import Progress
from drivebay.chain.candidate import Candidate, Wanted
from drivebay.chain.files import open_file
from drivebay.chain.fresh import check_fresh
from drivebay.chain.link import renew_link, unsettle_link
from drivebay.chain.locks import LockMode, lock_file, unlock_file
from drivebay.chain.marking import changed_once, unchanged
from drivebay.chain.resolve import Chain, close_layers, open_chain, open_image, open_layer
from drivebay.engine.disk import Disk
from drivebay.engine.source import OpenedLayer
from drivebay.errors import ErrorKind, StorageError, from_os_error
from drivebay.model import Extent, ExtentState

BATCH = 16 << 20
_COPY = 1 << 20
_PIECE = 16 << 10
_SCARCE = 8  # batches: with less space free, one block at a time

Range = tuple[int, int]  # beginning and end, on the disk
Hook = Callable[[], AbstractContextManager[object]]


class Manner(NamedTuple):
    """How images are merged.

    ``progress`` is told the bytes done, and those in all; what it raises stops the merge, as an interrupt
    does, and all stays right. Whatever changes the images happens within ``around()``: one batch of at most
    ``batch`` bytes each time. Without ``lock`` the caller keeps others away (`kept_for_merging`).
    """

    progress: Progress = lambda _done, _total: None
    around: Hook = nullcontext
    lock: bool = True
    batch: int = BATCH


_OFFLINE = Manner()


class Direction(enum.Enum):
    """Which of the two images keeps everything."""

    BACKWARD = "backward"  # the parent
    FORWARD = "forward"  # the child


class ImageName(NamedTuple):
    """An image's file, and its format where the content shall not decide."""

    path: str
    format: str | None = None


def merge(
    chain: Sequence[ImageName],
    direction: Direction,
    *,
    resumed: bool = False,
    manner: Manner = _OFFLINE,
) -> None:
    """Merge the first two images of ``chain`` (the child, its parent, and all that is below).

    ``resumed``: a merge of these two was begun before. Raises StorageError: STATE for images that are no
    parent and child of one size.
    """
    child, parent, *_ = chain
    _check(child, parent, direction, resumed=resumed, lock=manner.lock)
    if not holds_any(child if direction is Direction.BACKWARD else parent, lock=manner.lock):
        return
    merged = _backward if direction is Direction.BACKWARD else _forward
    merged(chain, manner)


@contextmanager
def kept_empty(image: ImageName) -> Iterator[None]:
    """Nobody else opens an image that is merged away, until the block ends. Raises StorageError.

    IN_USE where somebody has it open, STATE where somebody has written it since.
    """
    with _alone(open_layer(*image, writable=True), writable=True) as disk:
        if any(extent.state is not ExtentState.UNALLOCATED for extent in disk.extents()):
            raise _refused(image, "it was written after it was merged; merge it again")
        yield


@contextmanager
def kept_for_merging(images: Iterable[ImageName]) -> Iterator[None]:
    """Until the block ends nobody else opens these images, and nobody has them open but for serving them.

    Raises StorageError (IN_USE).
    """
    with ExitStack() as stack:
        for image in images:
            opened = open_layer(*image, lock=False)
            close_layers([opened])
            for source in opened.sources:
                fd = open_file(source.path, writable=True)  # not as an image: that may replay a log
                stack.callback(os.close, fd)
                lock_file(fd, source.path, LockMode.MERGE)
        yield


def _check(child: ImageName, parent: ImageName, direction: Direction, *, resumed: bool, lock: bool) -> None:
    with open_image(parent.path, parent.format, lock=lock) as image:
        candidate = Candidate(image.files.path, image.layer.facts, image.identity, parent.format)
    with open_image(child.path, child.format, lock=lock) as image:
        wanted = Wanted(image.files.path, image.layer.facts)
    facts = wanted.facts
    if not facts.differencing or not (wanted.key in candidate.keys or candidate.fits(wanted)):
        raise _refused(child, f"it is no child of {parent.path}, so they can't be merged")
    if facts.size != candidate.facts.size:
        raise _refused(
            child,
            f"it is {facts.size} bytes large and its parent {parent.path} {candidate.facts.size}; merging "
            "needs disks of one size: resize the parent first",
        )
    if direction is Direction.FORWARD and not candidate.facts.differencing:
        raise _refused(parent, f"it is a base; merge {child.path} backward into it")
    if not resumed:
        check_fresh(wanted, parent.path, candidate.facts)


def _refused(image: ImageName, what: str) -> StorageError:
    return StorageError(ErrorKind.STATE, what, path=image.path, operation="merge")


def holds_any(image: ImageName, *, lock: bool = True) -> bool:
    """Whether an image says anything by itself. Raises StorageError."""
    with _alone(open_layer(*image, lock=lock)) as disk:
        return any(extent.state is not ExtentState.UNALLOCATED for extent in disk.extents())


def _alone(opened: OpenedLayer, *, writable: bool = False) -> Disk:
    """A disk of one image, whose parents' part of it reads as absent."""
    return _disk(Chain((opened,)), writable=writable)


def _disk(chain: Chain, *, writable: bool = True) -> Disk:
    try:
        return Disk(chain.layers, writable=writable)
    except BaseException:
        chain.close()
        raise


def _opened(chain: Sequence[ImageName], mark: Callable[[OpenedLayer], OpenedLayer], *, lock: bool) -> Chain:
    """The chain with its top to be written, and marked as ``mark`` has it."""
    top, *parents = chain
    opened = open_chain(
        top.path,
        writable=True,
        format_name=top.format,
        parents=[parent.path for parent in parents],
        parent_formats=[parent.format for parent in parents],
        allow_stale_parent=True,  # `_check` has looked at what counts
        lock=lock,
    )
    return Chain((mark(opened.layers[0]), *opened.layers[1:]))


def _backward(chain: Sequence[ImageName], manner: Manner) -> None:
    child, parent = chain[:2]
    with _disk(_opened(chain[1:], changed_once, lock=manner.lock)) as target:
        with (
            manner.around(),
            open_image(child.path, child.format, writable=True, lock=manner.lock) as image,
        ):
            unsettle_link(image)
            target.write(0, b"")  # says that it changes
            renew_link(image, parent.path, parent.format)
        source_layer = unchanged(open_layer(*child, writable=True, lock=manner.lock))
        with _alone(source_layer, writable=True) as source:

            def copy(low: int, high: int) -> None:
                for extent in list(source.extents(low, high - low)):
                    _put(source, target, extent, own=False)

            _Mover(source, target, copy, manner).move()


def _forward(chain: Sequence[ImageName], manner: Manner) -> None:
    parent = chain[1]
    opened = _opened(chain, unchanged, lock=manner.lock)
    with _disk(opened) as target:
        for file in opened.layers[1].sources:
            unlock_file(file.fd)  # the source locks it, for writing
        source_layer = unchanged(open_layer(*parent, writable=True, lock=manner.lock))
        with _alone(source_layer, writable=True) as source:

            def copy(low: int, high: int) -> None:
                for extent in list(target.extents(low, high - low)):
                    if extent.depth == 1:
                        _put(target, target, extent, own=True)

            _Mover(source, target, copy, manner).move()


def _put(source: Disk, target: Disk, extent: Extent, *, own: bool) -> None:
    """Let the target show an extent as the source does; with ``own`` by itself, as a parent of its goes."""
    if extent.state is ExtentState.ZERO:
        target.zero(extent.start, extent.length, own=own)
    elif extent.state is ExtentState.DATA:
        for start in range(extent.start, extent.start + extent.length, _COPY):
            length = min(_COPY, extent.start + extent.length - start)
            _put_data(target, start, source.read(start, length), own=own)


def _put_data(target: Disk, start: int, data: bytes, *, own: bool) -> None:
    """Write data, but for zeros: what was a hole shall be one again."""
    pieces = [data[at : at + _PIECE] for at in range(0, len(data), _PIECE)]
    for empty, group in groupby(pieces, key=lambda piece: piece.count(0) == len(piece)):
        part = b"".join(group)
        if empty:
            target.zero(start, len(part), own=own)
        else:
            target.write(start, part)
        start += len(part)


class _Mover:
    """Moves all that ``source`` holds, with ``copy``, into ``target``."""

    def __init__(self, source: Disk, target: Disk, copy: Callable[[int, int], None], manner: Manner) -> None:
        self._source = source
        self._target = target
        self._copy = copy
        self._manner = manner
        self._block = max(source.block_size, target.block_size)
        self._block -= self._block % source.block_size
        self._folder = os.path.dirname(os.path.realpath(target.layers[0].sources[0].path))

    def move(self) -> None:
        """Batch by batch; at last the blocks that no batch had wholly."""
        progress = self._manner.progress
        total = sum(high - low for low, high in self._held())
        done = 0
        progress(done, total)
        for batch in _batches(self._held(), self._room):
            self._move_batch(batch)
            done += sum(high - low for low, high in batch)
            progress(min(done, total), total)
        with self._manner.around():
            self._source.drop(0, self._source.size)

    def _held(self) -> Iterator[Range]:
        """What the source holds, in whole blocks of it and in order."""
        block, size = self._source.block_size, self._source.size
        last = 0
        for extent in self._source.extents():
            if extent.state is ExtentState.UNALLOCATED:
                continue
            low = max(extent.start - extent.start % block, last)
            end = extent.start + extent.length
            last = min(end + -end % block, size)
            if low < last:
                yield low, last

    def _room(self) -> int:
        """How many bytes the next batch may have."""
        try:
            found = os.statvfs(self._folder)
        except OSError as error:
            raise from_os_error(error, "ask for the free space", path=self._folder) from error
        scarce = found.f_bavail * found.f_frsize < _SCARCE * BATCH
        batch = self._manner.batch
        return self._block if scarce else max(batch - batch % self._block, self._block)

    def _move_batch(self, batch: Sequence[Range]) -> None:
        with self._manner.around():
            self._move_or_cut(batch)

    def _move_or_cut(self, batch: Sequence[Range]) -> None:
        try:
            self._move(batch)
        except StorageError as error:
            single = list(_cut(batch, self._block))
            if error.kind is not ErrorKind.NO_SPACE or len(single) == 1:
                raise
            for each in single:  # each gives the host back what the next one needs
                self._move([each])

    def _move(self, batch: Sequence[Range]) -> None:
        for low, high in batch:
            self._copy(low, high)
        self._target.flush()
        low, high = batch[0][0], batch[-1][1]
        self._source.drop(low, high - low)


def _cut(ranges: Iterable[Range], block: int) -> Iterator[Range]:
    for low, high in ranges:
        for start in range(low, high, block):
            yield start, min(start + block, high)


def _batches(ranges: Iterator[Range], room: Callable[[], int]) -> Iterator[list[Range]]:
    """The ranges in groups that have as many bytes as there is room for."""
    batch: list[Range] = []
    left = room()
    for low, high in ranges:
        while low < high:
            end = min(high, low + left)
            batch.append((low, end))
            left -= end - low
            low = end
            if left <= 0:
                yield batch
                batch, left = [], room()
    if batch:
        yield batch
