"""Creating QCOW2: every option, what goes together, and the edit of a parent."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from drivebay.blockmap import CreateRequest, FileEdit, FileWrite, HeaderEdit, Layer, ParentLink
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats import qcow2
from drivebay.formats.qcow2.create import packed_ones
from drivebay.formats.qcow2.extensions import BITMAPS, Extension
from drivebay.formats.qcow2.header import unpack
from drivebay.formats.qcow2.options import Compression, Preallocation, Qcow2Options
from support.interpreter import read_layers
from support.memory_files import MemoryFiles, files_made_by
from support.qcow2_images import make_image

MIB = 1 << 20
PATH = "new.qcow2"
LINK = ParentLink(uuid.UUID(int=7), uuid.UUID(int=8), "base.vhd", format="vhd")


def request(size: int = 3 * MIB + 512, parent: ParentLink | None = None, **options: Any) -> CreateRequest:
    identity = uuid.UUID(int=1)
    return CreateRequest(size, Qcow2Options(**options), identity, identity, parent=parent, name=PATH)


def made(size: int = 3 * MIB + 512, parent: ParentLink | None = None, **options: Any) -> dict[str, bytes]:
    assert qcow2.FORMAT.create is not None
    return files_made_by(qcow2.FORMAT.create(request(size, parent, **options)))


def opened(files: dict[str, bytes]) -> tuple[MemoryFiles, Layer]:
    gate = MemoryFiles(files[""], PATH, files)
    return gate, qcow2.FORMAT.open(gate)


def codes(files: dict[str, bytes]) -> list[str]:
    assert qcow2.FORMAT.check is not None
    return [found.code for found in qcow2.FORMAT.check(*opened(files))]


EVERY = [
    {},
    {"variant": "v2"},
    {"block_size": 512},
    {"block_size": 2 * MIB},
    {"block_size": 512, "refcount_bits": 64},
    {"refcount_bits": 1},
    {"refcount_bits": 2},
    {"refcount_bits": 4},
    {"refcount_bits": 8},
    {"extended_l2": True},
    {"extended_l2": True, "block_size": 16 << 10, "preallocation": Preallocation.METADATA},
    {"preallocation": Preallocation.METADATA, "block_size": 512, "refcount_bits": 1},
    {"preallocation": Preallocation.METADATA, "variant": "v2"},
    {"compression_type": Compression.ZSTD},
    {"lazy_refcounts": True},
    {"data_file": "disk.raw"},
    {"data_file_raw": True, "data_file": "disk.raw"},
    {"data_file_raw": True},
]


@pytest.mark.parametrize("options", EVERY, ids=str)
def test_a_new_image_is_sound_and_reads_as_zeros(options: dict[str, Any]) -> None:
    files = made(**options)
    _, layer = opened(files)
    assert codes(files) == []
    assert layer.facts.size == 3 * MIB + 512
    image = (layer, files[""], *(files[name] for name in layer.sources))
    assert read_layers([image], 0, layer.facts.size) == bytes(layer.facts.size)
    if "block_size" in options:
        assert layer.facts.block_size == options["block_size"]


def test_the_header_says_what_was_asked_for() -> None:
    options = {"refcount_bits": 32, "extended_l2": True, "compression_type": Compression.ZSTD}
    header = unpack(made(lazy_refcounts=True, **options)[""])
    assert (header.refcount_order, header.compression, header.compatible) == (5, 1, 1)
    assert (header.incompatible, header.length, header.version) == (8 | 16, 112, 3)
    old = unpack(made(variant="v2")[""])
    assert (old.version, old.length, old.refcount_order) == (2, 72, 4)


def test_the_header_comes_last() -> None:
    assert qcow2.FORMAT.create is not None
    changes = list(qcow2.FORMAT.create(request(preallocation=Preallocation.METADATA)))
    writes = [change.offset for change in changes if isinstance(change, FileWrite)]
    assert writes.index(0) == len(writes) - 1


def test_a_raw_data_file_is_named_after_the_image() -> None:
    files = made(data_file_raw=True)
    assert files["new-data.raw"] == bytes(3 * MIB + 512)
    assert unpack(files[""]).autoclear == 2


def test_a_child_records_its_parent_as_qemu_would() -> None:
    files = made(parent=LINK)
    facts = opened(files)[1].facts
    assert (facts.differencing, facts.parent_names, facts.parent_format) == (True, ("base.vhd",), "vhd")
    assert b"vpc" in files[""][:4096]


def test_feature_names_give_way_in_small_clusters() -> None:
    files = made(parent=ParentLink(LINK.uuid, LINK.uuid, "x" * 300, format="raw"), block_size=512)
    assert opened(files)[1].facts.parent_names == ("x" * 300,)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("count", [0, 1, 3, 8, 17])
def test_counts_of_one(bits: int, count: int) -> None:
    total = int.from_bytes(packed_ones(count, bits), "little" if bits < 8 else "big")
    assert total == sum(1 << bits * place for place in range(count))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"block_size": 256}, "cluster size of 256"),
    ({"block_size": 4 * MIB}, "cluster size"),
    ({"block_size": 3000}, "cluster size"),
    ({"block_size": 8192, "extended_l2": True}, "from 16384"),
    ({"refcount_bits": 3}, "3 bits"),
    ({"refcount_bits": 0}, "0 bits"),
    ({"refcount_bits": 128}, "128 bits"),
    ({"variant": "v4"}, "no variant 'v4'"),
    ({"variant": "v2", "refcount_bits": 8}, "version 2 has no"),
    ({"variant": "v2", "extended_l2": True}, "version 2 has no extended"),
    ({"variant": "v2", "data_file": "x"}, "version 2 has no"),
    ({"variant": "v2", "compression_type": Compression.ZSTD}, "version 2 has no"),
    ({"variant": "v2", "lazy_refcounts": True}, "version 2 has no"),
    ({"data_file": "a/b"}, "data file can't be called"),
    ({"data_file": PATH}, "data file can't be called"),
    ({"data_file": ".."}, "data file can't be called"),
    ({"parent": LINK, "preallocation": Preallocation.METADATA}, "hide the parent"),
    ({"parent": LINK, "data_file_raw": True}, "hide the parent"),
    ({"size": 0}, "of 0 bytes"),
    ({"size": 1000}, "of 1000 bytes"),
    ({"size": 1 << 40, "block_size": 512}, "larger clusters"),
    ({"parent": ParentLink(LINK.uuid, LINK.uuid, "x" * 1024)}, "1024 bytes"),
    ({"parent": ParentLink(LINK.uuid, LINK.uuid, "x" * 500), "block_size": 512}, "larger clusters"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=[str(fields) for fields, _ in REFUSED])
def test_what_cannot_be_is_refused_at_once(fields: dict[str, Any], message: str) -> None:
    assert qcow2.FORMAT.create is not None
    with pytest.raises(StorageError, match=message) as caught:
        qcow2.FORMAT.create(request(**fields))
    assert caught.value.kind is ErrorKind.INVALID


def test_too_many_clusters_for_preallocation() -> None:
    assert qcow2.FORMAT.create is not None
    options = {"block_size": 512, "refcount_bits": 64, "preallocation": Preallocation.METADATA}
    with pytest.raises(StorageError, match="refcount table would be"):
        qcow2.FORMAT.create(request(1 << 36, **options))


def test_a_comment_has_no_place() -> None:
    assert qcow2.FORMAT.create is not None
    with pytest.raises(StorageError, match="no place for a comment"):
        qcow2.FORMAT.create(CreateRequest(MIB, Qcow2Options(), LINK.uuid, LINK.uuid, comment="hello"))


def edited(data: bytes, **fields: Any) -> bytes:
    assert qcow2.FORMAT.edit is not None
    gate = MemoryFiles(data, PATH)
    changes: list[FileEdit] = list(qcow2.FORMAT.edit(gate, qcow2.FORMAT.open(gate), HeaderEdit(**fields)))
    return files_made_by(changes, {"": data})[""]


def parents(data: bytes) -> tuple[tuple[str, ...], str | None]:
    facts = qcow2.FORMAT.open(MemoryFiles(data, PATH)).facts
    return facts.parent_names, facts.parent_format


def test_another_parent_can_be_set() -> None:
    data = made(parent=LINK)[""]
    assert parents(edited(data, parent_path="other.vdi", parent_format="vdi")) == (("other.vdi",), "vdi")
    assert parents(edited(data, parent_path="other.vdi")) == (("other.vdi",), "vhd")
    assert parents(edited(data, parent_format="raw")) == (("base.vhd",), "raw")
    assert parents(edited(data, parent_path="")) == ((), None)
    assert parents(edited(made()[""], parent_path="a:b")) == (("./a:b",), None)


def test_an_edit_keeps_other_extensions_and_drops_unknown_autoclear_features() -> None:
    where = Extension(BITMAPS, bytes(24), 0)
    data = make_image(extensions=[Extension(0x11223344, b"foreign", 0), where], autoclear=1 | 1 << 50)
    header = unpack(after := edited(data, parent_path="base"))
    assert b"foreign" in after[:4096]
    assert header.autoclear == 1
    assert after[4096:] == data[4096:]


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("comment", "its comment"),
        ("uuid", "its UUID"),
        ("parent_uuid", "its parent's UUID"),
        ("pchs", "its physical geometry"),
    ],
)
def test_what_qcow2_does_not_have_cannot_be_set(field: str, words: str) -> None:
    with pytest.raises(StorageError, match=words) as caught:
        edited(made()[""], **{field: LINK.uuid})
    assert caught.value.kind is ErrorKind.UNSUPPORTED


def test_a_raw_data_file_allows_no_parent() -> None:
    with pytest.raises(StorageError, match="can't have a parent"):
        edited(made(data_file_raw=True)[""], parent_path="base")
