"""A descriptor, in a file of its own or embedded, is never torn when it is edited while the power fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

import drivebay
import drivebay.chain.replacing as replacing
from drivebay.blockmap import HeaderEdit
from drivebay.chain import open_image
from drivebay.chain.edit import edit_header
from drivebay.chain.staging import staging_folders, undo_staging
from drivebay.engine.source import FileSource
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import ImageFacts
from support.nobody import open_folder, run_as_nobody
from support.power_cut import crash_states
from support.recording import Log, RecordingSource

SIZE = 1 << 20
_KILLED = 99
NEW = UUID(int=5 << 100)


def _flat(folder: Path) -> Path:
    path = folder / "disk.vmdk"
    drivebay.create(path, size=SIZE, variant="monolithicFlat", comment="c" * 700)
    return path


def _edit(path: Path, **fields: object) -> None:
    with open_image(str(path), writable=True) as image:
        edit_header(image, HeaderEdit(**fields))  # type: ignore[arg-type]


def _facts(path: Path) -> ImageFacts:
    return drivebay.info(path).facts


def _dies_at(step: int, command: Callable[[], None]) -> bool:
    """Run ``command`` in a process that ends at the ``step``-th call which changes something."""
    child = os.fork()
    if child == 0:
        left = [step]

        def counted(function: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object, **named: object) -> object:
                if left[0] == 0:
                    os._exit(_KILLED)
                left[0] -= 1
                return function(*arguments, **named)

            return call

        for name in (
            "open",
            "mkdir",
            "rmdir",
            "fchown",
            "utime",
            "replace",
            "dup2",
            "close",
            "fsync",
            "fdatasync",
            "pwrite",
        ):
            setattr(os, name, counted(getattr(os, name)))
        try:
            command()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, _KILLED)
    return status == _KILLED


def test_killed_at_every_call(tmp_path: Path) -> None:
    path = _flat(tmp_path)
    before = path.read_bytes()
    seen: set[str] = set()
    step = 0
    while _dies_at(step, lambda: _edit(path, comment="new")):
        seen.add(_facts(path).comment)
        for aside in staging_folders(str(tmp_path)):
            undo_staging(aside)
        assert set(os.listdir(tmp_path)) == {"disk-flat.vmdk", "disk.vmdk"}
        path.write_bytes(before)
        step += 1
    assert step > 8
    assert seen == {"c" * 700, "new"}
    assert _facts(path).comment == "new"


def test_what_gets_the_name_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _flat(tmp_path)
    log: list[str] = []

    def noted(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            log.append(name)
            return function(*arguments)

        return call

    monkeypatch.setattr(FileSource, "write", noted("write", FileSource.write))
    monkeypatch.setattr(FileSource, "sync", noted("sync", FileSource.sync))
    monkeypatch.setattr(replacing.os, "replace", noted("rename", os.replace))
    monkeypatch.setattr(replacing, "sync_folder", noted("sync folder", replacing.sync_folder))
    _edit(path, comment="new")
    assert log == ["write", "sync", "rename", "sync folder"]
    assert sorted(os.listdir(tmp_path)) == ["disk-flat.vmdk", "disk.vmdk"]


def test_the_new_file_is_like_the_old_one_and_locked(tmp_path: Path) -> None:
    path = _flat(tmp_path)
    path.chmod(0o640)
    name = tmp_path / "link.vmdk"
    name.symlink_to(path.name)
    with open_image(str(name), writable=True) as image:
        edit_header(image, HeaderEdit(comment="new"))
        assert image.format.open(image.files).facts.comment == "new"
        with pytest.raises(StorageError) as caught:
            open_image(str(path))
        assert caught.value.kind is ErrorKind.IN_USE
        edit_header(image, HeaderEdit(comment="newer"))
    assert name.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert _facts(path).comment == "newer"


def test_a_failure_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _flat(tmp_path)
    before = path.read_bytes()

    def fail(_: FileSource) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(FileSource, "sync", fail)
        with pytest.raises(StorageError) as caught:
            _edit(path, comment="new")
    assert caught.value.kind is ErrorKind.NO_SPACE
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["disk-flat.vmdk", "disk.vmdk"]


@pytest.mark.parametrize("variant", ["monolithicSparse", "monolithicFlat"])
def test_values_of_the_same_length_are_written_in_place(
    tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "disk.vmdk"
    drivebay.create(path, size=SIZE, variant=variant)
    before, old, inode = path.read_bytes(), _facts(path).uuid, path.stat().st_ino
    log = Log()
    with monkeypatch.context() as patched:
        patched.setattr(
            "drivebay.chain.edit.FileSource",
            lambda fd, name, *, writable: RecordingSource(fd, name, writable=writable, log=log),
        )
        _edit(path, uuid=NEW)
    assert path.stat().st_ino == inode
    assert log.events
    assert {len(event.data) for event in log.events if event.data} <= set(range(1, 513))
    found = set()
    for state in crash_states({str(path): before}, log.events, 1, 3, 60):
        path.write_bytes(state.files[str(path)])
        found.add(_facts(path).uuid)
    assert {old, NEW} <= found


@pytest.mark.parametrize("variant", ["monolithicSparse", "streamOptimized"])
@pytest.mark.parametrize(("old", "new"), [("", "c" * 2000), ("c" * 2000, "d"), ("c" * 900, "d" * 900)])
def test_an_embedded_descriptor_is_the_old_or_the_new_one(
    tmp_path: Path, variant: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "disk.vmdk"
    drivebay.create(path, size=SIZE, variant=variant, comment=old)
    before, facts = path.read_bytes(), _facts(path)
    log = Log()
    with monkeypatch.context() as patched:
        patched.setattr(
            "drivebay.chain.edit.FileSource",
            lambda fd, name, *, writable: RecordingSource(fd, name, writable=writable, log=log),
        )
        _edit(path, uuid=NEW, comment=new)
    after = path.read_bytes()
    wanted = {(facts.uuid, facts.comment), (NEW, new)}
    found = set()
    for state in crash_states({str(path): before}, log.events, 1, 40, 400):
        path.write_bytes(state.files[str(path)])
        found.add((_facts(path).uuid, _facts(path).comment))
    assert found == wanted
    assert after[512 : 512 * 21].count(b"\0") == 20 * 512 - len(after[512 : 512 * 21].rstrip(b"\0"))
    assert (after[:512], after[512 * 21 :]) == (before[:512], before[512 * 21 :])


def test_where_there_is_no_room_aside_it_is_written_in_place(tmp_path: Path) -> None:
    path = tmp_path / "disk.vmdk"
    drivebay.create(path, size=SIZE)
    drivebay.edit(path, comment="c" * 9000)
    drivebay.edit(path, comment="d")
    assert _facts(path).comment == "d"
    with drivebay.open(path) as disk:
        assert disk.read(0, 512) == bytes(512)


def test_a_mark_across_two_sectors_is_a_content_id_however_it_is_torn(tmp_path: Path) -> None:
    path = _flat(tmp_path)
    head, rest = path.read_bytes().split(b"CID=", 1)
    path.write_bytes(head + b"# " + b"x" * (512 - len(head) - 11) + b"\nCID=" + rest)
    before = path.read_bytes()
    assert 505 <= before.index(b"\nCID=") + 5 < 512
    with drivebay.open(path, writable=True) as disk:
        disk.write(0, b"data")
    after = path.read_bytes()
    assert len(after) == len(before)
    assert after != before
    for torn in (before[:512] + after[512:], after[:512] + before[512:]):
        path.write_bytes(torn)
        assert _facts(path).content_id == int(torn.split(b"CID=", 1)[1][:8], 16)
        with drivebay.open(path, writable=True) as disk:
            assert disk.read(0, 4) == b"data"


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with open_folder() as folder:
        path = _flat(folder)
        path.chmod(0o666)
        path.with_name("disk-flat.vmdk").chmod(0o666)
        done = run_as_nobody(
            "import drivebay, sys; drivebay.edit(sys.argv[1], comment='c' * 700)",  # all that is lazy
            """
try:
    drivebay.edit(sys.argv[1], comment="new")
except drivebay.StorageError as error:
    print(error.path, error.message)
""",
            path,
        )
        assert done.stdout.startswith(f"{folder} cannot make a new disk.vmdk in its folder"), done
        assert _facts(path).comment == "c" * 700
