"""The machine file ``<folder>/<name>.drivebay``: a machine and the media it builds on, as JSON.

It holds all that the registry knows of a machine, so that the registry can be made anew from these files.
Paths are relative to the machine's folder where they lead below it, so that the folder may be moved.
Keys that this version doesn't know are kept when the file is written again.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.consistency import require_consistent
from drivebay.machines.encoding import decode, encode, keep_unknown
from drivebay.machines.model import Attachment, Machine
from drivebay.registry.document import medium_from_document, medium_to_document
from drivebay.registry.medium import MediaTree, Medium

VERSION = 1
EXTENSION = ".drivebay"


def document_path(machine: Machine) -> str:
    """Where a machine's file is."""
    return os.path.join(machine.folder, machine.name + EXTENSION)


def to_document(
    machine: Machine, media: Iterable[Medium], previous: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The document; ``previous`` is the one that it takes the place of."""
    body = encode(machine)
    del body["folder"]  # it is where the file is
    listed = [_encode_medium(medium, machine.folder) for medium in media]
    document = {"drivebay": VERSION, "machine": body, "media": listed}
    kept: dict[str, Any] = keep_unknown(document, previous)
    return kept


def from_document(document: object, folder: str) -> tuple[Machine, list[Medium]]:
    """The machine of a document that lies in ``folder``, and its media.

    Raises StorageError: CORRUPT; STATE where a newer drivebay wrote it.
    """
    if not isinstance(document, dict):
        raise _no_machine_file(folder, "it holds no JSON object")
    _require_version(document, folder)
    body = document.get("machine")
    if not isinstance(body, dict):
        raise _no_machine_file(folder, "it has no 'machine'")
    machine = decode(Machine, {**body, "folder": folder}, "machine")
    require_consistent(machine)
    return machine, [_read_medium(one, folder) for one in _listed(document, folder)]


def to_text(document: dict[str, Any]) -> str:
    """A document as it is kept; ASCII, as a file's name may be no Unicode."""
    return json.dumps(document, indent=1) + "\n"


def from_text(text: str, folder: str) -> dict[str, Any]:
    """The document that ``text`` holds. Raises StorageError (CORRUPT)."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise _no_machine_file(folder, "it is no JSON") from None
    if not isinstance(document, dict):
        raise _no_machine_file(folder, "it holds no JSON object")
    return document


def attachments_of(machine: Machine) -> Iterator[tuple[UUID | None, Attachment]]:
    """All attachments of the current state (None) and of the snapshots (their UUIDs)."""
    for at in machine.hardware.attachments:
        yield None, at
    for snapshot in machine.snapshots:
        for at in snapshot.hardware.attachments:
            yield snapshot.uuid, at


def media_of(machine: Machine, tree: MediaTree) -> list[Medium]:
    """The media that the machine and its snapshots build on, parents first."""
    found: dict[UUID, Medium] = {}
    for _, at in attachments_of(machine):
        if at.medium is not None:
            found |= {one.uuid: one for one in reversed(list(chain_of(tree, at.medium)))}
    return list(found.values())


def chain_of(tree: MediaTree, uuid: UUID | None) -> Iterator[Medium]:
    """A medium's chain as far as it is registered: a machine with a lost image must be kept, too."""
    while uuid is not None and (medium := tree.media.get(uuid)) is not None:
        yield medium
        uuid = medium.parent


def _encode_medium(medium: Medium, folder: str) -> dict[str, Any]:
    below = os.path.commonpath([medium.path, folder]) == folder
    return medium_to_document(medium, os.path.relpath(medium.path, folder) if below else None)


def _listed(document: dict[str, Any], folder: str) -> list[dict[str, Any]]:
    listed = document.get("media", [])
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise _no_machine_file(folder, "its 'media' is no list of objects")
    return listed


def _read_medium(data: dict[str, Any], folder: str) -> Medium:
    medium = medium_from_document(data)
    return dataclasses.replace(medium, path=os.path.normpath(os.path.join(folder, medium.path)))


def _require_version(document: dict[str, Any], folder: str) -> None:
    version = document.get("drivebay")
    if type(version) is not int or version < 1:
        raise _no_machine_file(folder, "it has no version ('drivebay')")
    if version > VERSION:
        raise StorageError(
            ErrorKind.STATE,
            f"this machine file was written by a newer drivebay (version {version}; this one knows "
            f"{VERSION}): nothing was changed. Install that drivebay again",
            path=folder,
            operation="read a machine file",
        )


def _no_machine_file(folder: str, why: str) -> StorageError:
    return StorageError(
        ErrorKind.CORRUPT,
        f"this is no machine file: {why}; take it from a backup, or make the machine anew",
        path=folder,
        operation="read a machine file",
    )
