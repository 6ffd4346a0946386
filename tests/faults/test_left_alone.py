"""Host b is cut off for longer than it is to go on without Redis: it stops by itself, and its caller knows by when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coord.errors import INCOMPLETE
from coord.record import BEAT_S
from tests.faults.stage import now_s, told
from tests.harness import until
from tests.strait import Strait

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.stage import Stage

STOPPED = 143
AFTER_S = 5.0
STOP = ("--on-redis-loss", "stop", "--redis-loss-after", f"{AFTER_S:g}s")
CUTS = {"refused": Strait.cut, "stalled": Strait.freeze}


@pytest.mark.parametrize("how", CUTS)
def test_who_stops_alone_is_presumed_stopped_and_not_proved(stage: Stage, how: str) -> None:
    """The caller is told 5, and by when host b is presumed stopped; what b could not tell in time is never proof."""
    cut: Callable[[Strait], None] = CUTS[how]
    strait = stage.strait()
    rank = stage.begin("b", *STOP, url=strait.url)
    until(lambda: strait.listening == 1, "it to listen")
    cut_s = now_s()
    cut(strait)
    follower = stage.follow()
    alone_s = rank.obeyed(cut_s)
    stage.tell("alone_s", alone_s)
    assert alone_s > AFTER_S - BEAT_S, "since the last answer"
    ended = told(follower)
    (agent,) = ended.json["agents"]
    assert (ended.code, ended.json["verdict"], agent["state"]) == (INCOMPLETE, "incomplete", "lost")
    assert agent["presumed_stopped_at"] is not None
    end = rank.end()
    assert end.code == STOPPED
    assert "agent.alone" in end.err
    assert any("the record could not be told of this end" in line for line in end.said)
    strait.open()
    again = stage.shutdown()
    assert (again.code, again.json["verdict"]) == (INCOMPLETE, "incomplete")
    assert again.json["agents"][0]["presumed_stopped_at"] == agent["presumed_stopped_at"]
