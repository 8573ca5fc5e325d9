"""Bandwidth groups: section 10 of the virtual-storage specification, and E4, E56."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drivebay.errors import ErrorKind, StorageError
from drivebay.machines.bandwidth import add_group, find_group, parse_limit, remove_group, set_limit
from drivebay.machines.model import MachineState
from support.machines import disk, machine


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("0", 0),
        ("20", 20 << 20),
        ("20k", 2500),
        ("160m", 20_000_000),
        ("1g", 125_000_000),
        ("20K", 20 << 10),
        ("20M", 20 << 20),
        ("2G", 2 << 30),
    ],
)
def test_lower_case_counts_bits_and_upper_case_bytes(text: str, limit: int) -> None:
    assert parse_limit(text) == limit


@pytest.mark.parametrize("text", ["", "M", "1.5M", "20MB", "20 m", "9" * 18 + "G", "²"])
def test_other_limits_are_refused(text: str) -> None:
    with pytest.raises(StorageError) as refused:
        parse_limit(text)
    assert refused.value.kind is ErrorKind.INVALID


def test_e56_limits_are_not_negative() -> None:
    with pytest.raises(StorageError, match="can't be negative"):
        parse_limit("-1")
    with pytest.raises(StorageError, match="can't be negative"):
        add_group(machine(), "slow", -1)
    with pytest.raises(StorageError, match="can't be negative"):
        set_limit(add_group(machine(), "slow", 1), "slow", -5)


def test_e56_a_name_is_taken_once_and_case_matters() -> None:
    one = add_group(add_group(machine(), "slow", 1), "Slow", 2)
    assert find_group(one, "Slow").limit == 2
    with pytest.raises(StorageError, match="already") as refused:
        add_group(one, "slow", 3)
    assert refused.value.kind is ErrorKind.IN_USE


def test_e56_a_group_in_use_is_not_removed() -> None:
    member = add_group(machine(disk("a", bandwidth_group="slow")), "slow", 1)
    with pytest.raises(StorageError, match="SATA:0:0") as refused:
        remove_group(member, "slow")
    assert refused.value.kind is ErrorKind.IN_USE
    assert remove_group(add_group(machine(), "slow", 1), "slow").hardware.bandwidth_groups == ()


def test_e4_an_unknown_group_is_told() -> None:
    with pytest.raises(StorageError, match="bandwidth add") as refused:
        set_limit(machine(), "slow", 1)
    assert refused.value.kind is ErrorKind.NOT_FOUND


def test_limits_change_at_any_time_and_groups_do_not() -> None:
    running = replace(add_group(machine(), "slow", 1), state=MachineState.RUNNING)
    assert find_group(set_limit(running, "slow", 0), "slow").limit == 0
    for do in (lambda: add_group(running, "new", 1), lambda: remove_group(running, "slow")):
        with pytest.raises(StorageError, match="is running") as refused:
            do()
        assert refused.value.kind is ErrorKind.STATE
    saved = replace(running, state=MachineState.SAVED)
    assert remove_group(saved, "slow").hardware.bandwidth_groups == ()
