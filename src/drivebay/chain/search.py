"""Finding an image's parent, by UUID or by name, and only where the user allowed to look.

By UUID, a file is a candidate only if it lies in the folder of the image that the user named, in a
folder that the user granted (with what is below it), or was itself named by the user. Names go through
the gate. A symbolic link counts as what it leads to.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from drivebay.chain.candidate import Candidate, Wanted, read_candidate
from drivebay.chain.folder import Folder
from drivebay.chain.gate import Gate
from drivebay.chain.image import FileIdentity
from drivebay.errors import ErrorKind, StorageError

Seen = Collection[tuple[FileIdentity, str]]


class ParentSearch:
    """All places where the parents of one image may be. Folders are read once, when first needed."""

    def __init__(self, image: str, gate: Gate) -> None:
        self._gate = gate
        self._folders = [Folder(os.path.dirname(os.path.realpath(image)), gate, recursive=False)]
        self._folders += [Folder(folder, gate, recursive=True) for folder in gate.folders]

    def find(self, child: Wanted, seen: Seen = ()) -> Candidate:
        """The parent that ``child`` records.

        Files that the user named go first, then the names that the child records, then what has the UUID
        in the image's folder and in the granted folders in their order; at last a named file without a
        UUID that is not ``seen`` in the chain yet. Raises StorageError: NOT_FOUND, READ_ONLY where only
        the gate stands before it, and STATE where several files could be it.
        """
        problems: list[StorageError] = []
        for found in self._chances(child, seen, problems):
            if found:
                return _choose(found, child)
        for problem in problems:
            if problem.kind is ErrorKind.READ_ONLY:
                raise problem
        raise self._not_found(child, problems)

    def _chances(self, child: Wanted, seen: Seen, problems: list[StorageError]) -> Iterator[list[Candidate]]:
        named = list(self._read(self._gate.named, child, problems))
        yield [candidate for candidate in named if _is_named(candidate, child)]
        for candidate in self._read(self._recorded(child, problems), child, problems):
            if candidate.fits(child):
                yield [candidate]
            problems.append(_misfit(candidate))
        for folder in self._folders:
            yield folder.find(child.key) if child.key else []
        yield [candidate for candidate in named if candidate.named_by_file and candidate.identity not in seen]

    def _read(
        self, paths: Iterator[str] | list[str], child: Wanted, problems: list[StorageError]
    ) -> Iterator[Candidate]:
        facts = child.facts
        for path in paths:
            try:
                yield read_candidate(
                    path, self._gate, format_name=facts.parent_format, part=facts.parent_part
                )
            except StorageError as error:
                problems.append(error)

    def _recorded(self, child: Wanted, problems: list[StorageError]) -> Iterator[str]:
        """The files that the child's names lead to: from its own folder, and in the granted ones."""
        real = os.path.realpath(child.path)
        home = os.path.dirname(real)
        for recorded in child.facts.parent_names:
            name = recorded if _exists(os.path.join(home, recorded)) else _moved_along(recorded, real)
            try:
                path = self._gate.admit(name, child.path)
            except StorageError as error:
                if _exists(os.path.join(home, name)):
                    problems.append(error)
            else:
                if os.path.exists(path):
                    yield path
            yield from self._of_that_name(os.path.basename(name))

    def _of_that_name(self, name: str) -> Iterator[str]:
        for folder in self._gate.folders if name else []:
            path = os.path.join(folder, name)
            if _exists(path) and self._gate.grants(real := os.path.realpath(path)):
                yield real

    def _not_found(self, child: Wanted, problems: list[StorageError]) -> StorageError:
        looked = ", ".join([folder.describe() for folder in self._folders] + self._gate.named)
        home = self._folders[0].path
        hint = os.path.dirname(home) if os.path.basename(home) == "Snapshots" else "DIR"
        unreadable = problems + [error for folder in self._folders for error in folder.unreadable]
        skipped = (
            f" {len(unreadable)} damaged or unreadable there, the first: {unreadable[0]}."
            if unreadable
            else ""
        )
        return StorageError(
            ErrorKind.NOT_FOUND,
            f"its parent {child.parent} was not found (looked in {looked}).{skipped} "
            f"Put the parent beside it, or say where it is: --search {hint}"
            f"{_by_another_name(child, unreadable)}",
            path=child.path,
            operation="find the parent",
        )


def _by_another_name(child: Wanted, problems: list[StorageError]) -> str:
    """What else to do where ``--search`` is of no use.

    A child that knows a name only doesn't find a parent that was renamed; and one that is of two formats,
    going by its name and its content, can't be opened for a child that doesn't record which.
    """
    record = f"drivebay set {child.path} parent IMAGE"
    if any(error.kind is ErrorKind.INVALID and error.operation == "probe" for error in problems):
        return (
            "; or, if that is the parent (--format is the child's format), "
            f"let its name end as its format's names do, and then: {record}"
        )
    return "" if child.key else f"; or, if it has another name now: {record}"


def _exists(path: str) -> bool:
    try:
        return os.path.exists(path)
    except ValueError:  # a NUL in a name
        return False


def _moved_along(name: str, child: str) -> str:
    """What a missing file may be called by now: the same, beside its child, if both have been moved."""
    last = os.path.basename(name)
    beside = os.path.join(os.path.dirname(child), last)
    return last if last and _exists(beside) and os.path.realpath(beside) != child else name


def _is_named(candidate: Candidate, child: Wanted) -> bool:
    if child.key in candidate.keys:
        return True
    names = {os.path.basename(name) for name in child.facts.parent_names}
    return os.path.basename(candidate.path) in names and candidate.fits(child)


def _misfit(candidate: Candidate) -> StorageError:
    return StorageError(
        ErrorKind.STATE,
        f"this is {{{candidate.facts.uuid}}}, another image",
        path=candidate.path,
        operation="find the parent",
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
        f"several files could be its parent {child.parent}: {paths}; "
        "say which one with --search FILE, or move the others away",
        path=child.path,
        operation="find the parent",
    )
