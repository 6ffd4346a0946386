"""A server that lost what it acknowledged: who knows of it writes it again, and nobody is forgotten."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from coord import memory
from coord.messages import Cause, Outcome
from coord.plan import Plan
from tests.record.desk import Desk, agent_id, asked, failure, info

if TYPE_CHECKING:
    from coord.snapshot import Snapshot
    from tests.record.conftest import Unguard

HOLD = "if job[6] and NOW_US < job[6] + PATIENCE_US then"
PART = "or job[7] == 'part'"
HOLD_S = 7.0


def stopping(desk: Desk) -> Snapshot:
    """Scenario: of four hosts one was killed, one is lost, two have to answer; the plan was shortened; as last read."""
    for host in "abcd":
        desk.join(host)
    recorded = asked(desk.request(Plan.of(60, 9), "enough"))
    desk.shorten(recorded, Plan.of(30, 5))
    desk.report("a", Outcome.KILLED)
    desk.vanish("b")
    desk.settle()
    return desk.look()


def wait(desk: Desk) -> None:
    """So long who lives has time to say so; they beat meanwhile."""
    desk.raw.hincrby(desk._key("job"), "forgot_us", round(-HOLD_S * 1e6))


def states(desk: Desk) -> dict[str, str]:
    return {agent.info.host: str(agent.state) for agent in desk.look().agents}


def test_a_follower_writes_all_of_it_again(desk: Desk) -> None:
    """The request as it was, as old as it is; who reported stays reported, who is lost lost, who must answer must."""
    before = stopping(desk)
    desk.forget()
    answer = desk.remember(before, since_s=3)
    was, now = asked(before), asked(desk.look())
    assert answer.word == "restored"
    assert (now.id, now.rev, now.plan, now.reason, now.by) == (was.id, 2, was.plan, "enough", was.by)
    assert was.elapsed_s + 3 <= now.elapsed_s < was.elapsed_s + 30
    assert states(desk) == {"a": "stopped", "b": "lost", "c": "running", "d": "running"}
    assert [agent.info.host for agent in desk.look().awaited] == ["c", "d"]
    assert [agent.info.host for agent in desk.look().members] == list("abcd")
    assert desk.join("late").word == "fenced"
    desk.report("b", Outcome.TERMINATED)
    desk.report("c", Outcome.TERMINATED)
    assert desk.verdict is None
    desk.report("d", Outcome.TERMINATED)
    assert (desk.look().verdict, desk.look().record_lost) == ("forced", False)


def test_whoever_never_answers_is_lost(desk: Desk) -> None:
    """Nobody is forgotten: a member that is written again and is heard no more is lost, and named."""
    before = stopping(desk)
    desk.forget()
    desk.remember(before)
    desk.report("c", Outcome.TERMINATED)
    desk.vanish("d")
    desk.settle()
    assert (desk.verdict, [agent.info.host for agent in desk.look().lost]) == ("incomplete", ["b", "d"])


@pytest.mark.parametrize("times", [2, 5])
def test_written_again_twice_counts_once(desk: Desk, times: int) -> None:
    """Any number of followers and agents may do it, in any order: the killed are counted once, the request is one."""
    before = stopping(desk)
    desk.forget()
    words = [desk.say_again("c", asked(before)).word]
    words += [desk.remember(before).word for _ in range(times)]
    assert words == ["restored"] + ["exists"] * times
    assert desk.field("killed") == "1"
    assert desk.kinds().count("record.restored") == 1
    assert desk.look().record_lost is False


def test_what_was_said_since_then_counts_more(desk: Desk) -> None:
    """A memory is older than the record: an agent that answered since it was read is not waited for again."""
    before = stopping(desk)
    desk.report("c", Outcome.TERMINATED)
    desk.report("d", Outcome.TERMINATED)
    assert desk.remember(before).word == "exists"
    assert (desk.verdict, desk.look().awaited) == ("incomplete", ())
    desk.report("b", Outcome.TERMINATED)
    assert desk.verdict == "forced"


def test_who_asked_anew_after_the_loss_is_not_overruled(desk: Desk) -> None:
    """Set if absent: a newer request holds, and those who had to answer the older one have to answer it."""
    before = stopping(desk)
    desk.forget()
    desk.join("c")
    newer = asked(desk.request(Plan.of(1, 1)))
    answer = desk.remember(before)
    assert (answer.word, asked(answer).id, asked(answer).plan) == ("exists", newer.id, Plan.of(1, 1))
    assert [agent.info.host for agent in desk.look().awaited] == ["c", "d"]


def test_a_lost_end_of_the_record_is_seen_and_mended(desk: Desk) -> None:
    """A replica that was behind: the plan's shortening and a report are gone, the request is not."""
    for host in "ab":
        desk.join(host)
    recorded = asked(desk.request(Plan.of(60, 9)))
    before_leases = {host: desk.raw.zscore(desk._key("leases"), agent_id(host)) for host in "ab"}
    desk.shorten(recorded, Plan.of(30, 5))
    desk.report("a", Outcome.KILLED)
    before = desk.look()
    assert memory.lost(before, desk.look()) is False
    desk.raw.hset(desk._key("job"), mapping={"plan": '[{"signal":"SIGKILL","wait_s":9}]', "rev": 1, "killed": 0})
    desk.raw.zrem(desk._key("left"), agent_id("a"))
    desk.raw.hdel(desk._key("reports"), agent_id("a"))
    desk.raw.zadd(desk._key("leases"), {agent_id("a"): before_leases["a"] or 0})
    assert memory.lost(before, desk.look())
    assert desk.remember(before).word == "exists"
    assert memory.lost(before, desk.look()) is False
    assert (desk.plan, asked(desk.look()).rev) == (asked(before).plan, 2)
    assert states(desk) == {"a": "stopped", "b": "running"}
    desk.report("b", Outcome.TERMINATED)
    assert desk.verdict == "forced"


def test_nothing_is_lost_while_nothing_is(desk: Desk) -> None:
    """A record that goes on is not taken for one that was lost: joins, beats, reports, a refused join, a verdict."""
    before = stopping(desk)
    desk.beat("c")
    assert memory.lost(before, desk.look()) is False
    desk.join("d")
    assert memory.lost(before, desk.look()) is False
    desk.report("c", Outcome.TERMINATED)
    assert memory.lost(before, desk.look()) is False


# -- without a follower ------------------------------------------------------------------------------------------------


def test_an_agent_writes_the_request_again(desk: Desk) -> None:
    """An agent that heard the request writes it again with its age and its first failure; the others hear of it."""
    desk.join("a")
    desk.join("b")
    heard = asked(desk.fail("a"))
    desk.forget()
    assert desk.beat("a").word == "unknown"
    desk.say_again("a", replace(heard, elapsed_s=5.0), failure("a"))
    snapshot = desk.look()
    assert (asked(snapshot).id, asked(snapshot).cause) == (heard.id, Cause.FAILURE)
    assert 5 <= asked(snapshot).elapsed_s < 60
    assert snapshot.first_failure
    assert (snapshot.first_failure.host, snapshot.first_failure.at_us) == ("a", asked(snapshot).requested_us)
    answer = desk.beat("b")
    assert (answer.word, asked(answer).id) == ("missing", heard.id)
    desk.enrol("b")
    assert [agent.info.host for agent in desk.look().awaited] == ["a", "b"]


def agents_alone(desk: Desk) -> str | None:
    """Scenario: one agent writes the request again and is done at once, before the other one could say anything."""
    desk.join("a")
    desk.join("b")
    heard = asked(desk.request())
    desk.forget()
    desk.say_again("a", heard)
    desk.report("a", Outcome.TERMINATED)
    return desk.verdict


def test_no_verdict_before_all_who_live_have_said_so(desk: Desk) -> None:
    """The first agent to write does not know the others: they get time, and are waited for."""
    assert agents_alone(desk) is None
    assert desk.beat("b").word == "missing"
    desk.enrol("b")
    wait(desk)
    desk.settle()
    assert desk.verdict is None
    desk.report("b", Outcome.TERMINATED)
    assert (desk.look().verdict, desk.look().record_lost) == ("incomplete", True)


def test_control_without_that_time_there_is_a_verdict_too_early(desk: Desk, unguard: Unguard) -> None:
    """Negative control: without the time, the first one to write makes a verdict over a host that runs."""
    unguard(HOLD, "if false then", script="*")
    assert agents_alone(desk) == "incomplete"


def test_control_without_the_note_the_verdict_claims_too_much(desk: Desk, unguard: Unguard) -> None:
    """Negative control: forget besides that the memory is a part, and the verdict says that all is gone."""
    unguard(PART, "", script="*")
    agents_alone(desk)
    wait(desk)
    desk.settle()
    assert desk.verdict == "clean"


def test_what_agents_alone_knew_is_said_to_be_a_part(desk: Desk) -> None:
    """Who reported before the loss, or died in it, is known to nobody: unknown is said as unknown."""
    agents_alone(desk)
    wait(desk)
    desk.settle()
    snapshot = desk.look()
    assert (snapshot.verdict, snapshot.exit_code, snapshot.record_lost) == ("incomplete", 5, True)


def test_a_request_soon_after_a_loss_waits_for_all_who_live(desk: Desk) -> None:
    """The server forgot a running job, and one host has joined again when it is stopped: the others are waited for."""
    desk.join("a")
    desk.join("b")
    desk.forget()
    desk.ledger.run(desk.record.join(info("a"), Plan.of(), again=True))
    desk.request()
    desk.report("a", Outcome.TERMINATED)
    assert desk.verdict is None
    assert desk.beat("b").word == "missing"
    desk.enrol("b")
    wait(desk)
    desk.settle()
    assert desk.verdict is None
    desk.report("b", Outcome.TERMINATED)
    assert (desk.look().verdict, desk.look().record_lost) == ("clean", False)


def killed_while_it_was_not_known(desk: Desk) -> str | None:
    """Scenario: the request is lost in a failover; a host kills, reports and leaves before anybody knows it again."""
    for host in "ab":
        desk.join(host)
    recorded = asked(desk.request())
    before = desk.look()
    desk.raw.hdel(desk._key("job"), "request", "plan", "requested_us", "rev")
    desk.report("b", Outcome.KILLED, Outcome.TERMINATED)
    desk.remember(before, since_s=3)
    desk.say_again("a", recorded)
    desk.report("a", Outcome.TERMINATED)
    return desk.verdict


def test_who_was_killed_while_the_request_was_not_known_counts(desk: Desk) -> None:
    """A host that left between two primaries is no reason to call a kill clean."""
    assert killed_while_it_was_not_known(desk) == "forced"


def test_control_its_report_alone_is_not_counted(desk: Desk, unguard: Unguard) -> None:
    """Negative control: what a report says before the request is known again, nobody has added up."""
    unguard("  count_killed()\n", script="restore")
    assert killed_while_it_was_not_known(desk) == "clean"
