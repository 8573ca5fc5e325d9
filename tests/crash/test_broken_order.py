"""The harness finds the damage when the order of the stages is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from drivebay.engine.epoch import Committer, Epoch
from drivebay.engine.unit_space import UnitSpace
from drivebay.engine.writer import Writer
from support.chains import build_chain
from support.crash import Script, damages, record
from support.crash_scripts import BLOCK, allocate, reuse
from support.disks import ImageSpec

CHAIN = (ImageSpec(6 * BLOCK, BLOCK), ImageSpec(6 * BLOCK, BLOCK))
TORN = 3

Commit = Callable[[Committer, Epoch], None]


def entries_before_data(committer: Committer, epoch: Epoch) -> None:
    write_entries(committer, epoch)
    committer._files.sync()
    committer._reserve()


def no_barrier_before_entries(committer: Committer, epoch: Epoch) -> None:
    write_reservations(committer)
    write_entries(committer, epoch)
    committer._files.sync()


def no_barrier_at_all(committer: Committer, epoch: Epoch) -> None:
    write_reservations(committer)
    write_entries(committer, epoch)


def no_barrier_after_entries(committer: Committer, epoch: Epoch) -> None:
    committer._reserve()
    write_entries(committer, epoch)


def counter_after_entries(committer: Committer, epoch: Epoch) -> None:
    committer._files.sync()
    write_entries(committer, epoch)
    committer._files.sync()
    committer._reserve()


def entries_forgotten(committer: Committer, _epoch: Epoch) -> None:
    committer._reserve()


def write_reservations(committer: Committer) -> None:
    for stage in [*committer._reservations(), committer._marks.changes()]:
        for change in stage:
            committer._files.write(change)


def write_entries(committer: Committer, epoch: Epoch) -> None:
    below, above = committer._tables[0].changes({block: value for (_, block), value in epoch.entries.items()})
    for change in [*below, *above]:
        committer._files.write(change)


def commit_by(order: Commit) -> Callable[[Committer], None]:
    """`Committer._commit` with its stages in another order."""

    def commit(committer: Committer) -> None:
        with committer._changed:
            committer._started += 1
            epoch, committer.epoch = committer.epoch, Epoch()
        if epoch.dirty:
            order(committer, epoch)
        committer._finished = committer._started
        committer._release(epoch)

    return commit


def found_damage(folder: Path, script: Script, *, fill_top: bool) -> str | None:
    """The first damage in the crash states of a run."""
    recording = record(*build_chain(folder, CHAIN, seed=2, fill_top=fill_top), script)
    return next(damages(recording, seed=5, torn=TORN), None)


def right_order(committer: Committer, epoch: Epoch) -> None:
    committer._reserve()
    write_entries(committer, epoch)
    committer._files.sync()


def test_the_right_order_does_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Committer, "_commit", commit_by(right_order))
    assert found_damage(tmp_path, allocate, fill_top=False) is None


@pytest.mark.parametrize(
    "order",
    [
        entries_before_data,
        no_barrier_before_entries,
        no_barrier_at_all,
        no_barrier_after_entries,
        counter_after_entries,
        entries_forgotten,
    ],
)
def test_a_broken_commit_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Commit) -> None:
    monkeypatch.setattr(Committer, "_commit", commit_by(order))
    found = found_damage(tmp_path, allocate, fill_top=False)
    assert found
    if order is counter_after_entries:
        assert "other tools would overwrite data" in found


def test_a_unit_reused_before_its_entry_is_gone_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = Writer._drop_block

    def drop_and_hand_out(writer: Writer, target: Any) -> None:
        drop(writer, target)
        freed = writer._committer.epoch.freed
        active = writer._tables[0]
        while freed:
            active.space.give_back(active.table.entry.offset(freed.pop()[1]))

    monkeypatch.setattr(Writer, "_drop_block", drop_and_hand_out)
    assert found_damage(tmp_path, reuse, fill_top=True)


def test_a_unit_that_is_not_zeroed_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pick = UnitSpace._pick
    monkeypatch.setattr(UnitSpace, "_pick", lambda space, oldest: (pick(space, oldest)[0], True))
    monkeypatch.setattr(UnitSpace, "retire", retire_without_punching)
    recording = record(*build_chain(tmp_path, CHAIN[:1], seed=2), reuse)
    assert any(damages(recording, seed=5, torn=TORN))


def retire_without_punching(space: UnitSpace, raws: Sequence[int], newest: int) -> None:
    offsets = [space._table.entry.offset(raw) for raw in raws]
    space._retired.extend((newest, space._unit_at(offset)) for offset in offsets)
