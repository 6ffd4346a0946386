"""RQ jobs in the record: enlisted, fenced, swept by one, counted. Promises: fenced, nothing missed, truthful."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from coord.decode import decode_control
from coord.ledger import AsyncLedger
from coord.messages import AgentState, Outcome, Unproved
from coord.plan import Plan
from coord.render.document import job_document
from coord.render.text import summary
from coord.snapshot import JobState
from tests.record.desk import EXPIRED_S, Desk, agent_id, asked

if TYPE_CHECKING:
    from coord.messages import ShutdownRequest
    from tests.record.conftest import Unguard

HEAR_S = 20.0
FOREIGN = Unproved("c", "w9", "q3", "stopped")
ENLIST_FENCED = "if fenced() then\n  return request('fenced')\nend\n"
NO_VERDICT_BEFORE = "if redis.call('HEXISTS', JOB, 'rq_due_us') == 1 then\n    return\n  end\n"
ONE_AT_A_TIME = "if due_us and by and by ~= who and NOW_US < tonumber(due_us) then\n  return {'taken'}\nend\n"
OVERDUE = "if due_us and (until_us == '+inf' or NOW_US > tonumber(due_us)) then"


def test_enlisted_job_is_not_called_stopped(desk: Desk) -> None:
    """A job whose RQ jobs wait in queues, with no agent yet, runs: nobody reads that it has stopped."""
    assert desk.enlist("q1", "q2").word == "created"
    assert desk.enlist("q2", "q3").word == "enlisted"
    found = desk.look()
    assert (found.state, found.rq.jobs, found.verdict) == (JobState.RUNNING, 3, None)
    assert summary(found) == f"job {desk.job_id}: running: 3 jobs on RQ, no agent has any of it now"


def test_enlisted_jobs_can_be_read_and_forgotten(desk: Desk) -> None:
    """A sweeper finds each RQ job with its queue, however many there are; what RQ forgot can be taken out."""
    names = [f"q{number}" for number in range(2500)]
    desk.ledger.run(desk.record.enlist({name: "low" if name == "q7" else "high" for name in names}))
    found = dict(desk.ledger.rq_jobs(desk.record))
    assert sorted(found) == sorted(names)
    assert {queue for name, queue in found.items() if name != "q7"} == {"high"}
    assert found["q7"] == "low"
    desk.ledger.run(desk.record.delist(names[1:]))
    assert [name for name, _ in desk.ledger.rq_jobs(desk.record)] == ["q0"]


def refused_late(desk: Desk) -> bool:
    """Scenario: an RQ job is enlisted after the request; tells whether the record refused, and holds nothing of it."""
    desk.enlist("q1")
    desk.request()
    late = desk.enlist("q2")
    return (late.word, desk.look().rq.jobs) == ("fenced", 1) and asked(late).job_id == desk.job_id


def test_enlist_is_fenced(desk: Desk) -> None:
    """Once a job has a request, no RQ job of it may be enqueued, and who tries learns by whom it was forbidden."""
    assert refused_late(desk)


def test_control_without_the_fence_late_jobs_get_in(desk: Desk, unguard: Unguard) -> None:
    """Negative control: with the check taken out of `enlist`, the late RQ job is in."""
    unguard(ENLIST_FENCED, script="enlist")
    assert not refused_late(desk)


def test_fence_is_only_read(desk: Desk) -> None:
    """Asking whether something may start makes no key for an unknown job, and renews nothing of a known one."""
    assert desk.fence().word == "none"
    assert desk.all_keys() == set()
    desk.enlist("q1")
    assert desk.fence().word == "none"
    desk.request(reason="enough")
    for key in desk.all_keys():
        desk.raw.expire(key, 5)
    answer = desk.fence()
    assert (answer.word, asked(answer).reason) == ("exists", "enough")
    assert max(desk.ttls().values()) <= 5


async def heard(desk: Desk, server: str) -> ShutdownRequest:
    """Scenario: an agent listens while the job is stopped."""
    ear = AsyncLedger(server)
    messages = ear.listen()
    try:
        async with asyncio.timeout(HEAR_S):
            assert await anext(messages) is None
            desk.request(fence_unknown=True)
            data = await anext(messages)
            assert data is not None
            return decode_control(data)
    finally:
        await messages.aclose()
        await ear.close()


async def test_broadcast_says_that_there_are_rq_jobs(desk: Desk, server: str) -> None:
    """Every agent that works queues hears that a job has RQ jobs, though it never joined that job."""
    desk.enlist("q1")
    request = await heard(desk, server)
    assert request.rq
    assert asked(desk.beat("a")).rq
    assert asked(desk.look()).rq


async def test_broadcast_says_nothing_of_rq_for_other_jobs(desk: Desk, server: str) -> None:
    """Nobody goes through queues for a job that has no RQ jobs, and nobody waits for that."""
    request = await heard(desk, server)
    assert not request.rq
    assert desk.claim("a") == "none"
    assert desk.verdict == "clean"


def test_group_becomes_known_with_its_request(desk: Desk) -> None:
    """An RQ group that nobody enlisted is stopped by its name; a later word that there is RQ makes up for it."""
    assert desk.request(fence_unknown=True).word == "created"
    assert not desk.look().rq.due
    again = desk.request(rq=True)
    assert (again.word, asked(again).rq) == ("exists", True)
    assert desk.look().rq.due
    assert desk.claim("a") == "claimed"
    assert desk.swept("a", canceled=5) == "swept"
    desk.request(rq=True)
    assert not desk.look().rq.due


def verdict_before_swept(desk: Desk) -> str | None:
    """Scenario: the last agent has answered, and nobody has swept yet."""
    desk.join("a")
    desk.enlist("q1")
    desk.request()
    desk.report("a", Outcome.TERMINATED)
    return desk.verdict


def test_no_verdict_before_somebody_swept(desk: Desk) -> None:
    """While RQ jobs may still be queued nobody says that the job has stopped; who sweeps last makes the verdict."""
    assert verdict_before_swept(desk) is None
    desk.settle()
    assert desk.claim("a") == "claimed"
    desk.settle()
    assert (desk.verdict, desk.look().state) == (None, JobState.STOPPING)
    assert desk.swept("a", canceled=231, stopped=12) == "swept"
    assert desk.verdict == "clean"
    assert desk.kinds()[-2:] == ["rq.swept", "job.verdict"]


def test_control_without_the_wait_for_the_sweep(desk: Desk, unguard: Unguard) -> None:
    """Negative control: with the wait taken out, the job is called clean while its RQ jobs are queued."""
    unguard(NO_VERDICT_BEFORE, script="*")
    assert verdict_before_swept(desk) == "clean"


def test_agents_are_waited_for_after_the_sweep(desk: Desk) -> None:
    """The sweep alone makes no verdict while an agent has still to answer."""
    desk.join("a")
    desk.enlist("q1")
    desk.request()
    desk.claim("b")
    assert desk.swept("b", canceled=1) == "swept"
    assert desk.verdict is None
    desk.report("a", Outcome.KILLED)
    assert desk.verdict == "forced"


def claims(desk: Desk) -> list[str]:
    """Scenario: three want to sweep; the first renews; then its claim runs out, and one of the others takes over."""
    desk.enlist("q1")
    desk.request()
    words = [desk.claim("a"), desk.claim("b"), desk.claim("a", EXPIRED_S), desk.claim("c"), desk.claim("a")]
    return [*words, desk.swept("a", canceled=7), desk.swept("c", canceled=1), desk.swept("c", canceled=1)]


def test_one_sweeps_at_a_time(desk: Desk) -> None:
    """A claim is taken until it is over, then another may have it; only its holder's word counts, and only once."""
    assert claims(desk) == ["claimed", "taken", "claimed", "claimed", "taken", "none", "swept", "none"]
    assert desk.look().rq.canceled == 1
    assert desk.claim("a") == "none"
    assert desk.kinds().count("rq.sweeping") == 2


def test_control_without_the_claim_all_sweep(desk: Desk, unguard: Unguard) -> None:
    """Negative control: with the check taken out, everybody sweeps at once."""
    unguard(ONE_AT_A_TIME, script="claim")
    assert "taken" not in claims(desk)


def lost_sweep(desk: Desk, claim_s: float) -> str | None:
    """Scenario: who claimed the sweep is not heard from; followers look."""
    desk.enlist("q1")
    desk.request()
    desk.claim("a", claim_s)
    desk.settle()
    return desk.verdict


def test_overdue_sweep_is_lost(desk: Desk) -> None:
    """A sweeper that died holds nobody up for ever, and the verdict says that RQ jobs may be left."""
    assert lost_sweep(desk, EXPIRED_S) == "incomplete"
    assert desk.look().rq.lost
    assert "nobody canceled its RQ jobs in time" in summary(desk.look())


def test_control_without_the_bound_a_lost_sweep_holds_for_ever(desk: Desk, unguard: Unguard) -> None:
    """Negative control: with the bound taken out of `settle`, there is never a verdict."""
    unguard(OVERDUE, "if false then", script="settle")
    assert lost_sweep(desk, EXPIRED_S) is None


def test_sweep_that_goes_on_is_not_lost(desk: Desk) -> None:
    """While somebody sweeps, followers wait; past the bound of the whole shutdown they don't."""
    assert lost_sweep(desk, 60.0) is None
    desk.settle(bound_s=0.0)
    assert desk.verdict == "incomplete"


def test_late_sweep_makes_up_for_a_lost_one(desk: Desk) -> None:
    """A sweeper that was given up may still come with its word, and a person may have it done again."""
    lost_sweep(desk, EXPIRED_S)
    assert desk.swept("a", canceled=3) == "swept"
    assert (desk.verdict, desk.look().rq.lost) == ("clean", False)


def test_what_was_lost_can_be_swept_again(desk: Desk) -> None:
    """Agents leave a lost sweep alone; a person who calls again has it done, and the verdict becomes what is found."""
    lost_sweep(desk, EXPIRED_S)
    assert desk.claim("b") == "none"
    assert desk.claim("b", again=True) == "claimed"
    assert desk.swept("b", canceled=3) == "swept"
    assert desk.verdict == "clean"


def test_jobs_without_proof_are_named(desk: Desk) -> None:
    """What a plain RQ worker had makes the verdict incomplete, with host, worker and job; once swept again, no more."""
    desk.enlist("q1", "q2", "q3")
    desk.request()
    desk.claim("a")
    desk.swept("a", canceled=2, unproved=(FOREIGN,))
    found = desk.look()
    assert (found.verdict, found.rq.unproved) == ("incomplete", (FOREIGN,))
    assert "RQ job q3 on host c (worker w9) has no proof, RQ says stopped" in summary(found)
    assert desk.claim("a") == "none"
    assert desk.claim("a", again=True) == "claimed"
    desk.swept("a")
    assert desk.verdict == "clean"


def test_many_without_proof_are_counted(desk: Desk) -> None:
    """A list without an end is cut, and what was cut off it still counts."""
    desk.enlist("q1")
    desk.request()
    desk.claim("a")
    desk.swept("a", unproved=(FOREIGN,) * 1500)
    found = desk.look()
    assert (len(found.rq.unproved), found.rq.unproved_count) == (1000, 1500)
    assert "; 1495 more RQ jobs have no proof" in summary(found)


def test_counts_are_in_the_document(desk: Desk) -> None:
    """`--json` has what became of the RQ jobs, wherever it happened."""
    desk.enlist("q1", "q2", "q3")
    desk.request()
    desk.claim("a")
    desk.tally("stopped", 2)
    desk.tally("requeued")
    desk.tally("canceled", 4)
    desk.swept("a", canceled=6, stopped=1, unproved=(FOREIGN,))
    assert json.loads(json.dumps(job_document(desk.look())["rq"])) == {
        "canceled": 10,
        "stopped": 3,
        "requeued": 1,
        "jobs": 3,
        "unproved": [{"host": "c", "worker": "w9", "rq_job": "q3", "status": "stopped"}],
        "lost": False,
    }


def test_counting_makes_no_job(desk: Desk) -> None:
    """A count that comes after the job's record has expired makes no record of it."""
    assert desk.tally("stopped") == "unknown"
    assert desk.all_keys() == set()


def test_enrolled_agent_has_to_answer(desk: Desk) -> None:
    """An agent that runs something of a fenced group is waited for, and a verdict without its word is taken back."""
    assert desk.enrol("a").word == "none"
    assert desk.all_keys() == set()
    desk.request(Plan.of(3, 2), fence_unknown=True)
    assert desk.verdict == "clean"
    assert asked(desk.enrol("a")).plan == Plan.of(3, 2)
    found = desk.look()
    assert (found.verdict, found.state) == (None, JobState.STOPPING)
    assert [agent.info.agent_id for agent in found.awaited] == [agent_id("a")]
    desk.report("a", Outcome.KILLED)
    assert desk.verdict == "forced"


def test_enrolled_twice_counts_once(desk: Desk) -> None:
    """A second enrolment, since the first one's answer was lost, changes nothing; a lease that ends is a lost host."""
    desk.request(fence_unknown=True)
    desk.enrol("a")
    desk.enrol("a", EXPIRED_S)
    assert desk.kinds().count("agent.joined") == 1
    desk.settle()
    assert desk.verdict == "incomplete"
    assert desk.look().agents[0].state is AgentState.LOST


def test_failure_of_an_rq_job_stops_the_others(desk: Desk) -> None:
    """The first failure of a job with RQ jobs makes its request, and what is queued of it is due to be swept."""
    desk.join("a")
    desk.enlist("q1")
    assert asked(desk.fail("a")).rq
    assert desk.claim("a") == "claimed"


@pytest.mark.parametrize("junk", ["{", "[1]", '[{"host":1}]', "{}x"])
def test_junk_in_the_record_is_our_error(desk: Desk, junk: str) -> None:
    """What we can't read in the list of unproved jobs is named as such, and nothing is made of it."""
    from coord.errors import CoordError

    desk.enlist("q1")
    desk.raw.hset(desk.record._keys[0], "rq_unproved", junk)
    with pytest.raises(CoordError, match="can't read"):
        desk.look()
