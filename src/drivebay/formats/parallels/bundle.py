"""A bundle: a folder with a descriptor, and for each snapshot and stretch of the disk a file."""

from __future__ import annotations

import os
from uuid import UUID

from drivebay.blockmap import Files, Layer, WritePlan
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.parallels.descriptor import Descriptor, ImageFile, Storage, ancestors, read_descriptor
from drivebay.formats.parallels.extension import read_extension
from drivebay.formats.parallels.header import read_header
from drivebay.formats.parallels.layer import Piece, plan_of
from drivebay.model import NULL_UUID, SECTOR, Geometry, ImageFacts, Part, physical_geometry


def open_bundle(files: Files) -> Layer:
    """Describe one snapshot of a bundle, by its descriptor; the newest, where no part is named.

    Reads the descriptor and the headers of that snapshot's files. Raises StorageError.
    """
    descriptor = read_descriptor(files)
    chosen = _chosen(files, descriptor)
    names = [_file_of(files, storage, chosen) for storage in descriptor.storages]
    pieces = [
        _piece(files.beside(image.name), storage, number, image)
        for number, (storage, image) in enumerate(zip(descriptor.storages, names, strict=True), 1)
    ]
    plan, refusal = _plan(descriptor, chosen, pieces)
    return Layer(
        facts=_facts(files, descriptor, chosen, pieces),
        segments=tuple(piece.segment() for piece in pieces),
        plan=plan,
        refusal=refusal,
        sources=tuple(image.name for image in names),
    )


def _chosen(files: Files, descriptor: Descriptor) -> UUID:
    if not files.part:
        chosen = descriptor.top
    else:
        chosen = next((shot for shot in descriptor.shots if _is_named(shot, files.part)), NULL_UUID)
    if chosen == NULL_UUID:
        known = ", ".join(f"{{{shot}}}" for shot in descriptor.shots)
        message = f"the bundle has no snapshot {files.part!r}; name one of: {known}"
        raise StorageError(ErrorKind.NOT_FOUND, message, path=files.path, operation="open")
    seen: set[UUID] = set()
    for shot in ancestors(descriptor, chosen):
        if shot in seen or shot not in descriptor.shots:
            what = "is its own ancestor" if shot in seen else "is missing"
            raise _broken(files, f"the snapshot {{{shot}}} {what}")
        seen.add(shot)
    return chosen


def _is_named(shot: UUID, part: str) -> bool:
    return str(shot) == part.strip("{}").lower()


def _broken(files: Files, what: str) -> StorageError:
    message = f"Parallels disk descriptor: {what}; the descriptor is damaged: restore the bundle from a copy"
    return StorageError(ErrorKind.CORRUPT, message, path=files.path, offset=0, operation="open")


def _file_of(files: Files, storage: Storage, shot: UUID) -> ImageFile:
    if shot not in storage.images:
        raise _broken(files, f"the storage at sector {storage.start} has no image for {{{shot}}}")
    return storage.images[shot]


def _piece(file: Files, storage: Storage, source: int, image: ImageFile) -> Piece:
    start, length = storage.start * SECTOR, (storage.end - storage.start) * SECTOR
    if image.plain:
        _require_length(file, file.size, length)
        return Piece(start, length, source)
    header = read_header(file)
    _require_length(file, header.size, length)
    return Piece(start, length, source, header, read_extension(file, header))


def _require_length(file: Files, found: int, needed: int) -> None:
    if found < needed:
        message = (
            f"the file holds {found} bytes of the disk, but its bundle's descriptor says {needed}; "
            "restore the bundle from a copy"
        )
        raise StorageError(ErrorKind.CORRUPT, message, path=file.path, offset=0, operation="open")


def _plan(descriptor: Descriptor, chosen: UUID, pieces: list[Piece]) -> tuple[WritePlan | None, str | None]:
    if chosen != descriptor.top or chosen in descriptor.shots.values():
        return (
            None,
            "it is a snapshot, and what was made from it would change; open the bundle's newest state",
        )
    return plan_of(pieces)


def _facts(files: Files, descriptor: Descriptor, chosen: UUID, pieces: list[Piece]) -> ImageFacts:
    parent = descriptor.shots[chosen]
    size = descriptor.sectors * SECTOR
    block = next((piece.header.block for piece in pieces if piece.header), None)
    snapshots = [shot for shot in descriptor.shots if shot != descriptor.top]
    return ImageFacts(
        format="parallels",
        variant="bundle",
        size=size,
        block_size=block,
        differencing=parent != NULL_UUID,
        pchs=_possible(descriptor.geometry, size),
        parent_names=(os.path.basename(files.path),) if parent != NULL_UUID else (),
        parent_part=f"{{{parent}}}" if parent != NULL_UUID else "",
        parent_format="parallels" if parent != NULL_UUID else None,
        parts=tuple(Part(f"{{{shot}}}", f"{{{shot}}}", size) for shot in snapshots),
        details={
            "disk identifier": descriptor.identifier,
            "opened snapshot": f"{{{chosen}}}",
            "storages": len(descriptor.storages),
            "snapshots": len(snapshots),
        },
    )


def _possible(stored: Geometry, size: int) -> Geometry:
    fits = stored.cylinders * stored.heads * stored.sectors * SECTOR <= size
    if stored and stored.heads <= 16 and stored.sectors <= 63 and fits:
        return Geometry(min(stored.cylinders, 16383), stored.heads, stored.sectors)
    return physical_geometry(size)
