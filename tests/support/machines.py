"""Machines and media as values, for tests of plans: short names in, whole values out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

from drivebay.machines.diffs import NewDiff
from drivebay.machines.model import Attachment, Hardware, Machine, Slot, Snapshot
from drivebay.registry.medium import DeviceType, MediaTree, Medium, MediumType, Use

NAMESPACE = UUID("6a3c0b9e-52f0-4c7e-9d5c-6c2f1d8a7e10")
SIZE = 16 << 20
START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def named(name: str) -> UUID:
    """The UUID that stands for ``name`` in a test."""
    return uuid5(NAMESPACE, name)


def medium(name: str, parent: str | None = None, **fields: object) -> Medium:
    """A VDI disk called ``name``, a diff if it has a parent."""
    made = Medium(
        named(name), f"/disks/{name}.vdi", "vdi", size=SIZE, parent=named(parent) if parent else None
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def disk(name: str, port: int = 0, **fields: object) -> Attachment:
    """The disk ``name`` at SATA:port:0."""
    return replace(Attachment(Slot("SATA", port), medium=named(name)), **fields)  # type: ignore[arg-type]


def machine(*attachments: Attachment, name: str = "vm", **fields: object) -> Machine:
    """A machine with these attachments."""
    made = Machine(named(name), name, f"/machines/{name}", Hardware(attachments=attachments))
    return replace(made, **fields)  # type: ignore[arg-type]


def snapshot(name: str, parent: str | None, *attachments: Attachment, state_file: str = "") -> Snapshot:
    """A snapshot that holds these attachments; later names are taken later."""
    taken = START + timedelta(seconds=int.from_bytes(name.encode()[-2:]))
    above = named(parent) if parent else None
    return Snapshot(named(name), name, taken, Hardware(attachments=attachments), above, state_file=state_file)


def uses_of(machine: Machine) -> list[Use]:
    """The uses that a machine's states make."""
    states = [(None, machine.hardware), *((one.uuid, one.hardware) for one in machine.snapshots)]
    return [
        Use(at.medium, machine.uuid, state)
        for state, hardware in states
        for at in hardware.attachments
        if at.medium is not None
    ]


def tree_of(media: Iterable[Medium], *machines: Machine) -> MediaTree:
    """The tree of ``media`` as the machines use them."""
    return MediaTree.of(media, [use for one in machines for use in uses_of(one)])


def with_diffs(tree: MediaTree, diffs: Iterable[NewDiff], *machines: Machine) -> MediaTree:
    """The tree once the diffs are made, as the machines then use it."""
    return tree_of([*tree.media.values(), *(diff.medium for diff in diffs)], *machines)


__all__ = [
    "SIZE",
    "START",
    "DeviceType",
    "MediumType",
    "disk",
    "machine",
    "medium",
    "named",
    "snapshot",
    "tree_of",
    "uses_of",
    "with_diffs",
]
