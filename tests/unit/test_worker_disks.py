"""What a worker does with disks that are in use: push, hold, rebase, close, and errors of the host."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from drivebay.chain import create_image, open_chain, open_image
from drivebay.chain.link import renew_link
from drivebay.engine.disk import Disk
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import CacheMode
from drivebay.service.worker import DiskSpec, WorkerClient, WorkerProcess
from support.nbd_client import WRITE, Client
from support.patience import until
from support.workers import BLOCK, SIZE, Load, nbd, new_diff, new_disk, running, socket_of

NAMES = ("one", "two", "three")


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerProcess]:
    """A worker with three disks, each in a folder of its own."""
    with running([new_disk(_image(tmp_path, name, 0), name) for name in NAMES]) as process:
        yield process


@pytest.fixture
def client(worker: WorkerProcess) -> Iterator[WorkerClient]:
    with worker.connect(timeout=60) as connected:
        yield connected


def _image(folder: Path, name: str, number: int) -> Path:
    place = folder / name
    place.mkdir(exist_ok=True)
    return place / f"{number}.vdi"


def _contents_are(path: Path, expected: dict[int, bytes]) -> None:
    with Disk(open_chain(path).layers) as disk:
        for offset, data in expected.items():
            assert disk.read(offset, len(data)) == data


def test_push_under_load_loses_nothing_and_the_pause_is_told(
    tmp_path: Path, worker: WorkerProcess, client: WorkerClient
) -> None:
    loads = {name: Load(socket_of(worker), name) for name in NAMES}
    for number in range(1, 4):
        loads["one"].go_on()
        diffs = {
            name: new_diff(_image(tmp_path, name, number), _image(tmp_path, name, number - 1))
            for name in NAMES
        }
        asked = time.monotonic()
        assert 0 < client.push(diffs) < time.monotonic() - asked
    status = client.status()
    written = {name: load.stop() for name, load in loads.items()}
    assert worker.stop() == 0
    for name in NAMES:
        assert status[name]["depth"] == 4
        assert status[name]["paths"] == [str(_image(tmp_path, name, number)) for number in (3, 2, 1, 0)]
        _contents_are(_image(tmp_path, name, 3), dict(written[name]))


def test_push_is_done_on_all_disks_or_none(
    tmp_path: Path, worker: WorkerProcess, client: WorkerClient
) -> None:
    loads = {name: Load(socket_of(worker), name) for name in NAMES}
    good = {name: new_diff(_image(tmp_path, name, 1), _image(tmp_path, name, 0)) for name in NAMES}
    stranger = new_diff(tmp_path / "stranger.vdi", _image(tmp_path, "one", 0))
    for bad in (stranger, str(_image(tmp_path, "two", 0)), str(tmp_path / "none.vdi")):
        with pytest.raises(StorageError):
            client.push({**good, "three": bad})
        assert {status["depth"] for status in client.status().values()} == {1}
    client.push(good)
    assert {status["depth"] for status in client.status().values()} == {2}
    for name, load in loads.items():
        written = dict(load.stop())
        client.close_disk(name)
        _contents_are(Path(good[name]), written)


def test_an_image_that_is_not_empty_is_not_pushed(
    tmp_path: Path, worker: WorkerProcess, client: WorkerClient
) -> None:
    diffs = {name: new_diff(_image(tmp_path, name, 1), _image(tmp_path, name, 0)) for name in NAMES}
    with Disk(
        open_chain(diffs["three"], writable=True, allow_stale_parent=True, lock=False).layers, writable=True
    ) as disk:
        disk.write(0, b"x")
    with pytest.raises(StorageError, match="empty"):
        client.push(diffs)
    assert {status["depth"] for status in client.status().values()} == {1}
    with nbd(worker, "one") as guest:
        guest.write(0, b"y" * BLOCK)
    assert worker.stop() == 0
    _contents_are(_image(tmp_path, "one", 0), {0: b"y" * BLOCK})


def test_what_was_pushed_upon_may_be_read_by_others(tmp_path: Path, client: WorkerClient) -> None:
    base = _image(tmp_path, "one", 0)
    with pytest.raises(StorageError, match="in use"):
        open_chain(base)
    client.push({"one": new_diff(_image(tmp_path, "one", 1), base)})
    open_chain(base).close()
    with pytest.raises(StorageError, match="in use"):
        open_chain(base, writable=True)


def test_a_held_disk_stands_still_and_others_go_on(worker: WorkerProcess, client: WorkerClient) -> None:
    loads = {name: Load(socket_of(worker), name, seed) for seed, name in enumerate(NAMES)}
    time.sleep(0.2)
    client.hold(["one", "two"])
    before = client.status()
    assert [before[name]["held"] for name in NAMES] == [True, True, False]
    loads["three"].go_on()
    after = client.status()
    for name in ("one", "two"):
        assert (after[name]["reads"], after[name]["writes"]) == (
            before[name]["reads"],
            before[name]["writes"],
        )
    assert after["three"]["writes"] > before["three"]["writes"]
    client.release()
    loads["one"].go_on()
    for load in loads.values():
        load.stop()


def test_many_requests_of_a_held_disk_keep_no_thread_from_others(
    worker: WorkerProcess, client: WorkerClient
) -> None:
    with nbd(worker, "one") as held, nbd(worker, "two") as free:
        client.hold(["one"])
        for number in range(64):
            held.send(WRITE, number << 20, 65536, bytes(65536))
        time.sleep(0.2)
        for number in range(16):  # first writes and flushes are done by threads
            free.write(number << 20, b"z" * 300_000)
            assert not free.call(3).error
        client.release()
        for _ in range(64):
            assert not held.reply()[1].error


def test_what_a_held_disk_should_do_for_a_client_that_is_gone_is_forgotten(
    worker: WorkerProcess, client: WorkerClient
) -> None:
    client.hold(["one"])
    for _ in range(2):
        with nbd(worker, "one") as guest:
            for number in range(8):
                guest.send(WRITE, number << 20, 4096, bytes([255]) * 4096)
            until(lambda: client.status()["one"]["throttled"] == 8)
        until(lambda: not client.status()["one"]["throttled"])
    client.release()
    with nbd(worker, "one") as guest:
        assert all(guest.read(number << 20, 4096) != bytes([255]) * 4096 for number in range(8))


def test_what_a_client_holds_is_released_when_it_goes(worker: WorkerProcess) -> None:
    with nbd(worker, "one") as guest:
        with worker.connect() as holder:
            holder.hold(["one"])
            cookie = guest.send(WRITE, 0, BLOCK, b"a" * BLOCK)
        assert guest.reply()[0] == cookie


def test_what_somebody_else_holds_is_waited_for(
    tmp_path: Path, worker: WorkerProcess, client: WorkerClient
) -> None:
    diff = new_diff(_image(tmp_path, "one", 1), _image(tmp_path, "one", 0))
    with worker.connect() as holder:
        holder.hold(["one"])
        with pytest.raises(StorageError, match="release it first"):
            holder.push({"one": diff})
        with pytest.raises(StorageError, match="release it first"):
            holder.close_disk("one")
        holder.flush()
    client.push({"one": diff})
    assert client.status()["one"]["depth"] == 2


def test_rebase_under_load(tmp_path: Path, worker: WorkerProcess, client: WorkerClient) -> None:
    load = Load(socket_of(worker), "one")
    for number in (1, 2):
        load.go_on()
        client.push({"one": new_diff(_image(tmp_path, "one", number), _image(tmp_path, "one", number - 1))})
    moved = tmp_path / "moved"
    moved.mkdir()
    for number in (0, 1):
        shutil.copy(_image(tmp_path, "one", number), moved)
    paths = [str(_image(tmp_path, "one", 2)), str(moved / "1.vdi"), str(moved / "0.vdi")]
    client.rebase("one", paths)
    for number in (0, 1):
        _image(tmp_path, "one", number).unlink()
    load.go_on()
    assert client.status()["one"]["paths"] == paths
    written = dict(load.stop())
    client.close_disk("one")
    with Disk(open_chain(paths[0], search=[moved]).layers) as disk:
        assert all(disk.read(offset, BLOCK) == data for offset, data in written.items())


def test_a_snapshot_by_hold_and_rebase(tmp_path: Path, worker: WorkerProcess, client: WorkerClient) -> None:
    load = Load(socket_of(worker), "one")
    base, top = _image(tmp_path, "one", 0), _image(tmp_path, "one", 1)
    new_diff(top, base)
    load.go_on()
    client.hold(["one"])
    with open_image(str(top), writable=True) as image:
        renew_link(image, str(base))
    client.rebase("one", [str(top), str(base)])
    client.release()
    load.go_on()
    written = dict(load.stop())
    client.close_disk("one")
    _contents_are(top, written)


def test_a_rebase_that_fails_changes_nothing(
    tmp_path: Path, worker: WorkerProcess, client: WorkerClient
) -> None:
    load = Load(socket_of(worker), "one")
    client.push({"one": new_diff(_image(tmp_path, "one", 1), _image(tmp_path, "one", 0))})
    before = client.status()["one"]["paths"]
    for paths in (
        [str(tmp_path / "none.vdi")],
        [str(_image(tmp_path, "two", 0))],
        [before[0], str(tmp_path)],
    ):
        with pytest.raises(StorageError):
            client.rebase("one", paths)
        assert client.status()["one"]["paths"] == before
    with pytest.raises(StorageError, match="in use"):  # the locks are as before
        open_chain(before[0], writable=True)
    written = dict(load.stop())
    client.close_disk("one")
    _contents_are(Path(before[0]), written)


def test_an_export_is_removed_while_it_is_in_use(worker: WorkerProcess, client: WorkerClient) -> None:
    other = Load(socket_of(worker), "two")
    with nbd(worker, "one") as first, nbd(worker, "one") as second:
        first.write(0, b"q" * BLOCK)
        for number in range(16):
            second.send(WRITE, number << 20, 1 << 20, bytes([number]) * (1 << 20))
        client.close_disk("one")
        for guest in (first, second):
            with pytest.raises((ConnectionError, AssertionError)):  # an answer from before may come first
                _write_on(guest)
    with pytest.raises(StorageError) as caught:
        client.close_disk("one")
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert other.stop()


def _write_on(guest: Client) -> None:
    for _ in range(17):
        guest.write(0, bytes(BLOCK))


def test_exports_come_and_go_under_load(tmp_path: Path, worker: WorkerProcess, client: WorkerClient) -> None:
    load = Load(socket_of(worker), "one")
    spec = new_disk(tmp_path / "four.vdi", "four")
    for number in range(10):
        client.open(spec)
        with nbd(worker, "four") as guest:
            guest.write(number * BLOCK, bytes([number + 1]) * BLOCK)
        client.close_disk("four")
    client.open(replace(spec, writable=False))
    with nbd(worker, "four") as guest:
        for number in range(10):
            assert guest.read(number * BLOCK, BLOCK) == bytes([number + 1]) * BLOCK
        assert guest.call(WRITE, 0, BLOCK, bytes(BLOCK)).error == 1
    load.stop()


def test_a_disk_past_the_page_cache(tmp_path: Path, client: WorkerClient, worker: WorkerProcess) -> None:
    client.open(replace(new_disk(tmp_path / "direct.vdi", "direct"), cache=CacheMode.DIRECT))
    load = Load(socket_of(worker), "direct")
    load.go_on()
    client.push({"direct": new_diff(tmp_path / "direct-1.vdi", tmp_path / "direct.vdi")})
    load.go_on()
    written = dict(load.stop())
    assert client.status()["direct"]["cache"] == "direct"
    client.close_disk("direct")
    _contents_are(tmp_path / "direct-1.vdi", written)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tiny", str(folder)]
    if subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_e67_a_full_host_is_told_as_such_and_writes_go_on_when_there_is_room(
    tiny: Path, worker: WorkerProcess, client: WorkerClient
) -> None:
    client.open(new_disk(tiny / "full.vdi", "full"))
    with nbd(worker, "full") as guest:
        error, number = _fill(guest)
        assert error == 28
        status = client.status()["full"]
        assert status["errors"] >= 1
        assert status["last_error"]["kind"] == "no-space"
        assert time.time() - 60 < status["last_error"]["when"] <= time.time()
        subprocess.run(["mount", "-o", "remount,size=80m", str(tiny)], check=True)
        guest.write(number << 20, b"w" * BLOCK)
        assert guest.read(number << 20, BLOCK) == b"w" * BLOCK
        for done in range(number):
            assert guest.read(done << 20, BLOCK) == b"f" * BLOCK


def _fill(guest: Client) -> tuple[int, int]:
    """Write until an error; which one, and the number of the write."""
    for number in range(SIZE >> 20):
        if error := guest.call(WRITE, number << 20, 1 << 20, b"f" * (1 << 20)).error:
            return error, number
    return 0, 0


def test_a_disk_without_discard_does_not_offer_it(
    tmp_path: Path, worker: WorkerProcess, client: WorkerClient
) -> None:
    client.open(replace(new_disk(tmp_path / "kept.vdi", "kept"), discard=False))
    with nbd(worker, "kept") as kept, nbd(worker, "one") as given:
        assert (kept.flags >> 5 & 1, given.flags >> 5 & 1) == (0, 1)
        kept.write(0, b"k" * BLOCK)
        assert kept.call(4, 0, BLOCK).error == 22
        assert kept.read(0, BLOCK) == b"k" * BLOCK


def test_formats_are_taken_as_told(tmp_path: Path, client: WorkerClient, worker: WorkerProcess) -> None:
    spec = new_disk(tmp_path / "x.vdi", "x")
    client.open(DiskSpec("x", spec.paths, ("raw",)))
    with nbd(worker, "x") as guest:
        assert guest.read(0, 3) == b"<<<"


def test_a_shareable_disk_in_two_workers(tmp_path: Path) -> None:
    path = tmp_path / "shared.vdi"
    create_image(path, size=SIZE, options={"variant": "fixed"})
    spec = DiskSpec("disk", (str(path),), writable=True, shared=True)
    with running([spec]) as first, running([spec]) as second, nbd(first) as one, nbd(second) as two:
        one.write(0, b"1" * BLOCK)
        two.write(BLOCK, b"2" * BLOCK)
        expected = b"1" * BLOCK + b"2" * BLOCK
        assert one.read(0, 2 * BLOCK) == two.read(0, 2 * BLOCK) == expected
        with pytest.raises(StorageError) as caught:
            open_chain(path, writable=True)
        assert caught.value.kind is ErrorKind.IN_USE
        with first.connect() as client, pytest.raises(StorageError):
            client.open(replace(new_disk(tmp_path / "dynamic.vdi", "other"), shared=True))
