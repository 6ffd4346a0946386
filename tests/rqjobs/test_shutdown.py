"""`coord shutdown` of what is on RQ, and the Python API. Promises: nothing missed, bounded, truthful, idempotent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from rq import Queue
from rq.group import Group

from coord import AsyncCoordinator, Coordinator
from coord.errors import INCOMPLETE, NO_SUCH_JOB, OK, REFUSED, STILL_RUNNING, UNREACHABLE, NoSuchJobError
from coord.rq import sweep as sweep_module
from tests.harness import until

if TYPE_CHECKING:
    from rq.job import Job

    from coord.snapshot import Snapshot
    from tests.harness import Lab
    from tests.rqjobs.yard import Yard


def test_command_stops_what_waits(lab: Lab, yard: Yard) -> None:
    """One call, with no agent anywhere: what waits is canceled, and the verdict says so with counts."""
    jobs = yard.put_many(231)
    ended = lab.call("shutdown", "--job-id", yard.x, "--json")
    assert ended.code == OK, ended.err
    assert ended.json["rq"] == {
        "canceled": 231,
        "stopped": 0,
        "requeued": 0,
        "jobs": 231,
        "unproved": [],
        "lost": False,
    }
    assert (ended.json["verdict"], ended.json["state"]) == ("clean", "stopped")
    assert yard.statuses(jobs) == {"canceled"}
    assert any("RQ: 231 canceled" in line for line in ended.said)


def test_person_reads_the_counts(lab: Lab, yard: Yard) -> None:
    """The answer for a person has the RQ jobs in a line of its own, before and after."""
    yard.put_many(3)
    assert (
        f"job {yard.x}: running: 3 jobs on RQ, no agent has any of it now" in lab.call("status", "--job-id", yard.x).out
    )
    out = lab.call("shutdown", "--job-id", yard.x).out
    assert f"job {yard.x}: clean: nothing of it is left on RQ" in out
    assert "RQ: 3 canceled, of 3 jobs" in out


@pytest.mark.parametrize("kind", ["group", "one", "meta"])
def test_command_knows_rq_names(lab: Lab, yard: Yard, kind: str) -> None:
    """A group, an RQ job, and RQ jobs that carry the name are stopped by it, though nobody joined; it is fenced."""
    jobs: list[Job]
    name = "tiles-7"
    if kind == "group":
        jobs = Group.create(yard.redis, name).enqueue_many(yard.queue, [Queue.prepare_data("os.getpid")] * 5)
    elif kind == "one":
        jobs = [yard.queue.enqueue("os.getpid", job_id=name)]
    else:
        jobs = [yard.queue.enqueue("os.getpid", meta={"coord_job_id": name})]
    ended = lab.call("shutdown", "--job-id", name, "--json")
    assert ended.code == OK, ended.err
    assert ended.json["rq"]["canceled"] == len(jobs)
    assert yard.statuses(jobs) == {"canceled"}
    assert lab.call("run", "--job-id", name, "--", "true").code == REFUSED
    assert lab.call("shutdown", "--job-id", name).code == OK


def test_unknown_name_says_where_it_was_looked_for(lab: Lab, yard: Yard) -> None:
    """A typing error is told with the places that were looked at, and nothing is fenced."""
    ended = lab.call("shutdown", "--job-id", "no-such")
    assert ended.code == NO_SUCH_JOB
    assert "nobody ever joined it, and RQ at unix:///" in ended.err
    assert "has no group and no job of that name" in ended.err
    assert yard.put().get_status().value == "queued"


def test_rq_elsewhere_that_is_away_is_said(lab: Lab, yard: Yard) -> None:
    """Where RQ was said to be and is not, the name may be known there: that is not called a typing error."""
    del yard
    ended = lab.call("shutdown", "--job-id", "no-such", "--rq-url", "unix:///no/such.sock")
    assert ended.code == UNREACHABLE
    assert "/no/such.sock" in ended.err


def test_rq_on_another_redis(lab: Lab, yard: Yard, server: str, tmp_path: Any) -> None:
    """The record on one server and RQ on another: with its URL all is canceled there."""
    from tests.record.servers import serving

    del server
    with serving("redis", tmp_path) as other:
        jobs = yard.put_many(5)
        queue = Queue("high", connection=yard.redis)
        ended = lab.call("shutdown", "--job-id", yard.x, "--json", COORD_REDIS_URL=yard.url, RQ_REDIS_URL=other)
        assert ended.code == INCOMPLETE, ended.err
        assert ended.json["rq"]["lost"]
        assert queue.count == 5
        again = lab.call("shutdown", "--job-id", yard.x, "--json", "--rq-url", yard.url, RQ_REDIS_URL=other)
    assert (again.code, again.json["verdict"], again.json["rq"]["canceled"]) == (OK, "clean", 5)
    assert yard.statuses(jobs) == {"canceled"}


def test_call_that_does_not_wait_says_who_does_it(lab: Lab, yard: Yard) -> None:
    """`--no-wait` cancels nothing itself, and says so; a later call that waits does."""
    jobs = yard.put_many(2)
    ended = lab.call("shutdown", "--job-id", yard.x, "--no-wait")
    assert ended.code == OK
    assert "hosts of `coord worker` cancel, or a call that waits" in ended.err
    assert yard.statuses(jobs) == {"queued"}
    assert lab.call("shutdown", "--job-id", yard.x).code == OK
    assert yard.statuses(jobs) == {"canceled"}


def test_timeout_leaves_it_to_others(lab: Lab, yard: Yard) -> None:
    """A call that stops following leaves a claim that runs out, and the next one goes on."""
    yard.put()
    bench = yard.worker("w1")
    bench.take()
    ended = lab.call("shutdown", "--job-id", yard.x, "--timeout", "1")
    assert ended.code == STILL_RUNNING
    yard.settle("w1")
    assert lab.call("shutdown", "--job-id", yard.x).code in {OK, INCOMPLETE}
    assert yard.queue.count == 0


def test_processes_and_rq_jobs_of_one_job(lab: Lab, yard: Yard) -> None:
    """A job with processes on a host and RQ jobs in a queue: both are stopped by one call."""
    started = lab.run(yard.x, "sleep", "600")
    jobs = yard.put_many(10)
    ended = lab.call("shutdown", "--job-id", yard.x, "--json")
    assert ended.code == OK, ended.err
    assert (ended.json["rq"]["canceled"], ended.json["agents"][0]["state"]) == (10, "stopped")
    assert yard.statuses(jobs) == {"canceled"}
    started.end()


def asked(yard: Yard, kind: str) -> Snapshot:
    """Request and follow through a coordinator of either kind."""
    if kind == "async":

        async def both() -> Snapshot:
            async with AsyncCoordinator(yard.url) as coordinator:
                await coordinator.request(yard.x)
                async for snapshot, _ in coordinator.follow(yard.x):
                    found = snapshot
                return found

        return asyncio.run(both())
    with Coordinator(yard.url) as coordinator:
        coordinator.request(yard.x)
        return [snapshot for snapshot, _ in coordinator.follow(yard.x)][-1]


@pytest.mark.parametrize("kind", ["blocking", "async"])
def test_python_api_does_the_same(yard: Yard, kind: str) -> None:
    """Both kinds of coordinator sweep while they follow, and find groups by their name."""
    jobs = yard.put_many(20)
    assert asked(yard, kind).rq.canceled == 20
    yard.x = "a-group"
    jobs += Group.create(yard.redis, yard.x).enqueue_many(yard.queue, [Queue.prepare_data("os.getpid")] * 5)
    assert asked(yard, kind).verdict == "clean"
    assert yard.statuses(jobs) == {"canceled"}


@pytest.mark.parametrize("kind", ["blocking", "async"])
def test_python_api_knows_no_such_job(yard: Yard, kind: str) -> None:
    """A name that neither the record nor RQ knows is an error, in both kinds."""
    yard.x = "no-such"
    with pytest.raises(NoSuchJobError, match="RQ at unix"):
        asked(yard, kind)


def test_follower_that_breaks_off_sweeps_no_more(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nobody follows any more, the thread beside it ends, and says nothing that it did not do."""
    from threading import enumerate as threads

    monkeypatch.setattr(sweep_module, "ROUND_MAX_S", 0.05)
    yard.put()
    yard.worker("w1").take()
    yard.stop()
    for _ in yard.coordinator.follow(yard.x):
        break
    until(lambda: not [thread for thread in threads() if thread.name == "coord-rq"], "the thread to end")
    assert "rq.swept" not in [event.kind for event in yard.ledger.events(yard.record, "0", 0.001)]
