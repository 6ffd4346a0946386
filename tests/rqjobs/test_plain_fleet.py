"""`coord shutdown` where plain `rq worker`s work the queues. Promises: bounded, right target only, truthful."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rq import Worker

from coord.errors import INCOMPLETE
from coord.rq import enqueue
from tests.harness import until

if TYPE_CHECKING:
    from rq.job import Job

    from tests.harness import Lab, Started
    from tests.rqjobs.yard import Yard

RQ = str(Path(sys.executable).with_name("rq"))


def plain_worker(lab: Lab, yard: Yard, *queues: str) -> Started:
    return lab.start("worker", "--url", yard.url, *queues, program=RQ)


def sleeps(yard: Yard) -> Job:
    """Enqueue an RQ job that would run for ten minutes."""
    return enqueue(yard.queue, "time.sleep", 600, job_id=yard.x, job_timeout=900, record_url=yard.url)


@pytest.mark.parametrize("queues", [("high",), ("high", "low")])
def test_plain_worker_is_stopped_and_named(lab: Lab, yard: Yard, queues: tuple[str, ...]) -> None:
    """What a plain worker runs is stopped by RQ's own means, once; it is named as not proved; the worker goes on."""
    jobs = [sleeps(yard) for _ in range(3)]
    worker = plain_worker(lab, yard, *queues)
    until(lambda: yard.status(jobs[0]) == "started", "the first to run")
    ended = lab.call("shutdown", "--job-id", yard.x, "--json")
    assert ended.code == INCOMPLETE, ended.err
    rq = ended.json["rq"]
    assert (rq["canceled"], rq["stopped"], rq["lost"]) == (2, 1, False)
    (unproved,) = rq["unproved"]
    assert (unproved["rq_job"], unproved["status"]) == (jobs[0].id, "stopped")
    assert unproved["worker"] in [each.name for each in Worker.all(yard.redis)]
    assert [yard.status(job) for job in jobs] == ["stopped", "canceled", "canceled"]
    other = yard.queue.enqueue("os.getpid")
    until(lambda: other.get_status().value == "finished", "the worker to go on")
    assert worker.running
    worker.signal(9)  # asked, a plain worker may hang: SIGTERM can reach it where it does not expect that
    worker.end()


def test_swept_while_plain_workers_take(lab: Lab, yard: Yard) -> None:
    """While plain workers take them as fast as they can, nothing of a job stays queued or started."""
    jobs = yard.put_many(400)
    workers = [plain_worker(lab, yard, "high"), plain_worker(lab, yard, "high", "low")]
    until(lambda: yard.queue.count < 390, "them to work")
    ended = lab.call("shutdown", "--job-id", yard.x, "--json")
    assert yard.statuses(jobs) <= {"canceled", "finished", "stopped", "failed"}, ended.err
    assert yard.queue.count == 0
    assert yard.queue.started_job_registry.get_job_ids(cleanup=False) == []
    for worker in workers:
        worker.signal(9)  # asked, a plain worker may hang: SIGTERM can reach it where it does not expect that
        worker.end()
