"""The harness finds the damage when the order of the stages is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from drivebay.engine.change import Change
from drivebay.engine.epoch import Committer, Epoch
from drivebay.engine.unit_space import UnitSpace
from drivebay.engine.writer import Writer
from support.chains import build_chain
from support.crash import Script, damages, record
from support.crash_scripts import allocate, reuse
from support.disks import KIB, ImageSpec

BLOCK = 512 * KIB
CHAIN = (ImageSpec(6 * BLOCK, BLOCK), ImageSpec(6 * BLOCK, BLOCK))
TWO_LEVELS = {
    "qcow2": ImageSpec(6 * BLOCK, 4 * KIB, format="qcow2"),
    "qed": ImageSpec(6 * BLOCK, 4 * KIB, format="qed", options=(("table_size", 1),)),
}
TORN = 3
MANY_TORN = 16  # a commit has few directory entries

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


def counts_after_entries(committer: Committer, epoch: Epoch) -> None:
    below, above = changes_of(committer, epoch)
    committer._files.sync()
    committer._journal.publish([below, above])
    committer._reserve()


def changes_of(committer: Committer, epoch: Epoch) -> tuple[list[Change], list[Change]]:
    return committer._tables[0].changes({block: value for (_, block), value in epoch.entries.items()})


def write_entries(committer: Committer, epoch: Epoch) -> None:
    below, above = changes_of(committer, epoch)
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
    recording = record(*build_chain(folder, CHAIN, seed=2, fill_top=fill_top), script, BLOCK)
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


@pytest.mark.parametrize("order", [entries_before_data, counts_after_entries])
@pytest.mark.parametrize("name", TWO_LEVELS)
def test_a_broken_commit_of_two_levels_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Commit, name: str
) -> None:
    if order is counts_after_entries and name == "qed":
        pytest.skip("QED has no counts")
    chain = two_levels(tmp_path, name)
    monkeypatch.setattr(Committer, "_commit", commit_by(order))
    assert next(damages(record(*chain, allocate, BLOCK), seed=5, torn=MANY_TORN), None)


@pytest.mark.parametrize("name", TWO_LEVELS)
def test_the_right_order_of_two_levels_does_none(tmp_path: Path, name: str) -> None:
    recording = record(*two_levels(tmp_path, name), allocate, BLOCK)
    assert next(damages(recording, seed=5, torn=1), None) is None


def two_levels(folder: Path, name: str) -> tuple[list[Path], bytearray]:
    return build_chain(folder, (ImageSpec(6 * BLOCK, format="raw"), TWO_LEVELS[name]), seed=2)


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
    recording = record(*build_chain(tmp_path, CHAIN[:1], seed=2), reuse, BLOCK)
    assert any(damages(recording, seed=5, torn=TORN))


def retire_without_punching(space: UnitSpace, raws: Sequence[int], newest: int) -> None:
    offsets = [space._table.entry.offset(raw) for raw in raws]
    space._retired.extend((newest, space._unit_at(offset)) for offset in offsets)
