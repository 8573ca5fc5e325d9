"""What the interop matrix is made of: images that other tools make, their limits, and the table."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from support.images import ImageSpec

MIB = 1 << 20
Row = tuple[str, str, str, str]  # what, direction, tool, result

#: What a tool can't do, by tool and the beginning of the kind's name; who is right by the specification.
LIMITS: dict[tuple[str, str], str] = {
    ("qemu-img", "vdi-512k"): "refuses: knows blocks of 1 MiB only",
    ("qemu-img", "vdi-2048k"): "refuses: knows blocks of 1 MiB only",
    ("qemu-img", "vhdx-logical_sector_size=4096"): "refuses: knows sectors of 512 bytes only",
    ("qemu-img", "qed-4k-table_size=1"): "refuses, its own as well",
    ("qemu-img writes", "parallels-bundle"): "refuses: knows no bundles",
    ("dissect", "vdi"): "wrong: mixes up blocks that do not follow each other",
    ("dissect", "parallels-4k"): "fails: asks itself for a negative length",
    ("dissect", "qcow2-extended_l2"): "fails: asks itself for a negative length",
    ("libvmdk", "vmdk-4k"): "refuses: knows grains above 4 KiB only",
    ("libqcow", "qcow2-compression_type=zstd"): "refuses: knows no zstd",
    ("libqcow", "qcow2-extended_l2"): "refuses: knows no subclusters",
    ("libqcow", "qcow2-data_file"): "refuses: knows no data files",
    ("libphdi", "parallels-bundle"): "refuses layout 2",
}


def limit_of(tool: str, kind: str) -> str | None:
    """Why ``tool`` can't do it, if so."""
    return next(
        (reason for (name, begin), reason in LIMITS.items() if name == tool and kind.startswith(begin)), None
    )


@dataclass(frozen=True)
class Theirs:
    """An image that ``qemu-img convert`` makes; ``options`` as after ``-o``."""

    format: str
    options: str = ""
    compressed: bool = False
    size: int = 6 * MIB

    @property
    def extension(self) -> str:
        """How its name ends."""
        return ImageSpec(1, format=self.format).extension

    def __str__(self) -> str:
        return " ".join(
            [self.format, self.options.replace("{folder}/", ""), *(["compressed"] if self.compressed else [])]
        ).strip()


THEIRS = (
    Theirs("raw"),
    Theirs("vdi"),
    Theirs("vdi", "static=on"),
    Theirs("vmdk", "subformat=monolithicSparse"),
    Theirs("vmdk", "subformat=monolithicSparse,zeroed_grain=on"),
    Theirs("vmdk", "subformat=monolithicSparse,adapter_type=lsilogic"),
    Theirs("vmdk", "subformat=monolithicFlat"),
    Theirs("vmdk", "subformat=twoGbMaxExtentSparse"),
    Theirs("vmdk", "subformat=twoGbMaxExtentFlat"),
    Theirs("vmdk", "subformat=streamOptimized"),
    Theirs("vhd", "subformat=dynamic"),
    Theirs("vhd", "subformat=dynamic,force_size=on"),
    Theirs("vhd", "subformat=fixed"),
    Theirs("vhd", "subformat=fixed,force_size=on"),
    Theirs("vhdx"),
    Theirs("vhdx", "subformat=fixed"),
    Theirs("vhdx", "block_size=1M"),
    Theirs("vhdx", "block_size=2M,block_state_zero=off"),
    Theirs("qcow"),
    Theirs("qcow2", "compat=0.10"),
    Theirs("qcow2"),
    Theirs("qcow2", "cluster_size=512"),
    Theirs("qcow2", "cluster_size=2M"),
    Theirs("qcow2", "refcount_bits=1"),
    Theirs("qcow2", "refcount_bits=64"),
    Theirs("qcow2", "extended_l2=on"),
    Theirs("qcow2", "extended_l2=on,cluster_size=2M"),
    Theirs("qcow2", "preallocation=metadata"),
    Theirs("qcow2", "lazy_refcounts=on"),
    Theirs("qcow2", "compression_type=zlib", compressed=True),
    Theirs("qcow2", "compression_type=zstd", compressed=True),
    Theirs("qcow2", "data_file={folder}/theirs.data"),
    Theirs("qed"),
    Theirs("qed", "cluster_size=4096,table_size=2"),
    Theirs("parallels"),
    Theirs("parallels", "cluster_size=64k"),
)


def table_of(rows: Iterable[Row]) -> list[str]:
    """The lines of a Markdown table: a row for each image and direction, a column for each tool."""
    results = {(what, direction, tool): result for what, direction, tool, result in rows}
    tools = sorted({tool for _, _, tool in results})
    lines = [
        "| image | direction | " + " | ".join(tools) + " |",
        "| --- | --- |" + " --- |" * len(tools),
    ]
    for what, direction in dict.fromkeys((what, direction) for what, direction, _ in sorted(results)):
        cells = [results.get((what, direction, tool), "") for tool in tools]
        lines.append(f"| {what} | {direction} | " + " | ".join(cells) + " |")
    return lines


def write_page(lines: list[str], path: str | os.PathLike[str]) -> None:
    """Put the table into the page, in place of the one that is there."""
    with open(path) as file:
        head = file.read().split("\n| image |", 1)[0]
    with open(path, "w") as file:
        file.write(head.rstrip("\n") + "\n\n" + "\n".join(lines) + "\n")
