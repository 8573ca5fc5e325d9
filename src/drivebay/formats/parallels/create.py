"""New Parallels images: a single expanding file, or a bundle of a descriptor and one such file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from drivebay.blockmap import CreateRequest, FileChange, FileExtent, FileWrite, FormatOptions
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.parallels.descriptor import TOP
from drivebay.formats.parallels.header import (
    CLOSED,
    ENTRY_SIZE,
    HEADER_SIZE,
    MAGIC_1,
    MAGIC_2,
    MAX_BLOCK,
    VERSION,
    Header,
)
from drivebay.model import SECTOR, Geometry, physical_geometry

VARIANTS = ("dynamic", "bundle")
DESCRIPTOR_NAME = "DiskDescriptor.xml"
DEFAULT_BLOCK = 1 << 20
MIN_BLOCK = 4 << 10
_MOST_ENTRIES = (1 << 31) // ENTRY_SIZE - HEADER_SIZE  # QEMU takes no larger table
_MAGICS = {1: MAGIC_1, 2: MAGIC_2}
_DESCRIPTOR = """<?xml version="1.0" encoding="UTF-8"?>
<Parallels_disk_image Version="1.0">
    <Disk_Parameters>
        <Disk_size>{sectors}</Disk_size>
        <Cylinders>{geometry.cylinders}</Cylinders>
        <Heads>{geometry.heads}</Heads>
        <Sectors>{geometry.sectors}</Sectors>
        <Padding>0</Padding>
        <UID>{{{uuid}}}</UID>
    </Disk_Parameters>
    <StorageData>
        <Storage>
            <Start>0</Start>
            <End>{sectors}</End>
            <Blocksize>{block}</Blocksize>
            <Image>
                <GUID>{{{top}}}</GUID>
                <Type>Compressed</Type>
                <File>root.hds</File>
            </Image>
        </Storage>
    </StorageData>
    <Snapshots>
        <Shot>
            <GUID>{{{top}}}</GUID>
            <ParentGUID>{{00000000-0000-0000-0000-000000000000}}</ParentGUID>
        </Shot>
    </Snapshots>
</Parallels_disk_image>
"""


@dataclass(frozen=True, slots=True)
class ParallelsOptions(FormatOptions):
    """What a Parallels image can be asked for."""

    version: int = field(
        default=2,
        metadata={"help": "1: the older layout, whose disks end below 2 TiB; 2: the newer, of any size"},
    )


def create(request: CreateRequest) -> Iterator[FileChange]:
    """The changes that make the image; what makes it one (header, descriptor) comes last.

    A bundle is a folder of the image's name. Raises StorageError (INVALID) at once for what Parallels
    can't be.
    """
    variant = request.options.variant or VARIANTS[0]
    _require(variant in VARIANTS, f"Parallels has no variant {variant!r}; use {' or '.join(VARIANTS)}")
    _require(
        request.parent is None,
        "a Parallels image has its parent only within a bundle: give the bundle itself as the parent, "
        "or create a qcow2 or vdi child instead",
    )
    _require(not request.comment, "Parallels holds no comment; leave it out")
    options = request.options
    header = new_header(
        request.size,
        options.block_size or DEFAULT_BLOCK,
        options.version if isinstance(options, ParallelsOptions) else 2,
        request.pchs,
    )
    return _bundle(request, header) if variant == "bundle" else empty_file(header, "")


def empty_file(header: Header, file: str) -> Iterator[FileChange]:
    """The changes that make a file of absent blocks."""
    yield FileExtent(0, header.first_block, file=file)
    yield FileWrite(0, header.pack(), file=file)


def _bundle(request: CreateRequest, header: Header) -> Iterator[FileChange]:
    yield from empty_file(header, f"{request.name}/root.hds")
    text = _DESCRIPTOR.format(
        sectors=header.sectors,
        geometry=request.pchs or _exact_geometry(header.sectors),
        uuid=request.uuid,
        block=header.tracks,
        top=TOP,
    )
    yield FileWrite(0, text.encode(), file=f"{request.name}/{DESCRIPTOR_NAME}")


def _exact_geometry(sectors: int) -> Geometry:
    """Cylinders, heads and sectors whose product is the disk's size, as the descriptor demands."""
    per_track = next(count for count in range(63, 0, -1) if sectors % count == 0)
    tracks = sectors // per_track
    heads = next(count for count in range(16, 0, -1) if tracks % count == 0)
    return Geometry(tracks // heads, heads, per_track)


def new_header(size: int, block: int, version: int, geometry: Geometry) -> Header:
    """The header of a new file for ``size`` bytes of a disk, whose geometry may be undecided.

    Raises StorageError (INVALID) for what Parallels can't be.
    """
    _require(version in _MAGICS, f"Parallels has no layout {version}; use 1 or 2")
    _require(
        MIN_BLOCK <= block <= MAX_BLOCK and block % SECTOR == 0,
        f"a block size of {block} is not possible; use a multiple of {SECTOR} from 4 KiB to 64 MiB",
    )
    entries = _entries(size, block, version)
    geometry = geometry or physical_geometry(size)
    table_end = HEADER_SIZE + ENTRY_SIZE * entries
    return Header(
        magic=_MAGICS[version],
        version=VERSION,
        heads=geometry.heads,
        cylinders=geometry.cylinders,
        tracks=block // SECTOR,
        entries=entries,
        sectors=size // SECTOR,
        in_use=CLOSED,
        data_offset=(table_end + -table_end % block) // SECTOR,
        flags=0,
        extension=0,
    )


def _entries(size: int, block: int, version: int) -> int:
    most = _MOST_ENTRIES * block
    if version == 1:
        most = min(most, 0xFFFFFFFF * SECTOR)
    _require(
        size % SECTOR == 0 and 0 < size <= most,
        f"a Parallels image of {size} bytes is not possible; give a multiple of {SECTOR} up to {most}",
    )
    return -(-size // block)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise StorageError(ErrorKind.INVALID, message, operation="create")
