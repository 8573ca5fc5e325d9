"""CUE sheets: a text that says where the tracks of a CD lie in a BIN file. See docs/formats/cue.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from drivebay.blockmap import Codec, Files, Format, Layer, Linear, Match, Packed, PackedRun, Segment, Zeros
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import SECTOR, ImageFacts, physical_geometry

USER_DATA = 2048
_MAX_TEXT = 256 << 10
_MAX_FRAMES = 100 * 60 * 75  # minutes have two digits
_FILE_TYPES = ("BINARY", "MOTOROLA")
_FILE = re.compile(r'FILE\s+(?:"([^"]*)"|(\S+))\s+(\S+)', re.IGNORECASE)
_TRACK = re.compile(r"TRACK\s+([0-9]{1,2})\s+(\S+)", re.IGNORECASE)
_TIME = re.compile(
    r"(?:INDEX\s+([0-9]{1,2})|PREGAP|POSTGAP)\s+([0-9]{1,2}):([0-5]?[0-9]):([0-9]{1,2})", re.IGNORECASE
)
_SHEET = re.compile(rb"^[ \t]*FILE\s.+\s(?:BINARY|MOTOROLA|WAVE|MP3|AIFF)\s*$", re.IGNORECASE | re.MULTILINE)


class _Mode(NamedTuple):
    """How a frame lies in the file: its bytes, and where the 2,048 of a sector begin (None: audio)."""

    frame: int
    data: int | None


_MODES = {
    "AUDIO": _Mode(2352, None),
    "MODE1/2048": _Mode(2048, 0),
    "MODE1/2352": _Mode(2352, 16),
    "MODE2/2352": _Mode(2352, 24),
}


@dataclass(slots=True)
class _Track:
    """One track, times in frames: ``indexes`` count in the file, the gaps are in no file."""

    number: int
    mode: _Mode
    indexes: dict[int, int] = field(default_factory=dict)
    pregap: int = 0
    postgap: int = 0

    @property
    def first(self) -> int:
        """Its first frame in the file."""
        return min(self.indexes.values())


class _Sheet(NamedTuple):
    file: str
    tracks: list[_Track]


class _Stretch(NamedTuple):
    """``frames`` frames that lie in the file from byte ``offset`` on; without a mode they are in no file."""

    frames: int
    mode: _Mode | None = None
    offset: int = 0


class _SheetError(Exception):
    """What is wrong; it becomes a StorageError that names the file."""

    def __init__(self, message: str, kind: ErrorKind = ErrorKind.CORRUPT) -> None:
        super().__init__(message)
        self.kind = kind


def _probe(head: bytes, _tail: bytes) -> Match:
    return Match.YES if b"\0" not in head and _SHEET.search(head) else Match.NO


def _open(files: Files) -> Layer:
    """Describe the data tracks as one disk of 2,048-byte sectors; audio reads as zeros."""
    try:
        sheet = _parse(_text(files))
        stretches = _stretches(sheet, files.beside(sheet.file).size)
    except _SheetError as error:
        remedy = "correct it" if error.kind is ErrorKind.CORRUPT else "convert the disc to an ISO image"
        message = f"CUE sheet: {error}; {remedy}"
        raise StorageError(error.kind, message, path=files.path, offset=0, operation="open") from None
    size = USER_DATA * sum(stretch.frames for stretch in stretches)
    facts = ImageFacts(
        format="cue",
        variant="bin",
        size=size,
        sector_size=USER_DATA,
        pchs=physical_geometry(size),
        details={"file": sheet.file, "tracks": len(sheet.tracks), "audio tracks": _audio_tracks(sheet)},
    )
    return Layer(
        facts,
        segments=tuple(_segments(stretches)),
        refusal="it is the image of a CD",
        sources=(sheet.file,),
    )


def _audio_tracks(sheet: _Sheet) -> int:
    return sum(track.mode.data is None for track in sheet.tracks)


def _text(files: Files) -> str:
    if files.size > _MAX_TEXT:
        raise _SheetError(f"it has {files.size} bytes, but {_MAX_TEXT} at most are possible")
    text = files.read(0, _MAX_TEXT)
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _parse(text: str) -> _Sheet:
    names: list[str] = []
    tracks: list[_Track] = []
    for number, line in enumerate(text.splitlines(), 1):
        command, _, _ = line.strip().partition(" ")
        match command.upper():
            case "FILE":
                names.append(_file(line.strip(), number))
            case "TRACK":
                tracks.append(_track(line.strip(), number, tracks))
            case "INDEX" | "PREGAP" | "POSTGAP":
                _enter_time(line.strip(), number, tracks)
    if len(names) != 1:
        raise _SheetError(f"it has {len(names)} FILE lines, but one is possible", ErrorKind.UNSUPPORTED)
    _check_times(tracks)
    return _Sheet(names[0], tracks)


def _file(line: str, number: int) -> str:
    found = _FILE.fullmatch(line)
    if found is None:
        raise _SheetError(f"line {number} is no FILE line: {line[:80]!r}")
    name, kind = found[1] or found[2] or "", found[3].upper()
    if kind not in _FILE_TYPES:
        message = f"line {number}: the file is {kind[:20]!r}; only {' and '.join(_FILE_TYPES)} are possible"
        raise _SheetError(message, ErrorKind.UNSUPPORTED)
    if not name or "\0" in name:
        raise _SheetError(f"line {number}: the file is called {name[:80]!r}")
    return re.split(r"[\\/]", name)[-1] if re.match(r"[A-Za-z]:[\\/]", name) else name


def _track(line: str, number: int, before: list[_Track]) -> _Track:
    found = _TRACK.fullmatch(line)
    if found is None:
        raise _SheetError(f"line {number} is no TRACK line: {line[:80]!r}")
    track, mode = int(found[1]), found[2].upper()
    if mode not in _MODES:
        message = f"line {number}: the track is {mode[:20]!r}; only {', '.join(_MODES)} are possible"
        raise _SheetError(message, ErrorKind.UNSUPPORTED)
    if before and track != before[-1].number + 1:
        raise _SheetError(f"line {number}: track {track} follows track {before[-1].number}")
    return _Track(track, _MODES[mode])


def _enter_time(line: str, number: int, tracks: list[_Track]) -> None:
    found = _TIME.fullmatch(line)
    if found is None or int(found[4]) >= 75:
        raise _SheetError(f"line {number} has no time (minutes:seconds:frames): {line[:80]!r}")
    if not tracks:
        raise _SheetError(f"line {number} belongs to no track: {line[:80]!r}")
    frames = (int(found[2]) * 60 + int(found[3])) * 75 + int(found[4])
    track = tracks[-1]
    if found[1] is not None:
        track.indexes[int(found[1])] = frames
    elif line[:3].upper() == "PRE":
        track.pregap = frames
    else:
        track.postgap = frames


def _check_times(tracks: list[_Track]) -> None:
    if not tracks:
        raise _SheetError("it has no tracks")
    position = 0
    for track in tracks:
        if 1 not in track.indexes:
            raise _SheetError(f"track {track.number} has no INDEX 01")
        for index in sorted(track.indexes):
            if track.indexes[index] < position:
                raise _SheetError(f"INDEX {index:02} of track {track.number} comes before what it follows")
            position = track.indexes[index]


def _stretches(sheet: _Sheet, file_size: int) -> list[_Stretch]:
    """The disc from its sector 0, which is the first track's INDEX 01, to the end of the last data track."""
    tracks = sheet.tracks
    last = max((at for at, track in enumerate(tracks) if track.mode.data is not None), default=None)
    if last is None:
        raise _SheetError("the disc has only audio", ErrorKind.UNSUPPORTED)
    found: list[_Stretch] = []
    offset = tracks[0].first * tracks[0].mode.frame
    for at, track in enumerate(tracks[: last + 1]):
        frames = _frames(tracks, at, file_size - offset)
        skipped = 0 if at else track.indexes[1] - track.first
        found += [
            _Stretch(track.pregap if at else 0),
            _Stretch(frames - skipped, track.mode, offset + skipped * track.mode.frame),
            _Stretch(track.postgap if at < last else 0),
        ]
        offset += frames * track.mode.frame
    _check_length(sum(stretch.frames for stretch in found))
    return [stretch for stretch in found if stretch.frames]


def _frames(tracks: list[_Track], at: int, room: int) -> int:
    """How many frames of a track the file has; ``room`` is what it has from the track's beginning on."""
    track = tracks[at]
    there = max(room, 0) // track.mode.frame
    needed = (
        tracks[at + 1].first - track.first if at + 1 < len(tracks) else track.indexes[1] - track.first + 1
    )
    if there < needed:
        raise _SheetError(f"its file has {there} frames of track {track.number}, which needs {needed}")
    return needed if at + 1 < len(tracks) else there


def _check_length(frames: int) -> None:
    if not 0 < frames <= _MAX_FRAMES:
        message = f"the disc has {frames} sectors; 1 to {_MAX_FRAMES} (100 minutes) are possible"
        raise _SheetError(message, ErrorKind.UNSUPPORTED)


def _segments(stretches: list[_Stretch]) -> Iterator[Segment]:
    start = 0
    for stretch in stretches:
        length = stretch.frames * USER_DATA
        yield _segment(start, length, stretch)
        start += length


def _segment(start: int, length: int, stretch: _Stretch) -> Segment:
    mode = stretch.mode
    if mode is None or mode.data is None:
        return Zeros(start, length)
    if mode.frame == USER_DATA and stretch.offset % SECTOR == 0:
        return Linear(start, length, source=1, offset=stretch.offset)
    first = stretch.offset + mode.data
    runs = (
        PackedRun(start + USER_DATA * at, USER_DATA, first + mode.frame * at, USER_DATA, Codec.STORED)
        for at in range(stretch.frames)
    )
    return Packed(start, length, source=1, runs=tuple(runs))


FORMAT = Format(name="cue", extensions=("cue",), probe=_probe, open=_open)
