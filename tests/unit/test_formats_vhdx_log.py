"""Replay of VHDX's log: which sequence counts, and what it does to the file."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from uuid import UUID

import pytest

from drivebay.blockmap import FileChange, FileExtent, FileWrite
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import vhdx
from drivebay.formats.vhdx.header import unpack
from drivebay.model import NULL_UUID
from support.memory_files import MemoryFiles, files_made_by
from support.vhdx_images import (
    BAT,
    DATA,
    DATA_WRITE,
    FILE_WRITE,
    LOG,
    LOG_GUID,
    METADATA,
    MIB,
    PRESENT,
    dirty,
    header,
    items,
    log_entry,
    make_image,
    metadata_region,
    region_table,
    ring,
    with_checksum,
)

K = 1 << 10
OTHER = UUID("11111111-2222-3333-4444-555555555555")
A, B, C = (bytes([n]) * 4096 for n in (0xA, 0xB, 0xC))


def replay_of(data: bytes) -> tuple[tuple[FileChange, ...], ...]:
    return vhdx.FORMAT.open(MemoryFiles(data, "image.vhdx")).replay


def replayed(pieces: Mapping[int, bytes]) -> tuple[FileChange, ...]:
    """What a log with ``pieces`` at their offsets does."""
    return replay_of(dirty(ring(pieces)))[1]


def refused(data: bytes) -> StorageError:
    with pytest.raises(StorageError) as caught:
        replay_of(data)
    assert caught.value.path == "image.vhdx"
    return caught.value


def test_a_log_without_a_guid_is_empty() -> None:
    assert replay_of(make_image(log=ring({0: log_entry([(BAT, A)])}))) == ()


def test_one_entry() -> None:
    assert replayed({0: log_entry([(BAT, A), (BAT + 8192, B)])}) == (
        FileWrite(BAT, A),
        FileWrite(BAT + 8192, B),
    )


def test_the_bytes_that_a_descriptor_keeps_are_put_back() -> None:
    sector = bytes(range(256)) * 16
    assert replayed({0: log_entry([(BAT, sector)], sequence=0x1234567890)}) == (FileWrite(BAT, sector),)


def test_more_descriptors_than_fit_into_the_first_sector() -> None:
    changes = [(BAT + n * 4096, bytes([n]) * 4096) for n in range(200)]
    assert replayed({0: log_entry(changes)}) == tuple(FileWrite(*change) for change in changes)


def test_zeros() -> None:
    assert replayed({0: log_entry([(BAT, 64 * K), (BAT + 4096, A)])}) == (
        FileExtent(BAT, 64 * K),
        FileWrite(BAT + 4096, A),
    )


def test_the_file_grows_to_the_size_that_the_log_says() -> None:
    assert replayed({0: log_entry([(BAT, A)], last=DATA + 8 * MIB)})[-1] == FileExtent(DATA, 8 * MIB)


def test_a_change_behind_the_end_makes_the_file_grow() -> None:
    changes = replayed({0: log_entry([(DATA + MIB, A)])})
    assert changes == (FileWrite(DATA + MIB, A), FileExtent(DATA, MIB + 4096))


def test_an_entry_without_changes_is_a_sequence() -> None:
    assert replayed({8192: log_entry([], tail=8192)}) == ()


def first(sequence: int, sector: bytes, **fields: int) -> bytes:
    return log_entry([(BAT, sector)], sequence=sequence, **fields)


def test_a_sequence_is_replayed_from_its_tail_on() -> None:
    """Each entry takes two sectors. The first one's changes are in their places already."""
    log = {0: first(5, A), 8192: first(6, B), 16384: first(7, C, tail=8192)}
    assert replayed(log) == (FileWrite(BAT, B), FileWrite(BAT, C))


def test_a_sequence_ends_where_the_numbers_do() -> None:
    log = {0: first(5, A), 8192: first(6, B), 16384: first(8, C, tail=8192)}
    assert replayed(log) == (FileWrite(BAT, A), FileWrite(BAT, B))


@pytest.mark.parametrize(("low", "high"), [(0, 524288), (524288, 0)])
def test_of_two_sequences_the_newer_counts(low: int, high: int) -> None:
    log = {low: first(5, A, tail=low), high: first(6, B, tail=high)}
    assert replayed(log) == (FileWrite(BAT, B),)


def test_a_sequence_and_an_entry_around_the_end() -> None:
    start = MIB - 12288
    log = {
        start: first(5, A),
        start + 8192: first(6, B, tail=start),  # its data sector is the log's first
        4096: first(7, C, tail=start),
    }
    assert replayed(log) == (FileWrite(BAT, A), FileWrite(BAT, B), FileWrite(BAT, C))


def test_entries_of_an_older_log_do_not_count() -> None:
    log = {0: log_entry([(BAT, A)], sequence=9, guid=OTHER), 8192: first(5, B, tail=8192)}
    assert replayed(log) == (FileWrite(BAT, B),)


def spoiled(entry: bytes, offset: int, piece: bytes, *, checksum: bool = True) -> bytes:
    damaged = entry[:offset] + piece + entry[offset + len(piece) :]
    return with_checksum(damaged) if checksum else damaged


SOUND = log_entry([(BAT, A), (BAT + 4096, 4096)], sequence=5)
DAMAGED = {
    "signature": spoiled(SOUND, 0, b"logf"),
    "checksum": spoiled(SOUND, 5000, b"x", checksum=False),
    "length 0": spoiled(SOUND, 8, struct.pack("<I", 0)),
    "length too short": spoiled(SOUND, 8, struct.pack("<I", 4096)),
    "length too long": spoiled(SOUND, 8, struct.pack("<I", 2 * MIB)),
    "odd length": spoiled(SOUND, 8, struct.pack("<I", 8191)),
    "odd tail": spoiled(SOUND, 12, struct.pack("<I", 100)),
    "tail outside": spoiled(SOUND, 12, struct.pack("<I", MIB)),
    "tail elsewhere": spoiled(SOUND, 12, struct.pack("<I", 8192)),
    "number 0": log_entry([(BAT, A)], sequence=0),
    "too many descriptors": spoiled(SOUND, 24, struct.pack("<I", 0xFFFFFFFF)),
    "too few descriptors": spoiled(SOUND, 24, struct.pack("<I", 0)),
    "odd flushed size": log_entry([(BAT, A)], flushed=DATA - 512),
    "odd last size": log_entry([(BAT, A)], last=DATA + 512),
    "huge last size": log_entry([(BAT, A)], last=1 << 60),
    "descriptor's signature": spoiled(SOUND, 64, b"abcd"),
    "descriptor's number": spoiled(SOUND, 88, struct.pack("<Q", 6)),
    "data's signature": spoiled(SOUND, 4096, b"dada"),
    "data's first number": spoiled(SOUND, 4100, b"\x01"),
    "data's last number": spoiled(SOUND, 8188, b"\x06"),
    "into the headers": log_entry([(64 * K, A)]),
    "odd place": log_entry([(BAT + 512, A)]),
    "place far outside": log_entry([(1 << 60, A)]),
    "odd number of zeros": log_entry([(BAT, 100)]),
    "too many zeros": log_entry([(BAT, 1 << 60)]),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_an_entry_that_is_damaged_does_not_count(name: str) -> None:
    assert replayed({0: DAMAGED[name], 524288: first(3, C, tail=524288)}) == (FileWrite(BAT, C),)


@pytest.mark.parametrize("log", [b"", ring({0: DAMAGED["checksum"]})])
def test_a_log_without_a_valid_sequence_is_refused(log: bytes) -> None:
    error = refused(dirty(log))
    assert (error.kind, error.offset) == (ErrorKind.CORRUPT, LOG)
    assert str(LOG_GUID) in error.message


def test_a_truncated_file_is_refused() -> None:
    error = refused(dirty(ring({0: log_entry([], flushed=DATA + MIB)})))
    assert (error.kind, error.offset) == (ErrorKind.CORRUPT, DATA)
    assert "truncated" in error.message


def test_a_log_too_large_to_hold_is_refused() -> None:
    both = (header(8, log=(65 * MIB, DATA), log_guid=LOG_GUID), header(7))
    assert refused(make_image(headers=both) + bytes(65 * MIB)).kind is ErrorKind.UNSUPPORTED


def test_a_log_full_of_small_entries_takes_one_pass() -> None:
    """Each entry names a tail that isn't there, so none of the sequences is complete."""
    log = b"".join(log_entry([], sequence=n + 2, tail=MIB - 4096) for n in range(255))
    assert refused(dirty(log)).kind is ErrorKind.CORRUPT


def test_the_stages() -> None:
    """Header with a new FileWriteGuid, changes, header without a log, and so the other one."""
    opening, changes, *closing = replay_of(dirty(ring({0: log_entry([(BAT, A)])})))
    assert changes == (FileWrite(BAT, A),)
    found = []
    for stage in (opening, *closing):
        (change,) = stage
        assert isinstance(change, FileWrite)
        new = unpack(change.data)
        assert new is not None
        found.append((change.offset, new.sequence, new.log_guid))
        assert new.data_write == DATA_WRITE
        assert new.file_write != FILE_WRITE
    assert found == [(128 * K, 8, LOG_GUID), (64 * K, 9, NULL_UUID), (128 * K, 10, NULL_UUID)]


@pytest.mark.parametrize("stages", range(5))
def test_a_replay_that_is_cut_off_is_done_again(stages: int) -> None:
    data = dirty(ring({0: log_entry([(BAT, (DATA | PRESENT).to_bytes(8, "little").ljust(4096, b"\0"))])}))
    for stage in replay_of(data)[:stages]:
        data = files_made_by(stage, {"": data})[""]
    for stage in replay_of(data):
        data = files_made_by(stage, {"": data})[""]
    assert replay_of(data) == ()
    assert data[BAT : BAT + 8] == (DATA | PRESENT).to_bytes(8, "little")


def test_regions_and_metadata_are_read_through_the_log() -> None:
    """Until then neither copy of the region table is sound, and the disk has another size."""
    table = region_table()
    region = metadata_region(items(8 * MIB))
    changes = [(192 * K, table[:4096]), (192 * K + 4096, 60 * K), (METADATA + 64 * K, region[64 * K :])]
    entry = log_entry([(o, c.ljust(4096, b"\0") if isinstance(c, bytes) else c) for o, c in changes])
    data = dirty(ring({0: entry}), tables=(b"\xff" * (64 * K), b""))
    layer = vhdx.FORMAT.open(MemoryFiles(data, "image.vhdx"))
    assert layer.facts.size == 8 * MIB
    assert layer.facts.details["log"] == "to be replayed"
