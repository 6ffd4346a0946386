"""Too many, too deep, too quick: crowds, long lines of descent, and chains that are gone whenever somebody looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.process.days import SHORT, nasty

if TYPE_CHECKING:
    from pathlib import Path

    from tests.process.days import Day

LIFE_S = "30"  # of a chain that nobody stops: longer than a shutdown may take

CROWDS = {
    "300-wide": (nasty("wide", "299"), 300),
    "200-deep": (nasty("deep", "200"), 200),
}


@pytest.mark.parametrize(("command", "count"), CROWDS.values(), ids=CROWDS)
def test_a_crowd_goes_as_one(day: Day, command: tuple[str, ...], count: int) -> None:
    """Hundreds side by side, or each the child of the one before, with sessions on the way: all asked, all told of."""
    day.begin(*command)
    stopped = day.stop()
    assert stopped.outcomes == {"terminated": count}
    assert stopped.code == 143


@pytest.mark.parametrize("count", [1000, 3000])
def test_a_thousand_that_end_at_once_do_not_drown_their_agent(day: Day, built: Path, count: int) -> None:
    """Children that end faster than anybody can take note of it, and nobody reads stderr: all told of, no word more."""
    day.begin(str(built / "crowd"), str(count - 1))
    stopped = day.stop()
    assert stopped.outcomes == {"terminated": count}
    assert stopped.code == 143


@pytest.mark.parametrize(
    "words", ["", "setsid", "deaf", "setsid deaf"], ids=["plain", "new-sessions", "deaf", "deaf-new-sessions"]
)
def test_a_chain_that_forks_and_exits_without_pause_ends(day: Day, built: Path, words: str) -> None:
    """Each process is gone as soon as it is seen, and has left another: the chain ends within the plan all the same."""
    day.begin("sh", "-c", f"{built}/chain {LIFE_S} {words} & exec sleep 600")
    stopped = day.stop(*SHORT)  # sees the end of its output, which whoever is left of the chain would hold open
    assert "old" not in day.output.out, "the chain ended by itself"
    assert "deaf" not in words or stopped.verdict == "forced", "who does not hear SIGTERM did not leave when asked"
    assert stopped.processes[0]["outcome"] == "terminated"
    assert stopped.code == 143
