"""The active layer: what it takes to write a disk, put together from the top layer's write plan."""

from __future__ import annotations

from drivebay.blockmap import Allocator, Layer, Table
from drivebay.engine.epoch import Committer
from drivebay.engine.shared import Shared
from drivebay.engine.space import UnitSpace
from drivebay.engine.writer import Writer
from drivebay.errors import ErrorKind, StorageError


class ActiveLayer:
    """The top layer of the disk's map, writable. Raises READ_ONLY where its format can't be written."""

    def __init__(self, shared: Shared, *, durable: bool) -> None:
        top = shared.page_map.layers[0].opened
        plan = top.layer.plan
        if plan is None:
            reason = top.layer.refusal or "its format is read-only"
            path = top.sources[0].path
            raise StorageError(
                ErrorKind.READ_ONLY, f"cannot be written: {reason}; open it read-only", path=path
            )
        space = None
        if plan.allocator is Allocator.BUMP_COUNTER:
            table = _table_of(top.layer)
            space = UnitSpace(top.sources[table.source], table, plan)
        self.committer = Committer(shared, plan, top.sources, space, durable=durable)
        self.writer = Writer(shared, self.committer, plan, space)

    @property
    def poisoned(self) -> bool:
        """Whether writes are refused since the host failed to make data durable."""
        return self.committer.poisoned is not None

    @property
    def ready(self) -> bool:
        """Whether writes may go on without another check."""
        return self.committer.armed and self.committer.poisoned is None

    def arm(self) -> None:
        """Make sure that writes may begin. Raises what forbids them."""
        self.committer.raise_if_poisoned()
        if not self.committer.armed:
            self.committer.arm()


def _table_of(layer: Layer) -> Table:
    return next(segment for segment in layer.segments if isinstance(segment, Table))
