"""Rules about the fields of a header, which must hold before anything in the file is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from drivebay.blockmap import Files
from drivebay.errors import ErrorKind, StorageError

H = TypeVar("H")

_REMEDIES = {
    ErrorKind.CORRUPT: "the header is damaged: restore the image from a copy",
    ErrorKind.UNSUPPORTED: "convert the image with the tool that wrote it",
}


class Rule(NamedTuple, Generic[H]):
    """``holds`` must be true of a header and its file's size in bytes; later rules rely on earlier ones.

    The message names ``label`` and the value of the header's ``field``, and then says what is demanded; the
    error carries ``offset``, counted from the header's first byte.
    """

    field: str
    label: str
    offset: int
    holds: Callable[[H, int], bool]
    demand: str
    kind: ErrorKind = ErrorKind.CORRUPT


@dataclass(frozen=True, slots=True)
class HeaderRefusals:
    """The errors about one header: ``name`` is what they call it, ``remedies`` the way out, by kind."""

    name: str
    remedies: Mapping[ErrorKind, str] = field(default_factory=lambda: _REMEDIES)

    def refusal(
        self, files: Files, what: str, offset: int, kind: ErrorKind = ErrorKind.CORRUPT
    ) -> StorageError:
        """The error that ends opening, with the way out."""
        message = f"{what}; {self.remedies[kind]}"
        return StorageError(kind, message, path=files.path, offset=offset, operation="open")

    def require_length(self, files: Files, data: bytes, wanted: int) -> None:
        """Raises CORRUPT where ``data``, from the file's beginning, is not the whole header."""
        if len(data) < wanted:
            what = f"the file ends within the {self.name}, after {len(data)} of {wanted} bytes"
            raise self.refusal(files, what, len(data))

    def require(
        self, rules: Iterable[Rule[H]], header: H, files: Files, base: int = 0, fields: object = None
    ) -> None:
        """Raises what the first rule demands that does not hold of the header at ``base``.

        ``fields`` has the fields, where the header that rules look at is put together from several.
        """
        for rule in rules:
            if not rule.holds(header, files.size):
                value = getattr(fields or header, rule.field)
                shown = repr(value) if isinstance(value, bytes) else value
                what = f"{self.name}: the {rule.label} is {shown}, but {rule.demand}"
                raise self.refusal(files, what, base + rule.offset, rule.kind)


def is_power(value: int, least: int, most: int) -> bool:
    """Whether ``value`` is a power of two within these limits."""
    return least <= value <= most and value & (value - 1) == 0
