"""The commands as programs see them: output, JSON, exit codes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest
from typer.testing import CliRunner

import drivebay as package
from drivebay.cli.app import app
from support.command import COMMAND, drivebay, drivebay_json, drivebay_process, failure

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: base.vdi (some data at 1 MiB) and child.vdi on it."""
    monkeypatch.chdir(tmp_path)
    package.create("base.vdi", size="8M", comment="the [base]")
    with package.open("base.vdi", writable=True) as disk:
        disk.write(MIB, b"data")
    package.create("child.vdi", parent="base.vdi")
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_info_shows_facts() -> None:
    done = drivebay("info", "base.vdi")
    assert done.returncode == 0
    for part in ("vdi, dynamic", "8 MiB (8388608 bytes)", "the [base]", "1 MiB"):
        assert part in done.stdout


def test_info_as_json(folder: Path) -> None:
    facts = drivebay_json("info", folder / "child.vdi")
    base = drivebay_json("info", folder / "base.vdi")
    assert facts["path"] == str(folder / "child.vdi")
    assert (facts["format"], facts["variant"], facts["size"]) == ("vdi", "differencing", 8 * MIB)
    assert (facts["parent_uuid"], base["parent_uuid"]) == (base["uuid"], None)
    assert facts["parent_modification_uuid"] == base["modification_uuid"]
    assert facts["pchs"] == {"cylinders": 16, "heads": 16, "sectors": 63}
    assert facts["lchs"] is None
    assert facts["file_size"] == os.path.getsize(folder / "child.vdi")


def test_info_of_a_chain(folder: Path) -> None:
    facts = drivebay_json("info", folder / "child.vdi", "--chain")
    assert facts["depth"] == 2
    assert [one["path"] for one in facts["chain"]] == [str(folder / "child.vdi"), str(folder / "base.vdi")]
    assert "parent 1" in drivebay("info", folder / "child.vdi", "--chain").stdout


def test_hostile_text_does_not_reach_the_terminal(folder: Path) -> None:
    package.create(folder / "evil.vdi", size="4M", comment="\x1b[2J[bold]\x07 gone")
    shown = drivebay("info", "evil.vdi").stdout
    assert "\x1b" not in shown
    assert "\ufffd[2J[bold]\ufffd gone" in shown
    name = os.fsdecode(b"\xff\x1b.vdi")
    assert f"{os.fsdecode(b'')}\ufffd\ufffd.vdi: cannot open" in failure(drivebay("info", name), 4)
    done = drivebay_process("create", name, "--size", "4M", "--json")
    assert (done.returncode, json.loads(done.stdout.replace("\\udcff", "?"))["path"]) == (0, "?\x1b.vdi")
    assert drivebay_process("checksum", name).stdout.endswith("\\udcff\x1b.vdi\n")


def test_info_needs_no_parent_but_its_chain_does(folder: Path) -> None:
    (folder / "base.vdi").unlink()
    assert drivebay("info", "child.vdi").returncode == 0
    assert "--search DIR" in failure(drivebay("info", "child.vdi", "--chain"), 4)


def test_info_looks_at_an_image_in_use(folder: Path) -> None:
    with package.open(folder / "child.vdi", writable=True):
        assert drivebay("info", "child.vdi", "--chain").returncode == 0
        message = failure(drivebay("map", "child.vdi"), 7)
    assert f"child.vdi: the image is in use: this process {os.getpid()} (" in message


@pytest.mark.usefixtures("folder")
def test_create_tells_what_it_made() -> None:
    identity = str(uuid.uuid4())
    facts = drivebay_json(
        "create",
        "new.vdi",
        "--size",
        "1.5 GiB",
        "--block-size",
        "2M",
        "--uuid",
        identity,
        "--comment",
        "mine",
    )
    assert (facts["size"], facts["block_size"], facts["uuid"]) == (3 << 29, 2 * MIB, identity)
    assert facts["comment"] == "mine"
    assert drivebay("create", "fixed.vdi", "--size=2M", "--variant=fixed").stdout == (
        "made fixed.vdi: vdi, fixed, 2 MiB\n"
    )
    assert drivebay_json("create", "new.img", "--size", "1M")["format"] == "raw"
    assert drivebay_json("create", "grandchild.vdi", "--parent", "child.vdi")["size"] == 8 * MIB


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["new.vdi"], "either a size or a parent"),
        (["new.vdi", "--size", "ten"], "'ten' is no size"),
        (["new.vdi", "--size", "-5"], "'-5' is no size"),
        (["new.vdi", "--size", "0"], "'0' is not possible"),
        (["new.vdi", "--size", "100P"], "is not possible"),
        (["new.vdi", "--size", "1000"], "is not possible"),
        (["new.vdi", "--size", "4M", "--block-size", "3M"], "block size"),
        (["new.vdi", "--size", "4M", "--uuid", "x"], "'x' is no UUID"),
        (["new.vdi", "--size", "4M", "--variant", "x"], "no variant 'x'"),
        (["new.vdi", "--size", "4M", "--format", "x"], "there is no format 'x'"),
        (["base.vdi", "--size", "4M"], "File exists"),
        (["new.vdi", "--size", "4M", "--what"], "No such option: --what; see drivebay create --help"),
        (["new.vdi", "--size"], "requires an argument"),
    ],
)
def test_create_refuses_nonsense(arguments: list[str], part: str) -> None:
    before = sorted(os.listdir())
    assert part in failure(drivebay("create", *arguments), 2)
    assert sorted(os.listdir()) == before


@pytest.mark.usefixtures("folder")
def test_map_shows_what_lies_where() -> None:
    with package.open("child.vdi", writable=True) as disk:
        disk.zero(4 * MIB, MIB)
        disk.write(5 * MIB, b"x")
    extents = drivebay_json("map", "child.vdi")
    assert [(one["start"] // MIB, one["length"] // MIB, one["state"], one["depth"]) for one in extents] == [
        (0, 1, "unallocated", None),
        (1, 1, "data", 1),
        (2, 2, "unallocated", None),
        (4, 1, "zero", 0),
        (5, 1, "data", 0),
        (6, 2, "unallocated", None),
    ]
    assert os.path.basename(extents[1]["source"]) == "base.vdi"
    lines = drivebay("map", "child.vdi").stdout.splitlines()
    assert len(lines) == 1 + len(extents)
    assert lines[2].split() == [
        "1048576",
        "1048576",
        "data",
        "1",
        "base.vdi",
        "at",
        str(extents[1]["offset"]),
    ]


@pytest.mark.usefixtures("folder")
def test_checksum_is_that_of_the_disk() -> None:
    content = bytearray(8 * MIB)
    content[MIB : MIB + 4] = b"data"
    digest = hashlib.sha256(content).hexdigest()
    assert drivebay("checksum", "child.vdi").stdout == f"{digest}  child.vdi\n"
    assert drivebay_json("checksum", "base.vdi") == {"path": "base.vdi", "size": 8 * MIB, "sha256": digest}


@pytest.mark.usefixtures("folder")
def test_compare_answers_with_its_exit_code() -> None:
    assert drivebay("compare", "base.vdi", "child.vdi").stdout == "the disks are equal\n"
    with package.open("child.vdi", writable=True) as disk:
        disk.write(3 * MIB, b"x")
    done = drivebay("compare", "base.vdi", "child.vdi")
    assert (done.returncode, done.stdout) == (1, f"the disks differ, first at byte {3 * MIB}\n")
    done = drivebay("compare", "base.vdi", "child.vdi", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"equal": False, "offset": 3 * MIB, "sizes": [8 * MIB, 8 * MIB]}
    package.create("longer.vdi", size="9M")
    package.create("short.vdi", size="8M")
    assert "ends in zeros" in drivebay("compare", "longer.vdi", "short.vdi").stdout


def test_check_finds_damage(folder: Path) -> None:
    done = drivebay("check", "child.vdi")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "no errors")
    assert drivebay_json("check", "base.vdi")["sound"] is True
    data = bytearray((folder / "base.vdi").read_bytes())
    data[MIB + 8 : MIB + 12] = data[MIB + 4 : MIB + 8]  # two entries name the same block
    (folder / "base.vdi").write_bytes(data)
    done = drivebay("check", "base.vdi", "--json")
    assert done.returncode == 1
    assert {"error"} <= {finding["severity"] for finding in json.loads(done.stdout)["findings"]}
    assert "the image is damaged" in drivebay("check", "base.vdi").stdout


def test_errors_as_json(folder: Path) -> None:
    done = drivebay("info", folder, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    error = json.loads(done.stderr)["error"]
    assert error == {
        "kind": "invalid",
        "message": "this is a folder, not a disk image; name an image file or a block device",
        "path": str(folder),
        "offset": None,
        "operation": "open",
        "exit_code": 2,
    }
    usage = json.loads(drivebay("info", "--json", "--what").stderr)["error"]
    assert (usage["kind"], usage["operation"]) == ("invalid", "read the command line")


def test_a_stale_parent_needs_permission(folder: Path) -> None:
    with package.open(folder / "base.vdi", writable=True) as disk:
        disk.write(0, b"changed")
    assert "--allow-stale-parent" in failure(drivebay("checksum", "child.vdi"), 11)
    assert drivebay("checksum", "child.vdi", "--allow-stale-parent").returncode == 0


def test_the_parent_is_searched_for(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "base.vdi").rename(folder / "elsewhere" / "base.vdi")
    failure(drivebay("checksum", "child.vdi"), 4)
    (folder / "empty").mkdir()
    for place in ("elsewhere", "elsewhere/base.vdi"):
        assert drivebay("checksum", "child.vdi", "--search", "empty", "--search", place).returncode == 0
    failure(drivebay("checksum", "child.vdi", "--search", "missing", "--search", "elsewhere"), 4)


@pytest.mark.timeout(30)
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", ["info", "map", "checksum", "check", "serve"])
def test_what_is_no_image_is_refused_by_every_command(command: str) -> None:
    os.mkfifo("fifo")
    assert "this is a FIFO" in failure(drivebay(command, "fifo"), 2)
    assert "this is a folder" in failure(drivebay(command, "."), 2)
    failure(drivebay(command, "missing.vdi"), 4)
    Path("short.vdi").write_bytes(Path("base.vdi").read_bytes()[:200])
    failure(drivebay(command, "short.vdi"), 5)


def test_no_arguments_and_help_and_version() -> None:
    runner = CliRunner()
    assert "Usage: " in runner.invoke(app, []).output
    assert runner.invoke(app, ["--version"]).output == f"drivebay {package.__version__}\n"
    for command in ("info", "create", "map", "checksum", "compare", "check", "serve", "demo"):
        assert command in runner.invoke(app, ["--help"]).output
        assert runner.invoke(app, [command, "--help"]).exit_code == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_offered(shell: str) -> None:
    assert "_DRIVEBAY_COMPLETE=complete_" in drivebay_process("--show-completion", shell).stdout
    words = {"COMP_WORDS": "drivebay che", "COMP_CWORD": "1", "_DRIVEBAY_COMPLETE": "complete_bash"}
    assert drivebay_process(env=os.environ | words).stdout.split() == ["check", "checksum"]


@pytest.mark.usefixtures("folder")
def test_a_reader_that_goes_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [*COMMAND, "map", "child.vdi", "--json"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
