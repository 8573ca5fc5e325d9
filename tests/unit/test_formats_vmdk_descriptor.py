"""The descriptor as people, VMware, VirtualBox and QEMU write it."""

from __future__ import annotations

from uuid import UUID

import pytest

from drivebay.blockmap import Layer, Linear, MarkKind, Zeros
from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.vmdk import FORMAT
from drivebay.model import NULL_UUID, Geometry
from support.memory_files import MemoryFiles

PLAIN = """# Disk DescriptorFile
version=1
CID=52f34410
parentCID=ffffffff
createType="monolithicFlat"

RW 8 FLAT "disk-flat.vmdk" 0

ddb.adapterType = "ide"
"""
FLAT = {"disk-flat.vmdk": bytes(4096)}


def opened(text: str | bytes, others: dict[str, bytes] | None = None) -> Layer:
    data = text.encode() if isinstance(text, str) else text
    return FORMAT.open(MemoryFiles(data, "disk.vmdk", FLAT if others is None else others))


def failure_of(text: str, others: dict[str, bytes] | None = None) -> StorageError:
    with pytest.raises(StorageError) as caught:
        opened(text, others)
    assert caught.value.path
    assert ";" in caught.value.message
    return caught.value


def test_a_flat_image() -> None:
    layer = opened(PLAIN)
    assert layer.facts.size == 4096
    assert layer.facts.variant == "monolithicFlat"
    assert layer.facts.content_id == 0x52F34410
    assert not layer.facts.differencing
    assert layer.facts.details["adapter type"] == "ide"
    assert layer.segments == (Linear(0, 4096, 1, 0),)
    assert layer.sources == ("disk-flat.vmdk",)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("\n", "\r\n"),
        "\ufeff" + PLAIN,
        PLAIN.replace("=", " = "),
        PLAIN.replace("CID", "cid").replace("createType", "CREATETYPE").replace("FLAT", "flat"),
        PLAIN.replace("\n", "\n   "),
        PLAIN.replace("RW 8 FLAT", "rw\t8   Flat"),
        "\n \n" + PLAIN,
        PLAIN + "\0\0\0 garbage behind the end",
        PLAIN.replace("version=1", 'version=1\nfuture.key="yes"\nno setting at all'),
        PLAIN.replace("# Disk DescriptorFile", "# disk descriptorfile"),
    ],
    ids=["crlf", "bom", "blanks", "case", "indented", "tabs", "leading", "padded", "unknown", "signature"],
)
def test_what_is_written_differently_is_read_alike(text: str) -> None:
    layer = opened(text)
    assert (layer.facts.size, layer.facts.content_id, layer.facts.variant) == (
        4096,
        0x52F34410,
        "monolithicFlat",
    )
    assert layer.refusal is None


def test_the_mark_of_the_content_id_lies_on_its_digits() -> None:
    layer = opened(PLAIN)
    assert layer.plan is not None
    (mark,) = layer.plan.marks
    assert mark.kind is MarkKind.RANDOM_HEX
    assert PLAIN[mark.offset : mark.offset + 8] == "52f34410"


def test_the_mark_in_a_modification_uuid_keeps_its_other_digits() -> None:
    text = PLAIN + 'ddb.uuid.modification="66666666-7777-4888-9999-aaaaaaaaaaaa"\n'
    layer = opened(text)
    assert layer.plan is not None
    assert [text[mark.offset :][:9] for mark in layer.plan.marks] == ["52f34410\n", "66666666-"]


def test_virtualbox_s_uuids_and_geometry() -> None:
    own, parent = UUID(int=5 << 64), UUID(int=6 << 64)
    layer = opened(
        PLAIN
        + f'ddb.uuid.image="{own}"\nddb.uuid.parent="{parent}"\nddb.uuid.parentmodification="nonsense"\n'
        + 'ddb.comment="one\\ntwo \\\\ three"\nddb.geometry.biosCylinders="2"\nddb.geometry.biosHeads="16"\n'
        + 'ddb.geometry.biosSectors="63"\nddb.geometry.cylinders="x"\n'
    )
    facts = layer.facts
    assert (facts.uuid, facts.parent_uuid, facts.parent_modification_uuid) == (own, parent, NULL_UUID)
    assert facts.differencing
    assert facts.comment == "one\ntwo \\ three"
    assert facts.lchs == Geometry(2, 16, 63)
    assert facts.pchs == Geometry(1, 16, 63)


@pytest.mark.parametrize(
    ("hint", "names"),
    [
        ("base.vmdk", ("base.vmdk",)),
        ("../images/base.vmdk", ("../images/base.vmdk", "base.vmdk")),
        ("C:\\\\VMs\\\\base.vmdk".replace("\\\\", "\\"), ("/VMs/base.vmdk", "base.vmdk")),
        ("images\\base.vmdk", ("images/base.vmdk", "base.vmdk")),
        ("/vm/odd\\name.vmdk", ("/vm/odd\\name.vmdk", "odd\\name.vmdk")),
    ],
)
def test_the_parent_s_name(hint: str, names: tuple[str, ...]) -> None:
    text = PLAIN.replace("ffffffff", "0000beef") + f'parentFileNameHint="{hint}"\n'
    facts = opened(text).facts
    assert facts.parent_names == names
    assert facts.parent_content_id == 0xBEEF
    assert facts.differencing


def test_names_in_another_encoding() -> None:
    text = PLAIN.replace("version=1", 'version=1\nencoding="windows-1252"').replace("disk-flat", "größe-flat")
    layer = opened(text.encode("cp1252"), {"größe-flat.vmdk": bytes(4096)})
    assert layer.sources == ("größe-flat.vmdk",)
    assert layer.facts.details["encoding"] == "windows-1252"


def test_an_encoding_that_is_no_text_counts_as_utf_8() -> None:
    assert (
        opened(PLAIN.replace("version=1", "encoding=rot13\nversion=1")).facts.details["encoding"] == "utf-8"
    )


def test_a_partitioned_device() -> None:
    text = PLAIN.replace("monolithicFlat", "partitionedDevice").replace(
        'RW 8 FLAT "disk-flat.vmdk" 0',
        'RW 1 FLAT "disk-pt.vmdk" 0\nRW 4 FLAT "sdx" 63\nRW 9 ZERO\n'
        'NOACCESS 2 ZERO\nRW 1 FLAT "disk-pt.vmdk" 1',
    )
    layer = opened(text, {"disk-pt.vmdk": bytes(1024), "sdx": bytes(67 * 512)})
    assert layer.sources == ("disk-pt.vmdk", "sdx")
    assert layer.segments == (
        Linear(0, 512, 1, 0),
        Linear(512, 2048, 2, 63 * 512),
        Zeros(2560, 4608),
        Zeros(7168, 1024),
        Linear(8192, 512, 1, 512),
    )


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ('RW 8 FLAT "disk-flat.vmdk" 0', "", ErrorKind.CORRUPT),
        ("RW 8", "RW 9", ErrorKind.CORRUPT),
        ("RW 8", "RW 0", ErrorKind.CORRUPT),
        ("RW 8", "RW 9999999999999999999", ErrorKind.CORRUPT),
        ('vmdk" 0', 'vmdk" 1', ErrorKind.CORRUPT),
        ("FLAT", "CLOUD", ErrorKind.UNSUPPORTED),
        ("RW 8", "NOACCESS 8", ErrorKind.UNSUPPORTED),
        ("disk-flat", "gone-flat", ErrorKind.NOT_FOUND),
        ("FLAT", "SPARSE", ErrorKind.CORRUPT),
        ("# Disk", "# Tape", ErrorKind.CORRUPT),
    ],
)
def test_what_is_refused(old: str, new: str, kind: ErrorKind) -> None:
    assert failure_of(PLAIN.replace(old, new)).kind is kind


def test_more_extents_than_anybody_has_files_for() -> None:
    text = PLAIN + 'RW 8 FLAT "disk-flat.vmdk" 0\n' * 8192
    assert "8193 extent lines" in failure_of(text).message


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("RW 8", "RDONLY 8", "RDONLY"),
        ("52f34410", "52f344100", "content id"),
        ("52f34410", "none", "content id"),
    ],
)
def test_what_can_only_be_read(old: str, new: str, reason: str) -> None:
    layer = opened(PLAIN.replace(old, new))
    assert layer.plan is None
    assert reason in (layer.refusal or "")


@pytest.mark.parametrize(
    "line",
    [
        'RW -8 FLAT "disk-flat.vmdk" 0',
        'RW 99999999999999999999 FLAT "disk-flat.vmdk" 0',
        'RW FLAT "disk-flat.vmdk"',
        'RW 8 FLAT "disk-flat.vmdk" -1',
        'RW 8 FLAT "disk-flat.vmdk" 0x8',
        "rdonly 8",
    ],
)
def test_half_an_extent_line_is_no_line_to_skip(line: str) -> None:
    """What follows it would come to lie in its place."""
    error = failure_of(f'{PLAIN}{line}\nRW 8 FLAT "more" 0\n', FLAT | {"more": bytes(4096)})
    assert f"no whole extent line: {line!r}" in error.message
    assert error.offset == len(PLAIN)


def test_words_behind_an_extent_are_no_offset() -> None:
    text = PLAIN.replace('vmdk" 0', "vmdk\" 0 partitionUUID 'dev/disk-1'") + "rw = yes\n"
    assert opened(text).segments == (Linear(0, 4096, 1, 0),)


def test_no_part_of_a_file_is_two_parts_of_the_disk() -> None:
    two = PLAIN.replace(
        'RW 8 FLAT "disk-flat.vmdk" 0', 'RW 4 FLAT "disk-flat.vmdk" {}\nRW 4 FLAT "disk-flat.vmdk" {}'
    )
    assert opened(two.format(4, 0)).segments == (Linear(0, 2048, 1, 2048), Linear(2048, 2048, 1, 0))
    assert "extent 2 uses a part of its file that extent 1 uses" in failure_of(two.format(3, 0)).message


def test_without_a_content_id_there_is_nothing_to_mark() -> None:
    layer = opened(PLAIN.replace("CID=52f34410\n", ""))
    assert layer.facts.content_id is None
    assert layer.plan is not None
    assert layer.plan.marks == ()


def test_no_guest_gets_at_the_descriptor() -> None:
    error = failure_of(
        PLAIN.replace("disk-flat", "disk").replace("RW 8", "RW 1"), {"disk.vmdk": PLAIN.encode() * 9}
    )
    assert error.kind is ErrorKind.CORRUPT
    assert "descriptor lies in" in error.message
