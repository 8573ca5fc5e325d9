"""One disk in service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from drivebay.engine.disk import Disk
from drivebay.exports import Export
from drivebay.service.worker.messages import error_to_json
from drivebay.service.worker.spec import DiskSpec


@dataclass(slots=True, eq=False)
class Slot:
    """``spec`` is what the disk consists of now; ``owner`` is whoever changes it, or holds it."""

    spec: DiskSpec
    export: Export
    owner: object = None

    @property
    def disk(self) -> Disk:
        """The opened chain."""
        return self.export.disk

    def format_of(self, number: int) -> str | None:
        """The format of image ``number`` from the top, where its content shall not decide."""
        formats = self.spec.formats
        return (formats[number] or None) if number < len(formats) else None

    def status(self) -> dict[str, Any]:
        """What the disk is and has done, as JSON values."""
        disk, stats, spec, gate, faults = (
            self.disk,
            self.disk.stats,
            self.spec,
            self.export.gate,
            self.export.faults,
        )
        return {
            "paths": list(spec.paths),
            "size": disk.size,
            "depth": disk.depth,
            "writable": disk.writable,
            "cache": spec.cache.value,
            "group": spec.group,
            "reads": stats.reads,
            "writes": stats.writes,
            "zeros": stats.zeros,
            "discards": stats.discards,
            "flushes": stats.flushes,
            "read_bytes": stats.read_bytes,
            "written_bytes": stats.written_bytes,
            "bytes": stats.read_bytes + stats.written_bytes,
            "errors": faults.count,
            "last_error": None
            if faults.last is None
            else {**error_to_json(faults.last), "when": faults.when},
            "limit": gate.bandwidth.limit,
            "throttled": gate.waiting,
            "held": self.owner is not None,
        }
