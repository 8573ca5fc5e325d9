"""What a killed maker of files leaves, and who takes it away."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import drivebay
from drivebay.chain import create_image
from drivebay.chain.staging import is_held, staging_folder, staging_folders, undo_staging
from support.killing import kill_everywhere


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.vdi", {}),
        ("a.vmdk", {"variant": "twoGbMaxExtentSparse"}),
        ("a.qcow2", {"data_file_raw": True}),
        ("a.hdd", {"variant": "bundle"}),
    ],
)
def test_the_next_creation_takes_away_what_a_killed_one_left(
    tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    def create() -> None:
        create_image(folder / name, size=4 << 30, options=options)

    def clear() -> None:
        shutil.rmtree(folder)
        folder.mkdir()

    left = 0
    for _ in kill_everywhere(create, clear):
        if (folder / name).exists():  # what stays in the hidden folder then takes no space
            continue
        left += bool(list(folder.iterdir()))
        create()
        assert not staging_folders(str(folder))
        with drivebay.open(folder / name) as disk:
            assert disk.size == 4 << 30
    assert left >= 3


def test_what_somebody_is_making_is_left_alone(tmp_path: Path) -> None:
    with staging_folder(str(tmp_path), "a.vdi") as aside:
        Path(aside, "a.vdi").write_bytes(b"half")
        assert is_held(aside)
        create_image(tmp_path / "a.vdi", size=1 << 20)
        assert Path(aside, "a.vdi").read_bytes() == b"half"
    assert os.listdir(tmp_path) == ["a.vdi"]


@pytest.mark.parametrize("trap", [lambda path: path.symlink_to("."), lambda path: path.write_bytes(b"")])
def test_what_no_maker_left_is_left_alone(tmp_path: Path, trap: Callable[[Path], object]) -> None:
    trap(tmp_path / ".a.vdi.01234567.new")
    (tmp_path / ".b.vdi.01234567.new").mkdir()
    create_image(tmp_path / "a.vdi", size=1 << 20)
    assert sorted(os.listdir(tmp_path)) == [".a.vdi.01234567.new", ".b.vdi.01234567.new", "a.vdi"]


def test_without_locks_nothing_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    (tmp_path / ".a.vdi.01234567.new").mkdir()
    monkeypatch.setattr(fcntl, "flock", refuse)
    create_image(tmp_path / "a.vdi", size=1 << 20)
    assert sorted(os.listdir(tmp_path)) == [".a.vdi.01234567.new", "a.vdi"]


@pytest.mark.parametrize("change", ["replaced", "renamed"])
def test_files_of_a_finished_image_stay(tmp_path: Path, change: str) -> None:
    """Its maker was killed when all files had their names, and the image changed since."""
    aside, image, data = (tmp_path / name for name in (".a.vmdk.01234567.new", "a.vmdk", "a-flat.vmdk"))
    aside.mkdir()
    for file in (image, data):
        file.write_bytes(b"data")
        os.link(file, aside / file.name)
    if change == "replaced":
        image.unlink()
        image.write_bytes(b"anew")
    else:
        image.rename(tmp_path / "b.vmdk")
    undo_staging(str(aside))
    assert data.read_bytes() == b"data"
    assert not aside.exists()


def test_a_long_name_in_any_script(tmp_path: Path) -> None:
    create_image(tmp_path / ("木" * 83 + ".vdi"), size=1 << 20)  # 253 bytes
    assert len(os.listdir(tmp_path)) == 1
