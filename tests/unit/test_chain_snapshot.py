"""Snapshots within an image: what they keep, who is kept out, and what a crash leaves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import drivebay as package
from drivebay.chain import image, open_chain
from drivebay.chain.locks import LockMode
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import Severity
from support.command import drivebay, drivebay_json, failure
from support.interpreter import read_layers
from support.parallels_images import DESCRIPTOR
from support.shadow import RandomSteps, ShadowDisk, assert_same

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A bundle with something on it."""
    path = tmp_path / "disk.hdd"
    package.create(path, size="6M", variant="bundle", block_size="64k")
    with package.open(path, writable=True) as opened:
        opened.write(MIB, b"base" * 20_000)
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_what_was_a_state_stays_it(disk: Path) -> None:
    """Whatever is done to the newest state, the earlier ones read as when they were kept."""
    steps = RandomSteps(3, 128 * KIB)
    with package.open(disk) as opened:
        content = bytearray(opened.read(0, opened.size))
    states: dict[str, bytes] = {}
    for _ in range(4):
        files = contents(disk)
        made = package.create(disk, parent=disk)
        states[made.facts.parent_part] = bytes(content)
        with package.open(disk, writable=True) as opened:
            shadow = ShadowDisk(opened, content)
            for _ in range(30):
                steps.step(shadow)
            shadow.verify()
        after = contents(disk)
        assert {name: after[name] for name in files if name != DESCRIPTOR} == {
            name: data for name, data in files.items() if name != DESCRIPTOR
        }
    assert [part.id for part in made.facts.parts] == list(reversed(states))
    for name, expected in {"": bytes(content), **states}.items():
        with package.open(disk, part=name) as opened:
            assert_same(opened.read(0, opened.size), expected, 0)
    with open_chain(disk) as chain:
        images = [
            (each.layer, *(Path(file.path).read_bytes() for file in each.sources)) for each in chain.layers
        ]
    assert len(images) == 5
    assert_same(read_layers(images, 0, len(content)), content, 0)
    assert [found for found in package.check(disk) if found.severity is not Severity.NOTE] == []


def test_an_earlier_state_is_not_written(disk: Path) -> None:
    package.create(disk, parent=disk)
    name = package.info(disk).facts.parts[0].id
    with pytest.raises(StorageError, match="it is a snapshot"):
        package.open(disk, part=name, writable=True)


@pytest.mark.parametrize("writable", [True, False])
def test_a_bundle_in_use_gets_no_snapshot(disk: Path, writable: bool) -> None:
    before = contents(disk)
    with package.open(disk, writable=writable), pytest.raises(StorageError) as caught:
        package.create(disk, parent=disk)
    assert caught.value.kind is ErrorKind.IN_USE
    assert contents(disk) == before


def test_who_opened_the_old_descriptor_is_told(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """He got it before the snapshot, and its lock after: what he would write is an earlier state by now."""
    lock = image.lock_file

    def late(fd: int, path: str, mode: LockMode) -> None:
        monkeypatch.setattr(image, "lock_file", lock)
        package.create(disk, parent=disk)
        lock(fd, path, mode)

    monkeypatch.setattr(image, "lock_file", late)
    with pytest.raises(StorageError, match="somebody replaced this file") as caught:
        package.open(disk, writable=True)
    assert caught.value.kind is ErrorKind.STATE
    package.open(disk, writable=True).close()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[str, str], None]]:
    """What is called with each name-changing or syncing call, before it, and what it is about."""
    watchers: list[Callable[[str, str], None]] = []

    def watch(name: str) -> None:
        real: Any = getattr(os, name)

        def call(first: Any, *more: Any) -> Any:
            about = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else more[0]
            for watcher in watchers:
                watcher(name, os.path.basename(about))
            return real(first, *more)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "fdatasync", "link", "replace"):
        watch(name)
    return watchers


def test_the_old_state_is_whole_at_every_moment(
    disk: Path, tmp_path: Path, calls: list[Callable[[str, str], None]]
) -> None:
    """Names of files that are not durable yet never get into a descriptor that may be."""
    done: list[tuple[str, str]] = []

    def copy(name: str, about: str) -> None:
        shutil.copytree(disk, tmp_path / f"moment{len(done)}.hdd")
        done.append((name, about))

    calls.append(copy)
    package.create(disk, parent=disk)
    calls.clear()
    new = next(name for name in contents(disk) if name.endswith(".0.hds"))
    assert done == [
        ("fdatasync", new),
        ("fdatasync", DESCRIPTOR),
        ("link", new),
        ("fsync", "disk.hdd"),
        ("replace", DESCRIPTOR),
        ("fsync", "disk.hdd"),
    ]
    for number in range(len(done)):
        moment = tmp_path / f"moment{number}.hdd"
        assert len(package.info(moment).facts.parts) == (number == len(done) - 1)
        with package.open(moment, writable=True) as opened:
            assert opened.read(MIB, 8) == b"basebase"


@pytest.mark.parametrize("failing", ["fdatasync", "link", "fsync", "replace"])
def test_a_failure_leaves_the_bundle_as_it_was(
    disk: Path, calls: list[Callable[[str, str], None]], failing: str
) -> None:
    before = contents(disk)

    def fail(name: str, _about: str) -> None:
        if name == failing:
            raise OSError(28, "No space left on device")

    calls.append(fail)
    with pytest.raises(StorageError) as caught:
        package.create(disk, parent=disk)
    assert caught.value.kind is ErrorKind.NO_SPACE
    assert contents(disk) == before


def test_the_command_line_makes_and_shows_them(disk: Path) -> None:
    disk.joinpath(DESCRIPTOR).chmod(0o640)
    made = drivebay_json("create", disk, "--parent", disk / DESCRIPTOR)
    assert made["differencing"] is True
    assert os.stat(disk / DESCRIPTOR).st_mode & 0o777 == 0o640
    (one,) = drivebay_json("info", disk)["parts"]
    assert drivebay("checksum", disk, "--snapshot", one["id"]).stdout == drivebay("checksum", disk).stdout
    assert [link["file_size"] > 0 for link in drivebay_json("info", disk, "--chain")["chain"]] == [True, True]
    assert drivebay("check", disk / DESCRIPTOR).returncode == 0
    assert "nothing to repair" in drivebay("repair", disk).stdout


def test_only_the_image_is_given(disk: Path, tmp_path: Path) -> None:
    for more in (["--size", "1M"], ["--block-size", "1M"], ["--comment", "x"], ["--variant", "bundle"]):
        assert "takes everything from that" in failure(drivebay("create", disk, "--parent", disk, *more), 2)
    other = tmp_path / "a.vdi"
    package.create(other, size="1M")
    assert "can't be its own parent" in failure(drivebay("create", other, "--parent", other), 6)
    assert "give the bundle itself" in failure(drivebay("create", tmp_path / "b.hdd", "--parent", disk), 2)
