"""Host b in a network of its own, and its cable is pulled: packets go nowhere, and nobody is told.

Redis' own TCP on both ends: what was on its way is sent again, ever more rarely, and new connections time out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coord.errors import INCOMPLETE
from tests.faults.link import PORT, SERVER_IP, Link, linked
from tests.faults.stage import now_s, told, wait_until
from tests.outage import Outage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.stage import Rank, Stage

STOPPED = 143
SHORT_S = 4.0  # that no lease ends in
AWAY_S = 30.0


@pytest.fixture
def link() -> Iterator[Link]:
    """The cable."""
    with linked() as link:
        yield link


@pytest.fixture
def outage(link: Link, short_path: Path) -> Iterator[Outage]:
    """Debian's Redis on the server's host; other hosts of this machine reach it by its socket."""
    config = {"port": str(PORT), "bind": SERVER_IP, "protected-mode": "no"}
    outage = Outage(short_path, "redis", config, link.at_server)
    try:
        outage.start()
        yield outage
    finally:
        outage.close()


def at_b(stage: Stage, link: Link, lingers_s: float = 0.0) -> Rank:
    """Have the command run on host b."""
    return stage.begin("b", url=link.url, within=link.at_host, lingers_s=lingers_s)


def test_a_cable_that_is_back_within_a_lease_costs_nobody(stage: Stage, link: Link) -> None:
    """The caller waits; nobody is lost; host b obeys once packets come through."""
    other, rank = stage.begin("a"), at_b(stage, link)
    cut_s = now_s()
    link.pull()
    follower = stage.follow()
    other.obeyed(cut_s)
    wait_until(cut_s + SHORT_S)
    assert rank.asked_s is None
    back_s = now_s()
    link.plug()
    stage.tell("obeyed_s", rank.obeyed(back_s))
    ended = told(follower)
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    assert [each.end().code for each in stage.ranks] == [STOPPED, STOPPED]


def test_a_host_beyond_reach_is_lost_and_obeys_when_it_is_back(stage: Stage, link: Link) -> None:
    """Half a minute, longer than its lease: lost by name, 5 to the caller; then it obeys, and the verdict is anew."""
    other, rank = stage.begin("a"), at_b(stage, link)
    cut_s = now_s()
    link.pull()
    ended = stage.shutdown()
    stage.tell("told_s", now_s() - cut_s)
    assert (ended.code, ended.json["verdict"]) == (INCOMPLETE, "incomplete")
    assert [agent["state"] for agent in ended.json["agents"]] == ["stopped", "lost"]
    assert any("b: lost: nobody has heard from agent b-" in line for line in ended.said)
    wait_until(cut_s + AWAY_S)
    assert rank.asked_s is None
    assert rank.run.running
    back_s = now_s()
    link.plug()
    stage.tell("obeyed_s", rank.obeyed(back_s))
    assert [each.end().code for each in (other, rank)] == [STOPPED, STOPPED]
    again = stage.shutdown()
    assert (again.code, again.json["verdict"]) == (0, "clean")
