"""Commands about what is on a disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from drivebay.cli.exit_codes import ANSWER_IS_NO
from drivebay.cli.options import AllowStaleParent, FormatName, Image, Json, Search, Snapshot, opening
from drivebay.cli.output import as_json_value, print_json, printable, progress_bar
from drivebay.model import Extent

if TYPE_CHECKING:
    from drivebay.service.content import Comparison


def map_(
    image: Image,
    format_name: FormatName = None,
    snapshot: Snapshot = "",
    search: Search = None,
    allow_stale_parent: AllowStaleParent = False,
    as_json: Json = False,
) -> None:
    """Show what each range of the disk is (data, zero, unallocated) and in which file it lies."""
    from drivebay.service.disks import open_disk

    options = opening(format_name, search, allow_stale_parent=allow_stale_parent, snapshot=snapshot)
    with open_disk(image, options) as disk:
        if as_json:
            _print_json_lines(disk.extents())
        else:
            _print_lines(disk.extents())


def _print_json_lines(extents: Iterable[Extent]) -> None:
    """A JSON list that is never held in memory: a disk can have millions of extents."""
    before = "[\n "
    for extent in extents:
        print(before + json.dumps(as_json_value(extent), default=as_json_value), end="")
        before = ",\n "
    print("\n]")


def _print_lines(extents: Iterable[Extent]) -> None:
    print(f"{'start':>16} {'length':>16}  {'state':<11}  depth  where")
    for extent in extents:
        depth = "" if extent.depth is None else extent.depth
        file = os.path.basename(extent.source or "")
        place = "compressed" if extent.offset is None else f"at {extent.offset}"
        where = f"{printable(file)} {place}" if file else ""
        print(f"{extent.start:>16} {extent.length:>16}  {extent.state.value:<11}  {depth!s:>5}  {where}")


def checksum(
    image: Image,
    format_name: FormatName = None,
    snapshot: Snapshot = "",
    search: Search = None,
    allow_stale_parent: AllowStaleParent = False,
    as_json: Json = False,
) -> None:
    """Print the SHA-256 of the whole disk as the guest sees it. Holes are not read."""
    from drivebay.service import content
    from drivebay.service.disks import open_disk

    options = opening(format_name, search, allow_stale_parent=allow_stale_parent, snapshot=snapshot)
    with open_disk(image, options) as disk, progress_bar("checksum") as progress:
        digest = content.checksum(disk, progress)
        size = disk.size
    if as_json:
        print_json({"path": image, "size": size, "sha256": digest})
    else:
        print(f"{digest}  {image}")


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="One image.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="The other image.", show_default=False)],
    format_name: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="The format of both, not probed then.")
    ] = None,
    search: Search = None,
    allow_stale_parent: AllowStaleParent = False,
    as_json: Json = False,
) -> None:
    """Compare what two disks hold. Exit code 1 if they differ.

    Where one is longer, its rest must read as zeros.
    """
    from drivebay.service import content
    from drivebay.service.disks import open_disk

    options = opening(format_name, search, allow_stale_parent=allow_stale_parent)
    with (
        open_disk(a, options) as disk_a,
        open_disk(b, options) as disk_b,
        progress_bar("compare") as progress,
    ):
        found = content.compare(disk_a, disk_b, progress)
    if as_json:
        print_json({"equal": found.equal, "offset": found.offset, "sizes": [found.size_a, found.size_b]})
    else:
        print(_verdict(found))
    if not found.equal:
        raise typer.Exit(ANSWER_IS_NO)


def _verdict(found: Comparison) -> str:
    if not found.equal:
        return f"the disks differ, first at byte {found.offset}"
    if found.size_a != found.size_b:
        return f"the disks are equal; the longer one ({max(found.size_a, found.size_b)} bytes) ends in zeros"
    return "the disks are equal"
