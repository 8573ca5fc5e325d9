"""Making media of image files that are there already, with their parents (specification 3.7)."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote
from uuid import UUID, uuid4

from drivebay.chain.candidate import Wanted, identity_uuid
from drivebay.chain.fresh import check_fresh
from drivebay.chain.gate import Gate
from drivebay.chain.image import FileIdentity, OpenedImage, image_file
from drivebay.chain.resolve import open_image
from drivebay.chain.search import ParentSearch
from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.diffs import MAX_MEDIA_DEPTH
from drivebay.machines.write_modes import require_may_be_parent
from drivebay.model import NULL_UUID, ImageFacts
from drivebay.registry import rules
from drivebay.registry.database import Registry
from drivebay.registry.medium import DeviceType, MediaTree, Medium, MediumType
from drivebay.service.media_state import own_uuid, require_same

_DVDS = {".iso", ".cdr", ".dmg", ".cue"}
_FLOPPIES = {".ima", ".flp", ".vfd"}
_FORMATS = {DeviceType.DVD: {"raw", "cue", "dmg"}, DeviceType.FLOPPY: {"raw"}}


def new_path(path: str) -> str:
    """Where a new file will really be. Raises StorageError (NOT_FOUND) without its folder."""
    folder, name = os.path.split(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise StorageError(
            ErrorKind.NOT_FOUND, "there is no such folder; make it first", path=folder, operation="create"
        )
    return os.path.join(os.path.realpath(folder), name)


def register(
    registry: Registry,
    path: str,
    *,
    device: DeviceType | None = None,
    type: MediumType | None = None,
    format_name: str | None = None,
    search: Sequence[str] = (),
    allow_stale_parent: bool = False,
) -> list[Medium]:
    """Register the image at ``path``, and its parents if they aren't; the answer begins with the image.

    Parents are looked for by UUID among the media, then as `drivebay.open` does, in ``search`` too. An
    image that is registered already is simply the answer. Raises StorageError: STATE for a UUID that is
    registered elsewhere, or another image at a known path (E25: relink, adopt or replace), and for a
    parent that changes by itself (E34, E35); E24, E27, E37.
    """
    with registry.view() as view:
        found = _Reader(view.tree, search, allow_stale=allow_stale_parent).read(path, format_name)
    media = [_with_device(found[0], device, format_name), *found[1:]]
    with registry.change() as change:
        new = [one for one in media if one.uuid not in change.tree.media]
        for one in reversed(new):
            require_unknown(change.tree, one)
            if one.parent is not None:
                require_may_be_parent(change.tree, one.parent)
            change.put_medium(one)
        top = change.tree.get(media[0].uuid)
        if type is not None and type is not top.type:
            rules.require_type(change.tree, top, type, {})
            top = dataclasses.replace(top, type=type)
            change.put_medium(top)
        if sum(1 for _ in change.tree.chain(top.uuid)) > MAX_MEDIA_DEPTH:
            raise _too_deep(top.path)
    return [top, *(one for one in new if one.uuid != top.uuid)]


def _with_device(medium: Medium, device: DeviceType | None, format_name: str | None) -> Medium:
    chosen = device or _device(medium.path, medium.format)
    require_device(medium.path, medium.format, chosen, sure=format_name is not None)
    if medium.parent is not None or chosen is medium.device:
        return medium
    return dataclasses.replace(medium, device=chosen, type=rules.default_type(chosen))


def _device(path: str, format_name: str) -> DeviceType:
    extension = os.path.splitext(path)[1].lower()
    if format_name == "cue" or (extension in _DVDS and format_name in _FORMATS[DeviceType.DVD]):
        return DeviceType.DVD
    return DeviceType.FLOPPY if extension in _FLOPPIES and format_name == "raw" else DeviceType.DISK


def require_device(path: str, format_name: str, device: DeviceType, *, sure: bool = False) -> None:
    """E24: an image of this format can be in such a drive. Raises StorageError (INVALID)."""
    formats = _FORMATS.get(device)
    likely = _device(path, format_name)
    if formats is not None and format_name not in formats:
        why = f"a {format_name} image can't be in a {device.value} drive"
    elif device is DeviceType.DISK and likely is DeviceType.DVD and not sure:
        why = "this is the image of a CD or DVD, no disk; if it is a disk after all, say --format raw"
    else:
        return
    raise StorageError(
        ErrorKind.INVALID, f"{why}; say --device {likely.value}", path=path, operation="register a medium"
    )


@dataclass(frozen=True, slots=True)
class _Image:
    path: str
    facts: ImageFacts
    identity: FileIdentity

    @property
    def uuid(self) -> UUID | None:
        return own_uuid(self.facts, self.path)


class _Reader:
    """Reads an image and those of its parents that aren't registered."""

    def __init__(self, tree: MediaTree, search: Sequence[str], *, allow_stale: bool) -> None:
        self._tree = tree
        self._search = list(search)
        self._allow_stale = allow_stale
        self._files = {key: one for one in tree.media.values() if (key := file_identity(one.path))}

    def read(self, path: str, format_name: str | None) -> list[Medium]:
        """The image and its parents, up to the first that is registered, which ends the list."""
        image: _Image | None = _look(path, format_name)
        places = ParentSearch(os.path.realpath(path), Gate([*self._search, *_machine_folder(path)]))
        media: list[Medium] = []
        while image is not None:
            if (known := self._known(image)) is not None:
                media.append(known)
                break
            if len(media) == MAX_MEDIA_DEPTH or any(image.path == one.path for one in media):
                raise _too_deep(image.path)
            media.append(_medium(image))
            image, known = self._parent(image, places) if image.facts.differencing else (None, None)
            media += [known] if known else []
        linked = [dataclasses.replace(one, parent=below.uuid) for one, below in itertools.pairwise(media)]
        return [*linked, media[-1]]

    def _known(self, image: _Image) -> Medium | None:
        known = self._files.get(image.identity)
        if known is not None:
            require_same(known, image.facts, image.path)
        elif (other := self._tree.media.get(image.uuid or NULL_UUID)) is not None:
            raise duplicate(other, image.path)
        return known

    def _parent(self, image: _Image, places: ParentSearch) -> tuple[_Image | None, Medium | None]:
        """The parent: the file that was found, or the medium that it must be."""
        wanted = Wanted(image_file(image.path), image.facts)
        if (known := self._tree.media.get(image.facts.parent_uuid)) is not None:
            self._check_fresh(wanted, known.path, known.format)
            return None, known
        try:
            found = places.find(wanted)
        except StorageError:
            if (known := self._named(image)) is not None:
                return None, known
            raise
        if not self._allow_stale:
            check_fresh(wanted, found.path, found.facts)
        return _look(found.path, found.format_name), None

    def _named(self, image: _Image) -> Medium | None:
        """The only medium without a UUID of its own that has the parent's name."""
        wanted = image.facts.parent_uuid
        named = [
            one
            for one in self._tree.media.values()
            if wanted == identity_uuid(ImageFacts(one.format, one.variant, one.size), image_file(one.path))
        ]
        return named[0] if len(named) == 1 else None

    def _check_fresh(self, child: Wanted, path: str, format_name: str) -> None:
        if self._allow_stale or not os.path.exists(path):
            return
        with open_image(path, format_name, lock=False) as parent:
            check_fresh(child, path, parent.layer.facts)


def _machine_folder(path: str) -> list[str]:
    """A machine keeps its diffs in a folder Snapshots beside their base (2.8)."""
    folder = os.path.dirname(os.path.realpath(path))
    return [os.path.dirname(folder)] if os.path.basename(folder) == "Snapshots" else []


def _look(path: str, format_name: str | None) -> _Image:
    with open_image(path, format_name, lock=False) as image:
        real = os.path.realpath(path)
        return _Image(real, image.layer.facts, _identity(image))


def _identity(image: OpenedImage) -> FileIdentity:
    return image.identity[0]


def file_identity(path: str) -> FileIdentity | None:
    """Device and inode of an image's file, as it is now."""
    try:
        status = os.stat(image_file(path))
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _medium(image: _Image) -> Medium:
    facts = image.facts
    return Medium(
        image.uuid or uuid4(),
        image.path,
        facts.format,
        DeviceType.DISK,
        MediumType.NORMAL,
        None,
        facts.size,
        facts.variant,
        description=facts.comment,
    )


def require_unknown(tree: MediaTree, new: Medium) -> None:
    """E25: neither the UUID nor the place of a new medium is known. Raises StorageError (STATE)."""
    known = tree.media.get(new.uuid)
    if known is not None and known.path != new.path:
        raise duplicate(known, new.path)
    if any(one.path == new.path for one in tree.media.values()):
        raise StorageError(
            ErrorKind.STATE, "this image is registered already", path=new.path, operation="register a medium"
        )


def duplicate(known: Medium, path: str) -> StorageError:
    """The error for a second file with a medium's UUID, with the three ways out."""
    gone = "" if os.path.lexists(known.path) else " (which is gone)"
    return StorageError(
        ErrorKind.STATE,
        f"its UUID {{{known.uuid}}} is that of the medium {known.path}{gone}. If that was moved here: "
        f"drivebay medium relink {known.uuid} {quote(path)}. If this is a copy: drivebay medium adopt "
        f"{quote(path)} (it gets a new UUID). If this takes the other's place: drivebay medium replace "
        f"{quote(path)}",
        path=path,
        operation="register a medium",
    )


def _too_deep(path: str) -> StorageError:
    return StorageError(
        ErrorKind.STATE,
        f"a chain may have {MAX_MEDIA_DEPTH} images, and must not run in a circle; merge some of them",
        path=path,
        operation="register a medium",
    )
