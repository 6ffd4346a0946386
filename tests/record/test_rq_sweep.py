"""RQ jobs are swept by one, and there is no verdict before. Promises: bounded, nothing missed, truthful."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from coord.messages import Outcome, Unproved
from coord.render.document import job_document
from coord.render.text import summary
from coord.snapshot import JobState
from tests.record.desk import EXPIRED_S

if TYPE_CHECKING:
    from tests.record.conftest import Unguard
    from tests.record.desk import Desk

FOREIGN = Unproved("c", "w9", "q3", "stopped", plain=True)
NO_VERDICT_BEFORE = "if redis.call('HEXISTS', JOB, 'rq_due_us') == 1 then\n    return\n  end\n"
ONE_AT_A_TIME = "if due_us and by and by ~= who and NOW_US < tonumber(due_us) then\n  return {'taken'}\nend\n"
OVERDUE = "if due_us and (until_us == '+inf' or NOW_US > due_us + patience_us) then"


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
    """`--json` has what became of the RQ jobs; who sweeps counts what was canceled until then, by whomever."""
    desk.enlist("q1", "q2", "q3")
    desk.request()
    desk.claim("a")
    desk.tally("stopped", 2)
    desk.tally("requeued")
    desk.tally("canceled", 4)
    desk.swept("a", canceled=6, stopped=1, unproved=(FOREIGN,))
    desk.tally("canceled")
    assert json.loads(json.dumps(job_document(desk.look())["rq"])) == {
        "canceled": 7,
        "stopped": 3,
        "requeued": 1,
        "jobs": 3,
        "unproved": [{"host": "c", "worker": "w9", "rq_job": "q3", "status": "stopped", "plain": True}],
        "lost": False,
    }


def test_counting_makes_no_job(desk: Desk) -> None:
    """A count that comes after the job's record has expired makes no record of it."""
    assert desk.tally("stopped") == "unknown"
    assert desk.all_keys() == set()


def test_who_waits_may_take_over_before_it_is_lost(desk: Desk) -> None:
    """A sweeper's death leaves the others time to go on: only when nobody has claimed it by then, it is lost."""
    desk.enlist("q1")
    desk.request()
    desk.claim("a", EXPIRED_S)
    desk.raw.hincrby(desk.record._keys[0], "requested_us", -60_000_000)
    desk.settle(bound_s=600, patience_s=30)
    assert desk.verdict is None
    assert desk.claim("b") == "claimed"
    desk.swept("b")
    assert desk.verdict == "clean"
