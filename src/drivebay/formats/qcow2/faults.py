"""Faults of one kind, counted: the first is shown, the rest are a number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from drivebay.model import Finding, Severity

MESSAGES = {
    "outside": (Severity.ERROR, "entries that point outside of the file"),
    "unaligned": (Severity.ERROR, "entries that point to no boundary of a cluster"),
    "cut": (Severity.ERROR, "tables of which the file doesn't have all"),
    "impossible": (Severity.ERROR, "entries of a kind that this image can't have"),
    "misplaced": (Severity.ERROR, "entries that don't have their block's own place in the data file"),
    "overlap": (Severity.ERROR, "clusters of tables that something else uses, too"),
    "snapshot": (Severity.ERROR, "snapshots whose tables can't be read"),
    "bitmap": (Severity.ERROR, "bitmaps whose tables can't be read"),
    "refcount-table": (Severity.ERROR, "refcount table entries that point to no block of their own"),
    "refcount-low": (Severity.ERROR, "clusters that are used more often than their reference count says"),
    "owned-wrongly": (Severity.ERROR, "entries that say their cluster is used once, but it is shared"),
    "leak": (Severity.WARNING, "clusters whose reference count is higher than their use"),
}


@dataclass(slots=True)
class Faults:
    """How often each kind was seen, and where first (an offset in the file)."""

    seen: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, code: str, offset: int, times: int = 1) -> None:
        """Count ``times`` faults, the first of them at ``offset``."""
        if times:
            count, first = self.seen.get(code, (0, offset))
            self.seen[code] = count + times, first

    @property
    def errors(self) -> set[str]:
        """The kinds of errors that were seen."""
        return {code for code in self.seen if MESSAGES[code][0] is Severity.ERROR}

    def findings(self) -> Iterator[Finding]:
        """One finding for each kind."""
        for code, (severity, message) in MESSAGES.items():
            if code in self.seen:
                count, first = self.seen[code]
                yield Finding(severity, code, f"{message}: {count}; the first is at offset {first}", first)
