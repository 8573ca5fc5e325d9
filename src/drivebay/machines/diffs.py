"""New differencing images, planned: what they are called, where they go, and on what they may be made."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid4

from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import format_named
from drivebay.registry.medium import NEVER_DIFFED, DeviceType, MediaTree, Medium, MediumType

MAX_MEDIA_DEPTH = 300  # the base counts (virtual-storage specification, 5.1)
DEFAULT_FORMAT = "vdi"
DIFFERENCING_FORMATS = frozenset({"vdi", "vmdk", "vhd", "vhdx", "qcow2", "qed"})
_SPLIT = {"twogbmaxextentsparse", "twogbmaxextentflat"}


@dataclass(frozen=True, slots=True)
class NewDiff:
    """A differencing image that is to be made at ``path`` (absolute); ``size`` in bytes, its parent's.

    ``variant`` is one that its format can create, empty for the default.
    """

    uuid: UUID
    parent: UUID
    path: str
    format: str
    size: int
    variant: str = ""
    auto_reset: bool = False

    @property
    def medium(self) -> Medium:
        """The medium that it becomes."""
        return Medium(
            self.uuid,
            self.path,
            self.format,
            parent=self.parent,
            size=self.size,
            variant=self.variant,
            auto_reset=self.auto_reset,
        )


def new_diff(tree: MediaTree, parent: UUID, folder: str, uuid: UUID | None = None) -> NewDiff:
    """The diff that goes on ``parent``, in ``folder`` (specification 5.2; 2.8 for its name).

    It has its parent's format where that can do diffs, else VDI; the variant is the parent's without what
    a diff can't be. It is reset at power-on if its base is immutable (4.2). Raises StorageError.
    """
    below = tree.get(parent)
    require_may_have_children(tree, below)
    name = below.format if below.format in DIFFERENCING_FORMATS else DEFAULT_FORMAT
    chosen = uuid or uuid4()
    return NewDiff(
        chosen,
        parent,
        f"{folder}/{{{chosen}}}.{format_named(name).extensions[0]}",
        name,
        below.size,
        _variant(below),
        tree.base(parent).type is MediumType.IMMUTABLE,
    )


def _variant(parent: Medium) -> str:
    return "twoGbMaxExtentSparse" if parent.format == "vmdk" and parent.variant.lower() in _SPLIT else ""


def require_may_have_children(tree: MediaTree, medium: Medium) -> None:
    """Whether a diff may be made on ``medium``. Raises StorageError (STATE)."""
    base = tree.base(medium.uuid)
    if medium.device is not DeviceType.DISK or base.type in NEVER_DIFFED:
        kind = medium.device.value if medium.device is not DeviceType.DISK else base.type.value
        raise _refused(
            medium,
            f"a {kind} medium can't have differencing images, as its contents change under them; "
            "set its type to normal first (drivebay medium set-type), or clone it",
        )
    if medium.merging:
        raise _refused(
            medium,
            "no state uses this image any more, and it is being merged with its child; "
            "run drivebay medium tidy and attach what is left, or clone the child",
        )
    if sum(1 for _ in tree.chain(medium.uuid)) >= MAX_MEDIA_DEPTH:
        raise _refused(
            medium,
            f"a chain may have {MAX_MEDIA_DEPTH} images, which this one has; delete snapshots, or clone it",
        )


def _refused(medium: Medium, message: str) -> StorageError:
    return StorageError(ErrorKind.STATE, message, path=medium.path, operation="make a differencing image")
