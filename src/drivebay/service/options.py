"""How an image is to be opened, as a value. Imports little, so that the command line starts fast."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from drivebay.model import CacheMode

Path = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How an image and its parents are found and opened.

    ``format`` is the image's format where its content shall not decide; ``search`` holds folders and
    files where parents and an image's further files may be, beside the image's own folder; with
    ``allow_stale_parent`` a parent that changed behind its child is accepted; ``part`` is a snapshot
    in the image's file. With ``shared`` others may write the image, too (fixed-size disks only). ``parents``
    are exactly the files of its parents, the nearest first, where they are known, and ``parent_formats``
    their formats.
    """

    format: str | None = None
    search: Sequence[Path] = ()
    allow_stale_parent: bool = False
    cache: CacheMode = CacheMode.WRITEBACK
    part: str = ""
    shared: bool = False
    parents: Sequence[Path] | None = None
    parent_formats: Sequence[str | None] = ()


DEFAULT = OpenOptions()
