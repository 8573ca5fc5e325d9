"""Copies of EFI variables: a snapshot keeps the machine's, a restore brings them back, a clone gets them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from uuid import UUID, uuid4

from drivebay.chain.apply import sync_folder
from drivebay.errors import from_os_error
from drivebay.machines.efi_variables import variables_of
from drivebay.machines.model import Machine
from drivebay.registry.database import Change
from drivebay.registry.journal import Remove, Rename

Copies = list[tuple[str, str]]  # from, to


def kept_by(machine: Machine, snapshot: UUID) -> Copies:
    """What is to be copied for a new snapshot, before it is recorded."""
    return there([(variables_of(machine), variables_of(machine, snapshot))])


def brought_back(machine: Machine, snapshot: UUID) -> Copies:
    """What is to be copied for a restore, before it is recorded (`put_back`)."""
    return there([(variables_of(machine, snapshot), _aside(machine))])


def there(copies: Iterable[tuple[str, str]]) -> Copies:
    """Those of the copies that have a source: a machine that never started with EFI has no variables."""
    return [(source, target) for source, target in copies if os.path.exists(source)]


def make(copies: Copies) -> None:
    """Make the copies, durably. Raises StorageError.

    A guest may be writing its variables: its firmware is prepared for a part of that, as after a power cut.
    """
    for source, target in copies:
        try:
            with open(source, "rb") as file:
                content = file.read()
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(os.path.dirname(target))
        except OSError as error:
            raise from_os_error(error, "copy the machine's EFI variables", path=target) from error


def put_back(change: Change, machine: Machine, copies: Copies) -> None:
    """The machine's variables become those that were `brought_back`; without any it has none."""
    current = variables_of(machine)
    if os.path.exists(current):
        change.after_commit(Remove([current]))
    for _, copy in copies:
        change.after_commit(Rename(copy, current))


def _aside(machine: Machine) -> str:
    """A name that nobody else uses, who may be restoring the same machine."""
    return f"{variables_of(machine)}.{uuid4()}"
