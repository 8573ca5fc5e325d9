"""A piece of metadata on its way to a file."""

from __future__ import annotations

from typing import NamedTuple


class Change(NamedTuple):
    """``data`` for ``offset`` of the active layer's source number ``source``."""

    source: int
    offset: int
    data: bytes
