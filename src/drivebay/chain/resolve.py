"""Opening an image with all its parents."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from uuid import UUID

from drivebay.chain.candidate import Candidate, Wanted
from drivebay.chain.fresh import check_fresh
from drivebay.chain.gate import Gate
from drivebay.chain.image import Access, FileIdentity, OpenedImage
from drivebay.chain.locks import LockMode
from drivebay.chain.named_parents import NamedParents
from drivebay.chain.search import ParentSearch
from drivebay.chain.shareable import shared_layer
from drivebay.engine.source import OpenedLayer
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import NULL_UUID, CacheMode

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
    part: str = "",
    writable: bool = False,
    cache: CacheMode = CacheMode.WRITEBACK,
    format_name: str | None = None,
    search: Sequence[str | os.PathLike[str]] = (),
    allow_stale_parent: bool = False,
    lock: bool = True,
    shared: bool = False,
    parents: Sequence[str | os.PathLike[str]] | None = None,
    parent_formats: Sequence[str | None] = (),
    reading: LockMode = LockMode.READ,
) -> Chain:
    """Open the image at ``path`` and all its parents, each locked: only the top is ever written.

    ``part`` is a snapshot in the image's file, ``format_name`` the top's format, where its content shall
    not decide; ``search`` holds folders and files where parents and further files may be, beside the
    image's own folder. Without ``lock`` nothing is locked, for a look at the headers. With ``shared``
    others may write the top, too (`shared_layer`). ``parents`` are exactly the files of the parents, the
    nearest first, and ``parent_formats`` their formats where their contents shall not decide: nothing is
    searched, but they must be what the images name. ``reading`` is how images are locked that aren't
    written. Raises StorageError, and then leaves nothing open.
    """
    gate = Gate([*search, *(parents or ())])
    layers = _Layers(cache, reading if lock else LockMode.NONE)
    try:
        access = Access(gate, writable, lock, shared=shared, reading=reading)
        layers.add_top(os.fspath(path), access, format_name, part)
        places = ParentSearch(layers.child.path, gate) if parents is None else None
        named = NamedParents(layers.child.path, gate, parents or (), parent_formats)
        while layers.child.facts.differencing:
            layers.check_link()
            parent = (places or named).find(layers.child, layers.seen)
            layers.add_parent(parent, gate, allow_stale=allow_stale_parent)
        named.require_end(layers.child)
    except BaseException:
        close_layers(layers.opened)
        raise
    return Chain(tuple(layers.opened))


class _Layers:
    """The layers opened so far, and what tells that a chain runs in a circle."""

    def __init__(self, cache: CacheMode, reading: LockMode) -> None:
        self.opened: list[OpenedLayer] = []
        self.seen: dict[tuple[FileIdentity, str], str] = {}
        self._uuids: dict[UUID, str] = {}
        self._cache = cache
        self._reading = reading

    @property
    def child(self) -> Wanted:
        """The lowest layer so far."""
        lowest = self.opened[-1]
        return Wanted(lowest.sources[0].path, lowest.layer.facts)

    def add_top(self, path: str, access: Access, format_name: str | None, part: str) -> None:
        with OpenedImage(path, access, format_name=format_name, part=part) as image:
            if access.writable and image.layer.plan is None:
                raise _not_writable(image)
            self._add(image, shared=access.shared and access.writable)

    def add_parent(self, parent: Candidate, gate: Gate, *, allow_stale: bool) -> None:
        child = self.child
        if parent.identity in self.seen:
            raise _broken(child, f"its parent {child.parent} is its own descendant {parent.path}: a loop")
        held = {file for file, _ in self.seen}
        lock = self._reading is not LockMode.NONE
        access = Access(gate, lock=lock, follow=False, held=held, reading=self._reading)
        with OpenedImage(parent.path, access, format_name=parent.format_name, part=parent.part) as image:
            _check_same(parent, image)
            if not allow_stale:
                check_fresh(child, parent.path, image.layer.facts)
            self._add(image)

    def _add(self, image: OpenedImage, *, shared: bool = False) -> None:
        self.seen[image.identity] = image.files.path
        self._uuids[image.layer.facts.uuid] = image.files.path
        self.opened.append(image.take(self._cache))
        if shared:
            self.opened[-1] = shared_layer(self.opened[-1])

    def check_link(self) -> None:
        """Whether a parent should be looked for at all."""
        child, wanted = self.child, self.child.facts.parent_uuid
        if not (child.key or child.facts.parent_names):
            raise _broken(child, "it is differencing but names no parent")
        if wanted != NULL_UUID and wanted == child.facts.uuid:
            raise _broken(child, f"it names itself ({{{wanted}}}) as its parent")
        if wanted != NULL_UUID and wanted in self._uuids:
            descendant = self._uuids[wanted]
            raise _broken(child, f"its parent {{{wanted}}} is its own descendant {descendant}: a loop")
        if len(self.opened) == MAX_DEPTH:
            raise _too_deep(child)


def open_layer(
    path: str,
    format_name: str | None = None,
    *,
    search: Sequence[str | os.PathLike[str]] = (),
    part: str = "",
    writable: bool = False,
    cache: CacheMode = CacheMode.WRITEBACK,
    lock: bool = True,
) -> OpenedLayer:
    """Open one image alone, whether it has a parent or not. Raises StorageError."""
    with open_image(path, format_name, search=search, part=part, writable=writable, lock=lock) as image:
        return image.take(cache)


def open_image(
    path: str,
    format_name: str | None = None,
    *,
    search: Sequence[str | os.PathLike[str]] = (),
    part: str = "",
    writable: bool = False,
    lock: bool = True,
) -> OpenedImage:
    """Open the files of one image, to look at them or to edit them. Raises StorageError."""
    return OpenedImage(path, Access(Gate(search), writable, lock), format_name=format_name, part=part)


def _not_writable(image: OpenedImage) -> StorageError:
    return StorageError(
        ErrorKind.UNSUPPORTED,
        f"this image can't be written: {image.layer.refusal}; open it read-only",
        path=image.files.path,
        operation="open for writing",
    )


def _too_deep(child: Wanted) -> StorageError:
    return StorageError(
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


def _check_same(found: Candidate, image: OpenedImage) -> None:
    if (image.identity, image.layer.facts.uuid) != (found.identity, found.facts.uuid):
        raise StorageError(
            ErrorKind.STATE,
            "somebody replaced this file while the chain was opened; try again",
            path=found.path,
            operation="open the chain",
        )
