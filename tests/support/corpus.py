"""The corpus: images that VirtualBox and QEMU wrote, and what they contain.

It lies in ``../shared/corpus`` beside the repository, or where ``DRIVEBAY_CORPUS`` says; golden tests
skip without it and say so (`needs_corpus`). A case is a folder of files that belong together: a chain,
a machine. The manifest tells for each image its UUIDs, its size and the SHA-256 of the disk.
"""

from __future__ import annotations

import functools
import json
import lzma
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]
_CHUNK = 1 << 16


def corpus_root() -> Path | None:
    """The folder that holds ``manifest.json``; ``None`` where there is no corpus."""
    named = os.environ.get("DRIVEBAY_CORPUS")
    folder = Path(named) if named else _REPOSITORY.parent / "shared" / "corpus"
    for candidate in (folder, folder / "virtualbox"):
        if (candidate / "manifest.json").is_file():
            return candidate
    return None


needs_corpus = pytest.mark.skipif(
    corpus_root() is None, reason="the corpus is absent: put it into ../shared/corpus or set DRIVEBAY_CORPUS"
)


@dataclass(frozen=True)
class CorpusImage:
    """One image of the manifest.

    ``files`` are paths within the folder of its case, the image itself first. ``content_sha256`` is that
    of the virtual disk seen through the chain (of the stored sectors, where the image is encrypted);
    ``None`` for disks too large to hash, which read as zeros outside the ``data_ranges`` of ``entry``.
    What the manifest doesn't tell is ``None``.
    """

    id: str
    case: str
    format: str
    files: tuple[str, ...]
    virtual_size: int
    uuid: UUID
    modification_uuid: UUID | None
    parent_uuid: UUID | None
    parent_modification_uuid: UUID | None
    variant: str | None
    content_sha256: str | None
    entry: dict[str, Any]


@dataclass(frozen=True)
class Mutant:
    """A damaged copy of an image, and VirtualBox's verdict on it.

    ``sha256`` is that of the damaged file. ``refused`` tells that VirtualBox couldn't open or read it;
    ``content_sha256`` is that of the disk it read.
    """

    name: str
    sha256: str
    patches: tuple[tuple[int, bytes], ...]
    truncate_or_append: int | str | dict[str, int] | None
    refused: bool
    content_sha256: str | None

    def apply(self, data: bytes) -> bytes:
        """The damaged copy of ``data``."""
        damaged = bytearray(data)
        for offset, patch in self.patches:
            start = offset % len(damaged)  # a negative offset counts from the end
            damaged[start : start + len(patch)] = patch
        match self.truncate_or_append:
            case int(end):
                return bytes(damaged[:end])
            case str(tail):
                return bytes(damaged) + bytes.fromhex(tail)
            case {"append_byte": value, "count": count}:
                return bytes(damaged) + bytes([value]) * count
        return bytes(damaged)


@functools.cache
def _manifest() -> dict[str, dict[str, Any]]:
    root = corpus_root()
    cases = json.loads((root / "manifest.json").read_text())["cases"] if root else []
    return {case["case"]: case for case in cases}


@functools.cache
def images(format_name: str) -> tuple[CorpusImage, ...]:
    """All images of a format, by drivebay's name for it ("vdi"); none where there is no corpus."""
    entries = (entry for case in _manifest().values() for entry in case["images"])
    return tuple(_image(entry) for entry in entries if entry["format"].lower() == format_name)


def _image(entry: dict[str, Any]) -> CorpusImage:
    def identifier(key: str) -> UUID | None:
        return UUID(entry[key]) if entry.get(key) else None

    return CorpusImage(
        id=entry["id"],
        case=entry["case"],
        format=entry["format"].lower(),
        files=tuple(file["file"] for file in entry["files"]),
        virtual_size=entry["virtual_size"],
        uuid=UUID(entry["uuid"]),
        modification_uuid=identifier("uuid_modification"),
        parent_uuid=identifier("image_parent_uuid"),
        parent_modification_uuid=identifier("parent_uuid_modification"),
        variant=entry["vbox_variant"].split()[0] if entry.get("vbox_variant") else None,
        content_sha256=entry.get("ciphertext_sha256", entry.get("content_sha256")),
        entry=entry,
    )


def chain_of(image: CorpusImage) -> tuple[CorpusImage, ...]:
    """The image and its parents, top first. Copies kept in ``before/`` are nobody's parents."""
    chain = [image]
    siblings = [other for other in images(image.format) if other.case == image.case]
    current = {other.uuid: other for other in siblings if not other.files[0].startswith("before/")}
    while (parent := chain[-1].parent_uuid) and parent.int:
        chain.append(current[parent])
    return tuple(chain)


def unpack_case(case: str, into: Path) -> Path:
    """Unpack all files of a case's images, as they lay beside each other; returns their folder."""
    folder = into / case
    for entry in _manifest()[case]["images"]:
        for file in entry["files"]:
            _write_sparse(folder / file["file"], _content(file))
    return folder


def read_image(image: CorpusImage) -> bytes:
    """The bytes of the image's first file."""
    return _content(image.entry["files"][0])


def _content(file: dict[str, Any]) -> bytes:
    root = corpus_root()
    assert root is not None
    stored = (root / file["stored"]).read_bytes()
    return lzma.decompress(stored) if file["compression"] == "xz" else stored


def _write_sparse(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        for start in range(0, len(data), _CHUNK):
            chunk = data[start : start + _CHUNK]
            if chunk.strip(b"\0"):
                out.seek(start)
                out.write(chunk)
        out.truncate(len(data))


@functools.cache
def mutants(case: str, image: str) -> tuple[Mutant, ...]:
    """The damaged copies of ``image`` ("base.vdi") in a case; none where there is no corpus."""
    root = corpus_root()
    if root is None:
        return ()
    recorded = json.loads((root / "refs" / case / f"mutants-{image}.json").read_text())
    return tuple(_mutant(entry) for entry in recorded["mutants"])


def _mutant(entry: dict[str, Any]) -> Mutant:
    return Mutant(
        name=entry["name"],
        sha256=entry["sha256"],
        patches=tuple((offset, bytes.fromhex(patch)) for offset, patch in entry["patches"]),
        truncate_or_append=entry["truncate_or_append"],
        refused=entry["info_rc"] != 0 or entry["convert_rc"] != 0,
        content_sha256=entry.get("content_sha256"),
    )
