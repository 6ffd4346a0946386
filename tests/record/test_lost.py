"""A host that is heard no more: any survivor finds it, and nobody is given up who only could not reach Redis."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from coord.connect import ANSWER_TIMEOUT_S
from coord.ledger import script_text
from coord.messages import AgentState, Cause, Outcome
from coord.record import LEASE_S, SILENCE_S
from tests.record.desk import RETAIN_S, Desk, agent_id, asked
from workers.membership import RETRY_S

if TYPE_CHECKING:
    from tests.record.conftest import Unguard

SILENCE = "return last[2] and NOW_US - last[2] > SILENCE_US and tonumber(last[2]) or nil"
AWAY_S = 30.0


def hosts(*names: str, desk: Desk, fail_fast: bool = True) -> None:
    for name in names:
        desk.join(name, fail_fast=fail_fast)


def lost(desk: Desk) -> list[str]:
    """Give those who were given up; who is only silent so far is waited for."""
    return [agent.info.host for agent in desk.look().lost if agent.lease_left_s is None]


def test_any_survivor_learns_of_a_lost_host(desk: Desk) -> None:
    """A beat names an agent whose lease has ended, and how long ago it was heard."""
    hosts("a", "b", "c", desk=desk)
    assert desk.beat("a").word == "none"
    desk.vanish("b")
    for survivor in ("a", "c"):
        answer = desk.beat(survivor)
        assert answer.lost
        assert (answer.word, answer.lost.info.agent_id) == ("lost", agent_id("b"))
        assert LEASE_S < answer.lost.silent_s < LEASE_S + 60


def test_a_lost_host_stops_the_job_in_one_step(desk: Desk) -> None:
    """Fail-fast: the loss is the first failure, its request names it, and the verdict waits for the survivors alone."""
    hosts("a", "b", desk=desk)
    desk.vanish("b")
    answer = desk.host_lost(desk.beat("a"))
    assert (answer.word, asked(answer).cause) == ("created", Cause.HOST_LOST)
    snapshot = desk.look()
    assert snapshot.first_failure
    assert (snapshot.first_failure.host, snapshot.first_failure.lost) == ("b", True)
    assert (snapshot.first_failure.exit_code, snapshot.first_failure.signal) == (None, None)
    assert (lost(desk), [agent.info.host for agent in snapshot.awaited]) == (["b"], ["a"])
    assert desk.kinds()[-2:] == ["agent.lost", "shutdown.requested"]
    desk.report("a", Outcome.TERMINATED)
    assert (desk.verdict, desk.look().exit_code) == ("incomplete", 5)


def test_several_survivors_make_one_request(desk: Desk) -> None:
    """Idempotent: however many survivors find it, in whatever order, there is one loss and one request."""
    hosts("a", "b", "c", desk=desk)
    desk.vanish("b")
    found = [desk.beat("a"), desk.beat("c")]
    first, second = (desk.host_lost(each) for each in found)
    assert (first.word, second.word) == ("created", "exists")
    assert asked(first).id == asked(second).id
    assert desk.kinds().count("agent.lost") == 1


def test_a_job_that_goes_on_only_says_who_is_lost(desk: Desk) -> None:
    """Without fail-fast nobody is stopped: the loss is recorded, once, and a later shutdown can't claim proof of it."""
    hosts("a", "b", desk=desk, fail_fast=False)
    desk.vanish("b")
    found = desk.beat("a")
    assert [desk.host_lost(found).word for _ in range(2)] == ["lost", "none"]
    assert (desk.look().request, lost(desk)) == (None, ["b"])
    assert desk.beat("a").word == "none"
    desk.request()
    desk.report("a", Outcome.TERMINATED)
    assert desk.verdict == "incomplete"


def test_each_lost_host_is_judged_by_its_own_policy(desk: Desk) -> None:
    """Two are lost at once, and the one whose loss means nothing is found first: the other still stops the job."""
    hosts("a", "c", desk=desk)
    hosts("b", desk=desk, fail_fast=False)
    for host in ("b", "c"):
        desk.vanish(host)
    assert [desk.host_lost(desk.beat("a")).word for _ in range(2)] == ["lost", "created"]
    assert sorted(lost(desk)) == ["b", "c"]


@pytest.mark.parametrize(("lost_stops", "word"), [(True, "created"), (False, "lost")])
def test_the_policy_of_the_lost_decides(desk: Desk, lost_stops: bool, word: str) -> None:
    """In a job of mixed policies whoever finds it does the same: what counts is what a failure there was to mean."""
    desk.join("a", fail_fast=not lost_stops)
    desk.join("b", fail_fast=lost_stops)
    desk.vanish("b")
    assert desk.host_lost(desk.beat("a")).word == word


def test_who_came_back_meanwhile_is_not_given_up(desk: Desk) -> None:
    """Looked at again: between a survivor's beat and its word, the host may have been heard."""
    hosts("a", "b", desk=desk)
    desk.vanish("b")
    found = desk.beat("a")
    desk.beat("b")
    assert desk.host_lost(found).word == "none"
    assert (desk.look().request, lost(desk)) == (None, [])


def test_a_host_that_comes_back_joins_again(desk: Desk) -> None:
    """Given up, and the job goes on: it is told so, joins, and counts as lost no more."""
    hosts("a", "b", desk=desk, fail_fast=False)
    desk.vanish("b")
    desk.host_lost(desk.beat("a"))
    assert lost(desk) == ["b"]
    assert desk.beat("b").word == "back"
    assert desk.join("b").word == "joined"
    assert (lost(desk), desk.kinds()[-1]) == ([], "agent.back")
    desk.request()
    desk.report("a", Outcome.TERMINATED)
    assert desk.verdict is None
    desk.report("b", Outcome.TERMINATED)
    assert desk.verdict == "clean"


def test_a_host_that_comes_back_obeys_the_fence(desk: Desk) -> None:
    """Given up, and the job is stopped: its first beat brings the request, and its report makes the verdict anew."""
    hosts("a", "b", desk=desk)
    desk.vanish("b")
    created = desk.host_lost(desk.beat("a"))
    desk.report("a", Outcome.TERMINATED)
    assert desk.verdict == "incomplete"
    assert asked(desk.beat("b")).id == asked(created).id
    assert desk.join("b").word == "fenced"
    desk.report("b", Outcome.TERMINATED)
    assert (desk.verdict, lost(desk)) == ("clean", [])


def redis_was_away(desk: Desk) -> str:
    """Scenario: nobody reached Redis for longer than a lease; then one agent is back, a moment before the other."""
    hosts("a", "b", desk=desk)
    desk.pass_in_silence(AWAY_S)
    return desk.beat("a").word


def test_nobody_is_lost_because_redis_was_away(desk: Desk) -> None:
    """After a silence of the whole job, whoever is back first gives nobody up: all get time to come back."""
    assert redis_was_away(desk) == "none"
    desk.settle()
    assert desk.beat("b").word == "none"
    desk.pass_in_silence(3)
    assert (desk.beat("a").word, desk.beat("b").word, lost(desk)) == ("none", "none", [])


def test_control_without_patience_a_living_host_is_lost(desk: Desk, unguard: Unguard) -> None:
    """Negative control: with the silence unnoticed, the first one back stops the job for one that lives."""
    unguard(SILENCE, "return nil", script="*")
    assert redis_was_away(desk) == "lost"


@pytest.mark.parametrize("first", ["join", "report", "host_lost", "settle"])
def test_whoever_comes_first_is_patient(desk: Desk, first: str) -> None:
    """Not only a beat ends a silence: a newcomer, a report, a survivor's word that was on its way, a new follower."""
    hosts("a", "b", "c", desk=desk)
    desk.vanish("b")
    found = desk.beat("c")
    if first == "settle":
        desk.request()
    desk.pass_in_silence(AWAY_S)
    if first == "join":
        desk.join("new")
    if first == "report":
        desk.report("c", kind="agent.running")
    if first == "settle":
        desk.settle(bound_s=10, was_away=True)
    else:
        assert desk.host_lost(found).word == "none"
        assert desk.beat("a").word == "none"
    assert (lost(desk), desk.look().verdict) == ([], None)


def test_patience_ends(desk: Desk) -> None:
    """Who is still not heard after that is lost: for the survivors, and for a follower, which doubts a silence once."""
    assert redis_was_away(desk) == "none"
    for _ in range(4):
        desk.pass_in_silence(2)
        answer = desk.beat("a")
    assert answer.word == "lost"
    desk.request()
    desk.pass_in_silence(AWAY_S)
    for _ in range(2):
        desk.settle(was_away=True)
        desk.raw.hincrby(desk._key("job"), "patience_us", round(-7e6))
    assert sorted(lost(desk)) == ["a", "b"]
    assert desk.verdict == "incomplete"


def test_a_host_that_hears_late_has_the_whole_time(desk: Desk) -> None:
    """The bound of a shutdown counts from the end of a silence: who could not hear began late."""
    hosts("a", desk=desk)
    desk.request()
    desk.pass_in_silence(AWAY_S)
    desk.beat("a")
    for _ in range(4):
        desk.pass_in_silence(2)
        desk.beat("a")
        desk.settle(bound_s=20)
    assert desk.verdict is None
    for _ in range(12):
        desk.pass_in_silence(2)
        desk.beat("a")
        desk.settle(bound_s=20)
    assert lost(desk) == ["a"]
    assert desk.verdict == "incomplete"


def test_last_heard(desk: Desk) -> None:
    """Each agent is shown with the time since it was heard, whatever it said."""
    hosts("a", "b", "c", desk=desk)
    desk.pass_in_silence(3)
    desk.beat("a")
    desk.report("b", kind="agent.running")
    ages = {agent.info.host: agent.last_heard_s for agent in desk.look().agents}
    assert {host: age is not None and age >= 3 for host, age in ages.items()} == {"a": False, "b": False, "c": True}


def test_a_clock_that_was_set_back_makes_nobody_immortal(desk: Desk) -> None:
    """Patience that lies further ahead than any can is none: the server's clock was set back."""
    hosts("a", "b", desk=desk)
    desk.vanish("b")
    desk.raw.hset(desk._key("job"), "patience_us", desk.look().now_us + 3_600_000_000)
    assert desk.beat("a").word == "lost"


def test_the_lost_of_a_job_that_goes_on_are_forgotten_with_time(desk: Desk) -> None:
    """A service that runs for years keeps the hosts it lost as long as a record is kept, and not for ever."""
    hosts("a", "b", desk=desk, fail_fast=False)
    desk.vanish("b")
    desk.host_lost(desk.beat("a"))
    desk.raw.zincrby(desk._key("lost"), (5 - RETAIN_S) * 1e6, agent_id("b"))
    desk.join("c")
    assert lost(desk) == ["b"]
    desk.raw.zincrby(desk._key("lost"), -10e6, agent_id("b"))
    desk.join("d")
    assert [agent.info.host for agent in desk.look().agents] == ["a", "c", "d"]


def test_who_left_and_joined_again_is_not_forgotten(desk: Desk) -> None:
    """Of a job id that is used again and again those are forgotten that left; who came again did not."""
    hosts("again", desk=desk)
    desk.report("again", Outcome.EXITED)
    desk.join("again", lease_s=1000)
    for number in range(1002):
        desk.join(f"h{number}")
        desk.report(f"h{number}", Outcome.EXITED)
    assert "again" in {agent.info.host for agent in desk.look().awaited}
    desk.request()
    assert [agent.info.host for agent in desk.look().members] == ["again"]
    assert {agent.state for agent in desk.look().members} <= {AgentState.STOPPED, AgentState.RUNNING}


def test_who_comes_again_has_said_nothing_yet(desk: Desk) -> None:
    """An agent that left and joins again is not taken for one that has answered."""
    hosts("a", desk=desk)
    desk.report("a", Outcome.EXITED)
    hosts("a", desk=desk)
    desk.request()
    assert [(agent.info.host, agent.state) for agent in desk.look().silent] == [("a", "running")]


def test_scripts_and_callers_agree_on_time() -> None:
    """A follower and the scripts mean the same silence; patience covers an answer that never came, and a beat."""
    said = re.findall(r"^local (\w+)_US = (\d+)", script_text("beat"), re.MULTILINE)
    given = {name: int(us) / 1e6 for name, us in said}
    assert given["SILENCE"] == SILENCE_S
    assert given["PATIENCE"] > ANSWER_TIMEOUT_S + RETRY_S
    assert SILENCE_S + ANSWER_TIMEOUT_S + RETRY_S < LEASE_S
