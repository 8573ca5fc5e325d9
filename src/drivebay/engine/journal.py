"""What makes changes of the tables safe: the journal strategies' interface, and the plain order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from drivebay.engine.change import Change
from drivebay.engine.metadata import MetadataFiles


class Journal(Protocol):
    """Brings stages of changes to the files so that a crash at any moment leaves whole tables."""

    marks: bool  # whether `arm` and `close` have something to do

    def arm(self) -> None:
        """Before the first write after opening."""

    def publish(self, stages: Sequence[Sequence[Change]]) -> None:
        """All changes are durable when this returns, each stage before the next. Empty ones cost nothing."""

    def close(self) -> None:
        """After the last `publish`."""


class OrderedJournal:
    """ORDERED: each stage is written in its place and synced before the next one begins."""

    marks = False

    def __init__(self, files: MetadataFiles) -> None:
        self._files = files

    def arm(self) -> None:
        """As `Journal.arm`: nothing to prepare."""

    def publish(self, stages: Sequence[Sequence[Change]]) -> None:
        """As `Journal.publish`."""
        for stage in stages:
            if stage:
                self._files.write_stage(stage)

    def close(self) -> None:
        """As `Journal.close`: nothing to tidy up."""
