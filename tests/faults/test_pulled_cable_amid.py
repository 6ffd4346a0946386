"""The cable of host b is pulled once it has heard the request, and is back half a minute later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coord.errors import INCOMPLETE
from tests.faults.stage import now_s, told, wait_until
from tests.faults.test_pulled_cable import AWAY_S, at_b, link, outage
from tests.harness import until
from tests.process.days import Witness

if TYPE_CHECKING:
    from tests.faults.link import Link
    from tests.faults.stage import Stage

STOPPED = 143
LINGERS_S = 3.0

__all__ = ["link", "outage"]


def test_a_host_that_heard_before_the_cable_was_pulled_stops_in_time(stage: Stage, link: Link) -> None:
    """Its processes end by the plan, record or no record. What nobody was told is not called proved; later it is."""
    rank = at_b(stage, link, LINGERS_S)
    child = Witness.of(stage.agent("b")["processes"][0]["pid"])
    began_s = now_s()
    follower = stage.follow()
    stage.tell("obeyed_s", rank.obeyed(began_s))
    link.pull()
    until(lambda: not child.alive, "its child to leave")
    ended = told(follower)
    stage.tell("told_s", now_s() - began_s)
    assert (ended.code, ended.json["verdict"], ended.json["agents"][0]["state"]) == (INCOMPLETE, "incomplete", "lost")
    assert any("b: lost: nobody has heard from agent b-" in line for line in ended.said)
    wait_until(began_s + AWAY_S)
    assert rank.run.running, "it has something to tell"
    back_s = now_s()
    link.plug()
    assert rank.end().code == STOPPED
    stage.tell("report_s", now_s() - back_s)
    again = stage.shutdown()
    assert (again.code, again.json["verdict"]) == (0, "clean")
