"""What may be opened as an image, and what is refused without waiting for it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from drivebay.chain.files import ImageFile, open_file
from drivebay.errors import ErrorKind, StorageError
from support.nobody import open_folder, run_as_nobody


def _folder(path: Path) -> None:
    path.mkdir()


def _alone(name: str) -> ImageFile:
    raise AssertionError(f"{name} is not asked for")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


@pytest.mark.timeout(10)
@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize(
    ("make", "what"), [(_folder, "a folder"), (os.mkfifo, "a FIFO"), (_socket, "a socket")]
)
def test_what_is_no_image_is_refused_at_once(
    make: Callable[[Path], None], what: str, writable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("x"))
    with pytest.raises(StorageError, match=f"this is {what}, not a disk image; name an image") as caught:
        open_file("x", writable=writable)
    assert (caught.value.kind, caught.value.path) == (ErrorKind.INVALID, "x")


def test_a_character_device_is_refused() -> None:
    with pytest.raises(StorageError, match="this is a character device"):
        open_file("/dev/zero", writable=False)


@pytest.mark.parametrize(
    ("path", "kind"),
    [("missing", ErrorKind.NOT_FOUND), ("file/below", ErrorKind.NOT_FOUND), ("a\0b", ErrorKind.INVALID)],
)
def test_names_that_lead_nowhere(
    path: str, kind: ErrorKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(StorageError) as caught:
        open_file(path, writable=False)
    assert caught.value.kind is kind


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(StorageError, match="symbolic links"):
        open_file(str(tmp_path / "a"), writable=False)


def test_a_file_without_write_permission_opens_for_reading_only() -> None:
    code = (
        "os.close(open_file(sys.argv[1], writable=False))\n"
        "try: open_file(sys.argv[1], writable=True)\n"
        "except StorageError as error: print(error.exit_code, error)\n"
    )
    imports = "from drivebay.chain.files import open_file; from drivebay.errors import StorageError"
    with open_folder() as folder:
        image = folder / "a.img"
        image.write_bytes(bytes(512))
        image.chmod(0o444)
        done = run_as_nobody(imports, code, image)
    assert done.stdout.startswith(f"8 {image}: cannot open for writing: Permission denied;"), done.stderr


def test_reads_end_at_the_end_of_the_file(tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    image.write_bytes(b"0123456789")
    fd = open_file(str(image), writable=False)
    file = ImageFile(fd, str(image), beside=_alone)
    assert file.size == 10
    assert file.read(0, 4) == b"0123"
    assert file.read(8, 1 << 60) == b"89"
    assert file.read(10, 1) == file.read(1 << 70, 1) == file.read(-1, 5) == b""
    os.close(fd)
