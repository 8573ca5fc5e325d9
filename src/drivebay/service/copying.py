"""Copying what a run of a chain's images holds into a new image, without what lies below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drivebay.blockmap import HeaderEdit
from drivebay.chain import create_image, open_chain, open_image
from drivebay.chain.edit import edit_header
from drivebay.engine.disk import Disk
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import Extent, ExtentState, ImageFacts
from drivebay.registry.medium import Medium

_PIECE = 1 << 20  # bytes read and written at a time

Advance = Callable[[int], None]  # bytes copied since the last call


@dataclass(frozen=True, slots=True)
class Run:
    """The images of a chain, top first; the first ``own`` of them are copied."""

    images: tuple[Medium, ...]
    own: int


def bytes_to_copy(run: Run) -> int:
    """How many bytes `copy_run` will copy. Raises StorageError."""
    with _opened(run.images) as disk:
        return sum(
            one.length for one in disk.extents() if _is_own(one, run) and one.state is ExtentState.DATA
        )


def copy_run(run: Run, target: Medium, parents: Sequence[Medium], advance: Advance) -> None:
    """Make the image of ``target``, on ``parents`` (its own first, if it has one), with what ``run`` holds.

    Nobody may write the run's images meanwhile: they are locked. What they hold nothing of stays free.
    A failure leaves a file behind, which is the caller's matter. Raises StorageError.
    """
    with _opened(run.images) as source:
        facts = source.layers[0].layer.facts
        _create(target, parents, facts)
        with _opened((target, *parents), writable=True) as copy:
            _require_size(copy, target, facts.size)
            for extent in source.extents():
                if _is_own(extent, run):
                    _copy(source, copy, extent, advance, hide=bool(parents))
                elif extent.state is ExtentState.UNALLOCATED and parents:
                    # An image between that is smaller than its neighbours hides what lies further down.
                    copy.discard(extent.start, extent.length)
            copy.flush()


def _opened(images: Sequence[Medium], *, writable: bool = False) -> Disk:
    paths = [one.path for one in images]
    chain = open_chain(paths[0], writable=writable, format_name=images[0].format, search=paths)
    return Disk(chain.layers, writable=writable)


def _is_own(extent: Extent, run: Run) -> bool:
    return extent.depth is not None and extent.depth < run.own


def _copy(source: Disk, copy: Disk, extent: Extent, advance: Advance, *, hide: bool) -> None:
    """Zeros only matter where they hide what a parent holds."""
    if extent.state is ExtentState.ZERO:
        if hide:
            copy.zero(extent.start, extent.length)
        return
    end = extent.start + extent.length
    for start in range(extent.start, end, _PIECE):
        length = min(_PIECE, end - start)
        copy.write(start, source.read(start, length))
        advance(length)


def _create(target: Medium, parents: Sequence[Medium], facts: ImageFacts) -> None:
    create_image(
        target.path,
        size=None if parents else target.size,
        parent=parents[0].path if parents else None,
        parent_format=parents[0].format if parents else None,
        format_name=target.format,
        options={"variant": target.variant} if target.variant else None,
        uuid=target.uuid,
        child_size=facts.size if parents else None,
    )
    _describe(target, facts)


def _require_size(copy: Disk, target: Medium, size: int) -> None:
    """Some formats have sizes of their own, which must not cut anything off."""
    if copy.size != size:
        message = f"a {target.format} image can't be {size} bytes large on this parent; clone it as one image"
        raise StorageError(ErrorKind.UNSUPPORTED, message, path=target.path, operation="clone")


def _describe(target: Medium, facts: ImageFacts) -> None:
    """The source's comment and geometries, as far as the copy's format has them."""
    wanted: dict[str, object] = {"comment": facts.comment, "pchs": facts.pchs, "lchs": facts.lchs}
    for name, value in wanted.items():
        if value:
            _set(target, HeaderEdit(**{name: value}))  # type: ignore[arg-type]


def _set(target: Medium, edit: HeaderEdit) -> None:
    try:
        with open_image(target.path, target.format, writable=True) as image:
            edit_header(image, edit)
    except StorageError as error:
        if error.kind not in (ErrorKind.UNSUPPORTED, ErrorKind.INVALID):
            raise
