"""Media and their uses as rows of the registry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, delete, insert, select

from drivebay.registry import schema
from drivebay.registry.medium import DeviceType, MediaTree, Medium, MediumType, Use


def load_tree(connection: Connection) -> MediaTree:
    """All media and uses that the connection's transaction sees."""
    media = map(_medium, connection.execute(select(schema.media)))
    return MediaTree.of(media, map(_use, connection.execute(select(schema.uses))))


def store_medium(connection: Connection, medium: Medium) -> None:
    """Add a medium, or change the one with this UUID."""
    connection.execute(insert(schema.media).prefix_with("OR REPLACE").values(**_row(medium)))


def drop_medium(connection: Connection, uuid: UUID) -> None:
    """Forget a medium."""
    connection.execute(delete(schema.media).where(schema.media.c.uuid == str(uuid)))


def store_uses(connection: Connection, machine: UUID, uses: Iterable[Use]) -> None:
    """These are all the uses of a machine now."""
    connection.execute(delete(schema.uses).where(schema.uses.c.machine == str(machine)))
    rows = [
        {"medium": str(use.medium), "machine": str(machine), "snapshot": _text(use.snapshot)} for use in uses
    ]
    if rows:
        connection.execute(insert(schema.uses), rows)


def _row(medium: Medium) -> dict[str, Any]:
    return {
        "uuid": str(medium.uuid),
        "path": medium.path,
        "format": medium.format,
        "device": medium.device.value,
        "type": medium.type.value,
        "parent": _text(medium.parent),
        "size": medium.size,
        "variant": medium.variant,
        "auto_reset": medium.auto_reset,
        "merging": medium.merging,
        "description": medium.description,
    }


def _medium(row: Row[Any]) -> Medium:
    return Medium(
        UUID(row.uuid),
        row.path,
        row.format,
        DeviceType(row.device),
        MediumType(row.type),
        _uuid(row.parent),
        row.size,
        row.variant,
        bool(row.auto_reset),
        bool(row.merging),
        row.description,
    )


def _use(row: Row[Any]) -> Use:
    return Use(UUID(row.medium), UUID(row.machine), _uuid(row.snapshot))


def _text(uuid: UUID | None) -> str | None:
    return None if uuid is None else str(uuid)


def _uuid(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)
