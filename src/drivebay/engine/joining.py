"""Whether layers may join a disk that is in use, or show what is below them."""

from __future__ import annotations

from collections.abc import Sequence

from drivebay.engine.pagemap import PAGE_BYTES, PageMap
from drivebay.engine.source import OpenedLayer
from drivebay.engine.space import ranges_with_tables
from drivebay.errors import ErrorKind, StorageError, from_os_error


def require_same_disk(layers: Sequence[OpenedLayer], size: int, *, writable: bool) -> None:
    """Raises StorageError unless ``layers``, top first, are a disk of ``size`` bytes, the top writable."""
    top = layers[0]
    _require_writable(top, writable=writable)
    _require_size(top, size, "a chain that takes the place of another", "open the chain of this disk")


def require_empty(layer: OpenedLayer, size: int, *, writable: bool) -> None:
    """Raises StorageError unless ``layer`` holds nothing, so that a disk shows the same with it on top."""
    path = layer.sources[0].path
    _require_writable(layer, writable=writable)
    _require_size(layer, size, "a new active layer", "create it with this disk as its parent")
    try:
        empty = _is_empty(layer, size)
    except OSError as error:
        raise from_os_error(error, "read a block table", path=path) from error
    if not empty:
        raise StorageError(ErrorKind.INVALID, "a new active layer must be empty; create a new one", path=path)


def require_parent(layer: OpenedLayer) -> None:
    """Raises StorageError for a layer whose absent blocks are nobody's."""
    if not layer.layer.facts.differencing:
        raise StorageError(
            ErrorKind.STATE,
            "the image has no parent whose bytes could show; discard the range instead",
            path=layer.sources[0].path,
            operation="drop",
        )


def _require_writable(layer: OpenedLayer, *, writable: bool) -> None:
    if writable and not (layer.layer.plan and layer.sources[0].writable):
        raise StorageError(
            ErrorKind.READ_ONLY,
            "a new active layer must be writable; open it for writing",
            path=layer.sources[0].path,
        )


def _require_size(layer: OpenedLayer, size: int, what: str, remedy: str) -> None:
    found = layer.layer.facts.size
    if found != size:
        raise StorageError(
            ErrorKind.INVALID,
            f"{what} must have the disk's size of {size} bytes, not {found}; {remedy}",
            path=layer.sources[0].path,
        )


def _is_empty(layer: OpenedLayer, size: int) -> bool:
    alone = PageMap([layer], size, PAGE_BYTES)
    return not any(
        any(alone.build(range(index, index + 1))[0][0])
        for offset, length in ranges_with_tables(layer)
        for index in alone.span(offset, length)
    )
