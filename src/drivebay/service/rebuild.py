"""The registry made anew from what lies on disk: images, machine files, lists of media."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from drivebay.chain.apply import sync_folder
from drivebay.errors import ErrorKind, StorageError, from_os_error
from drivebay.machines.document import EXTENSION, from_document, from_text
from drivebay.machines.model import Machine
from drivebay.machines.store import save
from drivebay.registry.database import Registry, open_registry
from drivebay.registry.document import read_media_text
from drivebay.registry.home import Home
from drivebay.registry.journal import WriteFile, perform, steps_of
from drivebay.registry.medium import Medium
from drivebay.registry.process import ChangeLock
from drivebay.service.locating import Record, Stock, locate
from drivebay.service.registering import register
from drivebay.service.scan import is_discarded, scan_images, walk_files

_TIMEOUT = 20.0  # seconds
_SUFFIXES = ("", "-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """How many media and machines the new registry knows, what was odd, and where the ``old`` one is."""

    media: int
    machines: int
    notes: tuple[str, ...]
    old: str


def rebuild_registry(home: Home, folders: Sequence[str]) -> Rebuilt:
    """Make home's registry anew from all that is found in ``folders`` and in home; the old one is kept.

    What machine files and media.json say of a medium counts (type, auto-reset, parent); where its file
    isn't where they have it, it is looked for by UUID in the folders. Images that nothing tells of are
    registered as their headers say. Raises StorageError (NOT_FOUND) for a folder that isn't there.
    """
    for folder in folders:
        if not os.path.isdir(folder):
            message = "there is no such folder; name those with images and machine files"
            raise StorageError(ErrorKind.NOT_FOUND, message, path=folder, operation="rebuild")
    os.makedirs(home.folder, mode=0o700, exist_ok=True)
    places = [*folders, *(place for place in (home.machines,) if os.path.isdir(place))]
    records = _Records(home, places)
    with ChangeLock(home.change_lock).held(_TIMEOUT), tempfile.TemporaryDirectory(dir=home.folder) as aside:
        new = Home(os.path.realpath(aside))
        with open_registry(new) as registry:
            result = _fill(registry, records, folders)
        try:
            return dataclasses.replace(result, old=_exchange(home, new))
        except OSError as error:
            raise from_os_error(error, "put the new registry in its place", path=home.registry) from error


class _Records:
    """What machine files and lists of media say, with each medium's file found."""

    def __init__(self, home: Home, folders: Sequence[str]) -> None:
        self.notes: list[str] = []
        self.machines: dict[UUID, Machine] = {}
        self.media: dict[UUID, Medium] = {}
        self._recorded: list[Record] = []
        self.images = [one for one in scan_images(folders) if not is_discarded(one.path, home.trash)]
        files = [path for path in walk_files(folders) if not is_discarded(path, home.trash)]
        for path in dict.fromkeys([home.media_file, *files]):
            if os.path.basename(path) == os.path.basename(home.media_file):
                self._read_media(path)
        for path in files:
            if path.endswith(EXTENSION):
                self._read_machine(path)
        stock = Stock(tuple(map(os.path.realpath, folders)), tuple(files), tuple(self.images))
        self.media, notes = locate(self.media, self._recorded, stock)
        self.notes += notes

    def _read_media(self, path: str) -> None:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                found = read_media_text(file.read(), path)
        except (OSError, StorageError) as error:
            if os.path.exists(path):
                self.notes.append(f"left out: {error}")
            return
        self._take(found, path)

    def _read_machine(self, path: str) -> None:
        folder = os.path.dirname(path)
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                machine, media = from_document(from_text(file.read(), folder), folder)
        except (OSError, StorageError) as error:
            self.notes.append(f"left out: {error}")
            return
        other = self.machines.setdefault(machine.uuid, machine)
        if other is not machine:
            self.notes.append(f"left out: {path} is the same machine as in {other.folder}")
            return
        self._take(media, path)

    def _take(self, media: Sequence[Medium], origin: str) -> None:
        """What is read later counts; but all of it may tell where files were."""
        self._recorded += [Record(medium, origin) for medium in media]
        self.media |= {medium.uuid: medium for medium in media}


def _fill(registry: Registry, records: _Records, folders: Sequence[str]) -> Rebuilt:
    notes = records.notes
    with registry.change() as change:
        for medium in records.media.values():
            change.put_medium(medium)
        names: set[str] = set()
        for machine in records.machines.values():
            if machine.name in names:
                notes.append(f"left out: a second machine is called {machine.name!r}, in {machine.folder}")
                continue
            names.add(machine.name)
            save(change, machine)
    known = {medium.path for medium in records.media.values()}
    for image in records.images:
        if image.path not in known:
            _register(registry, image.path, folders, notes)
    with registry.view() as view:
        return Rebuilt(len(view.tree.media), len(names), tuple(notes), "")


def _register(registry: Registry, path: str, folders: Iterable[str], notes: list[str]) -> None:
    try:
        register(registry, path, search=list(folders))
    except StorageError as error:
        notes.append(f"not registered: {error}")


def _exchange(home: Home, new: Home) -> str:
    """Put the new file in the old one's place; a crash between leaves none, which asks for a rebuild."""
    old = ""
    if os.path.exists(home.registry):
        old = f"{home.registry}.{datetime.now(UTC):%Y%m%dT%H%M%SZ}.old"
        for suffix in _SUFFIXES:
            if os.path.exists(home.registry + suffix):
                os.rename(home.registry + suffix, old + suffix)
    if os.path.exists(new.media_file):
        with open(new.media_file, encoding="utf-8", errors="surrogateescape", newline="") as file:
            for step in steps_of(WriteFile(home.media_file, file.read())):
                perform(step)
    os.rename(new.registry, home.registry)
    sync_folder(home.folder)
    return old
