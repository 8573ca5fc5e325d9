"""A chain under random steps, snapshots and killed processes, against a model of sectors."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from drivebay.engine.batch import Outcome
from drivebay.model import CacheMode, Severity
from support.disks import KIB, MIB, ImageSpec, copy_sparse, findings, make_image, open_disk, open_layer
from support.shadow import ShadowDisk, assert_same, check_extents
from support.timeline import Timeline, step_over

BLOCK = 512 * KIB
BLOCKS = 5
SIZE = BLOCKS * BLOCK - 3 * 512
MOST_LAYERS = 6

blocks = st.integers(0, BLOCKS - 1)
within = st.one_of(st.just(0), st.integers(0, BLOCK - 1), st.integers(0, 1023).map(lambda n: n * 512))
lengths = st.one_of(st.sampled_from([1, 512, 4096, BLOCK, 2 * BLOCK]), st.integers(0, 20_000))
bytes_ = st.integers(1, 255)


class ChainMachine(RuleBasedStateMachine):
    """The disk under test is the top of ``paths``; ``snapshots`` are chains that must change no more."""

    def __init__(self) -> None:
        super().__init__()
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name)
        self.files = 0
        self.time = 0
        self.paths: list[Path] = []
        self.snapshots: list[tuple[list[Path], bytes]] = []

    @initialize(
        base=st.sampled_from(["dynamic", "fixed", "raw"]),
        child=st.booleans(),
        cache=st.sampled_from([CacheMode.WRITEBACK, CacheMode.WRITETHROUGH, CacheMode.UNSAFE]),
        budget=st.sampled_from([4096, 64 * MIB]),
    )
    def begin(self, base: str, child: bool, cache: CacheMode, budget: int) -> None:
        self.cache, self.budget = cache, budget
        raw = base == "raw"
        spec = ImageSpec(SIZE, None if raw else BLOCK, "dynamic" if raw else base, "raw" if raw else "vdi")
        self._new_image(spec)
        if child:
            self._new_image(ImageSpec(SIZE, 1 * MIB))
        self._open(bytearray(SIZE))

    def _new_image(self, spec: ImageSpec) -> None:
        self.files += 1
        path = self.folder / f"{self.files}.{spec.format}"
        make_image(path, spec, self.paths[0] if self.paths else None)
        self.paths.insert(0, path)

    def _open(self, content: bytearray) -> None:
        disk = open_disk(self.paths, cache=self.cache, map_budget=self.budget)
        self.shadow = ShadowDisk(disk, content)
        self.timeline = Timeline(content)

    def _done(self, offset: int, length: int, *, flushed: bool = False) -> None:
        self.time += 1
        step = step_over(self.shadow.content, offset, length, self.time - 1, self.time)
        flushes = flushed or self.cache is CacheMode.WRITETHROUGH
        self.timeline.steps.append(dataclasses.replace(step, flushes=flushes))

    def _range(self, block: int, within: int, length: int) -> tuple[int, int]:
        offset = min(block * BLOCK + within, SIZE)
        return offset, min(length, SIZE - offset)

    @rule(block=blocks, within=within, length=lengths, value=bytes_, fua=st.booleans())
    def write(self, block: int, within: int, length: int, value: int, fua: bool) -> None:
        offset, length = self._range(block, within, length)
        self.shadow.write(offset, bytes([value]) * length, fua=fua)
        self._done(offset, length, flushed=fua)

    @rule(block=blocks, within=within, length=lengths, value=bytes_)
    def write_at_once(self, block: int, within: int, length: int, value: int) -> None:
        offset, length = self._range(block, within, length)
        outcomes = self.shadow.write_batch([(offset, bytes([value]) * length)])
        assert outcomes[0] in (Outcome.DONE, Outcome.LATER)
        self._done(offset, length)

    @rule(block=blocks, within=within, length=lengths, unmap=st.booleans(), fua=st.booleans())
    def zero(self, block: int, within: int, length: int, unmap: bool, fua: bool) -> None:
        offset, length = self._range(block, within, length)
        self.shadow.zero(offset, length, unmap=unmap, fua=fua)
        self._done(offset, length, flushed=fua)

    @rule(block=blocks, within=within, length=lengths, fua=st.booleans())
    def discard(self, block: int, within: int, length: int, fua: bool) -> None:
        offset, length = self._range(block, within, length)
        self.shadow.discard(offset, length, fua=fua)
        self._done(offset, length, flushed=fua)

    @rule()
    def flush(self) -> None:
        self.shadow.flush()
        self._done(0, 0, flushed=True)

    @precondition(lambda self: len(self.paths) < MOST_LAYERS)
    @rule(block=st.sampled_from([BLOCK, MIB]))
    def snapshot(self, block: int) -> None:
        old = list(self.paths)
        self._new_image(ImageSpec(SIZE, block))
        self.shadow.disk.push(open_layer(self.paths[0], writable=True))
        self.snapshots.append((old, bytes(self.shadow.content)))
        self._done(0, 0, flushed=True)

    @rule()
    def reopen(self) -> None:
        self.shadow.disk.close()
        self._open(self.shadow.content)

    @rule(adopt=st.booleans())
    def kill(self, adopt: bool) -> None:
        """The process is killed: the files stay as they are."""
        copies = self.folder / f"killed{self.time}-{self.files}-{len(list(self.folder.iterdir()))}"
        copies.mkdir()
        paths = [copy_sparse(path, copies) for path in self.paths]
        with open_disk(paths) as disk:
            found = disk.read(0, SIZE)
            assert self.timeline.fault(found, self.time) is None
        assert not [f for f in findings(paths[0]) if f.severity is Severity.ERROR]
        if adopt:
            self.shadow.disk.close()
            self.paths = paths
            self._open(bytearray(found))

    @invariant()
    def reads_what_was_written(self) -> None:
        if self.paths:
            self.shadow.verify()

    def teardown(self) -> None:
        if self.paths:
            check_extents(self.shadow.disk, self.shadow.content)
            self.shadow.disk.close()
            self._open(self.shadow.content)
            self.shadow.verify()
            self.shadow.disk.close()
        for paths, content in self.snapshots:
            with open_disk(paths, writable=False) as disk:
                assert_same(disk.read(0, SIZE), content, 0)
        self._temporary.cleanup()


ChainMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestChain = ChainMachine.TestCase
