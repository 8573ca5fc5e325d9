"""All that opening a QCOW2 image reads: the header, its extensions, and what they lead to."""

from __future__ import annotations

from dataclasses import dataclass

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind
from drivebay.formats.backing import BackingName, backing_name
from drivebay.formats.qcow2.bitmaps import BitmapDirectory, find_directory
from drivebay.formats.qcow2.extensions import (
    DATA_FILE,
    Extension,
    extension_of,
    incompatible_names,
    read_extensions,
)
from drivebay.formats.qcow2.header import INCOMPATIBLE_PLACE, Header, Incompatible
from drivebay.formats.qcow2.rules import read_header, refusal
from drivebay.formats.qcow2.snapshots import Snapshot, check_table, find_snapshot, read_snapshots


@dataclass(frozen=True, slots=True)
class Image:
    """All that is read at open. ``chosen`` is the snapshot that is meant, ``None`` for the disk as it is."""

    header: Header
    extensions: tuple[Extension, ...]
    snapshots: tuple[Snapshot, ...]
    bitmaps: BitmapDirectory | None
    backing: BackingName | None
    data_file: str | None
    chosen: Snapshot | None = None


def read_image(files: Files) -> Image:
    """What the image says about itself, validated. Raises StorageError."""
    header = read_header(files)
    extensions = read_extensions(files, header)
    _check_features(files, header, extensions)
    snapshots = tuple(read_snapshots(files, header))
    chosen = find_snapshot(files, snapshots, files.part) if files.part else None
    if chosen is not None:
        check_table(files, header, chosen)
    bitmaps = find_directory(files, header, extensions)
    data_file = _data_file(files, header, extensions)
    return Image(header, extensions, snapshots, bitmaps, _backing(files, header), data_file, chosen)


def _check_features(files: Files, header: Header, extensions: tuple[Extension, ...]) -> None:
    unknown = header.incompatible & ~sum(Incompatible)
    if unknown:
        names = incompatible_names(extensions)
        bits = [bit for bit in range(64) if unknown >> bit & 1]
        shown = ", ".join(f"{names.get(bit, 'without a name')} (bit {bit})" for bit in bits)
        what = f"QCOW2 header: the image needs features that drivebay doesn't know: {shown}"
        raise refusal(files, what, INCOMPATIBLE_PLACE, ErrorKind.UNSUPPORTED)


def _backing(files: Files, header: Header) -> BackingName | None:
    if header.backing_offset == 0:
        return None
    raw = files.read(header.backing_offset, header.backing_length)
    return backing_name(raw, files, header.backing_offset) if raw else None


def _data_file(files: Files, header: Header, extensions: tuple[Extension, ...]) -> str | None:
    if not header.has_data_file:
        return None
    extension = extension_of(extensions, DATA_FILE)
    if extension is None:
        what = "QCOW2 header: the data are in a second file, whose name is not recorded"
        raise refusal(files, what, INCOMPATIBLE_PLACE, ErrorKind.UNSUPPORTED)
    return backing_name(extension.data, files, extension.offset).path
