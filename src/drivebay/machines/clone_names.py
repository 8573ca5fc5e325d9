"""What a clone's images are called, where they lie and in which format (specification 7.2)."""

from __future__ import annotations

import os
import re
from uuid import UUID

from drivebay.formats import format_named
from drivebay.machines.diffs import DEFAULT_FORMAT, DIFFERENCING_FORMATS
from drivebay.machines.model import Machine
from drivebay.registry.medium import Medium

_UUID_NAME = re.compile(r"\{[0-9a-f-]{36}\}")
_NOT_FOR_COPIES = frozenset({"streamoptimized", "differencing"})


class CloneNames:
    """Gives each new image a path that no other image of the clone has."""

    def __init__(self, source: Machine, name: str, folder: str, *, keep: bool) -> None:
        self._source = source
        self._name = name
        self._folder = folder
        self._keep = keep
        self._taken: set[str] = set()
        self._number = 0

    def format_of(self, source: Medium, *, differencing: bool) -> tuple[str, str]:
        """The source's format and variant where a copy can be so, else VDI (raw for what is no disk)."""
        known = format_named(source.format)
        if known.create is None or (differencing and known.name not in DIFFERENCING_FORMATS):
            return DEFAULT_FORMAT, ""
        kept = [one for one in known.variants if one.lower() == source.variant.lower()]
        if not kept or differencing or kept[0].lower() in _NOT_FOR_COPIES:
            return known.name, ""
        return known.name, kept[0]

    def path_of(self, source: Medium, uuid: UUID, format_name: str) -> str:
        """The copy's path: below the snapshot folder if it is called by its UUID."""
        stem, extension = os.path.splitext(os.path.basename(source.path))
        if format_name != source.format or not extension:
            extension = f".{format_named(format_name).extensions[0]}"
        if _UUID_NAME.fullmatch(stem):
            return f"{self._folder}/Snapshots/{{{uuid}}}{extension}"
        return self._free(self._stem(stem), extension)

    def _stem(self, stem: str) -> str:
        if self._keep:
            return stem
        if stem == self._source.name:
            return self._name
        self._number += 1
        return f"{self._name}-disk{self._number}"

    def _free(self, stem: str, extension: str) -> str:
        path, number = f"{self._folder}/{stem}{extension}", 1
        while path in self._taken:
            number += 1
            path = f"{self._folder}/{stem} {number}{extension}"
        self._taken.add(path)
        return path
