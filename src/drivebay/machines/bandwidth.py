"""Bandwidth groups of a machine: limits that several drives share. Pure (specification, 10)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.model import BandwidthGroup, Machine
from drivebay.machines.mutability import require_not_running, with_hardware
from drivebay.machines.names import require_name

_LIMIT = re.compile(r"(-?)([0-9]{1,18})([kmgKMG]?)")
# Lower case counts bits, in powers of 1000; upper case bytes, in powers of 1024; none means MiB.
_BYTES = {"k": 125, "m": 125_000, "g": 125_000_000, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "": 1 << 20}
_MOST = (1 << 63) - 1


def parse_limit(text: str) -> int:
    """Bytes per second, as ``20M``, ``160m`` (bits) or ``20`` (MiB) mean them; 0 is no limit.

    Raises StorageError (INVALID, E56).
    """
    match = _LIMIT.fullmatch(text.strip())
    if match is None:
        raise _invalid(
            f"{text[:60]!r} is no limit; write k, m, g for thousands, millions ... of bits per second, or "
            "K, M, G "
            "for KiB, MiB, GiB per second behind the number; without a letter it counts MiB; 0 is no limit"
        )
    if match[1]:
        raise _invalid(f"a limit can't be negative, as {text[:60]!r} is; write 0 for no limit")
    limit = int(match[2]) * _BYTES[match[3]]
    if limit > _MOST:
        raise _invalid(f"{text[:60]!r} is more than any disk can do; write 0 for no limit")
    return limit


def find_group(machine: Machine, name: str) -> BandwidthGroup:
    """The group called ``name``, as exactly written. Raises StorageError (NOT_FOUND, E4)."""
    for group in machine.hardware.bandwidth_groups:
        if group.name == name:
            return group
    known = ", ".join(repr(group.name) for group in machine.hardware.bandwidth_groups) or "none"
    raise StorageError(
        ErrorKind.NOT_FOUND,
        f"machine {machine.name!r} has no bandwidth group {name[:60]!r} (it has {known}); "
        "make it with drivebay bandwidth add",
        operation="look up a bandwidth group",
    )


def add_group(machine: Machine, name: str, limit: int) -> Machine:
    """The machine with one group more; ``limit`` in bytes per second. Raises StorageError (E56, STATE)."""
    require_not_running(machine, "add a bandwidth group")
    require_name(name, "bandwidth group")
    _require_limit(limit)
    if any(group.name == name for group in machine.hardware.bandwidth_groups):
        raise _in_use(
            f"machine {machine.name!r} has a bandwidth group called {name!r} already; change its limit with "
            "drivebay bandwidth set, or choose another name"
        )
    return _with_groups(machine, (*machine.hardware.bandwidth_groups, BandwidthGroup(name, limit)))


def set_limit(machine: Machine, name: str, limit: int) -> Machine:
    """The machine with another limit for this group; allowed at any time. Raises StorageError (E4, E56)."""
    old = find_group(machine, name)
    _require_limit(limit)
    new = dataclasses.replace(old, limit=limit)
    return _with_groups(
        machine, (new if group == old else group for group in machine.hardware.bandwidth_groups)
    )


def remove_group(machine: Machine, name: str) -> Machine:
    """The machine without this group, which no drive may be in. Raises StorageError (E4, E56, STATE)."""
    require_not_running(machine, "remove a bandwidth group")
    gone = find_group(machine, name)
    members = [str(at.slot) for at in machine.hardware.attachments if at.bandwidth_group == name]
    if members:
        raise _in_use(
            f"the bandwidth group {name!r} limits {', '.join(members)}; take these out of it first "
            "(drivebay attach ... --bandwidth-group '')"
        )
    return _with_groups(machine, (group for group in machine.hardware.bandwidth_groups if group != gone))


def _with_groups(machine: Machine, groups: Iterable[BandwidthGroup]) -> Machine:
    return with_hardware(machine, bandwidth_groups=tuple(groups))


def _require_limit(limit: int) -> None:
    if limit < 0:
        raise _invalid(f"a limit can't be negative, as {limit} is; give 0 for no limit")


def _invalid(message: str) -> StorageError:
    return StorageError(ErrorKind.INVALID, message, operation="limit a bandwidth")


def _in_use(message: str) -> StorageError:
    return StorageError(ErrorKind.IN_USE, message, operation="change a bandwidth group")
