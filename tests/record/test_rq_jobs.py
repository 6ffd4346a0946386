"""RQ jobs in the record: enlisted, fenced, known to agents. Promises: fenced, nothing missed, truthful."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from coord.decode import decode_control
from coord.ledger import AsyncLedger
from coord.messages import AgentState, Outcome
from coord.plan import Plan
from coord.render.text import summary
from coord.snapshot import JobState
from tests.record.desk import EXPIRED_S, Desk, agent_id, asked

if TYPE_CHECKING:
    from coord.messages import ShutdownRequest
    from tests.record.conftest import Unguard

HEAR_S = 20.0
ENLIST_FENCED = "if fenced() then\n  return request('fenced')\nend\n"


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
