"""Many histories, each made by its number: whatever goes wrong in one, what coord promises holds."""

from __future__ import annotations

import pytest

from tests.sim.many import play_range, story

HISTORIES = 2000
PARTS = 10


@pytest.mark.parametrize("part", range(PARTS))
def test_no_history_breaks_a_promise(part: int) -> None:
    """Nothing starts after its fence, no verdict is too good, every shutdown ends, and no other job is touched."""
    bad = play_range(part * HISTORIES // PARTS, HISTORIES // PARTS)
    assert not bad, "\n\n".join([story(bad[0]), f"in all: {[ended.seed for ended in bad]}"])
