"""The registry: views, changes, its version, damage, and several processes at once."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Boolean, Integer, inspect

from drivebay.errors import ErrorKind, StorageError
from drivebay.registry import schema
from drivebay.registry.database import Registry, open_registry
from drivebay.registry.home import Home, find_home
from drivebay.registry.journal import Remove, Rename, WriteFile
from drivebay.registry.medium import Medium, Use
from drivebay.registry.sqlite import reported


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return find_home(tmp_path / "home")


def _medium(name: str = "disk.vdi") -> Medium:
    return Medium(uuid4(), f"/images/{name}", "vdi", size=512, description="ä 'quoted'")


def _add(registry: Registry, medium: Medium) -> None:
    with registry.change() as change:
        change.put_medium(medium)


def test_a_medium_comes_back_as_it_was(home: Home) -> None:
    medium = _medium()
    with open_registry(home) as registry:
        _add(registry, medium)
    with open_registry(home) as registry, registry.view() as view:
        assert view.tree.media == {medium.uuid: medium}


def test_a_change_sees_itself_and_nobody_else_does_before_the_commit(home: Home) -> None:
    medium, machine = _medium(), uuid4()
    with open_registry(home, durable=False) as registry:
        with registry.change() as change:
            change.put_medium(medium)
            change.set_uses(machine, [Use(medium.uuid, machine)])
            assert change.tree.uses_of(medium.uuid)
            with registry.view() as view:
                assert not view.tree.media
        with registry.view() as view:
            assert view.tree.uses_of(medium.uuid) == [Use(medium.uuid, machine)]


def test_an_exception_rolls_a_change_back_with_its_effects(home: Home, tmp_path: Path) -> None:
    with open_registry(home, durable=False) as registry:
        with contextlib.suppress(KeyError), registry.change() as change:
            change.put_medium(_medium())
            change.after_commit(WriteFile(str(tmp_path / "file"), "text"))
            raise KeyError
        with registry.view() as view:
            assert not view.tree.media
    assert not (tmp_path / "file").exists()


def test_a_view_is_one_moment(home: Home) -> None:
    with open_registry(home, durable=False) as registry, registry.view() as view:
        assert not view.tree.media
        _add(registry, _medium())
        assert view.connection.exec_driver_sql("SELECT count(*) FROM media").scalar() == 0


def test_the_migrations_make_the_tables_that_queries_use(home: Home) -> None:
    with open_registry(home, durable=False) as registry, registry.view() as view:
        made = inspect(view.connection)
        assert set(made.get_table_names()) == set(schema.metadata.tables)
        for name, table in schema.metadata.tables.items():
            columns = {column["name"]: column for column in made.get_columns(name)}
            assert list(columns) == [column.name for column in table.columns]
            for column in table.columns:
                assert bool(columns[column.name]["nullable"]) == bool(column.nullable)
                if isinstance(column.type, (Integer, Boolean)):
                    assert isinstance(columns[column.name]["type"], type(column.type))
            indexed = {index["column_names"][0] for index in made.get_indexes(name) if not index["unique"]}
            assert indexed == {column.name for column in table.columns if column.index}


def test_a_newer_drivebays_registry_is_refused_and_unchanged(home: Home) -> None:
    open_registry(home).close()
    with sqlite3.connect(home.registry) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE name = 'version'")
    connection.close()
    with pytest.raises(StorageError, match=r"newer drivebay.*99") as error:
        open_registry(home)
    assert error.value.kind is ErrorKind.STATE


@pytest.mark.parametrize("damage", ["text", "middle", "empty", "gone"])
def test_a_damaged_registry_points_to_rebuild(home: Home, damage: str) -> None:
    with open_registry(home) as registry:
        _add(registry, _medium())
        with registry.change() as change:
            for number in range(300):
                change.put_medium(_medium(f"{number}.vdi"))
    file = Path(home.registry)
    data = bytearray(file.read_bytes())
    if damage == "text":
        file.write_text("this is no database, and long enough to be looked at" * 100)
    elif damage == "middle":
        data[4096:16384] = b"\xff" * 12288
        file.write_bytes(data)
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        file.unlink()
    with pytest.raises(StorageError, match="drivebay rebuild") as error:
        open_registry(home)
    assert error.value.kind is ErrorKind.CORRUPT


def test_an_input_error_on_a_full_file_system_is_told_as_that(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.statvfs_result((4096, 4096, 100, 0, 0, 100, 0, 0, 0, 255))
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    for answer, kind in ((full, ErrorKind.NO_SPACE), (os.statvfs("/"), ErrorKind.IO)):
        monkeypatch.setattr("os.statvfs", lambda _path, answer=answer: answer)
        with pytest.raises(StorageError) as caught, reported(home.registry, "open the registry"):
            raise error
        assert caught.value.kind is kind


def test_who_changes_the_registry_for_long_is_named(home: Home) -> None:
    with open_registry(home, durable=False) as registry, open_registry(home, timeout=0.1) as other:
        with registry.change(), pytest.raises(StorageError, match=f"this process {os.getpid()}") as error:
            _add(other, _medium())
        assert error.value.kind is ErrorKind.IN_USE
        _add(other, _medium())


def test_changes_do_not_nest(home: Home) -> None:
    with (
        open_registry(home) as registry,
        registry.change(),
        pytest.raises(RuntimeError),
        registry.change(),
    ):
        pass


_WRITER = """
import sys
from uuid import uuid4
from drivebay.registry.database import open_registry
from drivebay.registry.home import find_home
from drivebay.registry.medium import Medium
with open_registry(find_home(sys.argv[1]), durable=False) as registry:
    for number in range(20):
        with registry.change() as change:
            change.put_medium(Medium(uuid4(), f"/{sys.argv[2]}/{number}", "vdi"))
"""


def test_several_processes_change_it_at_once(home: Home) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, home.folder, str(number)]) for number in range(3)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    with open_registry(home) as registry, registry.view() as view:
        assert len(view.tree.media) == 60


def test_an_effect_that_fails_is_tried_again(home: Home, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "folder" / "target"
    source.write_text("kept")
    (tmp_path / "folder").write_text("in the way")
    with open_registry(home, durable=False) as registry:
        with registry.change() as change:
            change.after_commit(Rename(str(source), str(target)))
        assert source.exists()
        (tmp_path / "folder").unlink()
        _add(registry, _medium())
    assert target.read_text() == "kept"


def test_an_old_removal_spares_a_new_file_of_that_name(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    file = folder / "file"
    folder.mkdir()
    file.write_text("old")
    with open_registry(home, durable=False) as registry, registry.change() as change:
        change.after_commit(Remove([str(file)]))
        (tmp_path / "aside").write_text("new")
        os.replace(tmp_path / "aside", file)
    assert file.read_text() == "new"


def test_media_json_follows_the_registry(home: Home) -> None:
    medium = _medium()
    with open_registry(home, durable=False) as registry:
        _add(registry, medium)
        assert str(medium.uuid) in Path(home.media_file).read_text()
        with registry.change() as change:
            change.remove_medium(medium.uuid)
        assert str(medium.uuid) not in Path(home.media_file).read_text()


def test_a_homes_place_is_chosen_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DRIVEBAY_HOME", str(tmp_path / "environment"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert find_home(tmp_path / "option").folder == str(tmp_path / "option")
    assert find_home().folder == str(tmp_path / "environment")
    monkeypatch.delenv("DRIVEBAY_HOME")
    assert find_home().folder == str(tmp_path / "data" / "drivebay")


def test_the_folder_for_sockets_is_short_and_private(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Home
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = Path(home.run_folder(UUID(int=1)))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder == Path(home.run_folder(UUID(int=1)))
    assert len(str(folder)) - len(str(tmp_path)) < 30
    folder.chmod(0o755)
    with pytest.raises(StorageError, match="not this user's alone"):
        home.run_folder(UUID(int=1))
