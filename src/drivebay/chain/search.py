"""Finding an image by its UUID, and only where the user allowed to look.

The gate: a file is opened as a parent only if it lies in the folder of the image that the user named,
in a folder that the user granted (with what is below it), or was itself named by the user. A symbolic
link counts as what it leads to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from drivebay.chain.folder import Candidate, Folder, read_candidate
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import ImageFacts


@dataclass(frozen=True, slots=True)
class Wanted:
    """A child at ``path`` that looks for its parent."""

    path: str
    facts: ImageFacts


class ParentSearch:
    """All places where the parents of one image may be. Folders are read once, when first needed."""

    def __init__(self, image: str, search: Sequence[str | os.PathLike[str]]) -> None:
        entries = [(os.fspath(entry), os.path.realpath(entry)) for entry in search]
        for entry, real in entries:
            _require_existing(entry, real)
        self._folders = [Folder(os.path.dirname(os.path.realpath(image)), recursive=False)]
        self._folders += [Folder(real, recursive=True) for _, real in entries if os.path.isdir(real)]
        self._named = [real for _, real in entries if not os.path.isdir(real)]

    def find(self, child: Wanted) -> Candidate:
        """The parent that ``child`` records.

        Files that the user named go first, then the image's folder, then the granted folders in their
        order; at last a named file of a format without UUIDs. Raises StorageError: NOT_FOUND, and STATE
        where several files have the UUID and none is the recorded one.
        """
        for found in self._chances(child.facts.parent_uuid):
            if found:
                return _choose(found, child)
        raise self._not_found(child)

    def _chances(self, uuid: UUID) -> Iterator[list[Candidate]]:
        named = [read_candidate(path) for path in self._named]
        yield [candidate for candidate in named if candidate.facts.uuid == uuid]
        for folder in self._folders:
            yield folder.images(self._grants).get(uuid, [])
        yield [candidate for candidate in named if candidate.named_by_file]

    def _grants(self, path: str) -> bool:
        return path in self._named or any(folder.grants(path) for folder in self._folders)

    def _not_found(self, child: Wanted) -> StorageError:
        looked = ", ".join([folder.describe() for folder in self._folders] + self._named)
        home = self._folders[0].path
        hint = os.path.dirname(home) if os.path.basename(home) == "Snapshots" else "DIR"
        unreadable = [reason for folder in self._folders for reason in folder.unreadable]
        skipped = (
            f" {len(unreadable)} damaged or unreadable there, the first: {unreadable[0]}."
            if unreadable
            else ""
        )
        return StorageError(
            ErrorKind.NOT_FOUND,
            f"its parent {{{child.facts.parent_uuid}}} was not found (looked in {looked}).{skipped} "
            f"Put the parent beside it, or say where it is: --search {hint}",
            path=child.path,
            operation="find the parent",
        )


def _require_existing(entry: str, real: str) -> None:
    if not os.path.exists(real):
        raise StorageError(
            ErrorKind.NOT_FOUND,
            "this place to search does not exist; name a folder or an image file",
            path=entry,
            operation="search",
        )


def _choose(found: list[Candidate], child: Wanted) -> Candidate:
    if len(found) == 1:
        return found[0]
    recorded = child.facts.parent_modification_uuid
    same = [candidate for candidate in found if candidate.facts.modification_uuid == recorded]
    if len(same) == 1:
        return same[0]
    paths = " and ".join(candidate.path for candidate in found)
    raise StorageError(
        ErrorKind.STATE,
        f"several files could be its parent {{{child.facts.parent_uuid}}}: {paths}; "
        "say which one with --search FILE, or move the others away",
        path=child.path,
        operation="find the parent",
    )
