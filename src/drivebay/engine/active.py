"""The active layer: what it takes to write a disk, put together from the top layer's write plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drivebay.blockmap import Allocator, Linear, Segment, Table, WritePlan
from drivebay.blockmap import Journal as JournalKind
from drivebay.engine.active_table import ActiveTable
from drivebay.engine.dropping import Dropper
from drivebay.engine.epoch import Committer
from drivebay.engine.first_write import FirstWrites
from drivebay.engine.journal import Journal, OrderedJournal
from drivebay.engine.metadata import MetadataFiles
from drivebay.engine.shared import Shared
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
        data = dict(_data_files(top.layer.segments, plan))
        self._files = MetadataFiles(top.sources, durable=durable, data=data)
        self._plan = plan
        self._sources = top.sources
        self._tables = [
            ActiveTable(segment, plan, top.sources, self._files)
            for segment in top.layer.segments
            if isinstance(segment, Table)
        ]
        self.committer = Committer(shared, plan, self._tables, self._files, _journal(plan, self._files))
        self.move(shared)

    def move(self, shared: Shared) -> None:
        """The layer is the top of another map; no operation is under way, and nothing waits for a commit."""
        self.committer.move(shared.page_map)
        self.writer = Writer(shared, self.committer, self._plan, self._tables)
        self.first_writes = FirstWrites(shared, self.committer, self.writer, self._plan, self._tables)
        self.dropper = Dropper(shared, self.committer, self._tables, self._sources)

    @property
    def poisoned(self) -> bool:
        """Whether writes are refused since the host failed to make data durable."""
        return self._files.poisoned is not None

    @property
    def ready(self) -> bool:
        """Whether writes may go on without waiting. The disk's lock is held."""
        return self._files.poisoned is None and (self.committer.armed or self.committer.arm_at_once())

    def arm(self) -> None:
        """Make sure that writes may begin. Raises what forbids them."""
        self.committer.raise_if_poisoned()
        if not self.committer.armed:
            self.committer.arm()


def _data_files(segments: Sequence[Segment], plan: WritePlan) -> Iterator[tuple[int, int | None]]:
    """The sources that hold what guests write, and where those must end that are disks by themselves."""
    for segment in segments:
        if isinstance(segment, Linear):
            yield segment.source, None
        elif isinstance(segment, Table):
            yield segment.data, segment.length if plan.allocator is Allocator.OWN_PLACE else None


def _journal(plan: WritePlan, files: MetadataFiles) -> Journal:
    if plan.journal is JournalKind.VHDX_LOG:
        from drivebay.engine.vhdx_log import VhdxLog  # few disks need it

        assert plan.log is not None
        return VhdxLog(files, plan.log)
    return OrderedJournal(files)
