"""Marks: what an image's header says about being written."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Sequence

from drivebay.blockmap import Mark, MarkKind
from drivebay.engine.change import Change
from drivebay.engine.metadata import MetadataFiles


class Marks:
    """The marks of one write plan."""

    def __init__(self, marks: Sequence[Mark], files: MetadataFiles) -> None:
        self._marks = marks
        self._files = files

    @property
    def any(self) -> bool:
        """Whether there are marks."""
        return bool(self._marks)

    def open(self) -> None:
        """Change all marks, durably, before the first write."""
        if self._marks:
            self._files.write_stage(
                [Change(mark.source, mark.offset, _opening(mark)) for mark in self._marks]
            )

    def changes(self) -> list[Change]:
        """What changes with each flush that has something to flush."""
        return [
            Change(mark.source, mark.offset, _opening(mark))
            for mark in self._marks
            if mark.kind is MarkKind.RANDOM_UUID
        ]

    def close(self) -> None:
        """Take back, durably, what said "in use"."""
        changes = [Change(mark.source, mark.offset, mark.closed) for mark in self._marks if mark.closed]
        if changes:
            self._files.write_stage(changes)


def _opening(mark: Mark) -> bytes:
    match mark.kind:
        case MarkKind.RANDOM_UUID:
            return uuid.uuid4().bytes_le
        case MarkKind.RANDOM_HEX:
            return secrets.token_hex(4)[: mark.digits].encode()
        case MarkKind.FIXED:
            return mark.opened
