"""The nouns as frozen values. No I/O and no policy; byte quantities are bytes."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

NULL_UUID = UUID(int=0)
SECTOR = 512


class CacheMode(enum.Enum):
    """What a completed write promises, and whether the host's page cache is used."""

    WRITEBACK = "writeback"  # durable at the next flush
    WRITETHROUGH = "writethrough"  # durable when it completes
    UNSAFE = "unsafe"  # flushes are ignored: survives a killed process, not a power cut
    DIRECT = "direct"  # as writeback, but past the host's page cache (O_DIRECT)


class ExtentState(enum.Enum):
    """What a range of the virtual disk is. A zero hides the parent's data, an unallocated range shows it."""

    UNALLOCATED = "unallocated"  # in no layer: reads as zeros
    ZERO = "zero"  # some layer says "zeros here"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of the virtual disk in one state.

    ``depth`` is the layer that decides (0 = the top, the active image), ``None`` where no layer does;
    ``source`` and ``offset`` say where the bytes lie, for data only; compressed data have no offset.
    """

    start: int
    length: int
    state: ExtentState
    depth: int | None = None
    source: str | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Geometry:
    """Cylinders, heads and sectors per track; all zero means "not decided"."""

    cylinders: int
    heads: int
    sectors: int

    def __bool__(self) -> bool:
        return bool(self.cylinders and self.heads and self.sectors)


UNDECIDED = Geometry(0, 0, 0)


def physical_geometry(size: int) -> Geometry:
    """The default PCHS of a disk of ``size`` bytes (virtual-storage specification, 2.5)."""
    cylinders = min(size // SECTOR // 16 // 63, 16383)
    return Geometry(max(cylinders, 1), 16, 63)


class Severity(enum.Enum):
    """How much a finding matters: a note is no fault, a warning wastes or hints, an error loses data."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that ``check`` has to say; ``offset`` is in the image file."""

    severity: Severity
    code: str
    message: str
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A further image within an image's file: a snapshot. ``size`` in bytes, ``created`` in Unix seconds."""

    id: str
    name: str
    size: int
    created: float | None = None


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image's header says about it, whatever the format.

    ``differencing`` tells that unallocated blocks are the parent's. A parent is known by ``parent_uuid``
    (of formats that have UUIDs), or by ``parent_names``: paths as recorded, the best first, relative ones
    to the image's folder, with Windows paths already turned into ours. ``parent_part`` names the image
    within the parent's file, ``parent_format`` its format if that is recorded. ``content_id`` changes
    when the content does, in formats without modification UUIDs; a child records its parent's.
    ``parent_modified`` is when the parent's file was last changed, in seconds since 1970. ``parts``
    are the further images in the file (snapshots). ``details`` holds what only this format has.
    """

    format: str
    variant: str
    size: int
    block_size: int | None = None
    differencing: bool = False
    uuid: UUID = NULL_UUID
    modification_uuid: UUID = NULL_UUID
    parent_uuid: UUID = NULL_UUID
    parent_modification_uuid: UUID = NULL_UUID
    comment: str = ""
    pchs: Geometry = UNDECIDED
    lchs: Geometry = UNDECIDED
    sector_size: int = SECTOR
    parent_names: tuple[str, ...] = ()
    parent_part: str = ""
    parent_format: str | None = None
    content_id: int | None = None
    parent_content_id: int | None = None
    parent_modified: int | None = None
    parts: tuple[Part, ...] = ()
    details: Mapping[str, int | str] = field(default_factory=dict)
