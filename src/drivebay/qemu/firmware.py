"""Firmware for machines that start with EFI: OVMF's code, and each machine's own variables."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from drivebay.chain.apply import sync_folder
from drivebay.errors import ErrorKind, StorageError, from_os_error
from drivebay.machines.efi_variables import NAME

# Code and variables belong together: one pair for each distribution's way of packing them.
_PAIRS = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),  # Debian, Ubuntu
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),  # Fedora
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),  # Arch
)
_PE_OFFSET = 0x3C  # where a program for EFI says where its PE header is


@dataclass(frozen=True, slots=True)
class Efi:
    """The files of an EFI machine: code that all machines share, and its own variables."""

    code: str
    variables: str


def efi_of(folder: str, pairs: Sequence[tuple[str, str]] = _PAIRS) -> Efi:
    """The firmware of the machine whose files are in ``folder``; its variables are made on the first call.

    Raises StorageError: NOT_FOUND, which names the package to install; STATE where the machine's variables
    are another firmware's.
    """
    installed = [pair for pair in pairs if all(map(os.path.isfile, pair))]
    if not installed:
        raise StorageError(
            ErrorKind.NOT_FOUND,
            "this machine starts with EFI, and no firmware for it is installed; install it (Debian and "
            "Ubuntu: the package ovmf), or let the machine start with BIOS",
            operation="find the firmware",
        )
    variables = os.path.join(folder, NAME)
    if not os.path.exists(variables):
        _make_variables(installed[0][1], variables)
    size = os.path.getsize(variables)
    for code, template in installed:
        if os.path.getsize(template) == size:
            return Efi(code, variables)
    raise StorageError(
        ErrorKind.STATE,
        f"these EFI variables, of {size} bytes, belong to a firmware that is not installed; install it, or "
        "remove the file: the machine then starts with new ones, and looks for a boot loader by itself",
        path=variables,
        operation="find the firmware",
    )


def _make_variables(template: str, target: str) -> None:
    """Durably: after a power cut they are whole, or not there."""
    new = f"{target}.new"
    try:
        shutil.copyfile(template, new)
        with open(new, "rb") as file:
            os.fsync(file.fileno())
        os.rename(new, target)
        sync_folder(os.path.dirname(target))
    except OSError as error:
        raise from_os_error(error, "make the machine's EFI variables", path=target) from error


def require_efi_kernel(path: str) -> None:
    """Raises StorageError (UNSUPPORTED) for a kernel that EFI firmware would pass over without a word."""
    try:
        with open(path, "rb") as file:
            start = file.read(_PE_OFFSET + 4)
            file.seek(struct.unpack_from("<I", start, _PE_OFFSET)[0] if len(start) == _PE_OFFSET + 4 else 0)
            found = start[:2], file.read(4)
    except OSError as error:
        raise from_os_error(error, "read the kernel", path=path) from error
    if found != (b"MZ", b"PE\0\0"):
        raise StorageError(
            ErrorKind.UNSUPPORTED,
            "EFI firmware can't start this kernel, which has no EFI stub; give a distribution's vmlinuz, or "
            "let the machine start with BIOS (drivebay machine edit --firmware bios)",
            path=path,
            operation="start the machine",
        )
