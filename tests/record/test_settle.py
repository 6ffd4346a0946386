"""`beat` and `settle`: who is alive, and who is given up. Promises: truthful, bounded, nothing missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coord.messages import Cause, Outcome
from coord.plan import Plan
from tests.record.desk import EXPIRED_S, Desk, agent_id, asked

if TYPE_CHECKING:
    from tests.record.conftest import Unguard

RENEWS_ONLY = "redis.call('ZADD', LEASES, 'XX',"
PATIENCE = "if NOW_US < requested_us + patience_us or patient() then"
BOUND = "if NOW_US > math.max(requested_us, doubted_us) + bound_us then"


def lease_s(desk: Desk, host: str) -> float | None:
    return next(agent.lease_left_s for agent in desk.look().agents if agent.info.host == host)


def test_beat_renews_the_lease(desk: Desk) -> None:
    """A beat gives the agent a whole new lease from now, also when the old one had run out."""
    desk.join("a", lease_s=EXPIRED_S)
    assert [agent.info.host for agent in desk.look().lost] == ["a"]
    assert desk.beat("a", 7.0).word == "none"
    left_s = lease_s(desk, "a")
    assert left_s is not None
    assert 0 < left_s <= 7.0
    assert desk.look().lost == ()


def test_beat_tells_of_the_request(desk: Desk) -> None:
    """An agent whose subscription is silently dead learns of the request, with its plan and age, at its next beat."""
    desk.join("a")
    assert desk.beat("a").request is None
    recorded = asked(desk.request(Plan.of(3, 2), "enough"))
    heard = desk.beat("a")
    assert heard.word == "exists"
    assert (asked(heard).id, asked(heard).plan, asked(heard).reason) == (recorded.id, Plan.of(3, 2), "enough")
    assert asked(heard).elapsed_s > 0
    desk.shorten(recorded, Plan.of(1, 1))
    assert (asked(desk.beat("a")).plan, asked(desk.beat("a")).rev) == (Plan.of(1, 1), 2)


def a_released_agent_beats(desk: Desk) -> str | None:
    """Scenario: everybody answered, and then a beat that was on its way arrives."""
    desk.join("a")
    desk.request()
    desk.report("a", Outcome.TERMINATED)
    desk.beat("a")
    desk.beat("stranger")
    assert desk.verdict == "clean"
    return ", ".join(map(str, desk.raw.zrange(desk.record._keys[3], 0, -1)))


def test_beat_gives_nobody_a_lease(desk: Desk) -> None:
    """A beat only renews: who left, was given up, or never joined is not waited for again."""
    assert a_released_agent_beats(desk) == ""


def test_control_when_a_beat_makes_leases_the_dead_are_waited_for(desk: Desk, unguard: Unguard) -> None:
    """Negative control: with ZADD's `XX` taken out, those who left hold a lease again."""
    unguard(RENEWS_ONLY, "redis.call('ZADD', LEASES,", script="beat")
    assert a_released_agent_beats(desk) == f"{agent_id('a')}, {agent_id('stranger')}"


def test_beat_of_an_unknown_job_writes_nothing(desk: Desk) -> None:
    """A beat for a job that is not on record makes no key."""
    desk.beat("a")
    assert desk.all_keys() == set()


def test_expired_lease_is_lost_and_incomplete(desk: Desk) -> None:
    """A host that stopped beating is named as lost, and the verdict does not claim that it is gone."""
    desk.join("a")
    desk.join("b", lease_s=EXPIRED_S)
    desk.request()
    desk.report("a", Outcome.TERMINATED)
    assert desk.verdict is None
    desk.settle()
    snapshot = desk.look()
    assert (snapshot.verdict, snapshot.exit_code, snapshot.state) == ("incomplete", 5, "stopping")
    assert [(agent.info.host, agent.state) for agent in snapshot.lost] == [("b", "lost")]
    lost = desk.events()[-2]
    assert (lost.kind, lost.detail["agent_id"], lost.detail["host"]) == ("agent.lost", agent_id("b"), "b")


def test_nobody_is_lost_before_his_lease_ends(desk: Desk) -> None:
    """However often somebody asks for the verdict, a host that holds a lease is waited for."""
    desk.join("a")
    desk.join("b", lease_s=EXPIRED_S)
    desk.request()
    for _ in range(3):
        desk.settle()
    snapshot = desk.look()
    assert snapshot.verdict is None
    assert [agent.info.host for agent in snapshot.lost] == ["b"]
    assert [agent.info.host for agent in snapshot.awaited] == ["a"]
    assert desk.kinds().count("agent.lost") == 1


def test_nobody_is_lost_while_nothing_was_asked(desk: Desk) -> None:
    """Without a request nobody has to answer, so nobody is given up: an agent that comes back goes on."""
    desk.join("a", lease_s=EXPIRED_S)
    desk.settle(0.0)
    assert desk.kinds() == ["agent.joined"]
    desk.beat("a")
    assert desk.look().lost == ()


def a_lease_ended_while_redis_was_away(desk: Desk) -> str | None:
    """Scenario: Redis was away longer than a lease, and somebody asks for the verdict before the agent could beat."""
    desk.join("a", lease_s=EXPIRED_S)
    desk.request()
    desk.settle(patience_s=60.0)
    return desk.verdict


def test_nobody_is_lost_at_once(desk: Desk) -> None:
    """A lease may have run out while Redis was away: everybody gets time for a heartbeat before he is given up."""
    assert a_lease_ended_while_redis_was_away(desk) is None
    desk.beat("a")
    desk.settle()
    assert desk.look().lost == ()
    desk.report("a", Outcome.TERMINATED)
    assert desk.verdict == "clean"


def test_control_without_patience_a_living_host_is_given_up(desk: Desk, unguard: Unguard) -> None:
    """Negative control: with the patience taken out, the host that only could not beat is called lost."""
    unguard(PATIENCE, "if false then", script="settle")
    assert a_lease_ended_while_redis_was_away(desk) == "incomplete"


def a_host_beats_past_the_bound(desk: Desk) -> str | None:
    """Scenario: the whole shutdown's time is over, and a host still beats but never says that it is done."""
    desk.join("a")
    desk.request(Plan.of(0, 0.1))
    desk.beat("a")
    desk.settle(0.0)
    return desk.verdict


def test_past_the_bound_everybody_is_given_up(desk: Desk) -> None:
    """The verdict comes in bounded time, also when a host goes on beating without an answer."""
    assert a_host_beats_past_the_bound(desk) == "incomplete"
    assert [agent.info.host for agent in desk.look().lost] == ["a"]


def test_control_without_the_bound_there_is_never_a_verdict(desk: Desk, unguard: Unguard) -> None:
    """Negative control: with the bound taken out, the job has no verdict as long as the host beats."""
    unguard(BOUND, "if false then", script="settle")
    assert a_host_beats_past_the_bound(desk) is None


def test_host_that_was_given_up_still_hears_the_request(desk: Desk) -> None:
    """A host that comes back after it was given up learns of the request at its first beat, and stops."""
    desk.join("a", lease_s=EXPIRED_S)
    desk.request()
    desk.settle()
    assert asked(desk.beat("a")).cause is Cause.OPERATOR
    desk.report("a", Outcome.TERMINATED)
    assert desk.verdict == "clean"


@pytest.mark.parametrize("again", [1, 3])
def test_settling_again_changes_nothing(desk: Desk, again: int) -> None:
    """Any number of followers may ask for the verdict: it is made, timed and told once."""
    a_host_beats_past_the_bound(desk)
    before, kinds = desk.look().verdict_us, desk.kinds()
    for _ in range(again):
        desk.settle(0.0)
    assert (desk.look().verdict_us, desk.kinds()) == (before, kinds)


def test_settle_of_an_unknown_job_writes_nothing(desk: Desk) -> None:
    """Asking for the verdict of a job that nobody joined makes no key."""
    desk.settle(0.0)
    assert desk.all_keys() == set()


def test_agent_that_is_not_on_record_is_told_so(desk: Desk) -> None:
    """After a server lost its data, a beat must not say that all is well: the agent could never be stopped again."""
    desk.join("a")
    desk.raw.delete(*desk.all_keys())
    assert desk.beat("a").word != "none"
