"""Which way an image that nobody needs any more is merged with its only child (specification, 5.6)."""

from __future__ import annotations


def merges_backward(*, is_base: bool, size: int, child_size: int) -> bool:
    """Whether the child's blocks are copied into the image, rather than the image's into the child.

    A base stays the base; else the smaller file is copied. Sizes are bytes on the host.
    """
    return is_base or size > child_size
