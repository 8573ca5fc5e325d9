"""Names of backing files: what is a local file is followed, everything else refused."""

from __future__ import annotations

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.formats.backing import backing_name, our_format, qemu_format, recorded_name
from support.memory_files import MemoryFiles

FILES = MemoryFiles(b"", "child.qcow2")


@pytest.mark.parametrize(
    ("recorded", "path"),
    [
        (b"base.qcow2", "base.qcow2"),
        (b"../up/base.raw", "../up/base.raw"),
        (b"/abs/base", "/abs/base"),
        (b"./a:b", "./a:b"),
        (b"dir/a:b", "dir/a:b"),
        (b"file:base.raw", "base.raw"),
        (b"file:///abs/base", "/abs/base"),
        (b"C:\\vms\\base.vdi", "base.vdi"),
        (b"d:/vms/base.vdi", "base.vdi"),
        (b'json:{"driver":"file","filename":"base"}', "base"),
        (b'json:{"driver":"qcow2","file":{"driver":"file","filename":"b"}}', "b"),
        (b'json:{"driver":"raw","file.driver":"host_device","file.filename":"/dev/x"}', "/dev/x"),
        (b'json:{"file.filename":"b"}', "b"),
        (b'json:{"driver":"raw","read-only":true,"file":{"cache.direct":true,"filename":"b"}}', "b"),
        ("größe".encode(), "größe"),
        (b"\xff\xfe", "\udcff\udcfe"),
    ],
)
def test_local_files(recorded: bytes, path: str) -> None:
    assert backing_name(recorded, FILES, 100).path == path


@pytest.mark.parametrize(
    "recorded",
    [
        b"nbd:unix:/tmp/x",
        b"http://example.com/x",
        b"ssh://host/x",
        b"rbd:pool/x",
        b"json:",
        b"json:7",
        b"json:[]",
        b"json:{}",
        b'json:{"driver":"nbd","host":"h"}',
        b'json:{"driver":"qcow2","file":{"driver":"nbd","filename":"x"}}',
        b'json:{"driver":"qcow2","file":{"driver":"file","filename":7}}',
        b'json:{"driver":["x"],"file":{"filename":""}}',
        b"json:" + b"[" * 900,
        b'json:{"driver":"raw","offset":512,"file":{"driver":"file","filename":"x"}}',
        b'json:{"driver":"raw","size":512,"file.filename":"x"}',
        b'json:{"driver":"qcow2","backing":null,"file":{"driver":"file","filename":"x"}}',
        b'json:{"file":{"driver":[],"filename":"x"}}',
    ],
)
def test_everything_else_is_refused(recorded: bytes) -> None:
    with pytest.raises(StorageError, match="qemu-img rebase -u") as caught:
        backing_name(recorded, FILES, 100)
    error = caught.value
    assert (error.kind, error.offset, error.path) == (ErrorKind.UNSUPPORTED, 100, "child.qcow2")


@pytest.mark.parametrize("recorded", [b"", b"a\0b"])
def test_no_name_at_all(recorded: bytes) -> None:
    with pytest.raises(StorageError) as caught:
        backing_name(recorded, FILES, 100)
    assert caught.value.kind is ErrorKind.CORRUPT


def test_the_format_that_a_description_tells() -> None:
    assert backing_name(b'json:{"driver":"vpc","file.filename":"b"}', FILES, 0).format == "vpc"
    assert backing_name(b'json:{"driver":"file","filename":"b"}', FILES, 0).format is None


@pytest.mark.parametrize(
    ("path", "recorded"), [("a", b"a"), ("a:b", b"./a:b"), ("x/a:b", b"x/a:b"), ("\udcff", b"\xff")]
)
def test_what_is_recorded_is_read_back(path: str, recorded: bytes) -> None:
    assert recorded_name(path) == recorded
    assert backing_name(recorded, FILES, 0).path.removeprefix("./") == path


def test_qemu_s_names_of_formats() -> None:
    assert (qemu_format("vhd"), our_format("vpc"), qemu_format("qed"), our_format("raw")) == (
        "vpc",
        "vhd",
        "qed",
        "raw",
    )
