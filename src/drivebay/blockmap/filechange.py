"""Changes of an image's files, as formats ask for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileWrite:
    """Bytes to put at an offset of the new or edited file.

    ``file`` is the name of a second file of the image, beside it; empty for the image itself.
    """

    offset: int
    data: bytes
    file: str = ""


@dataclass(frozen=True, slots=True)
class FileExtent:
    """The file reaches to ``offset + length``; the range reads as zeros. ``file`` as in `FileWrite`.

    With ``reserve`` the host's space is taken now, so that later writes there can't run out of it.
    """

    offset: int
    length: int
    reserve: bool = False
    file: str = ""


@dataclass(frozen=True, slots=True)
class FileReplace:
    """The file's content is ``data`` from now on: after a crash it is the old one or this, whole.

    For small texts, which a write in place could tear; the file is made anew. Only edits do this.
    """

    data: bytes
    file: str = ""


@dataclass(frozen=True, slots=True)
class FileCopy:
    """The ``length`` bytes at ``source``, as they are when this is done, are put at ``offset`` as well.

    Both lie in the file ``file``; what it lacks of the source is zeros. Only repairs do this.
    """

    source: int
    offset: int
    length: int
    file: str = ""


FileChange = FileWrite | FileExtent
FileEdit = FileChange | FileReplace | FileCopy
