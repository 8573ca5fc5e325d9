"""Whether a machine's disks are fit to be written by it (virtual-storage specification, 4.5, E64)."""

from __future__ import annotations

from collections.abc import Iterator

from drivebay.machines.model import Attachment, Machine
from drivebay.registry.medium import ALWAYS_DIFFED, DeviceType, MediaTree


def faults(machine: Machine, tree: MediaTree) -> list[str]:
    """What keeps the machine from being started, each with the way out; empty if nothing does."""
    found = [fault for at in machine.hardware.attachments for fault in _faults_at(tree, at)]
    seen: dict[object, Attachment] = {}
    for at in machine.hardware.attachments:
        if at.medium is None or at.device is DeviceType.DVD:
            continue
        first = seen.setdefault(at.medium, at)
        if first is not at:
            found.append(f"{first.slot} and {at.slot} hold the same medium; detach one of them")
    return found


def _faults_at(tree: MediaTree, at: Attachment) -> Iterator[str]:
    if at.medium is None:
        return
    if at.medium not in tree.media:
        yield (
            f"{at.slot} holds medium {at.medium}, which is not registered; register its file "
            "(drivebay medium add), or detach it"
        )
        return
    medium = tree.get(at.medium)
    if medium.parent is None and medium.type in ALWAYS_DIFFED:
        yield (
            f"{at.slot} holds {medium.path}, whose type is {medium.type.value}, without a differencing "
            "image; "
            "detach it, and attach it again"
        )
    if at.device is DeviceType.DISK and tree.children(medium.uuid):
        yield (
            f"{at.slot} holds {medium.path}, which must not be written, as other images build on it; "
            "detach it, and attach it again to get a differencing image"
        )
