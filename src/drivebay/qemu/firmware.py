"""Firmware for machines that start with EFI: OVMF's code, and each machine's own variables."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drivebay.errors import ErrorKind, StorageError, from_os_error

# Code and variables belong together: one pair for each distribution's way of packing them.
_PAIRS = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),  # Debian, Ubuntu
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),  # Fedora
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),  # Arch
)
_VARIABLES = "efi-variables.fd"


@dataclass(frozen=True, slots=True)
class Efi:
    """The files of an EFI machine: code that all machines share, and its own variables."""

    code: str
    variables: str


def efi_of(folder: str, pairs: Sequence[tuple[str, str]] = _PAIRS) -> Efi:
    """The firmware of the machine whose files are in ``folder``; its variables are made on the first call.

    Raises StorageError (NOT_FOUND), which names the package to install.
    """
    for code, template in pairs:
        if os.path.isfile(code) and os.path.isfile(template):
            return Efi(code, _variables(folder, template))
    raise StorageError(
        ErrorKind.NOT_FOUND,
        "this machine starts with EFI, and no firmware for it is installed; install it (Debian and Ubuntu: "
        "the package ovmf), or let the machine start with BIOS",
        operation="find the firmware",
    )


def _variables(folder: str, template: str) -> str:
    target = Path(folder) / _VARIABLES
    if not target.exists():
        new = target.with_suffix(".new")
        try:
            shutil.copyfile(template, new)
            new.rename(target)
        except OSError as error:
            raise from_os_error(error, "make the machine's EFI variables", path=target) from error
    return str(target)
