"""Checking and repairing QCOW2: each kind of fault is found, and what can be mended is."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest

import drivebay
from drivebay.blockmap import RepairStep
from drivebay.blockmap.counts import pack_counts, unpack_counts
from drivebay.formats import qcow2
from drivebay.model import Severity
from support.interpreter import read_layers
from support.memory_files import MemoryFiles, files_made_by
from support.qcow2_images import (
    BLOCK,
    CLUSTER,
    COMPRESSED,
    COPIED,
    DATA,
    L2,
    TABLE,
    make_image,
    own,
    snapshot_entry,
)

PATH = "image.qcow2"
FIRST = DATA // CLUSTER  # number of the first data cluster


def found(data: bytes) -> dict[str, Severity]:
    assert qcow2.FORMAT.check is not None
    files = MemoryFiles(data, PATH)
    return {each.code: each.severity for each in qcow2.FORMAT.check(files, qcow2.FORMAT.open(files))}


def steps(data: bytes) -> list[RepairStep]:
    assert qcow2.FORMAT.repair is not None
    files = MemoryFiles(data, PATH)
    return list(qcow2.FORMAT.repair(files, qcow2.FORMAT.open(files)))


def repaired(data: bytes) -> bytes:
    """After each step, the disk reads as before."""
    before = content(data)
    for step in steps(data):
        assert not step.loses
        data = files_made_by(step.changes, {"": data})[""]
        assert content(data) == before
    return data


def content(data: bytes) -> bytes:
    layer = qcow2.FORMAT.open(MemoryFiles(data, PATH))
    return read_layers([(layer, data)], 0, layer.facts.size)


def test_a_sound_image() -> None:
    data = make_image(entries={0: own(1), 3: own(0), 5: 1, 6: own(2) | 1}, snapshot_entries=[])
    assert found(data) == {}
    assert steps(data) == []


BAD: list[tuple[dict[str, Any], str]] = [
    ({"entries": {0: own(9)}}, "outside"),
    ({"entries": {0: COMPRESSED | 1 << 40}}, "outside"),
    ({"l1": {0: 1 << 40}}, "outside"),
    ({"entries": {0: own(0) + 512}}, "unaligned"),
    ({"l1": {0: L2 + 512}}, "unaligned"),
    ({"entries": {0: own(0) | 1}, "version": 2, "length": 72}, "impossible"),
    ({"entries": {0: L2 | COPIED}, "counts": {L2 // CLUSTER: 2}}, "owned-wrongly"),
    ({"entries": {0: TABLE}}, "overlap"),
    ({"entries": {0: own(0)}, "counts": {FIRST: 0}}, "refcount-low"),
    ({"entries": {0: own(0), 1: own(0)}}, "owned-wrongly"),
    ({"snapshot_entries": [snapshot_entry(l1_offset=1 << 40)]}, "snapshot"),
    ({"snapshot_entries": [snapshot_entry(), snapshot_entry(l1_size=0, size=0)]}, "snapshot"),
    ({"incompatible": 2}, "corrupt"),
]


@pytest.mark.parametrize(("fields", "code"), BAD, ids=[f"{code}-{n}" for n, (_, code) in enumerate(BAD)])
def test_a_fault_is_an_error(fields: dict[str, Any], code: str) -> None:
    assert found(make_image(**fields))[code] is Severity.ERROR


def test_clusters_that_are_only_counted_are_leaks() -> None:
    assert found(make_image(counts={FIRST: 1})) == {"leak": Severity.WARNING}
    assert found(make_image(counts={2000: 1})) == {"leak": Severity.WARNING}


def test_an_image_that_was_not_closed() -> None:
    data = make_image(entries={0: own(0)}, incompatible=1, counts={FIRST: 0})
    assert found(data) == {"dirty": Severity.WARNING, "refcount-low": Severity.ERROR}
    after = repaired(data)
    assert found(after) == {}
    assert qcow2.FORMAT.open(MemoryFiles(after, PATH)).plan is not None


def test_snapshots_count_what_they_share() -> None:
    shared = {"l1": {0: L2}, "snapshot_entries": [snapshot_entry(l1_offset=DATA + CLUSTER)]}
    data = bytearray(make_image(entries={0: DATA}, counts={FIRST: 2, 4: 2, FIRST + 1: 1}, **shared))
    struct.pack_into(">Q", data, DATA + CLUSTER, L2)
    data[DATA + CLUSTER + 8 : DATA + 2 * CLUSTER] = bytes(CLUSTER - 8)
    assert found(bytes(data)) == {}
    data[DATA + CLUSTER : DATA + CLUSTER + 8] = bytes(8)  # the snapshot loses its table
    assert found(bytes(data)) == {"leak": Severity.WARNING}


def test_a_compressed_cluster_uses_all_that_its_sectors_touch() -> None:
    entry = COMPRESSED | 8 << 58 | DATA + 100  # nine sectors: a cluster and one more
    assert found(make_image(entries={0: entry}, counts={FIRST: 1, FIRST + 1: 1})) == {}
    low = make_image(entries={0: entry}, counts={FIRST: 1})
    assert found(low) == {"refcount-low": Severity.ERROR}


TABLES = {
    "a table that points nowhere": (TABLE, (1 << 40).to_bytes(8, "big")),
    "a table that points to no boundary": (TABLE, (BLOCK + 512).to_bytes(8, "big")),
    "one block twice": (TABLE, BLOCK.to_bytes(8, "big") * 2),
    "no block": (TABLE, bytes(8)),
    "data of the guest for a block": (TABLE, DATA.to_bytes(8, "big")),
    "tables of the disk for a block": (TABLE, L2.to_bytes(8, "big")),
    "data of the guest for another block": (TABLE + 8, DATA.to_bytes(8, "big")),
    "all counts are zero": (BLOCK, bytes(CLUSTER)),
    "random counts": (BLOCK, bytes(range(256))),
}


@pytest.mark.parametrize("name", TABLES)
def test_reference_counts_are_mended(name: str) -> None:
    offset, patch = TABLES[name]
    data = bytearray(make_image(entries={0: own(0), 2: own(1)}, incompatible=2))
    data[offset : offset + len(patch)] = patch
    assert set(found(bytes(data))) > {"corrupt"}
    after = repaired(bytes(data))
    assert found(after) == {}


def test_a_shared_cluster_is_no_longer_owned() -> None:
    data = make_image(entries={0: own(0), 1: own(0), 2: own(1)}, counts={FIRST: 1})
    assert set(found(data)) == {"owned-wrongly", "refcount-low"}
    after = repaired(data)
    assert found(after) == {}
    assert after[L2 : L2 + 24] == struct.pack(">QQQ", DATA, DATA, own(1))


def test_no_flag_is_taken_back_where_the_guest_has_data() -> None:
    """An L1 entry points to a data cluster: its words may look like entries."""
    data = bytearray(make_image(entries={0: own(0), 1: own(1), 2: own(1)}, l1={0: L2, 1: DATA}, size=4 << 20))
    data[DATA : DATA + 24] = struct.pack(">QQQ", own(0), own(1), own(0))
    struct.pack_into(">I", data, 36, 2)
    assert found(bytes(data))["overlap"] is Severity.ERROR
    for step in steps(bytes(data)):
        after = files_made_by(step.changes, {"": bytes(data)})[""]
        assert after[DATA : DATA + CLUSTER] == data[DATA : DATA + CLUSTER]


def test_what_cannot_be_mended_keeps_its_mark() -> None:
    data = make_image(entries={0: own(0) | 1}, version=2, length=72)
    assert [step.message for step in steps(data)] == []
    assert set(found(data)) == {"impossible"}
    overlapping = make_image(entries={0: L2, 1: own(9)}, incompatible=2)
    for step in steps(overlapping):
        overlapping = files_made_by(step.changes, {"": overlapping})[""]
    assert {"overlap", "corrupt"} <= set(found(overlapping))


@pytest.mark.parametrize(
    "fields",
    [
        {"entries": {0: own(9), 1: own(1)}, "counts": {FIRST + 9: 1}, "incompatible": 2},
        {"entries": {0: own(1) + 512, 1: own(1)}},
        {"entries": {0: COMPRESSED | 1 << 40, 1: own(1)}},
        {"l1": {0: L2, 1: 1 << 40, 2: L2 + 512}, "l1_size": 3, "size": 6 << 20, "entries": {1: own(1)}},
    ],
)
def test_what_points_to_no_cluster_goes(fields: dict[str, Any]) -> None:
    """Else it would point to what a repair, or the next write, puts behind the file's end."""
    data = make_image(**fields)
    (first, *_) = steps(data)
    assert first.loses
    for step in steps(data):
        data = files_made_by(step.changes, {"": data})[""]
    assert found(data) == {}
    assert steps(data) == []
    assert content(data)[:CLUSTER] == bytes(CLUSTER)
    assert content(data)[CLUSTER : 2 * CLUSTER] == data[DATA + CLUSTER : DATA + 2 * CLUSTER]


def test_a_file_that_was_cut_can_be_used_again(tmp_path: Path) -> None:
    """Its last table lies at the end: what the file has of that stays."""
    path = tmp_path / "a.qcow2"
    drivebay.create(path, size=8 << 20, block_size=4096)
    with drivebay.open(path, writable=True) as disk:
        for offset in range(0, 8 << 20, 1 << 20):
            disk.write(offset, bytes([offset >> 20 | 128]) * 4096)
    size = path.stat().st_size
    os.truncate(path, size - 2048)
    assert {"cut"} <= {each.code for each in drivebay.check(path)}
    drivebay.repair(path, apply=True)
    assert drivebay.check(path) == []
    with drivebay.open(path, writable=True) as disk:
        kept = [disk.read(offset, 1)[0] for offset in range(0, 8 << 20, 1 << 20)]
        assert kept[:4] == [128, 129, 130, 131]
        disk.write(7 << 20, b"goes on")
        assert disk.read(7 << 20, 7) == b"goes on"
    assert drivebay.check(path) == []


def test_snapshots_that_all_have_one_table_take_no_time() -> None:
    table = [snapshot_entry(l1_size=1)] * 40
    data = make_image(snapshot_entries=table, counts={3: 41, 4: 41})
    assert found(data)["overlap"] is Severity.ERROR


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
def test_counts_of_every_width_are_packed_and_unpacked(bits: int) -> None:
    data = bytes((7 * index + 3) % 256 for index in range(512))
    counts = unpack_counts(data, bits)
    assert len(counts) == 4096 // bits
    assert pack_counts(counts, bits) == data
    if bits < 8:
        assert int(counts[0]) == data[0] & ((1 << bits) - 1)
