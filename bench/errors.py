"""What can go wrong while measuring."""

from __future__ import annotations


class BenchError(Exception):
    """A server or a tool did not do what was asked; the message says which, what, and its own words."""


class DisconnectedError(BenchError):
    """A server closed the connection while something was expected from it."""

    def __init__(self) -> None:
        super().__init__("the server closed the connection")
