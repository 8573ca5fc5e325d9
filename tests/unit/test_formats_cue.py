"""CUE sheets: where the sectors of each kind of track lie, and sheets that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drivebay.blockmap import Linear, Match, Packed, Zeros
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import cue
from support.disks import open_disk
from support.interpreter import read_layers
from support.memory_files import MemoryFiles

SIMPLE = 'FILE "disc.bin" BINARY\n  TRACK 01 MODE1/2352\n    INDEX 01 00:00:00\n'


def sector(number: int) -> bytes:
    """2,048 bytes of user data."""
    return number.to_bytes(2, "big") * 1024


def frames(first: int, count: int, header: int = 16) -> bytes:
    """2,352-byte frames around sectors ``first`` and up."""
    whole = (b"\xff" * header + sector(first + at) + b"\xee" * (2352 - 2048 - header) for at in range(count))
    return b"".join(whole)


def audio(count: int) -> bytes:
    return b"\xaa" * 2352 * count


def opened(sheet: str, data: bytes, name: str = "disc.bin") -> Any:
    return cue.FORMAT.open(MemoryFiles(sheet.encode(), "disc.cue", {name: data}))


def content(sheet: str, data: bytes) -> bytes:
    layer = opened(sheet, data)
    return read_layers([(layer, sheet.encode(), data)], 0, layer.facts.size)


def sectors(*numbers: int) -> bytes:
    return b"".join(map(sector, numbers))


@pytest.mark.parametrize(("mode", "header"), [("MODE1/2352", 16), ("MODE2/2352", 24)])
def test_frames_give_their_user_data(mode: str, header: int) -> None:
    sheet = SIMPLE.replace("MODE1/2352", mode)
    assert content(sheet, frames(5, 3, header) + bytes(100)) == sectors(5, 6, 7)


def test_cooked_sectors_are_the_file() -> None:
    sheet = SIMPLE.replace("2352", "2048")
    assert content(sheet, sectors(1, 2, 3)) == sectors(1, 2, 3)
    assert opened(sheet, sectors(1, 2)).segments == (Linear(0, 4096, 1, 0),)


def test_the_facts() -> None:
    layer = opened(SIMPLE, frames(0, 4))
    assert (layer.facts.size, layer.facts.sector_size) == (4 * 2048, 2048)
    assert (layer.plan, layer.sources) == (None, ("disc.bin",))


MIXED = """\ufeffREM GENRE Test
CATALOG 1234567890123
FILE disc.bin MOTOROLA
  TRACK 01 MODE1/2352
    FLAGS DCP
    INDEX 01 00:00:00
    POSTGAP 00:00:01
  TRACK 02 AUDIO
    INDEX 00 00:00:02
    INDEX 01 00:00:04
  TRACK 03 MODE1/2048
    PREGAP 00:00:02
    INDEX 01 00:00:05
  TRACK 04 AUDIO
    INDEX 01 00:00:07
"""


def test_audio_and_gaps_read_as_zeros_and_the_disk_ends_with_the_last_data_track() -> None:
    data = frames(1, 2) + audio(3) + sectors(8, 9) + audio(9)
    layer = opened(MIXED, data)
    assert content(MIXED, data) == sectors(1, 2) + bytes(6 * 2048) + sectors(8, 9)
    assert [type(segment) for segment in layer.segments] == [Packed, Zeros, Zeros, Zeros, Packed]
    assert layer.facts.details["audio tracks"] == 2


def test_sector_0_is_where_the_first_track_begins() -> None:
    sheet = SIMPLE.replace("INDEX 01 00:00:00", "PREGAP 00:02:00\nINDEX 00 00:00:00\nINDEX 01 00:00:02")
    assert content(sheet, frames(0, 5)) == sectors(2, 3, 4)


@pytest.mark.parametrize(
    ("head", "match"),
    [
        (SIMPLE.encode(), Match.YES),
        (SIMPLE.lower().encode(), Match.YES),
        (SIMPLE.replace("\n", "\r\n").encode(), Match.YES),
        (b"REM long text\n" * 20 + SIMPLE.encode(), Match.YES),
        (b"FILE a.wav WAVE\n", Match.YES),
        (SIMPLE.encode() + b"\0", Match.NO),
        (b"FILE BINARY", Match.NO),
        (b"# Disk DescriptorFile\n", Match.NO),
        (b"", Match.NO),
    ],
)
def test_the_probe(head: bytes, match: Match) -> None:
    assert cue.FORMAT.probe(head, head[-512:]) is match


CORRUPT, UNSUPPORTED = ErrorKind.CORRUPT, ErrorKind.UNSUPPORTED
REFUSED = [
    ("", "0 FILE lines", UNSUPPORTED),
    (SIMPLE + SIMPLE.replace("01 MODE", "02 MODE"), "2 FILE lines", UNSUPPORTED),
    ('FILE "disc.bin" BINARY\n', "no tracks", CORRUPT),
    (SIMPLE.replace("BINARY", "WAVE"), "WAVE", UNSUPPORTED),
    (SIMPLE.replace('"disc.bin"', '""'), "is called", CORRUPT),
    (SIMPLE.replace('"disc.bin" BINARY', ""), "no FILE line", CORRUPT),
    (SIMPLE.replace("MODE1/2352", "MODE2/2336"), "MODE2/2336", UNSUPPORTED),
    (SIMPLE.replace("MODE1/2352", "AUDIO"), "only audio", UNSUPPORTED),
    (SIMPLE.replace("TRACK 01", "TRACK x"), "no TRACK line", CORRUPT),
    (SIMPLE + "TRACK 03 AUDIO\nINDEX 01 00:01:00", "follows track 1", CORRUPT),
    (SIMPLE.replace("INDEX 01", "INDEX 00"), "no INDEX 01", CORRUPT),
    (SIMPLE.replace("00:00:00", "00:00:75"), "no time", CORRUPT),
    (SIMPLE.replace("00:00:00", "soon"), "no time", CORRUPT),
    ("INDEX 01 00:00:00\n" + SIMPLE, "no track", CORRUPT),
    (SIMPLE + "INDEX 02 00:00:09\nTRACK 02 AUDIO\nINDEX 01 00:00:08", "comes before", CORRUPT),
    (SIMPLE + "TRACK 02 AUDIO\nINDEX 01 00:00:09", "has 4 frames", CORRUPT),
    (SIMPLE.replace("00:00:00", "00:00:04"), "which needs 1", CORRUPT),
    (SIMPLE + "REM " + "x" * (256 << 10), "at most", CORRUPT),
    (
        SIMPLE + "POSTGAP 99:59:74\nTRACK 02 MODE1/2352\nPREGAP 00:01:00\nINDEX 01 00:00:02",
        "100 minutes",
        UNSUPPORTED,
    ),
]


@pytest.mark.parametrize(("sheet", "what", "kind"), REFUSED)
def test_a_bad_sheet_is_refused(sheet: str, what: str, kind: ErrorKind) -> None:
    with pytest.raises(StorageError, match=what) as caught:
        opened(sheet, frames(0, 4))
    assert (caught.value.kind, caught.value.path, caught.value.offset) == (kind, "disc.cue", 0)
    assert "; " in caught.value.message


def test_an_old_sheet_may_be_in_latin_1_and_name_a_windows_path() -> None:
    sheet = SIMPLE.replace("disc.bin", "C:\\rips\\größe.bin").encode("latin-1")
    layer = cue.FORMAT.open(MemoryFiles(sheet, "disc.cue", {"größe.bin": frames(0, 1)}))
    assert layer.sources == ("größe.bin",)


def test_a_missing_file_is_told() -> None:
    with pytest.raises(StorageError) as caught:
        opened(SIMPLE, b"", name="other.bin")
    assert caught.value.kind is ErrorKind.NOT_FOUND


def test_the_engine_reads_what_the_sheet_says(tmp_path: Path) -> None:
    data = frames(1, 2) + audio(3) + sectors(8, 9) + audio(9)
    (tmp_path / "disc.cue").write_bytes(MIXED.encode())
    (tmp_path / "disc.bin").write_bytes(data)
    with open_disk([tmp_path / "disc.cue"], writable=False) as disk:
        assert disk.read(0, disk.size) == content(MIXED, data)
        assert disk.read(2048 - 5, 10) == sector(1)[-5:] + sector(2)[:5]
