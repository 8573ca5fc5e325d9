"""The map entry: what is packed comes out again."""

from __future__ import annotations

import pytest

from drivebay.blockmap import BlockState
from drivebay.engine.mapentry import (
    DATA_FLOOR,
    IN_PLACE,
    SOURCE_LIMIT,
    TAG_SHIFT,
    offset_of,
    pack,
    source_of,
    state_of,
)


@pytest.mark.parametrize("state", BlockState)
@pytest.mark.parametrize("source", [0, 1, SOURCE_LIMIT - 1])
@pytest.mark.parametrize("offset", [0, 512, (1 << 57) - 512])
@pytest.mark.parametrize("in_place", [False, True])
def test_what_is_packed_comes_out(state: BlockState, source: int, offset: int, in_place: bool) -> None:
    entry = pack(state, source, offset, in_place=in_place)
    assert entry < 1 << 64
    assert (state_of(entry), source_of(entry), offset_of(entry)) == (state, source, offset)
    assert bool(entry & IN_PLACE) is in_place


def test_one_comparison_tells_data() -> None:
    highest = (1 << TAG_SHIFT) - 1 << 9
    for state in BlockState:
        for entry in (pack(state, 0), pack(state, SOURCE_LIMIT - 1, highest, in_place=True)):
            assert (entry >= DATA_FLOOR) is (state is BlockState.DATA)


def test_a_tag_tells_state_source_and_in_place() -> None:
    tags = {
        pack(state, source, 512 * source, in_place=in_place) >> TAG_SHIFT
        for state in BlockState
        for source in range(3)
        for in_place in (False, True)
    }
    assert len(tags) == len(BlockState) * 3 * 2


def test_nothing_is_an_absent_entry() -> None:
    assert pack(BlockState.ABSENT, 0) == 0
