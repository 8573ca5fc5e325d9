"""New images come whole or not at all."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from drivebay.blockmap import FileChange, FileExtent, FileWrite
from drivebay.chain import create_image, open_chain, write_image
from drivebay.errors import ErrorKind, StorageError
from drivebay.model import NULL_UUID, Geometry, ImageFacts
from support.nobody import open_folder, run_as_nobody


def _facts(path: Path) -> ImageFacts:
    with open_chain(path) as chain:
        return chain.layers[0].layer.facts


def test_a_new_base_has_what_was_asked_for(tmp_path: Path) -> None:
    path, uuid = tmp_path / "a.vdi", UUID(int=7, version=4)
    create_image(path, size=6 << 20, options={"block_size": 2 << 20}, uuid=uuid, comment="hello")
    facts = _facts(path)
    assert (facts.format, facts.variant, facts.size, facts.block_size) == ("vdi", "dynamic", 6 << 20, 2 << 20)
    assert (facts.uuid, facts.parent_uuid, facts.comment) == (uuid, NULL_UUID, "hello")
    assert facts.modification_uuid != NULL_UUID
    assert facts.pchs == Geometry(12, 16, 63)


def test_a_child_takes_size_geometry_and_link_from_its_parent(tmp_path: Path) -> None:
    create_image(tmp_path / "a.vdi", size=6 << 20)
    create_image(tmp_path / "b.vdi", parent=tmp_path / "a.vdi")
    parent, child = _facts(tmp_path / "a.vdi"), _facts(tmp_path / "b.vdi")
    assert (child.variant, child.size, child.pchs) == ("differencing", parent.size, parent.pchs)
    assert (child.parent_uuid, child.parent_modification_uuid) == (parent.uuid, parent.modification_uuid)


@pytest.mark.parametrize(("name", "format_name"), [("a.img", "raw"), ("a.vdi", "vdi"), ("a.disk", "vdi")])
def test_the_name_decides_the_format(tmp_path: Path, name: str, format_name: str) -> None:
    create_image(tmp_path / name, size=4 << 20)
    assert _facts(tmp_path / name).format == format_name


def test_a_name_that_contradicts_the_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        StorageError, match=r"the name says raw, but a vdi image is asked for; .* end in \.vdi"
    ):
        create_image(tmp_path / "a.img", size=4 << 20, format_name="vdi")


@pytest.mark.parametrize("how", [{}, {"size": 4 << 20, "parent": "a.vdi"}])
def test_either_a_size_or_a_parent(tmp_path: Path, how: dict[str, object]) -> None:
    with pytest.raises(StorageError, match="either a size or a parent"):
        create_image(tmp_path / "b.vdi", **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_nothing_is_overwritten(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.vdi"
    if kind == "file":
        path.write_text("precious")
    else:
        path.symlink_to("nowhere")
    with pytest.raises(StorageError, match="File exists; choose another name") as caught:
        create_image(path, size=4 << 20)
    assert caught.value.kind is ErrorKind.INVALID
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.vdi"]
    assert kind != "file" or path.read_text() == "precious"


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.img"

    def changes() -> Iterator[FileChange]:
        yield FileWrite(0, b"new")
        path.write_text("precious")

    with pytest.raises(StorageError, match="File exists"):
        write_image(str(path), changes())
    assert path.read_text() == "precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.img"]


def test_changes_are_applied_in_order_and_progress_is_told(tmp_path: Path) -> None:
    path, told = tmp_path / "a.img", []
    changes = [
        FileExtent(0, 4096),
        FileExtent(4096, 300 << 20, reserve=True),
        FileWrite(4090, b"over the edge"),
    ]
    write_image(str(path), changes, lambda done, total: told.append((done, total)))
    with path.open("rb") as file:
        assert file.read(4103) == bytes(4090) + b"over the edge"
    assert path.stat().st_size == 4096 + (300 << 20)
    assert path.stat().st_blocks * 512 >= 300 << 20
    assert told == [(256 << 20, 300 << 20), (300 << 20, 300 << 20)]


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Interrupted()])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    def changes() -> Iterator[FileChange]:
        yield FileWrite(0, b"half")
        raise error

    with pytest.raises((StorageError, Interrupted)) as caught:
        write_image(str(tmp_path / "a.img"), changes())
    assert not isinstance(caught.value, StorageError) or caught.value.kind is ErrorKind.NO_SPACE
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("variant", ["dynamic", "fixed"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, variant: str) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    command = [
        sys.executable,
        "-m",
        "drivebay",
        "create",
        tmp_path / "a.vdi",
        "--size=64M",
        f"--variant={variant}",
    ]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    assert f"{tmp_path}/a.vdi: cannot create: File too large; make it smaller, or put it where" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        StorageError, match="cannot create: No such file or directory; check the path"
    ) as caught:
        create_image(tmp_path / "nowhere" / "a.vdi", size=4 << 20)
    assert caught.value.path == str(tmp_path / "nowhere" / "a.vdi")


def test_a_read_only_folder_is_refused() -> None:
    imports = "from drivebay.chain import create_image; from drivebay.errors import StorageError"
    code = (
        "try: create_image(sys.argv[1], size=4 << 20)\n"
        "except StorageError as error: print(error.exit_code, error)\n"
    )
    with open_folder() as folder:
        done = run_as_nobody(imports, code, folder / "a.vdi")
    why = "cannot create: Permission denied; check the permissions of the file and its folder"
    assert done.stdout.strip() == f"8 {folder}/a.vdi: {why}", done.stderr


def test_where_there_are_no_hard_links_the_image_comes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_source: str, _target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    create_image(tmp_path / "a.vdi", size=4 << 20)
    assert _facts(tmp_path / "a.vdi").size == 4 << 20
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.vdi"]
    with pytest.raises(StorageError, match="File exists"):
        create_image(tmp_path / "a.vdi", size=4 << 20)


def test_a_parent_that_somebody_writes_is_refused(tmp_path: Path) -> None:
    base, child = tmp_path / "base.vdi", tmp_path / "child.vdi"
    create_image(base, size=4 << 20)
    with open_chain(base, writable=True), pytest.raises(StorageError) as caught:
        create_image(child, parent=base)
    assert caught.value.kind is ErrorKind.IN_USE
    assert os.listdir(tmp_path) == ["base.vdi"]
