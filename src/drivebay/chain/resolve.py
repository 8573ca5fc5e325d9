"""Opening an image with all its parents."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from uuid import UUID

from drivebay.chain.files import open_file
from drivebay.chain.folder import Candidate, read_layer
from drivebay.chain.locks import lock_file
from drivebay.chain.search import ParentSearch, Wanted
from drivebay.engine.direct import DirectSource
from drivebay.engine.source import FileSource, OpenedLayer
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import NULL_UUID, CacheMode, ImageFacts

MAX_DEPTH = 1000


@dataclass(frozen=True, slots=True)
class Chain:
    """Opened and locked layers, top first. Whoever takes the layers closes them; else `close` does."""

    layers: tuple[OpenedLayer, ...]

    def close(self) -> None:
        """Close all files, and so give up their locks."""
        close_layers(self.layers)

    def __enter__(self) -> Chain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def close_layers(layers: Sequence[OpenedLayer]) -> None:
    """Close the files of ``layers``."""
    for opened in layers:
        for source in opened.sources:
            source.close()


def open_chain(
    path: str | os.PathLike[str],
    *,
    writable: bool = False,
    cache: CacheMode = CacheMode.WRITEBACK,
    format_name: str | None = None,
    search: Sequence[str | os.PathLike[str]] = (),
    allow_stale_parent: bool = False,
    lock: bool = True,
) -> Chain:
    """Open the image at ``path`` and all its parents, each locked: only the top is ever written.

    ``format_name`` is the top's format, where its content shall not decide; ``search`` holds folders
    and files where parents may be, beside the top's own folder. Without ``lock`` nothing is locked,
    for a look at the headers. Raises StorageError, and then leaves nothing open.
    """
    top = os.fspath(path)
    layers: list[OpenedLayer] = []
    try:
        layers.append(_open_top(top, format_name, writable=writable, cache=cache, lock=lock))
        places = ParentSearch(top, search)
        seen = {layers[0].layer.facts.uuid: top}
        while layers[-1].layer.facts.differencing:
            child = Wanted(layers[-1].sources[0].path, layers[-1].layer.facts)
            _check_link(child, seen)
            parent = places.find(child)
            layers.append(open_layer(parent.path, cache=cache, lock=lock, follow=False))
            facts = layers[-1].layer.facts
            _check_same(parent, facts)
            if not allow_stale_parent:
                _check_fresh(child, parent.path, facts)
            seen[facts.uuid] = parent.path
    except BaseException:
        close_layers(layers)
        raise
    return Chain(tuple(layers))


def open_layer(
    path: str,
    format_name: str | None = None,
    *,
    writable: bool = False,
    cache: CacheMode = CacheMode.WRITEBACK,
    lock: bool = True,
    follow: bool = True,
) -> OpenedLayer:
    """Open one image alone, whether it has a parent or not; see `open_file`. Raises StorageError."""
    fd = open_file(path, writable=writable, follow=follow)
    try:
        if lock:
            lock_file(fd, path, exclusive=writable)
        layer = read_layer(fd, path, format_name)
        kind = DirectSource if cache is CacheMode.DIRECT else FileSource
        return OpenedLayer(layer, (kind(fd, path, writable=writable),))
    except BaseException:
        os.close(fd)
        raise


def _open_top(
    path: str, format_name: str | None, *, writable: bool, cache: CacheMode, lock: bool
) -> OpenedLayer:
    opened = open_layer(path, format_name, writable=writable, cache=cache, lock=lock)
    if writable and opened.layer.plan is None:
        close_layers([opened])
        raise StorageError(
            ErrorKind.UNSUPPORTED,
            f"this image can't be written: {opened.layer.refusal}; open it read-only",
            path=path,
            operation="open for writing",
        )
    return opened


def _check_link(child: Wanted, seen: dict[UUID, str]) -> None:
    parent = child.facts.parent_uuid
    if parent == NULL_UUID:
        raise _broken(child, "it is differencing but names no parent")
    if parent == child.facts.uuid:
        raise _broken(child, f"it names itself ({{{parent}}}) as its parent")
    if parent in seen:
        raise _broken(child, f"its parent {{{parent}}} is its own descendant {seen[parent]}: a loop")
    if len(seen) == MAX_DEPTH:
        raise StorageError(
            ErrorKind.UNSUPPORTED,
            f"the chain is deeper than {MAX_DEPTH} images; merge some of them",
            path=child.path,
            operation="open the chain",
        )


def _broken(child: Wanted, what: str) -> StorageError:
    return StorageError(
        ErrorKind.CORRUPT,
        f"{what}; restore the image from a copy",
        path=child.path,
        operation="open the chain",
    )


def _check_same(found: Candidate, facts: ImageFacts) -> None:
    if facts.uuid != found.facts.uuid:
        raise StorageError(
            ErrorKind.STATE,
            "somebody replaced this file while the chain was opened; try again",
            path=found.path,
            operation="open the chain",
        )


def _check_fresh(child: Wanted, path: str, parent: ImageFacts) -> None:
    recorded, found = child.facts.parent_modification_uuid, parent.modification_uuid
    if NULL_UUID in (recorded, found) or recorded == found:
        return
    raise StorageError(
        ErrorKind.STATE,
        f"its parent {path} has changed behind it: the child was made on modification {{{recorded}}}, "
        f"the parent now is at {{{found}}}. What the child shows may be garbage. "
        "VirtualBox itself leaves this after it merged a snapshot; if you know that the two fit, "
        "open them with --allow-stale-parent",
        path=child.path,
        operation="open the chain",
    )
