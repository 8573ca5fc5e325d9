"""Every kind of image that drivebay can create: a table derived from the registered formats.

A format takes part by being registered: all its variants with default options, its default variant with
each flag turned over and each value of its enumerations; `SIZES` adds the numbers worth a test.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import typing
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from drivebay.blockmap import Format, Layer, ParentLink
from drivebay.chain.image import DESCRIPTOR
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import FORMATS, format_named
from support.images import ImageSpec, named_options, request_for
from support.memory_files import MemoryFiles, files_made_by

KIB = 1 << 10
MIB = 1 << 20

#: Option sets with numbers, by format: what a type alone doesn't tell.
SIZES: dict[str, tuple[dict[str, object], ...]] = {
    "vdi": ({"block_size": 512 * KIB}, {"block_size": 2 * MIB}),
    "vhd": ({"block_size": 512 * KIB}, {"block_size": 64 * KIB}),
    "vhdx": ({"block_size": MIB}, {"block_size": 2 * MIB}, {"block_size": 8 * MIB}),
    "vmdk": ({"block_size": 4 * KIB}, {"block_size": 128 * KIB}),
    "qed": ({"block_size": 4 * KIB, "table_size": 1}, {"block_size": MIB, "table_size": 16}),
    "parallels": ({"block_size": 4 * KIB}, {"block_size": 2 * MIB}, {"version": 1, "block_size": 64 * KIB}),
    "qcow2": (
        {"block_size": 512},
        {"block_size": 4 * KIB},
        {"block_size": MIB},
        {"block_size": 2 * MIB},
        {"data_file": "{name}.data"},
        {"extended_l2": True, "data_file": "{name}.data"},
    ),
}
#: Numbers that an option of this name may have, whatever the format.
NUMBERS: dict[str, tuple[int, ...]] = {
    "refcount_bits": (1, 2, 4, 8, 32, 64),
    "sector_size": (4096,),
    "logical_sector_size": (4096,),
}
_MOST = 5 * MIB  # bytes of a disk, except where two blocks take more
_LINK = ParentLink(
    uuid.UUID(int=1 << 100), uuid.UUID(int=2 << 100), "parent", absolute="/parent", content_id=77
)


@dataclass(frozen=True)
class Kind:
    """One kind of image. ``options`` are pairs; ``block`` is the asked block size, if any."""

    format: str
    variant: str | None = None
    block: int | None = None
    options: tuple[tuple[str, object], ...] = ()

    def __str__(self) -> str:
        block = [f"{self.block // KIB or self.block}{'k' if self.block >= KIB else ''}"] if self.block else []
        options = [f"{name}={_text(value)}" for name, value in self.options]
        return "-".join([self.format, *([self.variant] if self.variant else []), *block, *options])

    def spec(self, size: int) -> ImageSpec:
        """An image of this kind."""
        return ImageSpec(size, self.block, self.variant, self.format, self.options)

    def options_for(self, name: str) -> dict[str, object]:
        """What `drivebay.chain.create_image` takes as options, for an image called ``name``."""
        given = {"variant": self.variant, "block_size": self.block, **named_options(self.options, name)}
        return {key: value for key, value in given.items() if value is not None}

    @property
    def block_size(self) -> int:
        """What the image is allocated in; a guess where it isn't."""
        layer = layer_of(self, 8 * MIB) or layer_of(self, 8 * MIB, child=True)
        return (layer.facts.block_size if layer else None) or 64 * KIB

    @property
    def size(self) -> int:
        """A small disk that ends within a block and has several of them."""
        block = self.block_size
        blocks = max(5 if 5 * block <= 2 * _MOST else 2, -(-_MOST // block) if block < MIB else 0)
        return blocks * block - 7 * self.sector_size

    @property
    def sector_size(self) -> int:
        """The disk's logical sectors, as the options have it."""
        return next((int(str(value)) for name, value in self.options if name.endswith("sector_size")), 512)


def _text(value: object) -> str:
    return str(value.value if isinstance(value, enum.Enum) else value).replace("{name}", "image")


@functools.cache
def layer_of(kind: Kind, size: int, *, child: bool = False) -> Layer | None:
    """A new image of this kind, described; ``None`` where the format can't be so."""
    create = format_named(kind.format).create
    assert create is not None
    link = dataclasses.replace(_LINK, format=kind.format) if child else None
    name = f"image.{kind.spec(size).extension}"
    try:
        files = files_made_by(create(request_for(name, kind.spec(size), link)))
    except StorageError as error:
        if error.kind in (ErrorKind.INVALID, ErrorKind.UNSUPPORTED):
            return None
        raise
    return format_named(kind.format).open(_gate(files, name))


def _gate(files: dict[str, bytes], name: str) -> MemoryFiles:
    """The image among its files: of a bundle, the descriptor in the folder ``name``."""
    folder = f"{name}/"
    if f"{folder}{DESCRIPTOR}" not in files:
        return MemoryFiles(files[""], name, files)
    inside = {file.removeprefix(folder): data for file, data in files.items()}
    return MemoryFiles(inside[DESCRIPTOR], f"{folder}{DESCRIPTOR}", inside)


def all_kinds() -> Iterator[Kind]:
    """Every kind of every registered format that creates images."""
    for each in FORMATS:
        if each.create is not None:
            yield from dict.fromkeys(_kinds_of(each))


def _kinds_of(known: Format) -> Iterator[Kind]:
    yield from (Kind(known.name, variant) for variant in known.variants or (None,))
    for values in (*_flags(known), *_numbers(known), *SIZES.get(known.name, ())):
        options = dict(values)
        block = typing.cast("int | None", options.pop("block_size", None))
        yield Kind(known.name, None, block, tuple(options.items()))


def _flags(known: Format) -> Iterator[dict[str, object]]:
    """Each flag turned over, each further value of an enumeration."""
    hints = typing.get_type_hints(known.options)
    for field in dataclasses.fields(known.options):
        kind = hints[field.name]
        if kind is bool:
            yield {field.name: not field.default}
        elif isinstance(kind, type) and issubclass(kind, enum.Enum):
            yield from ({field.name: value} for value in kind if value is not field.default)


def _numbers(known: Format) -> Iterator[dict[str, object]]:
    for field in dataclasses.fields(known.options):
        yield from ({field.name: number} for number in NUMBERS.get(field.name, ()))


def _is_writable(kind: Kind, *, child: bool) -> bool:
    layer = layer_of(kind, kind.size, child=child)
    return layer is not None and layer.plan is not None


@functools.cache
def writable_kinds() -> tuple[Kind, ...]:
    """What can be created without a parent, and written."""
    return tuple(kind for kind in all_kinds() if _is_writable(kind, child=False))


@functools.cache
def child_kinds() -> tuple[Kind, ...]:
    """What can be created as a child, and written."""
    return tuple(kind for kind in all_kinds() if _is_writable(kind, child=True))
