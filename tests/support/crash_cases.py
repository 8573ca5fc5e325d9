"""Small chains for crash and fault tests: every writable format, alone and as a child."""

from __future__ import annotations

from dataclasses import dataclass

from drivebay.formats import FORMATS
from support.disks import KIB, MIB, ImageSpec
from support.variants import Kind, all_kinds, child_kinds, layer_of

BLOCKS = 6  # of a disk, as the scripts take them
_VDI = 512 * KIB


@dataclass(frozen=True)
class CrashCase:
    """The images, base first; ``block`` is what scripts take for the top's blocks (or many of them)."""

    name: str
    specs: tuple[ImageSpec, ...]
    block: int

    @property
    def format(self) -> str:
        """The format of the image that is written."""
        return self.specs[-1].format

    @property
    def has_small_blocks(self) -> bool:
        """Whether what scripts take for a block is many of them, so that a run has thousands of steps."""
        return self.specs[-1].block not in (None, self.block)

    def __str__(self) -> str:
        return self.name


def _case(kind: Kind, block: int, *, child: bool) -> CrashCase:
    size = BLOCKS * block
    parents = (ImageSpec(size, _VDI) if size >= MIB else ImageSpec(size, format="raw"),) if child else ()
    return CrashCase(f"{kind}{'-child' if child else ''}", (*parents, kind.spec(size)), block)


def _small_kind(name: str) -> Kind:
    """The format's kind with the smallest blocks of at least 64 KiB; its default one where that has them."""
    kinds = [kind for kind in all_kinds() if kind.format == name and not kind.options]
    fitting = [kind for kind in kinds if kind.block_size >= 64 * KIB and _is_possible(kind, child=False)]
    return min(fitting, key=lambda kind: kind.block_size)


def _is_possible(kind: Kind, *, child: bool) -> bool:
    layer = layer_of(kind, BLOCKS * kind.block_size, child=child)
    return (
        layer is not None and layer.plan is not None and bool(layer.facts.block_size or kind.format == "raw")
    )


def _of_format(name: str) -> list[CrashCase]:
    kind = _small_kind(name)
    cases = [_case(kind, kind.block_size, child=False)]
    child = next((each for each in (kind, *child_kinds()) if _is_child_of(each, kind)), None)
    if child is not None:
        cases.append(_case(child, child.block_size, child=True))
    return cases


def _is_child_of(kind: Kind, base: Kind) -> bool:
    return kind.format == base.format and kind in child_kinds() and kind.block_size <= 2 * base.block_size


_DATA_FILE = (("data_file", "{name}.data"),)
#: Small clusters, so that a few blocks fill several tables; and counts narrower than a byte.
_SPECIAL = (
    (Kind("qcow2", None, 4 * KIB), _VDI),
    (Kind("qcow2", None, 512), 32 * KIB),
    (Kind("qcow2", None, None, (("refcount_bits", 1),)), 64 * KIB),
    (Kind("qcow2", None, None, (("extended_l2", True),)), 64 * KIB),
    (Kind("qcow2", None, None, _DATA_FILE), 64 * KIB),
    (Kind("qed", None, 4 * KIB, (("table_size", 1),)), _VDI),
    (Kind("parallels", None, 64 * KIB, (("version", 1),)), 64 * KIB),
    (Kind("parallels", None, 4 * KIB), 64 * KIB),
    (Kind("vmdk", None, 4 * KIB), _VDI),
    (Kind("vmdk", "twoGbMaxExtentSparse"), 64 * KIB),
    (Kind("vhdx", None, MIB, (("logical_sector_size", 4096),)), MIB),
)
#: Blocks of which only a part is there, and which are completed in their places.
_SPECIAL_CHILDREN = ((Kind("qcow2", None, None, (("extended_l2", True), *_DATA_FILE)), 64 * KIB),)


def crash_cases() -> list[CrashCase]:
    """All of them; a format takes part by being registered."""
    names = [known.name for known in FORMATS if known.create is not None and known.name != "raw"]
    cases = [case for name in names for case in _of_format(name)]
    special = [
        _case(kind, block, child=child)
        for table, child in ((_SPECIAL, False), (_SPECIAL_CHILDREN, True))
        for kind, block in table
        if kind.format in names and layer_of(kind, BLOCKS * block) is not None
    ]
    return cases + special
