"""Planned differencing images, made: as files first, and then, with the change that needs them, as media."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from drivebay.chain import create_image, open_layer
from drivebay.chain.resolve import close_layers
from drivebay.errors import StorageError, from_os_error
from drivebay.machines.diffs import NewDiff
from drivebay.registry.database import Change, Intent, Registry
from drivebay.registry.medium import MediaTree, Medium
from drivebay.service import efi_variables


@contextmanager
def made_diffs(
    registry: Registry,
    tree: MediaTree,
    diffs: Sequence[NewDiff],
    *,
    files: Sequence[str] = (),
    copies: efi_variables.Copies | None = None,
    in_use: bool = False,
) -> Iterator[Intent]:
    """The files of ``diffs``; they go again unless the block finishes the intent with `record_diffs`.

    ``files`` are further ones that the block makes, ``copies`` those of EFI variables. With
    ``in_use`` somebody may be writing the parents, who will put the diffs on top of them
    (`WorkerClient.push`). Raises StorageError.
    """
    copies = copies or []
    with registry.intend(
        [*(diff.path for diff in diffs), *files, *(target for _, target in copies)]
    ) as intent:
        for diff in diffs:
            make_diff(tree, diff, in_use=in_use)
        efi_variables.make(copies)
        yield intent


def make_diff(tree: MediaTree, diff: NewDiff, *, in_use: bool = False) -> None:
    """The file of one diff, and its folder. Raises StorageError."""
    folder = os.path.dirname(diff.path)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, "make the snapshot folder", path=folder) from error
    parent = tree.get(diff.parent)
    create_image(
        diff.path,
        parent=parent.path,
        parent_format=parent.format,
        parent_in_use=in_use,
        format_name=diff.format,
        options={"variant": diff.variant} if diff.variant else None,
        uuid=diff.uuid,
    )


def record_diffs(change: Change, intent: Intent, diffs: Sequence[NewDiff]) -> None:
    """Register diffs that have been made; their files stay if ``change`` is committed."""
    for diff in diffs:
        change.put_medium(diff.medium)
    change.finish(intent)


def image_files(medium: Medium) -> list[str]:
    """All files of a medium's image; its own alone where that can't be read."""
    try:
        opened = open_layer(medium.path, medium.format, lock=False)
    except StorageError:
        return [medium.path]
    try:
        return [source.path for source in opened.sources]
    finally:
        close_layers([opened])


def disk_usage(paths: Sequence[str]) -> int:
    """The bytes that files take on the host; what is not there takes none."""
    return sum(os.stat(path).st_blocks * 512 for path in paths if os.path.exists(path))
