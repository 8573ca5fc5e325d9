"""Attachments as JSON values, for the supervisor's protocol."""

from __future__ import annotations

import dataclasses
from typing import Any
from uuid import UUID

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import Attachment, Slot
from drivebay.registry.medium import DeviceType


def attachment_to_json(attachment: Attachment) -> dict[str, Any]:
    """``attachment`` as a JSON value."""
    value = dataclasses.asdict(attachment)
    value["device"] = attachment.device.value
    value["medium"] = None if attachment.medium is None else str(attachment.medium)
    return value


def attachment_from_json(value: Any) -> Attachment:
    """The reverse; raises StorageError (INVALID) for what isn't one."""
    try:
        fields = dict(value)
        slot = Slot(**fields.pop("slot"))
        device = DeviceType(fields.pop("device"))
        medium = fields.pop("medium")
        return Attachment(slot, device, None if medium is None else UUID(medium), **fields)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise StorageError(
            ErrorKind.INVALID,
            f"this is no attachment ({error}); see the supervisor's protocol in the manual",
            operation="control the machine",
        ) from error
