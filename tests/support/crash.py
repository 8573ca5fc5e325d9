"""Power cuts: a run is recorded, and what must hold in every state that the host may leave behind."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drivebay.blockmap import FileEdit
from drivebay.engine.disk import Disk
from drivebay.errors import StorageError
from drivebay.model import Severity
from support.disks import files_of, format_of, open_disk, open_fd, open_layer, plain_source
from support.memory_files import MemoryFiles, files_made_by
from support.power_cut import State, crash_states
from support.recording import Event, Log
from support.shadow import ShadowDisk
from support.timeline import Timeline, step_over

_MOST_CUTS = 80
_OTHER_TOOLS_OVERWRITE = "counter-low"


@dataclass
class Recording:
    """A run: the chain, the top's files before it, all that reached them, and the guest's steps."""

    paths: Sequence[Path]
    before: Mapping[str, bytes]
    events: list[Event]
    timeline: Timeline

    def states(self, seed: int, torn: int) -> Iterator[State]:
        """As `crash_states`; of very long runs, not all prefixes."""
        return crash_states(self.before, self.events, seed, torn, _MOST_CUTS)


Script = Callable[["Guest"], None]


class Guest:
    """Does the steps of a script to a shadowed disk, and notes in the timeline when each ran.

    ``block`` is what the script takes for the image's blocks; the disk has six of them.
    """

    def __init__(self, shadow: ShadowDisk, log: Log, timeline: Timeline, block: int) -> None:
        self.block = block
        self._shadow = shadow
        self._log = log
        self._timeline = timeline

    def write(self, offset: int, data: bytes, *, fua: bool = False) -> None:
        self._step(offset, len(data), fua, lambda: self._shadow.write(offset, data, fua=fua))

    def write_batch(self, requests: list[tuple[int, bytes]]) -> None:
        low = min(offset for offset, _ in requests)
        high = max(offset + len(data) for offset, data in requests)
        self._step(low, high - low, False, lambda: self._shadow.write_batch(requests))

    def zero(self, offset: int, length: int, *, unmap: bool = True, fua: bool = False) -> None:
        self._step(offset, length, fua, lambda: self._shadow.zero(offset, length, unmap=unmap, fua=fua))

    def discard(self, offset: int, length: int, *, fua: bool = False) -> None:
        self._step(offset, length, fua, lambda: self._shadow.discard(offset, length, fua=fua))

    def flush(self) -> None:
        self._step(0, 0, True, self._shadow.flush)

    def _step(self, offset: int, length: int, flushes: bool, step: Callable[[], object]) -> None:
        start = len(self._log.events)
        step()
        done = step_over(self._shadow.content, offset, length, start, len(self._log.events))
        self._timeline.steps.append(dataclasses.replace(done, flushes=flushes))


def record(paths: Sequence[Path], content: bytearray, script: Script, block: int) -> Recording:
    """Run ``script`` on the chain."""
    before = {str(file): file.read_bytes() for file in files_of(paths[0])}
    log = Log()
    timeline = Timeline(content)
    with open_disk(paths, source=log.source) as disk:
        script(Guest(ShadowDisk(disk, content), log, timeline, block))
        start = len(log.events)
    closing = step_over(content, 0, 0, start, len(log.events))
    timeline.steps.append(dataclasses.replace(closing, flushes=True))
    assert {event.path for event in log.events} <= set(before)
    return Recording(paths, before, log.events, timeline)


class Examiner:
    """Opens crash states as a fresh process would, and says what is wrong with them."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._top = str(recording.paths[0])
        self._kind = format_of(self._top)
        self.examined = 0

    def damage(self, state: State) -> str | None:
        """What the power cut has broken; ``None`` for no damage."""
        self.examined += 1
        try:
            found = self._findings(state.files) or self._contents(state)
        except StorageError as error:
            found = str(error)
        return f"after {state.cut} events, {state.how}: {found}" if found else None

    def write_again(self, state: State) -> None:
        """The image of a crash state goes on working: writes, discards and reopens without damage."""
        files = self._made_writable(state.files)
        with _OpenState(self._recording.paths, files, writable=True) as opened:
            content = bytearray(opened.disk.read(0, opened.disk.size))
            shadow = ShadowDisk(opened.disk, content)
            _use(shadow)
        files = opened.after
        with _OpenState(self._recording.paths, files, writable=False) as opened:
            ShadowDisk(opened.disk, content).verify()
        assert self._findings(files) is None

    def _gate(self, files: Mapping[str, bytes | bytearray]) -> MemoryFiles:
        others = {Path(path).name: data for path, data in files.items()}
        return MemoryFiles(files[self._top], self._top, others)

    def _made_writable(self, files: Mapping[str, bytearray]) -> Mapping[str, bytes | bytearray]:
        """As `drivebay repair` does where the image demands it."""
        layer = self._kind.open(self._gate(files))
        if layer.plan is not None:
            return files
        assert self._kind.repair is not None, layer.refusal
        for step in self._kind.repair(self._gate(files), layer):
            assert not step.loses, step.message
            files = self._edited(files, step.changes)
        assert self._kind.open(self._gate(files)).plan is not None, "repaired, but not writable"
        return files

    def _edited(self, files: Mapping[str, bytes | bytearray], edits: Sequence[FileEdit]) -> dict[str, bytes]:
        names = {"" if path == self._top else Path(path).name: path for path in files}
        edited = files_made_by(edits, {name: files[path] for name, path in names.items()})
        return {names[name]: data for name, data in edited.items()}

    def _findings(self, files: Mapping[str, bytes | bytearray]) -> str | None:
        gate = self._gate(files)
        layer = self._kind.open(gate)
        if self._kind.check is None:
            return None
        bad = [
            finding.message
            for finding in self._kind.check(gate, layer)
            if finding.severity is Severity.ERROR or finding.code == _OTHER_TOOLS_OVERWRITE
        ]
        return "; ".join(bad) or None

    def _contents(self, state: State) -> str | None:
        with _OpenState(self._recording.paths, state.files, writable=False) as opened:
            return self._recording.timeline.fault(opened.disk.read(0, opened.disk.size), state.cut)


def _use(shadow: ShadowDisk) -> None:
    content = shadow.content
    step = len(content) // 7
    for number, offset in enumerate(range(0, len(content) - 3000, step)):
        shadow.write(offset, bytes([number + 1]) * 3000)
    shadow.discard(step, len(content) // 2)
    shadow.flush()
    shadow.write(len(content) // 2, b"again" * 1000)
    shadow.verify()
    shadow.flush()


class _OpenState:
    """A crash state as a disk, in memory. ``after`` are its files once it is closed."""

    def __init__(
        self, paths: Sequence[Path], files: Mapping[str, bytes | bytearray], *, writable: bool
    ) -> None:
        self._paths = [str(paths[0]), *(path for path in files if path != str(paths[0]))]
        self._fds = [_in_memory(files[path]) for path in self._paths]
        top, *others = [os.dup(fd) for fd in self._fds]
        names = {Path(path).name: fd for path, fd in zip(self._paths[1:], others, strict=True)}
        layer = open_fd(top, self._paths[0], writable=writable, source=plain_source, others=names)
        self.disk = Disk([layer, *(open_layer(path) for path in paths[1:])], writable=writable)
        self.after: dict[str, bytes] = {}

    def __enter__(self) -> _OpenState:
        return self

    def __exit__(self, *_error: object) -> None:
        self.disk.close()
        for path, fd in zip(self._paths, self._fds, strict=True):
            self.after[path] = os.pread(fd, os.fstat(fd).st_size, 0)
            os.close(fd)


def _in_memory(data: bytes | bytearray) -> int:
    fd = os.memfd_create("crash state")
    os.pwrite(fd, data, 0)
    return fd


def damages(recording: Recording, seed: int, torn: int) -> Iterator[str]:
    """All damage in the crash states of a run."""
    examiner = Examiner(recording)
    for state in recording.states(seed, torn):
        found = examiner.damage(state)
        if found:
            yield found
