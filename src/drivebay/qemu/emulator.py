"""Find QEMU, and the fastest way to run a guest with it on this host."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Literal

from drivebay.errors import ErrorKind, StorageError

PROGRAM = "qemu-system-x86_64"
OLDEST = (7, 2)

Accelerator = Literal["kvm", "tcg"]


def accelerator(cpuinfo: Path = Path("/proc/cpuinfo"), device: Path = Path("/dev/kvm")) -> Accelerator:
    """``kvm`` where guests can use the processor directly, else ``tcg`` (software emulation).

    A ``/dev/kvm`` that opens is not enough: on a virtual machine without nested virtualisation it may be
    there, and guests hang on it. So the processor must show ``vmx`` (Intel) or ``svm`` (AMD) as well.
    """
    try:
        flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    except OSError:
        return "tcg"
    capable = flags is not None and not {"vmx", "svm"}.isdisjoint(flags[1].split())
    return "kvm" if capable and os.access(device, os.R_OK | os.W_OK) else "tcg"


def find_qemu(program: str = PROGRAM) -> str:
    """The path of QEMU's program. Raises `StorageError`: NOT_FOUND, or UNSUPPORTED before QEMU 7.2."""
    path = shutil.which(program)
    if path is None:
        raise StorageError(
            ErrorKind.NOT_FOUND,
            f"{program} is not installed; install QEMU (Debian and Ubuntu: the package qemu-system-x86)",
            operation="find QEMU",
        )
    found = _version(path)
    if found < OLDEST:
        raise StorageError(
            ErrorKind.UNSUPPORTED,
            f"this is QEMU {_dotted(found)}; install {_dotted(OLDEST)} or newer",
            path=path,
            operation="find QEMU",
        )
    return path


def _version(path: str) -> tuple[int, int]:
    """The version that the program tells; (0, 0) when it tells none."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StorageError(
            ErrorKind.IO, f"QEMU does not run ({error}); install it again", path=path, operation="find QEMU"
        ) from error
    match = re.search(r"version (\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
