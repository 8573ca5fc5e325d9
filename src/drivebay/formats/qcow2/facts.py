"""What `info` tells of a QCOW2 image."""

from __future__ import annotations

from drivebay.blockmap import Files
from drivebay.formats.backing import our_format
from drivebay.formats.qcow2.bitmaps import BitmapDirectory, read_bitmaps
from drivebay.formats.qcow2.extensions import BACKING_FORMAT, extension_of, text_of
from drivebay.formats.qcow2.header import Autoclear, Compatible, Header, Incompatible
from drivebay.formats.qcow2.image import Image
from drivebay.model import ImageFacts, physical_geometry

_LISTED = 100


def facts_of(files: Files, image: Image, size: int) -> ImageFacts:
    """The facts of an image whose disk has ``size`` bytes."""
    header, backing = image.header, image.backing
    recorded = extension_of(image.extensions, BACKING_FORMAT)
    named = backing.format if backing else None
    named = named or (text_of(recorded) if recorded and backing else None)
    return ImageFacts(
        format="qcow2",
        variant=f"v{header.version}",
        size=size,
        block_size=header.cluster,
        differencing=backing is not None,
        pchs=physical_geometry(size),
        parent_names=(backing.path,) if backing else (),
        parent_format=our_format(named) if named else None,
        parts=() if image.chosen else tuple(snapshot.part() for snapshot in image.snapshots),
        details=_details(files, image),
    )


def _details(files: Files, image: Image) -> dict[str, int | str]:
    header = image.header
    details: dict[str, int | str] = {
        "compatibility": "0.10" if header.version == 2 else "1.1",
        "header length": header.length,
        "cluster size": header.cluster,
        "L1 entries": header.l1_size,
        "L1 offset": header.l1_offset,
        "reference count bits": header.refcount_bits,
        "refcount table offset": header.refcount_offset,
        "refcount table clusters": header.refcount_clusters,
        "compression": "zstd" if header.compression else "zlib",
        "incompatible features": _names(Incompatible(header.incompatible)),
        "compatible features": _bits(header.compatible, Compatible),
        "autoclear features": _bits(header.autoclear, Autoclear),
        "snapshots": header.snapshots,
    }
    if image.data_file is not None:
        details["data file"] = image.data_file
    if image.bitmaps is not None:
        details |= _bitmap_details(files, header, image.bitmaps)
    return details


def _bitmap_details(files: Files, header: Header, directory: BitmapDirectory) -> dict[str, int | str]:
    names = [bitmap.name for bitmap, _ in zip(read_bitmaps(files, directory), range(_LISTED), strict=False)]
    more = f" and {directory.count - len(names)} more" if directory.count > len(names) else ""
    state = "consistent" if header.autoclear & Autoclear.BITMAPS else "stale"
    return {"bitmaps": ", ".join(names) + more, "state of the bitmaps": state}


def _names(flags: Incompatible) -> str:
    return ", ".join(str(flag.name).lower().replace("_", " ") for flag in flags) or "none"


def _bits(value: int, known: type[Compatible] | type[Autoclear]) -> str:
    names = [str(flag.name).lower().replace("_", " ") for flag in known if value & flag]
    names += [f"bit {bit}" for bit in range(64) if value >> bit & 1 and 1 << bit not in list(known)]
    return ", ".join(names) or "none"
