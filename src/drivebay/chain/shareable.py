"""Images that several may write at once: nothing of them may move, and nobody may keep a count or a log.

What guests do to each other's blocks is their business (cluster file systems); the image itself must not be
changed by anybody. So its header is left alone: the UUID of its last modification, too, which only children
look at, and a disk that is shared has none.
"""

from __future__ import annotations

import dataclasses

from drivebay.blockmap import BlockState, Journal, Linear, Table
from drivebay.engine.source import OpenedLayer
from drivebay.errors import ErrorKind, StorageError, from_os_error

_CHUNK = 1 << 20  # entries


def shared_layer(opened: OpenedLayer) -> OpenedLayer:
    """The layer, to be written beside others. Raises StorageError (UNSUPPORTED) where that can't be."""
    plan = opened.layer.plan
    if plan is None or plan.journal is not Journal.ORDERED or opened.layer.facts.differencing:
        raise _not_shareable(opened, "its format changes more than the guest's blocks")
    if not all(_is_fixed(segment, opened) for segment in opened.layer.segments):
        raise _not_shareable(opened, "not all of its space is there from the start")
    plan = dataclasses.replace(plan, marks=(), counter=None, zero=None, punch=False)
    return dataclasses.replace(opened, layer=dataclasses.replace(opened.layer, plan=plan))


def _is_fixed(segment: object, opened: OpenedLayer) -> bool:
    if isinstance(segment, Linear):
        return True
    return isinstance(segment, Table) and _has_all_blocks(segment, opened)


def _has_all_blocks(table: Table, opened: OpenedLayer) -> bool:
    from drivebay.engine.tables import read_blocks  # brings numpy, which opening does without

    source, data = opened.sources[table.source], opened.sources[table.data]
    try:
        for first in range(0, table.count, _CHUNK):
            found = read_blocks(table, source, data, first, min(_CHUNK, table.count - first))
            if not ((found.states == int(BlockState.DATA)) & found.owned).all():
                return False
    except OSError as error:
        raise from_os_error(error, "read the block table", path=source.path) from error
    return True


def _not_shareable(opened: OpenedLayer, why: str) -> StorageError:
    return StorageError(
        ErrorKind.UNSUPPORTED,
        f"several machines can't write it at once: {why}; share a fixed-size disk "
        "(raw, or a fixed VDI, VHD or VMDK)",
        path=opened.sources[0].path,
        operation="open",
    )
