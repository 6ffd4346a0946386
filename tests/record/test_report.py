"""`report`: what agents say, and the verdict that follows from it. Promises: truthful, complete, idempotent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from coord.messages import Outcome
from tests.record.desk import EXPIRED_S, Desk, agent_id, info, report

if TYPE_CHECKING:
    from tests.record.conftest import Unguard

WAIT_FOR_ALL = " or redis.call('ZCARD', LEASES) > 0 then"
COUNTED_ONCE = "  if awaited > 0 then\n"
AT_LEAST_0 = "math.max(0, NOW_US - age_us - requested_us)"

EXITED, TERMINATED, KILLED, SURVIVED = Outcome.EXITED, Outcome.TERMINATED, Outcome.KILLED, Outcome.SURVIVED


def half_of_the_hosts_answered(desk: Desk) -> str | None:
    """Scenario: two hosts run, the job is shut down, and one of them has said nothing yet."""
    desk.join("a")
    desk.join("b")
    desk.request()
    desk.report("a", TERMINATED)
    return desk.verdict


def test_no_verdict_before_everybody_answered(desk: Desk) -> None:
    """The verdict waits for the last host: until it has spoken, nobody says that the job is gone."""
    assert half_of_the_hosts_answered(desk) is None
    assert desk.look().exit_code == 6
    desk.report("b", TERMINATED)
    assert desk.verdict == "clean"
    assert desk.look().exit_code == 0


def test_control_without_the_wait_a_verdict_is_made_up(desk: Desk, unguard: Unguard) -> None:
    """Negative control: with the count of leases taken out, the job is called clean while a host still runs."""
    unguard(WAIT_FOR_ALL, " then", script="*")
    assert half_of_the_hosts_answered(desk) == "clean"


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ((EXITED,), (TERMINATED,), "clean"),
        ((), (), "clean"),
        ((TERMINATED, TERMINATED), (TERMINATED, KILLED), "forced"),
        ((KILLED,), (KILLED,), "forced"),
        ((KILLED, SURVIVED), (TERMINATED,), "incomplete"),
        ((TERMINATED,), (SURVIVED,), "incomplete"),
    ],
)
def test_verdict_is_the_worst_of_all_hosts(
    desk: Desk, first: tuple[Outcome, ...], second: tuple[Outcome, ...], verdict: str
) -> None:
    """One killed process anywhere makes the job forced, one survivor anywhere makes it incomplete."""
    desk.join("a")
    desk.join("b")
    desk.request()
    desk.report("a", *first)
    desk.report("b", *second)
    assert desk.verdict == verdict
    assert desk.kinds().count("job.verdict") == 1
    assert desk.events()[-1].detail == {"verdict": verdict}


def test_no_proof_is_incomplete(desk: Desk) -> None:
    """A host that stopped everything but can't prove that nothing is left does not count as gone."""
    desk.join("a")
    desk.request()
    desk.report("a", TERMINATED, proof=None)
    snapshot = desk.look()
    assert (snapshot.verdict, snapshot.state, snapshot.exit_code) == ("incomplete", "stopping", 5)


def test_control_when_proof_is_not_asked_for_the_job_is_clean(desk: Desk) -> None:
    """Negative control: the same report, sent without what `Record.report` adds for the missing proof, passes."""
    desk.join("a")
    desk.request()
    call = desk.record.report(info("a"), report(TERMINATED, proof=None), "agent.stopped")
    proved = desk.record.report(info("a"), report(TERMINATED), "agent.stopped")
    differing = [place for place, (one, other) in enumerate(zip(call.args, proved.args, strict=True)) if one != other]
    _, survived = differing  # the report's text, and the number of survivors
    assert (call.args[survived], proved.args[survived]) == (1, 0)
    desk.ledger.run(replace(call, args=(*call.args[:survived], 0, *call.args[survived + 1 :])))
    assert desk.verdict == "clean"


def test_killed_before_the_request_does_not_count(desk: Desk) -> None:
    """What was killed before anybody asked for the shutdown is no part of how the shutdown went."""
    desk.join("a")
    desk.join("b")
    desk.report("a", KILLED)
    desk.request()
    desk.report("b", TERMINATED)
    assert desk.verdict == "clean"


def test_unproved_end_before_the_request_counts(desk: Desk) -> None:
    """A host that left earlier without proof may still have something running: the verdict can't be better."""
    desk.join("a")
    desk.report("a", EXITED, proof=None)
    desk.request()
    assert desk.verdict == "incomplete"


def the_same_report_twice(desk: Desk) -> tuple[str | None, int]:
    """Scenario: a report's answer is lost on the way, so the agent sends it again."""
    desk.join("a")
    desk.join("b")
    desk.request()
    desk.report("a", KILLED)
    desk.report("a", KILLED)
    return desk.field("killed"), desk.kinds().count("agent.stopped")


def test_report_that_comes_twice_counts_once(desk: Desk) -> None:
    """A repeated report neither counts its dead twice nor answers for another host."""
    assert the_same_report_twice(desk) == ("1", 1)
    assert desk.verdict is None
    desk.report("b", TERMINATED)
    assert desk.verdict == "forced"


def test_control_without_the_check_a_report_counts_twice(desk: Desk, unguard: Unguard) -> None:
    """Negative control: with the check taken out, the dead are counted twice and the stop is told twice."""
    unguard(COUNTED_ONCE, "  if true then\n", script="report")
    assert the_same_report_twice(desk) == ("2", 2)


def test_report_of_a_stranger_answers_for_nobody(desk: Desk) -> None:
    """The word of an agent that never joined releases nobody: the one who holds a lease is still waited for."""
    desk.join("a")
    desk.request()
    desk.report("stranger", TERMINATED)
    assert desk.verdict is None
    assert [agent.info.host for agent in desk.look().agents] == ["a"]


@pytest.mark.parametrize(
    ("late", "verdict"), [((TERMINATED,), "clean"), ((KILLED,), "forced"), ((SURVIVED,), "incomplete")]
)
def test_late_report_of_a_lost_host_is_the_truth(desk: Desk, late: tuple[Outcome, ...], verdict: str) -> None:
    """A host that was given up and then answers turns `incomplete` into what really happened."""
    desk.join("a")
    desk.join("b", lease_s=EXPIRED_S)
    desk.request()
    desk.report("a", TERMINATED)
    desk.settle()
    assert (desk.verdict, [agent.info.host for agent in desk.look().lost]) == ("incomplete", ["b"])
    desk.report("b", *late)
    assert (desk.verdict, desk.look().lost) == (verdict, ())
    assert desk.look().took_s is not None


def test_report_on_the_way_makes_no_verdict(desk: Desk) -> None:
    """An agent that says that it is stopping or killing has not answered yet: it keeps its lease."""
    desk.join("a")
    desk.request()
    desk.report("a", Outcome.RUNNING, kind="agent.stopping", proof=None)
    desk.report("a", KILLED, Outcome.RUNNING, kind="agent.killing", proof=None)
    snapshot = desk.look()
    assert (snapshot.verdict, [agent.info.host for agent in snapshot.awaited]) == (None, ["a"])
    assert [agent.state for agent in snapshot.agents] == ["stopping"]
    assert desk.events()[-1].detail == {
        "agent_id": agent_id("a"),
        "host": "a",
        "label": "rank",
        "running": 1,
        "killed": 1,
    }


def timings(desk: Desk, signal_age_s: float | None, gone_age_s: float | None) -> tuple[float | None, float | None]:
    """Scenario: a host reports how long ago it sent its first signal, and how long ago all were seen gone."""
    call = desk.record.report(
        info("a"), report(TERMINATED), "agent.stopped", signal_age_s=signal_age_s, gone_age_s=gone_age_s
    )
    desk.join("a")
    desk.request()
    desk.ledger.run(call)
    said = desk.look().agents[0].report
    return said.first_signal_ms, said.all_gone_ms


def test_timings_count_from_the_request(desk: Desk) -> None:
    """The figures are Redis time from the request to now, less the ages that the host measured."""
    first_signal_ms, all_gone_ms = timings(desk, 0.0, 0.0)
    assert first_signal_ms == all_gone_ms
    assert first_signal_ms is not None
    took_s = desk.look().took_s
    assert took_s is not None
    assert 0 < first_signal_ms <= 1000 * took_s + 0.001


def test_timings_are_never_negative(desk: Desk) -> None:
    """A host that signalled before the request was recorded, because it saw the failure, has waited 0 ms."""
    assert timings(desk, 3600.0, 1800.5) == (0.0, 0.0)


def test_control_without_the_bound_timings_are_negative(desk: Desk, unguard: Unguard) -> None:
    """Negative control: with the bound taken out, the same host answered an hour before it was asked."""
    unguard(AT_LEAST_0, "(NOW_US - age_us - requested_us)", script="report")
    first_signal_ms, _ = timings(desk, 3600.0, None)
    assert first_signal_ms is not None
    assert -3600_000 <= first_signal_ms < -3500_000


def test_what_was_not_measured_is_not_made_up(desk: Desk) -> None:
    """A host that sent no signal, or saw nothing gone, has no figure for it; before a request nobody has any."""
    assert timings(desk, None, None) == (None, None)
    early = Desk(desk.ledger, f"{desk.job_id}-2", desk.raw)
    early.join("a")
    early.ledger.run(early.record.report(info("a"), report(EXITED), "agent.stopped", signal_age_s=1.0, gone_age_s=0.5))
    said = early.look().agents[0].report
    assert (said.first_signal_ms, said.all_gone_ms) == (None, None)
