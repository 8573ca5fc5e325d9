"""The image formats, and which of them a file is in. A new format is one module and one line here."""

from __future__ import annotations

import os

from drivebay.blockmap import Format, Match
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import cue, dmg, parallels, qcow, qcow2, qed, raw, vdi, vhd, vhdx, vmdk

FORMATS: tuple[Format, ...] = (
    vdi.FORMAT,
    qed.FORMAT,
    parallels.FORMAT,
    qcow.FORMAT,
    qcow2.FORMAT,
    dmg.FORMAT,
    vhd.FORMAT,
    vhdx.FORMAT,
    vmdk.FORMAT,
    cue.FORMAT,
    raw.FORMAT,  # last: it matches everything
)


def format_named(name: str) -> Format:
    """The format called ``name``; raises StorageError (INVALID) that lists the known ones."""
    for candidate in FORMATS:
        if candidate.name == name.lower():
            return candidate
    known = ", ".join(candidate.name for candidate in FORMATS)
    raise StorageError(ErrorKind.INVALID, f"there is no format {name!r}; name one of: {known}")


def probe(head: bytes, tail: bytes, path: str) -> Format:
    """The format of the image that begins with ``head`` and ends with ``tail``, as `Format.probe` takes them.

    The content decides. A name that contradicts it raises StorageError: a guest that is given a raw
    disk could write another format's header into it, and so make the host open any file as its parent.
    For the same reason the name decides where the content looks like two formats: a fixed VHD begins
    with what its guest wrote, and other images end with that.
    """
    named = _format_of_extension(path)
    matching = [candidate for candidate in FORMATS if candidate.probe(head, tail) is Match.YES]
    if named is not None and named in matching:
        return named
    if len(matching) > 1:
        raise _ambiguous(matching, path)
    found = next(iter(matching), None)
    if found is None and named not in (None, raw.FORMAT):
        raise _without_header(named, path)
    if found is not None and named is raw.FORMAT:
        raise _header_in_raw(found, path)
    return found or raw.FORMAT


def _format_of_extension(path: str) -> Format | None:
    extension = os.path.splitext(path)[1].removeprefix(".").lower()
    return next((candidate for candidate in FORMATS if extension in candidate.extensions), None)


def _ambiguous(matching: list[Format], path: str) -> StorageError:
    names = " and ".join(candidate.name for candidate in matching)
    options = " or ".join(f"--format {candidate.name}" for candidate in matching)
    return StorageError(
        ErrorKind.INVALID,
        f"the content looks like {names} at once, one of which a guest may have written; say {options}",
        path=path,
        offset=0,
        operation="probe",
    )


def _without_header(named: Format, path: str) -> StorageError:
    return StorageError(
        ErrorKind.CORRUPT,
        f"the name says {named.name}, but the file has no {named.name} header; "
        "restore it from a copy, or say --format raw if it is a raw disk",
        path=path,
        offset=0,
        operation="probe",
    )


def _header_in_raw(found: Format, path: str) -> StorageError:
    return StorageError(
        ErrorKind.INVALID,
        f"the name says raw, but the content begins with a {found.name} header, which a guest may have "
        f"written; say --format {found.name} or --format raw",
        path=path,
        offset=0,
        operation="probe",
    )
