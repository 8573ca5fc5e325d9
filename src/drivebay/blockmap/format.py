"""What a format module offers: a record of functions that turn bytes into layers and back."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from drivebay.blockmap.layer import Layer
from drivebay.model import UNDECIDED, Finding, Geometry


class Match(enum.IntEnum):
    """How sure a probe is."""

    NO = 0
    MAYBE = 1
    YES = 2


class Files(Protocol):
    """The only way for a format to reach the bytes of an image; it does no other I/O."""

    @property
    def path(self) -> str:
        """The image's path, for messages and for formats that name themselves by it."""

    @property
    def size(self) -> int:
        """Bytes in the file when it was opened."""

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes at ``offset``; fewer only at the end of the file. Raises StorageError."""


@dataclass(frozen=True, slots=True)
class FileWrite:
    """Bytes to put at an offset of the new or edited file."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class FileExtent:
    """The file reaches to ``offset + length``; the range reads as zeros.

    With ``reserve`` the host's space is taken now, so that later writes there can't run out of it.
    """

    offset: int
    length: int
    reserve: bool = False


FileChange = FileWrite | FileExtent


@dataclass(frozen=True, slots=True)
class ParentLink:
    """What a new differencing image records about its parent."""

    uuid: UUID
    modification_uuid: UUID
    path: str


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """Create options that formats share; a format with more of them subclasses this.

    ``variant`` is one of the format's variants, ``None`` for its default; ``block_size`` in bytes.
    """

    variant: str | None = None
    block_size: int | None = None


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """An image to be made: ``size`` in bytes; ``parent`` makes it differencing."""

    size: int
    options: FormatOptions
    uuid: UUID
    modification_uuid: UUID
    parent: ParentLink | None = None
    comment: str = ""
    pchs: Geometry = UNDECIDED
    lchs: Geometry = UNDECIDED


@dataclass(frozen=True, slots=True)
class Format:
    """A plug-in record. A capability is the presence of a function, never a flag beside it.

    ``probe`` gets the first 4096 bytes (fewer if the file is shorter) and never raises. ``open`` and
    ``create`` raise StorageError; ``create`` yields the changes that make the file from an empty one.
    ``variants`` are the creatable ones, the default first.
    """

    name: str
    extensions: tuple[str, ...]
    probe: Callable[[bytes], Match]
    open: Callable[[Files], Layer]
    create: Callable[[CreateRequest], Iterator[FileChange]] | None = None
    check: Callable[[Files, Layer], Iterator[Finding]] | None = None
    variants: tuple[str, ...] = ()
    options: type[FormatOptions] = FormatOptions
