"""DiskDescriptor.xml, the text that holds a Parallels bundle together (QEMU's "Parallels Disk Format")."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID
from xml.etree.ElementTree import Element

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.parallels.xmltree import XmlError, parse
from drivebay.model import NULL_UUID, Geometry

ROOT = "Parallels_disk_image"
TOP = UUID("5fbaabe3-6958-40ff-92a7-860e329aab41")  # the active image, where nothing names another one
MAX_SIZE = 4 << 20
_MOST_STORAGES = 1000
_GUID = re.compile(r"\{?([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})\}?")
_NUMBER = re.compile(r"[0-9]{1,18}")
_DAMAGED = "the descriptor is damaged: restore the bundle from a copy"
_UNKNOWN = "convert the disk with the program that wrote it"


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file of a storage; ``plain`` ones hold the bytes as they are, the others expand."""

    name: str
    plain: bool


@dataclass(frozen=True, slots=True)
class Storage:
    """Sectors ``start .. end`` of the disk: one file for each snapshot. ``block`` in sectors."""

    start: int
    end: int
    block: int
    images: dict[UUID, ImageFile]


@dataclass(frozen=True, slots=True)
class Descriptor:
    """The storages cover ``sectors`` in order. ``shots`` has each snapshot's parent, or the null UUID."""

    sectors: int
    geometry: Geometry
    identifier: str
    storages: tuple[Storage, ...]
    shots: dict[UUID, UUID]
    top: UUID


class _DescriptorError(Exception):
    """What is wrong; it becomes a StorageError that names the file."""

    def __init__(self, message: str, kind: ErrorKind = ErrorKind.CORRUPT) -> None:
        super().__init__(message)
        self.kind = kind


def read_descriptor(files: Files) -> Descriptor:
    """Parse and check the descriptor; opens no other file. Raises StorageError (CORRUPT, UNSUPPORTED)."""
    return parse_descriptor(files.read(0, MAX_SIZE + 1), files.path)


def parse_descriptor(data: bytes, path: str) -> Descriptor:
    """As `read_descriptor`, of the text itself; ``path`` is for messages."""
    try:
        if len(data) > MAX_SIZE:
            raise _DescriptorError(f"it is longer than {MAX_SIZE} bytes, which no descriptor is")
        return _descriptor(parse(data))
    except (_DescriptorError, XmlError) as error:
        kind = error.kind if isinstance(error, _DescriptorError) else ErrorKind.CORRUPT
        remedy = _UNKNOWN if kind is ErrorKind.UNSUPPORTED else _DAMAGED
        message = f"Parallels disk descriptor: {error}; {remedy}"
        raise StorageError(kind, message, path=path, offset=0, operation="open") from None


def _descriptor(root: Element) -> Descriptor:
    if root.tag != ROOT:
        raise _DescriptorError(f"its root is <{root.tag[:80]}> instead of <{ROOT}>")
    _require_known(root)
    sectors = number(root, "Disk_Parameters/Disk_size")
    storages = sorted((_storage(element) for element in root.iterfind("StorageData/Storage")), key=_start)
    _check_cover(storages, sectors)
    shots = _shots(root)
    top = _top(root, storages, shots)
    shots.setdefault(top, NULL_UUID)
    return Descriptor(
        sectors, _geometry(root), _text(root, "Disk_Parameters/UID"), tuple(storages), shots, top
    )


def _require_known(root: Element) -> None:
    version = root.get("Version", "1.0")
    if version != "1.0":
        raise _DescriptorError(
            f"its version is {version[:80]!r}, but drivebay knows only 1.0", ErrorKind.UNSUPPORTED
        )
    for path, known in (("Padding", "0"), ("LogicSectorSize", "512")):
        value = _text(root, f"Disk_Parameters/{path}") or known
        if value != known:
            message = f"{path} is {value[:80]!r}, but drivebay knows only {known}"
            raise _DescriptorError(message, ErrorKind.UNSUPPORTED)
    engine = _text(root, "Disk_Parameters/Encryption/Engine")
    if engine.strip("{}-0"):
        raise _DescriptorError("the disk is encrypted", ErrorKind.UNSUPPORTED)


def _start(storage: Storage) -> int:
    return storage.start


def _storage(element: Element) -> Storage:
    images: dict[UUID, ImageFile] = {}
    for image in element.iterfind("Image"):
        identifier = guid(image, "GUID")
        if identifier in images:
            raise _DescriptorError(f"a storage has two images {{{identifier}}}")
        images[identifier] = _image_file(image)
    return Storage(number(element, "Start"), number(element, "End"), number(element, "Blocksize"), images)


def _image_file(image: Element) -> ImageFile:
    kind, name = _text(image, "Type"), _text(image, "File")
    if kind not in ("Plain", "Compressed"):
        raise _DescriptorError(f"an image is of the type {kind[:80]!r}; only Plain and Compressed are known")
    if not name or "\0" in name:
        raise _DescriptorError(f"an image's file is called {name[:80]!r}")
    return ImageFile(_local(name), kind == "Plain")


def _local(name: str) -> str:
    """The name as one of the bundle: an absolute path is where the bundle was when it was made."""
    if re.match(r"[A-Za-z]:[\\/]", name):
        return re.split(r"[\\/]", name)[-1]
    return name.rpartition("/")[2] if name.startswith("/") else name


def _check_cover(storages: list[Storage], sectors: int) -> None:
    if not sectors:
        raise _DescriptorError("Disk_size is 0")
    if not 0 < len(storages) <= _MOST_STORAGES:
        raise _DescriptorError(f"it has {len(storages)} storages; 1 to {_MOST_STORAGES} are possible")
    names = [image.name for storage in storages for image in storage.images.values()]
    if len(set(names)) < len(names):
        raise _DescriptorError("a file serves as two images")
    position = 0
    for storage in storages:
        if storage.start != position or storage.end <= storage.start:
            raise _DescriptorError(
                f"a storage goes from sector {storage.start} to {storage.end}, but {position} is next"
            )
        position = storage.end
    if position != sectors:
        raise _DescriptorError(f"the storages end at sector {position}, but Disk_size is {sectors}")


def _shots(root: Element) -> dict[UUID, UUID]:
    shots: dict[UUID, UUID] = {}
    for shot in root.iterfind("Snapshots/Shot"):
        identifier = guid(shot, "GUID")
        if identifier in shots:
            raise _DescriptorError(f"two snapshots are called {{{identifier}}}")
        shots[identifier] = guid(shot, "ParentGUID")
    return shots


def _top(root: Element, storages: list[Storage], shots: dict[UUID, UUID]) -> UUID:
    if root.find("Snapshots/TopGUID") is not None:
        return guid(root, "Snapshots/TopGUID")
    if TOP in shots or (not shots and TOP in storages[0].images):
        return TOP
    only = set(shots) or set(storages[0].images)
    if len(only) != 1:
        raise _DescriptorError("nothing tells which of its snapshots is the newest")
    return only.pop()


def _geometry(root: Element) -> Geometry:
    parts = (_text(root, f"Disk_Parameters/{name}") for name in ("Cylinders", "Heads", "Sectors"))
    return Geometry(*(int(part) if _NUMBER.fullmatch(part) else 0 for part in parts))


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def number(element: Element, path: str) -> int:
    """What an element below ``element`` says, which must be a number."""
    text = _text(element, path)
    if not _NUMBER.fullmatch(text):
        raise _DescriptorError(f"{path} is {text[:80]!r}, which is no number")
    return int(text)


def guid(element: Element, path: str) -> UUID:
    """What an element below ``element`` says, which must be a GUID."""
    text = _text(element, path)
    match = _GUID.fullmatch(text)
    if match is None:
        raise _DescriptorError(f"{path} is {text[:80]!r}, which is no GUID")
    return UUID(match[1])


def ancestors(descriptor: Descriptor, identifier: UUID) -> Iterator[UUID]:
    """The snapshot, its parent, and so on; a loop shows by an identifier that comes twice."""
    while identifier != NULL_UUID:
        yield identifier
        identifier = descriptor.shots.get(identifier, NULL_UUID)
