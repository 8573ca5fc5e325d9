"""Media as values: what the registry knows of an image, and who uses it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError


class DeviceType(enum.Enum):
    """What a guest sees: a medium is for one kind of drive only."""

    DISK = "disk"
    DVD = "dvd"
    FLOPPY = "floppy"


class MediumType(enum.Enum):
    """The write mode of a base image (virtual-storage specification, 4.1). That of a diff is its base's."""

    NORMAL = "normal"
    IMMUTABLE = "immutable"
    WRITETHROUGH = "writethrough"
    SHAREABLE = "shareable"
    READONLY = "readonly"
    MULTIATTACH = "multiattach"


NEVER_DIFFED = frozenset({MediumType.WRITETHROUGH, MediumType.SHAREABLE, MediumType.READONLY})
ALWAYS_DIFFED = frozenset({MediumType.IMMUTABLE, MediumType.MULTIATTACH})


@dataclass(frozen=True, slots=True)
class Medium:
    """A registered image. ``path`` is absolute and real; ``size`` is what a guest sees, in bytes.

    ``parent`` makes it a diff. ``type`` is NORMAL for every diff. ``auto_reset`` is for diffs: forget
    everything at power-on (4.3). ``merging`` marks an image that no state of a machine uses any more: it
    is kept for its children, and merged with the last one that is left. ``uuid`` is the image's own where
    its format records one, else the registry gave it.
    """

    uuid: UUID
    path: str
    format: str
    device: DeviceType = DeviceType.DISK
    type: MediumType = MediumType.NORMAL
    parent: UUID | None = None
    size: int = 0
    variant: str = ""
    auto_reset: bool = False
    merging: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """A medium is attached in a machine's current state, or (with ``snapshot``) in a snapshot of it."""

    medium: UUID
    machine: UUID
    snapshot: UUID | None = None


@dataclass(frozen=True)
class MediaTree:
    """All media and all their uses at one moment. A value: changing it makes no change in the registry."""

    media: Mapping[UUID, Medium] = field(default_factory=dict)
    uses: tuple[Use, ...] = ()

    @classmethod
    def of(cls, media: Iterable[Medium], uses: Iterable[Use] = ()) -> MediaTree:
        """The tree of these media."""
        return cls({medium.uuid: medium for medium in media}, tuple(uses))

    @cached_property
    def _children(self) -> dict[UUID, list[Medium]]:
        children: dict[UUID, list[Medium]] = {}
        for medium in self.media.values():
            if medium.parent is not None:
                children.setdefault(medium.parent, []).append(medium)
        return children

    @cached_property
    def _uses(self) -> dict[UUID, list[Use]]:
        uses: dict[UUID, list[Use]] = {}
        for use in self.uses:
            uses.setdefault(use.medium, []).append(use)
        return uses

    def get(self, uuid: UUID) -> Medium:
        """The medium with this UUID. Raises StorageError (NOT_FOUND)."""
        try:
            return self.media[uuid]
        except KeyError:
            raise StorageError(
                ErrorKind.NOT_FOUND,
                f"no medium {{{uuid}}} is registered; drivebay medium list shows those that are",
                operation="look up a medium",
            ) from None

    def children(self, uuid: UUID) -> list[Medium]:
        """The diffs directly on a medium."""
        return self._children.get(uuid, [])

    def chain(self, uuid: UUID) -> Iterator[Medium]:
        """A medium and its ancestors, the base last. An unregistered parent raises StorageError."""
        medium = self.get(uuid)
        yield medium
        while medium.parent is not None:
            medium = self.get(medium.parent)
            yield medium

    def base(self, uuid: UUID) -> Medium:
        """The base of a medium's chain: its type is the write mode of all above it."""
        *_, base = self.chain(uuid)
        return base

    def uses_of(self, uuid: UUID) -> list[Use]:
        """Where a medium itself (not a child of it) is attached."""
        return self._uses.get(uuid, [])
