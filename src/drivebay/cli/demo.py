"""The command that tells the demo's story."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.padding import Padding

from drivebay.cli.output import console, plain, print_wide

if TYPE_CHECKING:
    from drivebay.service.media_state import MediumInfo


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

    def media(self, infos: Sequence[MediumInfo]) -> None:
        """As `Teller.media`."""
        from drivebay.cli.media_output import media_trees, short_label

        for tree in media_trees(infos, short_label):
            print_wide(Padding(tree, (0, 0, 0, 4), expand=False))


def demo() -> None:
    """Boot a real guest with a normal, an immutable and a write-through disk, and let it catch a virus.

    Needs QEMU, a static busybox and mke2fs; takes up to two minutes, and leaves nothing behind.
    """
    from drivebay.service.demo import run_demo

    run_demo(Narrator())
