"""The corpus: images that VirtualBox and QEMU wrote, and what they contain.

It lies in ``../shared/corpus`` beside the repository, or where ``DRIVEBAY_CORPUS`` says; golden tests
skip without it and say so (`needs_corpus`). A case is a folder of files that belong together: a chain,
a machine. The manifest tells for each image its UUIDs, its size and the SHA-256 of the disk.
"""

from __future__ import annotations

import functools
import hashlib
import json
import lzma
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from drivebay.model import NULL_UUID, SECTOR

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


# What VirtualBox itself reads wrongly, by the format's specification; the manifest has what it read.
_MISREAD = {
    "foreign-qemu/parallels": "VirtualBox takes QEMU's image for a flat one and shows its header as data",
}

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

    @property
    def misread(self) -> str | None:
        """Why `content_sha256` is not what the image contains."""
        return _MISREAD.get(self.id)


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


@functools.cache
def all_images() -> tuple[CorpusImage, ...]:
    """The images of all formats; none where there is no corpus."""
    return tuple(_image(entry) for case in _manifest().values() for entry in case["images"])


def _image(entry: dict[str, Any]) -> CorpusImage:
    def identifier(key: str) -> UUID | None:
        return UUID(entry[key]) if entry.get(key) else None

    return CorpusImage(
        id=entry["id"],
        case=entry["case"],
        format=entry["format"].lower(),
        files=tuple(file["file"] for file in entry["files"]),
        virtual_size=entry["virtual_size"],
        uuid=identifier("uuid") or NULL_UUID,
        modification_uuid=identifier("uuid_modification"),
        parent_uuid=identifier("image_parent_uuid"),
        parent_modification_uuid=identifier("parent_uuid_modification"),
        variant=entry["vbox_variant"].split()[0] if entry.get("vbox_variant") else None,
        content_sha256=entry.get("ciphertext_sha256", entry.get("content_sha256")),
        entry=entry,
    )


def chain_of(image: CorpusImage) -> tuple[CorpusImage, ...]:
    """The image and its parents, top first. Copies kept in ``before/`` are nobody's parents."""
    siblings = [other for other in all_images() if other.case == image.case]
    by_id = {other.id: other for other in siblings}
    current = {other.uuid: other for other in siblings if not other.files[0].startswith("before/")}
    chain = [image]
    while True:
        child = chain[-1]
        if named := child.entry.get("parent"):
            chain.append(by_id[named])
        elif child.parent_uuid and child.parent_uuid.int:
            chain.append(current[child.parent_uuid])
        else:
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


def read_files(image: CorpusImage) -> dict[str, bytes]:
    """The bytes of the image's files by their names, which lie in one folder; the image itself first."""
    return {Path(file["file"]).name: _content(file) for file in image.entry["files"]}


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


def expected_sha256(image: CorpusImage) -> str | None:
    """SHA-256 of the disk seen through the chain, as the format's specification has it."""
    return _written_sha256(image) if image.misread else image.content_sha256


def _written_sha256(image: CorpusImage) -> str:
    """SHA-256 of what the generator wrote (the manifest tells how), whatever VirtualBox then read."""
    content = bytearray(image.virtual_size)
    for op in image.entry["content_ops"]:
        low, high = op["offset"], op["offset"] + op["length"]
        first, last = low // SECTOR, -(-high // SECTOR)
        data = b"".join(_sector(op["kind"], op.get("tag", ""), lba) for lba in range(first, last))
        content[low:high] = data[low - first * SECTOR : high - first * SECTOR]
    return hashlib.sha256(content).hexdigest()


def _sector(kind: str, tag: str, lba: int) -> bytes:
    match kind:
        case "text":
            line = f"{tag} LBA {lba:010d}\n".encode()
            return (line * (SECTOR // len(line) + 1))[:SECTOR]
        case "rand":
            return b"".join(hashlib.sha256(f"{tag}:{lba}:{i}".encode()).digest() for i in range(16))
        case "byte":
            return bytes([int(tag)]) * SECTOR
        case "zero":
            return bytes(SECTOR)
    raise ValueError(kind)


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
