"""A way to the server on which every answer takes two seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.stage import now_s, told

if TYPE_CHECKING:
    from tests.faults.stage import Stage

STOPPED = 143
LATE_S = 1.0  # in each direction


def test_everything_two_seconds_late(stage: Stage) -> None:
    """Each answer takes two seconds, the host's and the caller's: the job is stopped, and nobody is called lost."""
    strait = stage.strait()
    strait.delay(LATE_S)
    rank = stage.begin("b", url=strait.url)
    began_s = now_s()
    ended = told(stage.follow("--redis-url", strait.url))
    stage.tell("told_s", now_s() - began_s)
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    stage.tell("first_signal_ms", ended.json["agents"][0]["first_signal_ms"])
    assert rank.end().code == STOPPED
