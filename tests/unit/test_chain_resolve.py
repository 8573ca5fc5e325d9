"""Parents: where they are looked for, and which are refused."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from drivebay.blockmap import CreateRequest, FormatOptions, ParentLink
from drivebay.chain import create_image, open_chain, write_image
from drivebay.chain.candidate import Candidate, Wanted
from drivebay.chain.search import ParentSearch, Seen
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import format_named
from drivebay.model import CacheMode
from support.patience import processor_time

MIB = 1 << 20


def _make(
    path: Path, *, parent: tuple[UUID, UUID] | None = None, uuid: UUID | None = None
) -> tuple[UUID, UUID]:
    """An image with chosen links; the answer is its UUID and its modification UUID."""
    identity = uuid or uuid4(), uuid4()
    link = ParentLink(*parent, path="") if parent else None
    request = CreateRequest(4 * MIB, FormatOptions(), *identity, parent=link)
    create = format_named("vdi").create
    assert create is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(str(path), create(request))
    return identity


def _paths(path: Path, **options: object) -> list[str]:
    with open_chain(path, **options) as chain:  # type: ignore[arg-type]
        return [layer.sources[0].path for layer in chain.layers]


def _failure(path: Path, kind: ErrorKind, **options: object) -> str:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StorageError) as caught:
        open_chain(path, **options)  # type: ignore[arg-type]
    assert caught.value.kind is kind
    assert len(os.listdir("/proc/self/fd")) == before, "files were left open"
    return str(caught.value)


def _family(child: Path, base: Path) -> None:
    _make(child, parent=_make(base))


def test_the_parent_is_found_beside_the_child_whatever_it_is_called(tmp_path: Path) -> None:
    _family(tmp_path / "child.vdi", tmp_path / "a strange name.disk")
    assert _paths(tmp_path / "child.vdi") == [
        str(tmp_path / "child.vdi"),
        str(tmp_path / "a strange name.disk"),
    ]


def test_the_parent_is_found_below_a_searched_folder(tmp_path: Path) -> None:
    base = tmp_path / "pool" / "deep" / "er" / "base.vdi"
    _family(tmp_path / "child" / "child.vdi", base)
    message = _failure(tmp_path / "child" / "child.vdi", ErrorKind.NOT_FOUND)
    assert (
        f"(looked in {tmp_path}/child). Put the parent beside it, or say where it is: --search DIR" in message
    )
    assert _paths(tmp_path / "child" / "child.vdi", search=[tmp_path / "pool"])[1] == str(base)


def test_the_folder_above_is_suggested_to_a_snapshot(tmp_path: Path) -> None:
    _family(tmp_path / "Snapshots" / "child.vdi", tmp_path / "base.vdi")
    message = _failure(tmp_path / "Snapshots" / "child.vdi", ErrorKind.NOT_FOUND)
    assert message.endswith(f"--search {tmp_path}")


def test_a_folder_above_or_below_is_not_looked_into_unasked(tmp_path: Path) -> None:
    _family(tmp_path / "child.vdi", tmp_path / "below" / "base.vdi")
    _failure(tmp_path / "child.vdi", ErrorKind.NOT_FOUND)


def test_a_file_can_be_named_as_the_place_to_search(tmp_path: Path) -> None:
    _family(tmp_path / "child" / "child.vdi", tmp_path / "pool" / "base.vdi")
    base = tmp_path / "pool" / "base.vdi"
    assert _paths(tmp_path / "child" / "child.vdi", search=[base])[1] == str(base)


def test_a_place_to_search_must_exist(tmp_path: Path) -> None:
    _family(tmp_path / "child.vdi", tmp_path / "base.vdi")
    assert "this place to search does not exist" in _failure(
        tmp_path / "child.vdi", ErrorKind.NOT_FOUND, search=[tmp_path / "nowhere"]
    )


def test_strange_neighbours_do_no_harm(tmp_path: Path) -> None:
    _family(tmp_path / "child.vdi", tmp_path / "base.vdi")
    os.mkfifo(tmp_path / "fifo.vdi")
    (tmp_path / "folder.vdi").mkdir()
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "dangling.vdi").symlink_to("nowhere")
    (tmp_path / "device.vdi").symlink_to("/dev/zero")
    (tmp_path / "empty.vdi").touch()
    (tmp_path / "damaged.vdi").write_bytes((tmp_path / "base.vdi").read_bytes()[:100])
    assert _paths(tmp_path / "child.vdi", search=[tmp_path])[1] == str(tmp_path / "base.vdi")


def test_a_damaged_parent_is_hinted_at(tmp_path: Path) -> None:
    _family(tmp_path / "child.vdi", tmp_path / "base.vdi")
    os.truncate(tmp_path / "base.vdi", 100)
    message = _failure(tmp_path / "child.vdi", ErrorKind.NOT_FOUND)
    assert f" 1 damaged or unreadable there, the first: {tmp_path}/base.vdi, offset " in message


def test_a_link_out_of_the_folder_is_followed_only_into_a_granted_one(tmp_path: Path) -> None:
    secret = tmp_path / "secret" / "base.vdi"
    _family(tmp_path / "home" / "child.vdi", secret)
    (tmp_path / "home" / "base.vdi").symlink_to(secret)
    (tmp_path / "home" / "folder").symlink_to(secret.parent)
    _failure(tmp_path / "home" / "child.vdi", ErrorKind.NOT_FOUND)
    for grant in (secret.parent, secret):
        assert _paths(tmp_path / "home" / "child.vdi", search=[grant])[1] == str(secret)


def test_a_link_that_takes_the_place_of_a_parent_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, secret = tmp_path / "home" / "base.vdi", tmp_path / "secret.vdi"
    _family(tmp_path / "home" / "child.vdi", base)
    find = ParentSearch.find

    def find_and_swap(places: ParentSearch, child: Wanted, seen: Seen) -> Candidate:
        found = find(places, child, seen)
        base.rename(secret)
        base.symlink_to(secret)
        return found

    monkeypatch.setattr(ParentSearch, "find", find_and_swap)
    assert "this is a symbolic link" in _failure(tmp_path / "home" / "child.vdi", ErrorKind.INVALID)


def test_a_file_that_takes_the_place_of_a_parent_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base.vdi"
    _family(tmp_path / "child.vdi", base)
    find = ParentSearch.find

    def find_and_swap(places: ParentSearch, child: Wanted, seen: Seen) -> Candidate:
        found = find(places, child, seen)
        base.unlink()
        _make(base)
        return found

    monkeypatch.setattr(ParentSearch, "find", find_and_swap)
    assert "somebody replaced this file" in _failure(tmp_path / "child.vdi", ErrorKind.STATE)


def test_the_image_itself_may_be_named_by_a_link(tmp_path: Path) -> None:
    _family(tmp_path / "pool" / "child.vdi", tmp_path / "pool" / "base.vdi")
    (tmp_path / "link.vdi").symlink_to("pool/child.vdi")
    assert _paths(tmp_path / "link.vdi")[1] == str(tmp_path / "pool" / "base.vdi")


def test_a_copy_with_the_recorded_modification_is_preferred(tmp_path: Path) -> None:
    uuid = uuid4()
    _make(tmp_path / "a.vdi", uuid=uuid)
    right = _make(tmp_path / "b.vdi", uuid=uuid)
    _make(tmp_path / "c.vdi", uuid=uuid)
    _make(tmp_path / "child.vdi", parent=right)
    assert _paths(tmp_path / "child.vdi")[1] == str(tmp_path / "b.vdi")


def test_copies_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    base, copy, child = tmp_path / "base.vdi", tmp_path / "copy.vdi", tmp_path / "child.vdi"
    _family(child, base)
    shutil.copy(base, copy)
    message = _failure(child, ErrorKind.STATE)
    assert str(base) in message
    assert str(copy) in message
    assert "--search FILE" in message
    assert _paths(child, search=[copy])[1] == str(copy)


def test_two_names_of_one_file_are_one_candidate(tmp_path: Path) -> None:
    _family(tmp_path / "child.vdi", tmp_path / "base.vdi")
    os.link(tmp_path / "base.vdi", tmp_path / "again.vdi")
    (tmp_path / "link.vdi").symlink_to("base.vdi")
    assert len(_paths(tmp_path / "child.vdi")) == 2


def test_a_child_that_is_its_own_parent_is_refused(tmp_path: Path) -> None:
    uuid = uuid4()
    _make(tmp_path / "a.vdi", uuid=uuid, parent=(uuid, uuid4()))
    assert f"names itself ({{{uuid}}}) as its parent" in _failure(tmp_path / "a.vdi", ErrorKind.CORRUPT)


def test_a_loop_of_parents_is_refused(tmp_path: Path) -> None:
    uuids = [uuid4() for _ in range(3)]
    for number, uuid in enumerate(uuids):
        _make(tmp_path / f"{number}.vdi", uuid=uuid, parent=(uuids[number - 1], UUID(int=0)))
    message = _failure(tmp_path / "2.vdi", ErrorKind.CORRUPT)
    assert (
        f"{tmp_path}/0.vdi: its parent {{{uuids[2]}}} is its own descendant {tmp_path}/2.vdi: a loop"
        in message
    )


def test_a_child_without_a_name_of_a_parent_is_refused(tmp_path: Path) -> None:
    _make(tmp_path / "a.vdi", parent=(uuid4(), uuid4()))
    data = bytearray((tmp_path / "a.vdi").read_bytes())
    data[424:440] = bytes(16)
    (tmp_path / "a.vdi").write_bytes(data)
    assert "names no parent" in _failure(tmp_path / "a.vdi", ErrorKind.CORRUPT)


def test_a_parent_that_changed_is_refused_unless_allowed(tmp_path: Path) -> None:
    base, child = tmp_path / "base.vdi", tmp_path / "child.vdi"
    uuid, recorded = uuid4(), uuid4()
    _, found = _make(base, uuid=uuid)
    _make(child, parent=(uuid, recorded))
    message = _failure(child, ErrorKind.STATE)
    for part in (
        str(child),
        str(base),
        str(recorded),
        str(found),
        "--allow-stale-parent",
        "merged a snapshot",
    ):
        assert part in message
    assert _paths(child, allow_stale_parent=True) == [str(child), str(base)]


@pytest.mark.parametrize("null", ["recorded", "found"])
def test_a_modification_that_is_not_known_is_not_compared(tmp_path: Path, null: str) -> None:
    base, child = tmp_path / "base.vdi", tmp_path / "child.vdi"
    uuid, _ = _make(base)
    _make(child, parent=(uuid, UUID(int=0) if null == "recorded" else uuid4()))
    if null == "found":
        data = bytearray(base.read_bytes())
        data[408:424] = bytes(16)
        base.write_bytes(data)
    assert len(_paths(child)) == 2


def test_a_raw_parent_is_known_by_its_name(tmp_path: Path) -> None:
    base, child = tmp_path / "base.img", tmp_path / "child.vdi"
    base.write_bytes(bytes(MIB))
    create_image(child, parent=base)
    assert _paths(child)[1] == str(base)
    renamed = base.rename(tmp_path / "renamed.img")
    _failure(child, ErrorKind.NOT_FOUND)
    assert _paths(child, search=[renamed])[1] == str(renamed)


def test_a_named_file_with_another_uuid_is_not_taken_for_the_parent(tmp_path: Path) -> None:
    _make(tmp_path / "child" / "child.vdi", parent=(uuid4(), uuid4()))
    _make(tmp_path / "other.vdi")
    _failure(tmp_path / "child" / "child.vdi", ErrorKind.NOT_FOUND, search=[tmp_path / "other.vdi"])


def test_a_base_named_writable_must_be_in_a_writable_format_given_by_name(tmp_path: Path) -> None:
    _make(tmp_path / "a.vdi")
    with open_chain(tmp_path / "a.vdi", writable=True, format_name="raw") as chain:
        assert chain.layers[0].layer.facts.size == (tmp_path / "a.vdi").stat().st_size
        assert chain.layers[0].sources[0].writable
    assert "there is no format 'abc'" in _failure(tmp_path / "a.vdi", ErrorKind.INVALID, format_name="abc")


def test_direct_opens_every_file_unbuffered(tmp_path: Path) -> None:
    _family(tmp_path / "child.vdi", tmp_path / "base.vdi")
    with open_chain(tmp_path / "child.vdi", cache=CacheMode.DIRECT) as chain:
        assert [type(layer.sources[0]).__name__ for layer in chain.layers] == ["DirectSource"] * 2


def _line_of(folder: Path, depth: int) -> Path:
    identity = _make(folder / "0.vdi")
    for number in range(1, depth):
        identity = _make(folder / f"{number}.vdi", parent=identity)
    return folder / f"{depth - 1}.vdi"


def test_a_deep_chain_opens_fast(tmp_path: Path) -> None:
    top = _line_of(tmp_path, 64)
    best = min(_seconds_to_open(top) for _ in range(5))
    assert best < 0.1  # 10 ms on an idle machine


def _seconds_to_open(top: Path) -> float:
    started = time.process_time()
    with open_chain(top, writable=True) as chain:
        taken = time.process_time() - started
        assert len(chain.layers) == 64
    return taken


@pytest.fixture
def _many_files() -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))


@pytest.mark.usefixtures("_many_files")
def test_depth_ends_at_a_thousand(tmp_path: Path) -> None:
    top = _line_of(tmp_path, 1001)
    assert "deeper than 1000 images" in _failure(top, ErrorKind.UNSUPPORTED)
    assert len(_paths(tmp_path / "999.vdi")) == 1000


def test_thousands_of_neighbours_are_looked_at_fast(tmp_path: Path) -> None:
    _family(tmp_path / "child.vdi", tmp_path / "base.vdi")
    for number in range(3000):
        (tmp_path / f"note-{number}.txt").write_text("text")
    with processor_time(3):
        assert len(_paths(tmp_path / "child.vdi")) == 2
