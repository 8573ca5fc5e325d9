"""What changes of machines have in common."""

from __future__ import annotations

from collections.abc import Callable

from drivebay.machines.model import Machine
from drivebay.machines.store import save
from drivebay.registry.database import open_registry
from drivebay.registry.home import Home
from drivebay.service.machines.live import load_to_change


def change_machine(home: Home, name: str, change_it: Callable[[Machine], Machine]) -> Machine:
    """What ``change_it`` makes of a machine, recorded. Raises StorageError; a failure changes nothing."""
    with open_registry(home) as registry, registry.change() as change:
        before = load_to_change(change, home, name)
        after = change_it(before)
        if after != before:
            save(change, after)
    return after
