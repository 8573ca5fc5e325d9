"""Descriptors edited: what was asked for changes, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID

import pytest

import drivebay
from drivebay.blockmap import FileReplace, HeaderEdit
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vmdk import FORMAT
from drivebay.model import NULL_UUID, Geometry, ImageFacts
from support.memory_files import files_made_by
from support.vmdk_images import Made, gate, made, opened

FOREIGN = (
    b'\xef\xbb\xbf# Disk DescriptorFile\r\nversion=1\r\nencoding="windows-1252"\r\nCID=52f34410\r\n'
    b'parentCID = ffffffff\r\ncreateType="monolithicFlat"\r\n# gr\xfc\xdfe\r\n'
    b'RW 8 FLAT "disk-flat.vmdk" 0\r\n  DDB.Comment = "old"\r\nfuture.key = "kept"\r\nddb.toolsVersion="7"'
)


def edited(files: Made, **fields: object) -> dict[str, bytes]:
    assert FORMAT.edit is not None
    changes = FORMAT.edit(gate(files), opened(files), HeaderEdit(**fields))  # type: ignore[arg-type]
    return files_made_by(changes, files)


def facts_after(files: Made, **fields: object) -> ImageFacts:
    return opened(edited(files, **fields)).facts


@pytest.mark.parametrize("variant", ["monolithicSparse", "monolithicFlat", "streamOptimized"])
def test_every_field(variant: str) -> None:
    one, two, three, four = (UUID(int=number << 64) for number in range(1, 5))
    facts = facts_after(
        made(variant),
        uuid=one,
        modification_uuid=two,
        parent_uuid=three,
        parent_modification_uuid=four,
        parent_path="../x/base.vmdk",
        parent_content_id=0xBEEF,
        comment="two\nlines \\",
        pchs=Geometry(3, 16, 63),
        lchs=Geometry(2, 32, 63),
    )
    assert (facts.uuid, facts.modification_uuid, facts.parent_uuid) == (one, two, three)
    assert (facts.parent_modification_uuid, facts.parent_content_id) == (four, 0xBEEF)
    assert facts.parent_names == ("../x/base.vmdk", "base.vmdk")
    assert facts.comment == "two\nlines \\"
    assert (facts.pchs, facts.lchs) == (Geometry(3, 16, 63), Geometry(2, 32, 63))


def test_other_lines_stay_byte_by_byte() -> None:
    files = {"": bytearray(FOREIGN), "disk-flat.vmdk": bytearray(4096)}
    after = edited(files, comment="neu: größer", parent_path="base.vmdk")
    expected = FOREIGN.replace(
        b'  DDB.Comment = "old"', 'ddb.comment="neu: größer"'.encode("cp1252")
    ).replace(b"parentCID = ffffffff", b'parentCID = ffffffff\r\nparentFileNameHint="base.vmdk"', 1)
    created = b'createType="monolithicFlat"\r\n'
    expected = expected.replace(b'\r\nparentFileNameHint="base.vmdk"', b"").replace(
        created, created + b'parentFileNameHint="base.vmdk"\r\n'
    )
    assert after[""] == expected + b"\n"
    assert after["disk-flat.vmdk"] == bytes(4096)


def test_a_shorter_descriptor_ends_where_it_ends() -> None:
    files = made("monolithicFlat", comment="a long comment " * 20)
    assert FORMAT.edit is not None
    changes = list(FORMAT.edit(gate(files), opened(files), HeaderEdit(comment="")))
    after = files_made_by(changes, files)[""]
    assert changes == [FileReplace(after)]
    assert len(after) < len(files[""])
    assert b"\0" not in after


def test_a_parent_is_taken_away() -> None:
    files = edited(made(), parent_uuid=UUID(int=5), parent_path="base.vmdk", parent_content_id=7)
    facts = facts_after(
        {name: bytearray(data) for name, data in files.items()}, parent_uuid=NULL_UUID, parent_path=""
    )
    assert not facts.differencing
    assert (facts.parent_names, facts.parent_content_id) == ((), None)


def test_nothing_asked_for_is_nothing_changed() -> None:
    files = made()
    assert edited(files) == files


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"parent_format": "vmdk"}, ErrorKind.UNSUPPORTED),
        ({"comment": 'a "quoted" one'}, ErrorKind.INVALID),
        ({"comment": "long " * 3000}, ErrorKind.INVALID),
        ({"parent_path": "two\nlines"}, ErrorKind.INVALID),
        ({"pchs": Geometry(16384, 16, 63)}, ErrorKind.INVALID),
        ({"lchs": Geometry(1, 256, 63)}, ErrorKind.INVALID),
    ],
)
def test_what_can_t_be_recorded(fields: dict[str, object], kind: ErrorKind) -> None:
    with pytest.raises(StorageError) as caught:
        edited(made(), **fields)
    assert caught.value.kind is kind


def test_a_content_id_without_its_leading_zeros_is_written_in_its_place(tmp_path: Path) -> None:
    """QEMU writes it so: one image in sixteen has seven digits."""
    path = tmp_path / "short.vmdk"
    drivebay.create(path, size=1 << 20)
    data = path.read_bytes()
    before = re.search(rb"\nCID=[0-9a-f]{8}\n", data)
    assert before is not None
    path.write_bytes(data.replace(before.group(), b"\nCID=1234567\n\n"))
    with drivebay.open(path, writable=True) as disk:
        disk.write(0, b"changed")
    after = re.search(rb"\nCID=([0-9a-f]{7})\n\n", path.read_bytes())
    assert after is not None
    assert after.group(1) != b"1234567"
