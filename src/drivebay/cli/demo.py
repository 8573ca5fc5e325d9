"""The command that tells the demo's story."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from drivebay.cli.output import console, plain
from drivebay.service.sizes import format_size

if TYPE_CHECKING:
    from drivebay.model import Extent


class Narrator:
    """Tells the story on the terminal (`drivebay.service.demo.Teller`)."""

    def chapter(self, title: str) -> None:
        """As `Teller.chapter`."""
        console().print(f"\n[bold cyan]{plain(title)}[/]")

    def say(self, text: str) -> None:
        """As `Teller.say`."""
        console().print(f"  {plain(text)}")

    def guest(self, text: str) -> None:
        """As `Teller.guest`."""
        console().print(f"  [bold yellow]guest:[/] {plain(text)}")

    def extents(self, extents: Sequence[Extent]) -> None:
        """As `Teller.extents`."""
        table = Table("start", "length", "state", "offset in child.vdi", box=None, padding=(0, 2))
        for extent in extents:
            offset = "" if extent.offset is None else str(extent.offset)
            table.add_row(str(extent.start), format_size(extent.length), extent.state.value, offset)
        console().print(table)


def demo() -> None:
    """Boot a real guest on a differencing disk, let it catch a virus, and throw the disk away.

    Needs QEMU, a static busybox and mke2fs; takes up to two minutes, and leaves nothing behind.
    """
    from drivebay.service.demo import run_demo

    run_demo(Narrator())
