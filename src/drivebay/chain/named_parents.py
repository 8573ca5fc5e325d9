"""Parents that somebody else knows, so that none is searched for: the registry's media."""

from __future__ import annotations

import os
from collections.abc import Sequence

from drivebay.chain.candidate import Candidate, Wanted, read_candidate
from drivebay.chain.gate import Gate
from drivebay.chain.search import ParentSearch, Seen
from drivebay.errors import ErrorKind, StorageError


class NamedParents:
    """The parents of the image at ``image``, the nearest first."""

    def __init__(
        self,
        image: str,
        gate: Gate,
        paths: Sequence[str | os.PathLike[str]],
        formats: Sequence[str | None] = (),
    ) -> None:
        self._image = image
        self._gate = gate
        self._left = [
            (os.path.realpath(path), formats[number] if number < len(formats) else None)
            for number, path in enumerate(paths)
        ]

    def find(self, child: Wanted, seen: Seen = ()) -> Candidate:
        """The next one, if it may be the parent that ``child`` records. Raises StorageError.

        A state that an image keeps within itself is the parent without being named. Images before the one
        that ``child`` records by its UUID are left out: where a merge was interrupted at its end, they have
        been emptied, and their child says so first.
        """
        if child.facts.parent_part:
            return ParentSearch(self._image, self._gate).find(child, seen)
        if not self._left:
            raise _wrong(child, f"its parent {child.parent} is not known to be registered")
        found = self._read(0, child)
        if child.key in found.keys or found.fits(child):
            del self._left[0]
            return found
        for number in range(1, len(self._left)):
            if child.key in (further := self._read(number, child)).keys:
                del self._left[: number + 1]
                return further
        raise _wrong(
            child, f"it names {child.parent} as its parent, but that is to be {found.path}, another image"
        )

    def _read(self, number: int, child: Wanted) -> Candidate:
        path, format_name = self._left[number]
        return read_candidate(path, self._gate, format_name=format_name or child.facts.parent_format)

    def require_end(self, base: Wanted) -> None:
        """Raises StorageError where there are parents that nobody names."""
        if self._left:
            raise _wrong(base, f"it has no parent, but {self._left[0][0]} is to be that")


def _wrong(child: Wanted, what: str) -> StorageError:
    return StorageError(
        ErrorKind.STATE,
        f"{what}; look at both with 'drivebay info', and at the registry with 'drivebay doctor'",
        path=child.path,
        operation="open the chain",
    )
