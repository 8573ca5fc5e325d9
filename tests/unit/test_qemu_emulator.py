"""Which QEMU, and with which accelerator."""

from pathlib import Path

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.qemu import accelerator, find_qemu


@pytest.mark.parametrize(
    ("flags", "device", "expected"),
    [
        ("fpu vmx sse", True, "kvm"),
        ("fpu svm sse", True, "kvm"),
        ("fpu sse", True, "tcg"),
        ("fpu vmxnet svm_lock", True, "tcg"),
        ("fpu vmx sse", False, "tcg"),
    ],
)
def test_kvm_needs_the_processor_and_the_device(
    tmp_path: Path, flags: str, device: bool, expected: str
) -> None:
    cpuinfo, kvm = tmp_path / "cpuinfo", tmp_path / "kvm"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: vmx\n")
    if device:
        kvm.touch()
    assert accelerator(cpuinfo, kvm) == expected


def test_a_host_without_cpuinfo_emulates(tmp_path: Path) -> None:
    assert accelerator(tmp_path / "none", tmp_path) == "tcg"


def test_the_installed_qemu_is_found() -> None:
    assert Path(find_qemu()).is_absolute()


def test_a_missing_qemu_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StorageError, match="qemu-system-x86") as caught:
        find_qemu()
    assert caught.value.kind is ErrorKind.NOT_FOUND


@pytest.mark.parametrize("version", ["6.2.0", "7.1.90"])
def test_an_old_qemu_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str) -> None:
    program = tmp_path / "qemu-system-x86_64"
    program.write_text(f"#!/bin/sh\necho 'QEMU emulator version {version} (Debian)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StorageError, match=r"install 7\.2 or newer") as caught:
        find_qemu()
    assert caught.value.kind is ErrorKind.UNSUPPORTED
    assert caught.value.path == str(program)
