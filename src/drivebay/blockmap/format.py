"""What a format module offers: a record of functions that turn bytes into layers and back."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from drivebay.blockmap.filechange import FileChange, FileEdit
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

    @property
    def part(self) -> str:
        """Which of the images in the file is meant (a snapshot's name or UUID); empty for the newest."""

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes at ``offset``; fewer only at the end of the file. Raises StorageError."""

    def beside(self, name: str) -> Files:
        """A second file of the image (an extent, a data file), by the name that the image records.

        The gate: a name that leads out of the image's folder is refused, unless the user granted the place.
        Raises StorageError.
        """


@dataclass(frozen=True, slots=True)
class RepairStep:
    """One thing that a repair would do, for the user to agree to; the file is whole before and after it.

    ``loses`` tells that data which could be read before can't be read afterwards.
    """

    message: str
    changes: tuple[FileEdit, ...]
    loses: bool = False


@dataclass(frozen=True, slots=True)
class HeaderEdit:
    """What is to change in an image's header; ``None`` leaves a field alone.

    The fields are called as in `ImageFacts`; ``parent_path`` is the parent's name, as it is to be recorded.
    """

    uuid: UUID | None = None
    modification_uuid: UUID | None = None
    parent_uuid: UUID | None = None
    parent_modification_uuid: UUID | None = None
    parent_path: str | None = None
    parent_format: str | None = None
    parent_content_id: int | None = None
    comment: str | None = None
    pchs: Geometry | None = None
    lchs: Geometry | None = None


@dataclass(frozen=True, slots=True)
class ParentLink:
    """What a new differencing image records about its parent.

    ``path`` is relative to the new image's folder, ``absolute`` is the whole path; ``content_id`` as in
    `ImageFacts`; ``format`` is the parent's format and ``sector_size`` its logical sectors' size.
    ``modified`` is when its file was last changed, in seconds since 1970, if it is not being written.
    """

    uuid: UUID
    modification_uuid: UUID
    path: str
    absolute: str = ""
    format: str = "raw"
    content_id: int | None = None
    sector_size: int = 512
    modified: int | None = None


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """Create options that formats share; a format with more of them subclasses this (frozen, slots).

    Each further field has a default, and a ``help`` text in its metadata: ``field(default=False,
    metadata={"help": "..."})``; its type is one of bool, int (bytes, written as people write sizes), str,
    or an enum of strings. ``variant`` is one of the format's variants, ``None`` for its default;
    ``block_size`` in bytes.
    """

    variant: str | None = None
    block_size: int | None = None


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """An image to be made: ``size`` in bytes; ``parent`` makes it differencing.

    ``name`` is the image's file name, without its folder: the names of further files come from it.
    """

    size: int
    options: FormatOptions
    uuid: UUID
    modification_uuid: UUID
    parent: ParentLink | None = None
    comment: str = ""
    pchs: Geometry = UNDECIDED
    lchs: Geometry = UNDECIDED
    name: str = ""


@dataclass(frozen=True, slots=True)
class Format:
    """A plug-in record. A capability is the presence of a function, never a flag beside it.

    ``probe`` gets the first 4096 bytes and the last 512 (fewer if the file is shorter), and never
    raises. ``open`` and ``create`` raise StorageError; ``create`` yields the changes that make the file
    from an empty one.
    ``variants`` are the creatable ones, the default first. ``check`` tells what is wrong, ``repair`` what
    it would do about it (nothing for a sound image), ``edit`` the changes that a header edit makes; it
    raises StorageError (UNSUPPORTED) for a field that the format doesn't have. ``snapshot`` is for images
    that keep earlier states beside the newest: what makes the newest state an earlier one, by the UUID, with
    an empty one on top. Its changes make new files; the image's own file, made anew, replaces the old one.
    """

    name: str
    extensions: tuple[str, ...]
    probe: Callable[[bytes, bytes], Match]
    open: Callable[[Files], Layer]
    create: Callable[[CreateRequest], Iterator[FileChange]] | None = None
    check: Callable[[Files, Layer], Iterator[Finding]] | None = None
    repair: Callable[[Files, Layer], Iterator[RepairStep]] | None = None
    edit: Callable[[Files, Layer, HeaderEdit], Iterator[FileEdit]] | None = None
    snapshot: Callable[[Files, Layer, UUID], Iterator[FileChange]] | None = None
    variants: tuple[str, ...] = ()
    options: type[FormatOptions] = FormatOptions
