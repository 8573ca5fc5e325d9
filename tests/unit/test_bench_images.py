"""The benchmark's images and servers, with the real tools."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from bench import wire
from bench.errors import BenchError
from bench.images import (
    map_everything,
    qcow2_chain,
    raw_disk,
    sparse_qcow2_chain,
    sparse_vdi_chain,
    vdi_chain,
    vdi_copy,
)
from bench.load import random_load
from bench.peers import DRIVEBAY, NBDKIT, QEMU_NBD, QEMU_STORAGE_DAEMON, Image, Server, running

import drivebay

MIB = 1 << 20


def allocation(image: Image) -> list[dict[str, int | bool]]:
    command = ["qemu-img", "map", "-f", image.format, "--output=json", str(image.path)]
    found: list[dict[str, int | bool]] = json.loads(subprocess.check_output(command))
    return found


def test_raw_disk_holds_the_numbers_of_its_pages(tmp_path: Path) -> None:
    image = raw_disk(tmp_path, 3 * MIB)
    assert image.path.read_bytes() == wire.pages(0, 3 * MIB // wire.PAGE)


def test_vdi_copy_has_all_blocks_allocated(tmp_path: Path) -> None:
    image = vdi_copy(raw_disk(tmp_path, 4 * MIB))
    assert all(extent["data"] for extent in allocation(image))


def test_qcow2_chain_spreads_its_data_over_all_layers(tmp_path: Path) -> None:
    image = qcow2_chain(tmp_path, 8 * MIB, 4)
    assert {extent["depth"] for extent in allocation(image)} == {0, 1, 2, 3}
    subprocess.check_call(
        ["qemu-img", "compare", "-q", str(image.path), str(raw_disk(tmp_path, 8 * MIB).path)]
    )


def test_vdi_chain_spreads_its_data_as_the_qcow2_chain_does(tmp_path: Path) -> None:
    image = vdi_chain(tmp_path, 8 * MIB, 4)
    theirs = allocation(qcow2_chain(tmp_path, 8 * MIB, 4))
    with drivebay.open(image.path) as disk:
        assert disk.read(0, disk.size) == wire.pages(0, 8 * MIB // wire.PAGE)
        ours = [(extent.start, extent.depth) for extent in disk.extents()]
    assert [depth for _, depth in ours] == [depth_at(theirs, start) for start, _ in ours]


def depth_at(extents: list[dict[str, int | bool]], offset: int) -> int | bool:
    return next(e["depth"] for e in extents if e["start"] <= offset < e["start"] + e["length"])


def test_sparse_vdi_chain_has_one_block_in_each_layer(tmp_path: Path) -> None:
    chain = sparse_vdi_chain(tmp_path, 64 * MIB, 3)
    with drivebay.open(chain[-1].path) as disk:
        extents = [extent for extent in disk.extents() if extent.state is drivebay.ExtentState.DATA]
    assert [(extent.start, extent.depth) for extent in extents] == [(MIB, 2), (22 * MIB, 1), (43 * MIB, 0)]


def test_sparse_qcow2_chain_has_one_block_in_each_layer(tmp_path: Path) -> None:
    image = sparse_qcow2_chain(tmp_path, 64 * MIB, 3)[-1]
    extents = [extent for extent in allocation(image) if extent["data"]]
    assert [(extent["start"], extent["length"], extent["depth"]) for extent in extents] == [
        (MIB, MIB, 2),
        (22 * MIB, MIB, 1),
        (43 * MIB, MIB, 0),
    ]


def test_a_fully_mapped_vdi_passes_qemu_img_check(tmp_path: Path) -> None:
    path = tmp_path / "mapped.vdi"
    subprocess.check_call(["qemu-img", "create", "-q", "-f", "vdi", str(path), "64M"])
    map_everything(Image(path, "vdi", 64 * MIB))
    subprocess.check_call(["qemu-img", "check", "-q", "-f", "vdi", str(path)])
    assert path.stat().st_size > 64 * MIB > path.stat().st_blocks * 512


@pytest.mark.parametrize(
    "server", [DRIVEBAY, QEMU_NBD, QEMU_STORAGE_DAEMON, NBDKIT], ids=lambda server: server.name
)
def test_servers_are_measured_and_ended(tmp_path: Path, server: Server) -> None:
    image = raw_disk(tmp_path, 4 * MIB)
    with running(server, image) as process, process.connect() as client:
        assert client.measure(random_load(write=True, length=4096, depth=8, size=image.size), 0.05) > 0
        assert client.measure(random_load(write=False, length=4096, depth=8, size=image.size), 0.05) > 0
        assert process.resident() > MIB
    assert process.process.returncode is not None


@pytest.mark.parametrize("server", [DRIVEBAY, QEMU_NBD, QEMU_STORAGE_DAEMON], ids=lambda server: server.name)
def test_structured_replies_are_measured(tmp_path: Path, server: Server) -> None:
    image = vdi_copy(raw_disk(tmp_path, 4 * MIB))
    with running(server, image) as process, process.connect(structured=True) as client:
        assert client.measure(random_load(write=False, length=4096, depth=32, size=image.size), 0.05) > 0


def test_a_server_that_does_not_start_is_told_with_its_words(tmp_path: Path) -> None:
    image = Image(tmp_path / "absent.raw", "raw", MIB)
    with (
        running(QEMU_NBD, image) as process,
        pytest.raises(BenchError, match=r"qemu-nbd does not start.*absent"),
    ):
        process.connect()
