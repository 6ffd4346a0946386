"""`join`: who may start, and what the job remembers of him. Promise: fenced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coord.keys import job_keys
from coord.messages import Outcome
from coord.plan import Plan
from coord.record import LEASE_S, Answer
from tests.record.desk import BY, Desk, agent_id, asked, info

if TYPE_CHECKING:
    from tests.record.conftest import Unguard

GUARD = "if fenced() then\n  -- It may have joined"


def joins_after_the_request(desk: Desk) -> str:
    """Scenario: the request is recorded, then one more host wants to start."""
    desk.join("a")
    desk.request(reason="enough")
    return desk.join("late").word


def test_joined_agent_is_on_record(desk: Desk) -> None:
    """Who joined is in the record with what he said of himself, and holds a lease of the length he asked for."""
    assert desk.join("a", lease_s=1000.0) == Answer("joined", None)
    assert desk.join("b") == Answer("joined", None)
    first, second = desk.look().agents
    assert (first.info, second.info) == (info("a"), info("b"))
    assert first.lease_left_s is not None
    assert LEASE_S < first.lease_left_s <= 1000.0
    assert second.lease_left_s is not None
    assert 0 < second.lease_left_s <= LEASE_S


def test_nothing_joins_after_the_request(desk: Desk) -> None:
    """Once a request is recorded, nobody joins the job any more, and the refused one is not waited for."""
    assert joins_after_the_request(desk) == "fenced"
    snapshot = desk.look()
    assert [agent.info.host for agent in snapshot.agents] == ["a"]
    assert [agent.info.host for agent in snapshot.awaited] == ["a"]


def test_control_without_the_fence_somebody_joins(desk: Desk, unguard: Unguard) -> None:
    """Negative control: with join's guard off, the late host gets in, and the test above would see it."""
    unguard(GUARD, GUARD.replace("fenced()", "false"), script="join")
    assert joins_after_the_request(desk) == "joined"
    assert [agent.info.host for agent in desk.look().agents] == ["a", "late"]


def test_refusal_names_who_and_when(desk: Desk) -> None:
    """A refused host learns who forbade the job, why, when, and by which plan."""
    desk.join("a")
    recorded = asked(desk.request(reason="enough"))
    refused = asked(desk.join("late"))
    assert (refused.by, refused.reason, refused.id, refused.plan) == (BY, "enough", recorded.id, recorded.plan)
    assert refused.requested_us == recorded.requested_us
    assert refused.job_id == desk.job_id
    assert abs(desk.look().now_us - refused.requested_us) < 60e6


def test_fence_holds_for_ever(desk: Desk) -> None:
    """A job that was shut down and has its verdict still lets nobody in."""
    desk.join("a")
    desk.request()
    desk.report("a", Outcome.TERMINATED)
    assert desk.verdict == "clean"
    assert desk.join("a").word == "fenced"
    assert desk.join("b").word == "fenced"


def test_join_that_is_made_twice_counts_once(desk: Desk) -> None:
    """A join whose answer was lost on the way and that is made again leaves one agent to wait for."""
    desk.join("a")
    desk.join("a")
    assert len(desk.look().agents) == 1
    desk.request()
    desk.report("a", Outcome.TERMINATED)
    assert desk.verdict == "clean"


def test_join_again_after_a_lost_answer_is_not_waited_for(desk: Desk) -> None:
    """An agent whose first join got through unseen, and whose second one is refused, started nothing: it is let go."""
    desk.join("a")
    desk.request()
    assert desk.verdict is None
    assert desk.join("a").word == "fenced"
    assert desk.verdict == "clean"


def test_join_again_releases_nobody_else(desk: Desk) -> None:
    """The refused one is let go, but the host that runs something is still waited for: no verdict without its word."""
    desk.join("a")
    desk.join("b")
    desk.request()
    desk.join("a")
    assert [agent.info.host for agent in desk.look().awaited] == ["b"]
    assert desk.verdict is None
    desk.report("b", Outcome.KILLED)
    assert desk.verdict == "forced"


def test_refused_agent_is_not_shown_as_running(desk: Desk) -> None:
    """A stopped job shows no agent as running: the one that was refused when it joined again never ran."""
    desk.join("a")
    desk.request()
    desk.join("a")
    snapshot = desk.look()
    assert snapshot.verdict == "clean"
    assert [agent.state for agent in snapshot.agents if agent.state == "running"] == []


@pytest.mark.parametrize(
    ("plans", "longest"),
    [
        ([Plan.of(1, 2)], Plan.of(1, 2)),
        ([Plan.of(1, 9), Plan.of(30, 2)], Plan.of(30, 9)),
        ([Plan.of(30, 9), Plan.of(1, 2)], Plan.of(30, 9)),
        ([Plan.of(9, 1), Plan.of(10, 1)], Plan.of(10, 1)),  # as numbers, not as texts
        ([Plan.of(0, 0.1)], Plan.of(0, 0.1)),
        ([Plan.of(0.25, 0.5), Plan.of(0.125, 1e-1)], Plan.of(0.25, 0.5)),
        ([Plan.of(604800, 604800), Plan.of(0.001, 5)], Plan.of(604800, 604800)),
    ],
)
def test_declared_plan_is_the_longest_of_each_wait(desk: Desk, plans: list[Plan], longest: Plan) -> None:
    """A request without a plan gives everybody the time that the slowest of the job's commands asked for."""
    for number, plan in enumerate(plans):
        desk.join(f"host{number}", plan)
    assert asked(desk.request()).plan == longest
    assert desk.plan == longest


def test_agents_of_other_jobs_are_not_touched(desk: Desk) -> None:
    """A request for one job leaves the other job's agents alone: its name is no prefix, its record is its own."""
    other = Desk(desk.ledger, f"{desk.job_id}-2", desk.raw)
    desk.join("a")
    other.join("a")
    desk.request()
    assert other.look().request is None
    assert other.join("b").word == "joined"
    assert [agent.info.agent_id for agent in other.look().awaited] == [agent_id("a"), agent_id("b")]
    assert set(job_keys(desk.job_id)).isdisjoint(job_keys(other.job_id))


def test_what_left_long_ago_is_forgotten_first(desk: Desk) -> None:
    """A job id that is used again and again keeps a bounded number of agents, and never forgets one that runs."""
    desk.join("runs")
    for number in range(1005):
        desk.join(f"h{number}")
        desk.report(f"h{number}", Outcome.EXITED)
    desk.join("last")
    hosts = {agent.info.host for agent in desk.look().agents}
    assert {"runs", "last", "h1004"} <= hosts
    assert "h0" not in hosts
    assert len(hosts) <= 1000 + 3
