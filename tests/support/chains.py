"""The chains that the conformance suite runs over: made, filled, and known byte by byte."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drivebay.engine.disk import Disk
from drivebay.model import CacheMode
from support.disks import KIB, MIB, ImageSpec, make_image, open_disk, read_layer
from support.shadow import RandomSteps, ShadowDisk
from support.variants import Kind, child_kinds, writable_kinds

_ODD = 7 * 512  # a disk that ends within a block
_FILL_STEPS = 14
_LEAST_STEP = 128 * KIB  # random steps cross borders at multiples of at least this

SHAPES = (
    "dynamic",
    "fixed",
    "differencing",
    "three-deep",
    "on-raw",
    "on-odd-raw",
    "mixed-blocks",
    "short-parent",
    "short-middle",
    "long-parent",
    "odd-size",
    "raw",
    "parallels-states",
)


def specs_of(shape: str, block: int) -> tuple[ImageSpec, ...]:
    """The images of a shape, base first; ``block`` is the top's block size."""
    size = (5 if block <= 2 * MIB else 2) * block
    vdi = ImageSpec(size, block)
    raw = ImageSpec(size, format="raw")
    short = size - block - 5 * 512
    state = ImageSpec(size - _ODD, block, format="parallels", linked=False)  # its bundle knows its parent
    return {
        "dynamic": (vdi,),
        "fixed": (ImageSpec(size, block, "fixed"),),
        "differencing": (vdi, vdi),
        "three-deep": (vdi, vdi, vdi),
        "on-raw": (raw, vdi),
        "on-odd-raw": (ImageSpec(size - 100, format="raw"), vdi),
        "mixed-blocks": (ImageSpec(size, 2 * MIB), ImageSpec(size, 512 * KIB), ImageSpec(size, MIB), vdi),
        "short-parent": (ImageSpec(short, block), vdi),
        "short-middle": (vdi, ImageSpec(short, 512 * KIB), vdi),
        "long-parent": (ImageSpec(size + block + _ODD, block), ImageSpec(size - _ODD, block)),
        "odd-size": (ImageSpec(size - _ODD, block), ImageSpec(size - _ODD, block)),
        "raw": (raw,),
        "parallels-states": (state, state, state),
    }[shape]


def build_chain(
    folder: Path, specs: Sequence[ImageSpec], seed: int, *, fill_top: bool = False
) -> tuple[list[Path], bytearray]:
    """Make a chain, fill its lower images (the top too, if wanted) through the engine, and say what it
    contains: paths top first, content.
    """
    paths: list[Path] = []
    content = bytearray(specs[0].size)
    for number, spec in enumerate(specs):
        path = folder / f"image{number}.{spec.extension}"
        make_image(path, spec, paths[0] if paths else None)
        paths.insert(0, path)
        size = read_layer(path).facts.size
        content = content[:size].ljust(size, b"\0")
        if fill_top or number < len(specs) - 1:
            _fill(paths, content, seed + number, spec.block or 64 * KIB)
            if spec.format == "raw":  # writing its last sector has completed it
                os.truncate(path, spec.size)
            content[spec.size :] = bytes(size - spec.size)
    return paths, content


def _fill(paths: Sequence[Path], content: bytearray, seed: int, block: int) -> None:
    """Pieces from the last to the first, so that no block follows its neighbour; then anything."""
    steps = RandomSteps(seed, min(max(block, _LEAST_STEP), 2 * MIB))
    with open_disk(paths) as disk:
        shadow = ShadowDisk(disk, content)
        stride = max(2 * steps.block, len(content) // 16 // 512 * 512)
        for offset in reversed(range(0, len(content) - 3000, stride)):
            shadow.write(offset, steps.bytes(3000))
        for _ in range(_FILL_STEPS):
            steps.step(shadow)


@dataclass(frozen=True)
class Case:
    """One chain of the matrix, and how it is opened."""

    shape: str
    block: int
    cache: CacheMode

    @property
    def specs(self) -> tuple[ImageSpec, ...]:
        """The images, base first."""
        return specs_of(self.shape, self.block)

    def __str__(self) -> str:
        return f"{self.shape}-{self.block // KIB}k-{self.cache.value}"


@dataclass
class Stage:
    """A chain on disk and what it contains; `open` gives it back as a shadowed disk."""

    case: Case
    paths: list[Path]
    content: bytearray

    def open(self, *, writable: bool = True, map_budget: int = 64 * MIB) -> Disk:
        return open_disk(self.paths, writable=writable, cache=self.case.cache, map_budget=map_budget)

    def steps(self, seed: int) -> RandomSteps:
        return RandomSteps(seed, self.case.block)


def _shapes_of(kind: Kind) -> tuple[str, ...]:
    """The places in a chain that a kind can have."""
    alone = ("alone", "parent") if kind in writable_kinds() else ()
    return alone + (("child", "on-vdi") if kind in child_kinds() else ())


def specs_with(kind: Kind, place: str) -> tuple[ImageSpec, ...]:
    """A chain with an image of ``kind`` in a place of it, base first."""
    image, vdi = kind.spec(kind.size), ImageSpec(kind.size, 512 * KIB)
    if place == "child":
        base = next(each for each in writable_kinds() if each.format == kind.format)
        return (base.spec(kind.size), image)
    return {"alone": (image,), "parent": (image, vdi), "on-vdi": (vdi, image)}[place]


@dataclass(frozen=True)
class KindCase(Case):
    """A kind of image in a place of a chain; ``shape`` is the place."""

    kind: Kind

    @property
    def specs(self) -> tuple[ImageSpec, ...]:
        return specs_with(self.kind, self.shape)

    def __str__(self) -> str:
        return f"{self.kind}-{self.shape}-{self.cache.value}"


def kind_case(kind: Kind, place: str, cache: CacheMode = CacheMode.WRITEBACK) -> KindCase:
    """The case, with steps as large as the kind's blocks, within reason."""
    return KindCase(place, min(max(kind.block_size, _LEAST_STEP), 2 * MIB), cache, kind)


def _first_kinds() -> list[Kind]:
    """One kind of each format: the first that does not fill an epoch with one block."""
    small = [kind for kind in writable_kinds() if kind.block_size <= 4 * MIB]
    return list({kind.format: kind for kind in reversed(small)}.values())


def _first_children() -> list[Kind]:
    return list({kind.format: kind for kind in reversed(child_kinds())}.values())


EACH_KIND = [
    kind_case(kind, place)
    for kind in dict.fromkeys((*writable_kinds(), *child_kinds()))
    for place in _shapes_of(kind)
]
EACH_FORMAT = [kind_case(kind, "alone") for kind in _first_kinds()] + [
    kind_case(kind, "child") for kind in _first_children()
]
CACHED = [
    kind_case(case.kind, case.shape, cache)
    for case in EACH_FORMAT
    for cache in CacheMode
    if cache is not CacheMode.WRITEBACK
]
MATRIX = [
    Case(shape, block, cache)
    for shape in SHAPES
    for block in (512 * KIB, MIB, 2 * MIB)
    for cache in CacheMode
    if shape != "raw" or block == MIB
]
HUGE = [Case(shape, 64 * MIB, CacheMode.WRITEBACK) for shape in ("dynamic", "differencing", "short-parent")]
