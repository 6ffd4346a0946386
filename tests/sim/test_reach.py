"""What histories reach: a simulation in which nothing goes wrong proves nothing."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from tests.sim.draw import TROUBLES
from tests.sim.history import play

SEEDS = range(3000, 3350)
# what agents log and people see, when it is not the usual
RARE = (
    "refused",
    "redis.lost",
    "redis.back",
    "report.delayed",
    "record.lost",
    "agent.lost",
    "agent.back",
    "agent.alone",
    "host_lost",
    "restore",
    "enrol",
    "control.refused",
    "fail",
    "shorten",
    "signal.refused",
    "child.survived",
    "unreachable",
    "sees clean",
    "sees forced",
    "sees incomplete",
)


@cache
def words() -> Counter[str]:
    """Count in how many histories each word comes up."""
    found: Counter[str] = Counter()
    for seed in SEEDS:
        said = {(who, what, facts.get("verdict")) for _, who, what, facts in play(seed).trace}
        found.update(
            {f"{who} {what}" if who == "TROUBLE" else " ".join(filter(None, (what, v))) for who, what, v in said}
        )
    return found


@pytest.mark.parametrize("trouble", TROUBLES)
def test_each_trouble_happens(trouble: str) -> None:
    """All that can be drawn is drawn often."""
    assert words()[f"TROUBLE {trouble}"] > len(SEEDS) // 30


@pytest.mark.parametrize("word", RARE)
def test_each_rare_thing_comes_up(word: str) -> None:
    """What coord does on bad days, it does in these histories."""
    assert words()[word]
