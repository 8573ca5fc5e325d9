"""The VHDX log journal: whatever moment the power fails at, a replay makes the tables whole."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from uuid import UUID

import pytest

from drivebay.blockmap import FileWrite, LogPlace
from drivebay.engine.change import Change
from drivebay.engine.vhdx_log import VhdxLog
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import vhdx
from drivebay.formats.vhdx.header import Header, read_headers
from drivebay.formats.vhdx.log import active_sequence
from drivebay.formats.vhdx.logentry import Ring
from drivebay.model import NULL_UUID
from support.memory_files import MemoryFiles
from support.vhdx_crash import LoggedFile
from support.vhdx_images import BAT, DATA, LOG, METADATA, MIB, PRESENT, header, make_image

K = 1 << 10
PLACE = LogPlace(LOG, MIB, (64 * K, 128 * K))
IMAGE = make_image(entries={7: DATA | PRESENT}, units=1)
Stages = Sequence[Sequence[Change]]


def entry(number: int, unit: int) -> Change:
    """The BAT entry that puts block ``number`` into MiB ``unit`` of the data."""
    return Change(0, BAT + 8 * number, struct.pack("<Q", DATA + unit * MIB | PRESENT))


def entries(first: int, count: int) -> Change:
    return Change(0, BAT + 8 * first, b"".join(entry(n, n).data for n in range(first, first + count)))


def headers_of(data: bytes) -> tuple[Header, Header]:
    first, second = read_headers(MemoryFiles(data)).copies
    assert first is not None
    assert second is not None
    return first, second


def recovered(data: bytes) -> bytes:
    """The file as the next opening for writing leaves it."""
    file = LoggedFile(data)
    replay(file)
    assert vhdx.FORMAT.open(MemoryFiles(file.data, "image.vhdx")).replay == ()
    return bytes(file.data)


def replay(file: LoggedFile) -> None:
    """Do what the format says that the log holds."""
    for stage in vhdx.FORMAT.open(MemoryFiles(file.data, "image.vhdx")).replay:
        for change in stage:
            if isinstance(change, FileWrite):
                file.write(Change(0, change.offset, change.data))
            else:
                assert change.offset == file.size(0)  # we write no zeros through the log
                file.write(Change(0, change.offset + change.length - 1, b"\0"))
        file.sync()


def bat(data: bytes | bytearray) -> bytes:
    return bytes(data[BAT : BAT + MIB])


def armed(data: bytes = IMAGE, place: LogPlace = PLACE) -> tuple[LoggedFile, VhdxLog]:
    file = LoggedFile(data)
    log = VhdxLog(file, place)
    log.arm()
    return file, log


def test_arming_changes_all_guids_in_both_headers() -> None:
    before = headers_of(IMAGE)[0]
    file, _ = armed()
    for found in headers_of(file.data):
        assert len({found.file_write, found.data_write, found.log_guid, NULL_UUID}) == 4
        assert not {found.file_write, found.data_write} & {before.file_write, before.data_write}
        assert (found.log_offset, found.log_length, found.version) == (LOG, MIB, 1)
    assert [found.sequence for found in headers_of(file.data)] == [9, 8]


def test_arming_leaves_the_image_open_but_unchanged() -> None:
    file, _ = armed()
    layer = vhdx.FORMAT.open(MemoryFiles(file.data))
    assert layer.replay[1] == ()
    assert layer.facts.details["log"] == "to be replayed"
    assert bat(recovered(bytes(file.data))) == bat(IMAGE)


def test_what_is_published_is_in_its_place_and_in_the_log() -> None:
    file, log = armed()
    log.publish([[entry(3, 1)], [entry(600, 2)]])
    expected = bytearray(bat(IMAGE))
    expected[24:32], expected[4800:4808] = entry(3, 1).data, entry(600, 2).data
    assert bat(file.data) == expected
    file.data[BAT : BAT + MIB] = bytes(MIB)
    assert bat(recovered(bytes(file.data)))[:8192] == expected[:8192]


def test_closing_empties_the_log() -> None:
    file, log = armed()
    log.publish([[entry(3, 1)]])
    data_write = headers_of(file.data)[0].data_write
    log.close()
    for found in headers_of(file.data):
        assert (found.log_guid, found.data_write) == (NULL_UUID, data_write)
    assert vhdx.FORMAT.open(MemoryFiles(file.data)).replay == ()


def test_closing_twice_or_unarmed_does_nothing() -> None:
    file = LoggedFile(IMAGE)
    log = VhdxLog(file, PLACE)
    log.close()
    assert file.events == []
    log.arm()
    log.close()
    count = len(file.events)
    log.close()
    assert len(file.events) == count


def test_empty_stages_cost_nothing() -> None:
    file, log = armed()
    count = len(file.events)
    log.publish([])
    log.publish([[], []])
    assert len(file.events) == count


def test_the_order_of_a_publication() -> None:
    """Log, sync, places, sync."""
    file, log = armed()
    count = len(file.events)
    log.publish([[entry(3, 1), entry(600, 2)]])
    places = [event and (event.offset, len(event.data)) for event in file.events[count:]]
    assert places == [(LOG + 512 * K, 3 * 4096), None, (BAT, 4096), (BAT + 4096, 4096), None]


def test_a_change_over_the_border_of_sectors() -> None:
    file, log = armed()
    log.publish([[entries(500, 600)]])
    expected = bytearray(bat(IMAGE))
    expected[4000:8800] = entries(500, 600).data
    assert bat(file.data) == expected
    assert bat(recovered(bytes(file.data))) == expected


def test_later_stages_win() -> None:
    file, log = armed()
    log.publish([[entry(3, 1)], [entry(3, 2)]])
    assert file.data[BAT + 24 : BAT + 32] == entry(3, 2).data


def test_more_than_an_entry_holds_goes_through_several() -> None:
    file, log = armed()
    log.publish([[Change(0, BAT + n * 4096, entry(0, n).data) for n in range(256)]])
    assert [file.data[BAT + n * 4096 + 2] for n in range(256)] == [(4 + n) << 4 & 0xFF for n in range(256)]
    writes = [event for event in file.events if event and LOG <= event.offset < LOG + MIB]
    assert [len(event.data) // 4096 for event in writes] == [1, 127, 127, 5]


def head_of(file: LoggedFile) -> tuple[int, int, int, int]:
    guid = headers_of(file.data)[0].log_guid
    newest = active_sequence(Ring(bytes(file.data[LOG : LOG + MIB]), guid))[-1]
    return newest.sequence, newest.tail, newest.flushed, newest.last


def test_the_log_goes_round() -> None:
    file, log = armed()
    for number in range(1, 6):
        log.publish([[entry(3, number)]])
        assert head_of(file)[:2] == (number + 1, 512 * K if number % 2 else 0)


def test_the_sizes_in_an_entry() -> None:
    """What is durable at least, and what must be there at least."""
    file, log = armed()
    file.data += bytes(3 * MIB)
    log.publish([[entry(3, 1)]])
    assert head_of(file)[2:] == (DATA + MIB, DATA + 4 * MIB)
    log.publish([[entry(3, 2)]])
    assert head_of(file)[2:] == (DATA + 4 * MIB, DATA + 4 * MIB)


def test_a_file_of_odd_size_is_made_even() -> None:
    file, _ = armed(IMAGE + bytes(100))
    assert len(file.data) == DATA + 2 * MIB
    assert recovered(bytes(file.data))[: len(IMAGE)][BAT:] == IMAGE[BAT:]


def test_headers_that_can_t_be_used() -> None:
    with pytest.raises(StorageError, match="count any further") as caught:
        armed(make_image(headers=(header(2**64 - 1), b"")))
    assert (caught.value.kind, caught.value.path) == (ErrorKind.CORRUPT, "image.vhdx")
    with pytest.raises(StorageError, match="headers are damaged"):
        armed(make_image(headers=(b"", b"")))


def test_one_damaged_header_is_made_whole() -> None:
    file, _ = armed(make_image(headers=(b"", header(6))))
    assert [found.sequence for found in headers_of(file.data)] == [7, 8]


# Power cuts.


def session(file: LoggedFile, publications: Sequence[Stages]) -> list[tuple[int, bytes]]:
    """Arm, publish and close; returns the BAT with the number of events from which it is the durable one."""
    log = VhdxLog(file, PLACE)
    log.arm()
    states = [(0, bat(file.data))]
    for stages in publications:
        log.publish(stages)
        states.append((len(file.events), bat(file.data)))
    log.close()
    return states


def check_power_cuts(file: LoggedFile, states: list[tuple[int, bytes]], torn: int) -> int:
    count = 0
    for cut, data in file.crash_states(torn):
        durable = max(number for number, (since, _) in enumerate(states) if since <= cut)
        found = bat(recovered(data))
        assert found in [content for _, content in states[durable : durable + 2]], f"event {cut}"
        count += 1
    return count


def test_power_cuts_in_a_session() -> None:
    file = LoggedFile(IMAGE)
    publications: list[Stages] = [
        [[entry(0, 1)]],
        [[entry(1, 2), entry(600, 3)]],
        [[entry(0, 4)], [entry(1500, 5)]],
        [[entries(400, 700)]],
        [[entry(0, 6)]],
    ]
    states = session(file, publications)
    assert check_power_cuts(file, states, torn=5) >= 150


def test_power_cuts_in_a_second_session() -> None:
    """The log is full of the first one's entries."""
    first = LoggedFile(IMAGE)
    session(first, [[[entries(0, 2000)]], [[entry(9, 1)]], [[entry(9, 2)]]])
    second = LoggedFile(bytes(first.data))
    states = session(second, [[[entry(9, 3)]], [[entry(9, 4), entry(1000, 5)]]])
    assert check_power_cuts(second, states, torn=8) > 100


def test_a_missing_sync_would_be_found() -> None:
    """Sectors reach their places while the log's entry doesn't: half of a change is there for good."""
    file, log = armed()
    before, count = bat(file.data), len(file.events)
    log.publish([[entry(1, 2), entry(600, 3)]])
    either = [(0, before), (1 << 30, bat(file.data))]
    assert file.events[count + 1] is None
    check_power_cuts(file, either, torn=10)
    del file.events[count + 1]
    with pytest.raises(AssertionError, match="event"):
        check_power_cuts(file, either, torn=10)


def test_power_cuts_in_the_replay() -> None:
    file, log = armed()
    log.publish([[entry(0, 1), entry(600, 2)]])
    expected = bat(file.data)
    file.data[BAT : BAT + 8192] = bat(IMAGE)[:8192]
    again = LoggedFile(bytes(file.data))
    replay(again)
    assert {bat(recovered(data)) for _, data in again.crash_states(torn=6)} == {expected}


# Full hosts.


@pytest.mark.parametrize("failing", range(5))
def test_a_publication_that_fails_can_be_made_again(failing: int) -> None:
    file, log = armed()
    log.publish([[entry(5, 1)]])
    before = bat(file.data)
    file.fail_at = len(file.events) + failing
    with pytest.raises(StorageError, match="full"):
        log.publish([[entry(0, 2), entry(600, 3)]])
    expected = bytearray(before)
    expected[:8], expected[4800:4808] = entry(0, 2).data, entry(600, 3).data
    assert bat(recovered(bytes(file.data))) in (before, expected)
    log.publish([[entry(0, 2), entry(600, 3)]])
    assert bat(file.data) == expected
    log.close()
    assert vhdx.FORMAT.open(MemoryFiles(file.data)).replay == ()


@pytest.mark.parametrize("failing", [2, 3, 4])
def test_closing_keeps_a_log_that_is_not_in_place(failing: int) -> None:
    file, log = armed()
    file.fail_at = len(file.events) + failing
    with pytest.raises(StorageError, match="full"):
        log.publish([[entry(0, 2), entry(600, 3)]])
    log.close()
    found = bat(recovered(bytes(file.data)))
    assert (found[:8], found[4800:4808]) == (entry(0, 2).data, entry(600, 3).data)


def test_arming_that_fails_can_be_made_again() -> None:
    failing = 0
    while not arm_twice(failing):
        failing += 1
    assert failing == 7


def arm_twice(failing: int) -> bool:
    """Arm a log, and again if event number ``failing`` does; tells whether that was none of them."""
    file = LoggedFile(IMAGE)
    file.fail_at = failing
    log = VhdxLog(file, PLACE)
    try:
        log.arm()
    except StorageError:
        log.arm()
    assert {bat(recovered(data)) for _, data in file.crash_states(torn=2)} == {bat(IMAGE)}
    whole, file.fail_at = file.fail_at == failing, -1
    log.publish([[entry(0, 1)]])
    log.close()
    assert file.data[BAT : BAT + 8] == entry(0, 1).data
    assert file.data[METADATA:] == IMAGE[METADATA:]
    return whole


def test_a_log_that_has_not_been_replayed_is_never_overwritten() -> None:
    file, _ = armed()
    with pytest.raises(StorageError, match="not been replayed"):
        armed(bytes(file.data))


def test_a_closed_log_can_be_armed_again() -> None:
    file, log = armed()
    log.publish([[entry(0, 1)]])
    log.close()
    log.arm()
    log.publish([[entry(1, 2)]])
    file.data[BAT : BAT + 16] = bytes(16)
    assert recovered(bytes(file.data))[BAT : BAT + 16] == entry(0, 1).data + entry(1, 2).data


def test_a_log_elsewhere() -> None:
    """The log may lie anywhere, and have any size."""
    place = LogPlace(DATA + MIB, 3 * MIB, PLACE.headers)
    both = (header(7, log=(3 * MIB, DATA + MIB)), header(6, log=(3 * MIB, DATA + MIB)))
    file, log = armed(make_image(units=1, headers=both) + bytes(3 * MIB), place)
    log.publish([[entries(0, 100)]])
    written = [event.offset for event in file.events if event and event.offset >= DATA]
    assert written == [DATA + MIB, DATA + MIB + 3 * MIB // 2]
    assert headers_of(file.data)[0].log_guid != UUID(int=0)
    assert bat(recovered(bytes(file.data)))[:800] == entries(0, 100).data
