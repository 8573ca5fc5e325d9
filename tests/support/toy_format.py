"""A format that says in JSON whatever a test wants of it: names, parts, further files, options."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import drivebay.formats
from drivebay.blockmap import (
    Allocator,
    CreateRequest,
    FileChange,
    FileEdit,
    FileExtent,
    Files,
    FileWrite,
    Format,
    FormatOptions,
    HeaderEdit,
    Layer,
    Linear,
    Match,
    RepairStep,
    WritePlan,
    Zeros,
)
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import Finding, ImageFacts, Part, Severity

MAGIC = b"toy:"
HEAD = 4096
SIZE = 1 << 20


class Colour(enum.Enum):
    """An option with names for values."""

    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class ToyOptions(FormatOptions):
    """One option of each type."""

    colour: Colour = field(default=Colour.RED, metadata={"help": "What it looks like."})
    lazy: bool = field(default=False, metadata={"help": "Whether it rests."})
    room: int = field(default=0, metadata={"help": "How much it holds."})
    label: str | None = field(default=None, metadata={"help": "What it is called."})


def toy(**header: Any) -> bytes:
    """An image's head with ``header``: facts, ``extents`` (names of further files), ``steps`` to repair."""
    return (MAGIC + json.dumps(header).encode()).ljust(HEAD, b"\0")


def make_toy(path: Path, **header: Any) -> Path:
    """An image of one MiB, whose data follow the head."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(toy(**header) + bytes(SIZE))
    return path


def read_toy(path: Path) -> dict[str, Any]:
    """The header of the image at ``path``."""
    return _header(path.read_bytes()[:HEAD])


def _header(head: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(head[len(MAGIC) :].rstrip(b"\0"))
    return found


def _probe(head: bytes, _tail: bytes) -> Match:
    return Match.YES if head.startswith(MAGIC) else Match.NO


def _open(files: Files) -> Layer:
    header = _header(files.read(0, HEAD))
    header = {**header, **header.get("in_part", {}).get(files.part, {})}
    extents = tuple(header.get("extents", ()))
    for name in extents:
        files.beside(name).read(0, 1)
    size = header.get("size", SIZE)
    segments = (
        (Linear(0, SIZE, 0, HEAD), Zeros(SIZE, size - SIZE)) if size > SIZE else (Linear(0, size, 0, HEAD),)
    )
    facts = ImageFacts(
        format="toy",
        variant="plain",
        size=size,
        differencing=bool(header.get("parents") or header.get("parent_uuid")),
        uuid=UUID(header.get("uuid", str(UUID(int=0)))),
        modification_uuid=UUID(header.get("modification", str(UUID(int=0)))),
        parent_uuid=UUID(header.get("parent_uuid", str(UUID(int=0)))),
        parent_modification_uuid=UUID(header.get("parent_modification", str(UUID(int=0)))),
        comment=header.get("comment", ""),
        parent_names=tuple(header.get("parents", ())),
        parent_part=header.get("parent_part", ""),
        parent_format=header.get("parent_format"),
        content_id=header.get("content"),
        details=header.get("details", {}),
        parent_content_id=header.get("parent_content"),
        parts=tuple(Part(str(n), name, size, 1.5e9) for n, name in enumerate(header.get("in_part", ()))),
    )
    return Layer(facts, segments, WritePlan(Allocator.NONE), sources=extents, replay=_replay(header))


def _replay(header: dict[str, Any]) -> tuple[tuple[FileChange, ...], ...]:
    """A log of ``[offset, text]`` and ``[offset, length]``; the last stage empties it."""
    changes = [
        FileExtent(where, what) if isinstance(what, int) else FileWrite(where, what.encode())
        for where, what in header.get("log", ())
    ]
    done = FileWrite(0, toy(**{**header, "log": []}))
    return ((*changes,), (done,)) if changes else ()


def _create(request: CreateRequest) -> Iterator[FileChange]:
    options = request.options
    assert isinstance(options, ToyOptions)
    link = request.parent
    header = {
        "colour": options.colour.value,
        "lazy": options.lazy,
        "room": options.room,
        "label": options.label,
        "size": request.size,
    }
    stem = request.name.rpartition(".")[0]
    names = [f"{stem}-{number}.part" for number in range(2)] if options.variant == "split" else []
    if names:
        header["extents"] = names
    if link is not None:
        header["parents"] = [link.path]
        header["link"] = [str(link.uuid), link.absolute, link.format, link.content_id, link.sector_size]
    if options.variant == "bundle":
        yield FileWrite(0, b"data", file=f"{request.name}/data.part")
        yield FileWrite(0, toy(**header), file=f"{request.name}/DiskDescriptor.xml")
        return
    yield FileExtent(0, HEAD + request.size)
    for name in names:
        yield FileWrite(0, b"data", file=name)
    yield FileWrite(0, toy(**header))


def _check(files: Files, _layer: Layer) -> Iterator[Finding]:
    for step in _header(files.read(0, HEAD)).get("steps", ()):
        yield Finding(Severity.ERROR, "step", step)


def _repair(files: Files, _layer: Layer) -> Iterator[RepairStep]:
    header = _header(files.read(0, HEAD))
    steps = header.get("steps", [])
    for number, step in enumerate(steps, 1):
        left = {**header, "steps": steps[number:]}
        yield RepairStep(f"mend {step}", (FileWrite(0, toy(**left)),), loses=step.startswith("lossy"))


def _edit(files: Files, _layer: Layer, edit: HeaderEdit) -> Iterator[FileEdit]:
    if edit.pchs is not None:
        raise StorageError(ErrorKind.UNSUPPORTED, "a toy has no geometry; leave it", operation="edit")
    header = _header(files.read(0, HEAD))
    if edit.comment is not None:
        header["comment"] = edit.comment
    if edit.uuid is not None:
        header["uuid"] = str(edit.uuid)
    if edit.parent_path is not None:
        header["parents"] = [edit.parent_path]
    for name in header.get("extents", ()):
        yield FileWrite(0, (edit.comment or "").encode(), file=name)
    yield FileWrite(0, toy(**header))


FORMAT = Format(
    name="toy",
    extensions=("toy",),
    probe=_probe,
    open=_open,
    create=_create,
    check=_check,
    repair=_repair,
    edit=_edit,
    variants=("plain", "split", "bundle"),
    options=ToyOptions,
)


def know_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the format be known while a test runs."""
    monkeypatch.setattr(drivebay.formats, "FORMATS", (FORMAT, *drivebay.formats.FORMATS))
