"""Where the files of recorded media are now: after folders were moved, copied, or partly lost."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from uuid import UUID

from drivebay.chain.image import image_file
from drivebay.registry.medium import Medium
from drivebay.service.scan import Found

_Rule = Callable[[Medium], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Record:
    """A medium as the document at ``origin``, a machine file or a list of media, has it."""

    medium: Medium
    origin: str


@dataclass(frozen=True, slots=True)
class Stock:
    """All files, and the images among them, that were found in ``folders``; all are real paths."""

    folders: tuple[str, ...]
    files: tuple[str, ...]
    images: tuple[Found, ...]


def locate(
    media: Mapping[UUID, Medium], records: Sequence[Record], stock: Stock
) -> tuple[dict[UUID, Medium], list[str]]:
    """``media`` with the places where their files are now, and notes on what was doubtful.

    ``records`` are all that were read, for the older ones tell where folders were, too. No file becomes
    that of two media: what several could be is none's, and its media stay where they are recorded.
    """
    search = _Search(media, _Shelf(stock), records)
    places = search.run()
    return {
        uuid: dataclasses.replace(one, path=places.get(uuid, one.path)) for uuid, one in media.items()
    }, search.notes


class _Shelf:
    """What was found, in the orders in which it is asked for."""

    def __init__(self, stock: Stock) -> None:
        self._folders = stock.folders
        self._images = {one.path: one for one in stock.images}
        self._by_uuid: dict[UUID | None, list[Found]] = defaultdict(list)
        self._children: dict[str, set[str]] = defaultdict(set)
        for one in stock.images:
            self._by_uuid[one.uuid].append(one)
            for parent in self.parents_of(one.path):
                self._children[parent].add(one.path)
        parts = {part for one in stock.images for part in one.files.further}
        self._named: dict[str, list[str]] = defaultdict(list)
        for path in dict.fromkeys([*stock.files, *self._images]):
            if path not in parts:
                self._named[os.path.basename(path)].append(path)

    def holds(self, path: str) -> bool:
        return any(path.startswith(os.path.join(folder, "")) for folder in self._folders)

    def with_uuid(self, medium: Medium) -> list[str]:
        """Images with its UUID."""
        return [one.path for one in self._by_uuid.get(medium.uuid, ())]

    def alike(self, medium: Medium) -> list[str]:
        """Files of the medium's name, format and size, with its UUID if they have any."""
        return [path for path in self._named[os.path.basename(medium.path)] if self._could_be(path, medium)]

    def _could_be(self, path: str, medium: Medium) -> bool:
        if (image := self._images.get(path)) is None:
            return medium.format == "raw" and os.path.getsize(path) == medium.size
        facts = image.files.facts
        wanted = (medium.format, medium.size, medium.parent is not None)
        return image.uuid in (None, medium.uuid) and (facts.format, facts.size, facts.differencing) == wanted

    def parents_of(self, path: str) -> list[str]:
        """Where the image at ``path`` has its parent, seen from where it is now."""
        image = self._images.get(path)
        names = image.files.facts.parent_names if image is not None else ()
        folder = os.path.dirname(image_file(path))
        return [os.path.normpath(os.path.join(folder, name)) for name in names if not os.path.isabs(name)]

    def children_of(self, path: str) -> set[str]:
        """The images that name ``path`` as their parent."""
        return self._children.get(path, set())


class _Search:
    """Gives each medium one file, by the surest evidence first."""

    def __init__(self, media: Mapping[UUID, Medium], shelf: _Shelf, records: Sequence[Record]) -> None:
        self.notes: list[str] = []
        self._media = media
        self._shelf = shelf
        self._places: dict[UUID, str] = {}
        self._recorded = {one.path for one in media.values()}
        self._children: dict[UUID, list[UUID]] = defaultdict(list)
        for one in media.values():
            if one.parent is not None:
                self._children[one.parent].append(one.uuid)
        self._moved = {pair for one in records if (pair := _moved_by_uuid(one, shelf))}
        self._moved |= _copied(records, shelf)

    def run(self) -> dict[UUID, str]:
        self._settle(self._recorded_with_uuid)
        self._settle(self._shelf.with_uuid)
        self._settle(self._recorded_in_folders)
        while self._settle(self._corresponding):
            pass  # each diff that is found tells of its parent
        self._settle(self._recorded_anywhere)
        for uuid in self._settle(self._alike):
            what = f"{self._places[uuid]} is taken for it, the only file of its name, format and size"
            self._note(self._media[uuid], what)
        for uuid, medium in self._media.items():
            self._tell(medium, self._places.get(uuid))
        return self._places

    def _settle(self, rule: _Rule) -> list[UUID]:
        """Places the media for which ``rule`` has one free file that it has for no other medium."""
        taken = set(self._places.values())
        found = {
            uuid: set(rule(medium)) - taken
            for uuid, medium in self._media.items()
            if uuid not in self._places
        }
        wanted = Counter(path for paths in found.values() for path in paths)
        settled = {
            uuid: path
            for uuid, paths in found.items()
            if len(paths) == 1 and wanted[path := next(iter(paths))] == 1
        }
        self._places |= settled
        return list(settled)

    def _recorded_with_uuid(self, medium: Medium) -> list[str]:
        return [path for path in self._shelf.with_uuid(medium) if path == medium.path]

    def _recorded_anywhere(self, medium: Medium) -> list[str]:
        return [medium.path] if os.path.exists(medium.path) else []

    def _recorded_in_folders(self, medium: Medium) -> list[str]:
        return self._recorded_anywhere(medium) if self._shelf.holds(medium.path) else []

    def _corresponding(self, medium: Medium) -> list[str]:
        """Where it must be if it was moved or copied with the rest, and an image like it is."""
        places = {
            new + medium.path[len(old) :]
            for old, new in self._moved
            if medium.path.startswith(os.path.join(old, ""))
        }
        places.update(path for child in self._children_of(medium) for path in self._shelf.parents_of(child))
        return [path for path in self._unrecorded(medium) if path in places]

    def _alike(self, medium: Medium) -> list[str]:
        if os.path.exists(medium.path):
            return []
        own = self._children_of(medium)
        return [path for path in self._unrecorded(medium) if self._shelf.children_of(path) <= own]

    def _children_of(self, medium: Medium) -> set[str]:
        return {self._places[child] for child in self._children[medium.uuid] if child in self._places}

    def _unrecorded(self, medium: Medium) -> list[str]:
        """Files like it at which no medium is recorded: those are left to that one."""
        return [path for path in self._shelf.alike(medium) if path not in self._recorded]

    def _tell(self, medium: Medium, place: str | None) -> None:
        if place is None:
            self._note(medium, f"{self._why_lost(medium)}; see drivebay doctor")
        elif place != medium.path and os.path.exists(medium.path):
            self.notes.append(
                f"medium {medium.uuid} is recorded at {medium.path}, which is still there, but {place} is "
                "taken, which was copied with the rest. If the other is meant: "
                f"drivebay medium relink {medium.uuid} {quote(medium.path)}"
            )

    def _why_lost(self, medium: Medium) -> str:
        if os.path.exists(medium.path):
            return "that file is recorded for another medium, too, or holds another's UUID"
        found = {*self._shelf.with_uuid(medium), *self._shelf.alike(medium)}
        free = sorted(found - set(self._places.values()) - self._recorded)
        if free:
            return f"nothing tells whether this is its file: {', '.join(free)}"
        return "all files like it are other media's" if found else "no file has it"

    def _note(self, medium: Medium, what: str) -> None:
        self.notes.append(f"medium {medium.uuid} is not at {medium.path}: {what}")


def _moved_by_uuid(record: Record, shelf: _Shelf) -> tuple[str, str] | None:
    """The folder that was moved or copied, and where it is now, as far as the medium's UUID tells."""
    matches = shelf.with_uuid(record.medium)
    if len(matches) != 1 or matches[0] == record.medium.path:
        return None
    return _without_tail(record.medium.path, matches[0])


def _copied(records: Iterable[Record], shelf: _Shelf) -> set[tuple[str, str]]:
    """The folders that were copied with a document that lies in the original, too; and the copies."""
    likely = {
        (*_without_tail(record.medium.path, path), record.origin)
        for record in records
        if not shelf.holds(record.medium.path) and os.path.exists(record.medium.path)
        for path in shelf.alike(record.medium)
    }
    return {
        (old, new)
        for old, new, origin in likely
        if origin.startswith(os.path.join(new, "")) and _are_copies(origin, old + origin[len(new) :])
    }


def _without_tail(old: str, new: str) -> tuple[str, str]:
    while os.path.basename(old) == os.path.basename(new) and os.path.dirname(old) != old:
        old, new = os.path.dirname(old), os.path.dirname(new)
    return old, new


def _are_copies(path: str, other: str) -> bool:
    """Whether two documents are of one machine; or lists of which one has all media of the other."""
    ours, theirs = _about(path), _about(other)
    return bool(ours and theirs) and (ours <= theirs or theirs <= ours)


def _about(path: str) -> set[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            document = json.load(file)
        about = [document["machine"]] if "machine" in document else document["media"]
        return {str(one["uuid"]) for one in about}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return set()  # ours was told of when it was read; in another's place may be anything
