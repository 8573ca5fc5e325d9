"""Small Parallels images in memory: expanding files with any header field made wrong, and bundles."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from drivebay.formats import parallels
from drivebay.formats.parallels.header import MAGIC_1, MAGIC_2, Header
from support.memory_files import MemoryFiles

SECTORS = 8  # in a block
BLOCK = SECTORS * 512
TOP = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
ROOT = "{00000000-0000-0000-0000-000000000000}"
DESCRIPTOR = "DiskDescriptor.xml"

_SOUND = Header(
    magic=MAGIC_2,
    version=2,
    heads=1,
    cylinders=1,
    tracks=SECTORS,
    entries=4,
    sectors=4 * SECTORS,
    in_use=0x312E3276,
    data_offset=SECTORS,
    flags=0,
    extension=0,
)


def make_header(**fields: Any) -> Header:
    """The header of an image of four 4 KiB blocks in the newer layout, with ``fields`` changed."""
    return dataclasses.replace(_SOUND, **fields)


def make_image(table: Sequence[int] = (), *, blocks: int = 3, first: int = BLOCK, **fields: Any) -> bytes:
    """An image with these entries; ``blocks`` blocks of data from byte ``first`` on, block n all n + 1."""
    header = make_header(**fields)
    data = bytearray(first)
    data[:64] = header.pack()
    struct.pack_into(f"<{len(table)}I", data, 64, *table)
    for number in range(blocks):
        data += bytes([number + 1]) * header.block
    return bytes(data)


def make_old(table: Sequence[int] = (), *, tracks: int = 63, **fields: Any) -> bytes:
    """An image as VirtualBox makes it: the older layout, blocks of one track behind the table's sector."""
    fields = {
        "magic": MAGIC_1,
        "tracks": tracks,
        "sectors": 4 * tracks,
        "data_offset": 0,
        "in_use": 0,
    } | fields
    return make_image(table, first=512, **fields)


def guid(number: int) -> str:
    """The GUID of a snapshot."""
    return f"{{00000000-0000-0000-0000-{number:012}}}"


def make_descriptor(
    storages: Sequence[Mapping[str, str]],
    shots: Mapping[str, str],
    *,
    sectors: int = 4 * SECTORS,
    parameters: str = "",
    top: str = "",
    root: str = '<Parallels_disk_image Version="1.0">',
) -> bytes:
    """The descriptor of storages of one size: each maps a GUID to its file (.raw ones are plain)."""
    text = ['<?xml version="1.0" encoding="UTF-8"?>', root]
    text.append(
        f"<Disk_Parameters><Disk_size>{sectors}</Disk_size>{parameters}</Disk_Parameters><StorageData>"
    )
    each = sectors // max(len(storages), 1)
    for number, images in enumerate(storages):
        text.append(f"<Storage><Start>{number * each}</Start><End>{(number + 1) * each}</End>")
        text.append(f"<Blocksize>{SECTORS}</Blocksize>")
        for identifier, file in images.items():
            kind = "Plain" if file.endswith(".raw") else "Compressed"
            text.append(f"<Image><GUID>{identifier}</GUID><Type>{kind}</Type><File>{file}</File></Image>")
        text.append("</Storage>")
    text.append("</StorageData><Snapshots>" + (f"<TopGUID>{top}</TopGUID>" if top else ""))
    for identifier, parent in shots.items():
        text.append(f"<Shot><GUID>{identifier}</GUID><ParentGUID>{parent}</ParentGUID></Shot>")
    text.append("</Snapshots></Parallels_disk_image>")
    return "\n".join(text).encode()


def bundle(descriptor: bytes, files: Mapping[str, bytes] | None = None, part: str = "") -> MemoryFiles:
    """The gate to a bundle in memory."""
    return MemoryFiles(descriptor, DESCRIPTOR, dict(files or {}), part)


def image_of(files: MemoryFiles) -> Any:
    """The opened bundle as the interpreter takes it."""
    layer = parallels.FORMAT.open(files)
    return (layer, files.data, *(files.others[name] for name in layer.sources))
