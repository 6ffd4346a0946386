"""The eyes of these tests: what is in exactly one place is seen to be, and what was planted wrong is found."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from rq import RateLimit

from tests.rq.state import HANDS, faults

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tests.rq.fleet import Fleet

QUEUE, FINISHED, FAILED = "rq:queue:default", "rq:finished:default", "rq:failed:default"


def _lose(server: redis.Redis, job: str) -> None:
    server.lrem(QUEUE, 0, job)


def _double(server: redis.Redis, job: str) -> None:
    server.rpush(QUEUE, job)


def _twice(server: redis.Redis, job: str) -> None:
    server.zadd(FINISHED, {job: 1})


def _strand(server: redis.Redis, job: str) -> None:
    server.lmove(QUEUE, f"{QUEUE}:intermediate", "LEFT", "RIGHT")
    assert server.lrange(f"{QUEUE}:intermediate", 0, -1) == [job]


def _keep(server: redis.Redis, job: str) -> None:
    server.lmove(QUEUE, f"{HANDS}a-1:default", "LEFT", "RIGHT")
    assert server.lrange(f"{HANDS}a-1:default", 0, -1) == [job]


def _start(server: redis.Redis, job: str) -> None:
    server.lrem(QUEUE, 0, job)
    server.zadd("rq:wip:default", {f"{job}:execution": 1})
    server.hset(f"rq:job:{job}", "status", "started")


def _lie(server: redis.Redis, job: str) -> None:
    server.hset(f"rq:job:{job}", "status", "finished")


def _delete(server: redis.Redis, job: str) -> None:
    server.delete(f"rq:job:{job}")


def _misplace(server: redis.Redis, job: str) -> None:
    server.lrem(QUEUE, 0, job)
    server.zadd(FAILED, {job: 1})


PLANTED = {
    "lost": (_lose, "queued, in no place: lost"),
    "in its queue twice": (_double, "queued, in queue:default and queue:default"),
    "in two places": (_twice, "queued, in queue:default and finished:default"),
    "in the intermediate queue": (_strand, "queued, stranded in intermediate:default"),
    "in a worker's hand": (_keep, "queued, stranded in hand:a-1:default"),
    "started for ever": (_start, "started, stranded in wip:default"),
    "status untrue": (_lie, "finished, but in queue:default"),
    "without a hash": (_delete, "no hash, but in queue:default"),
    "in the wrong registry": (_misplace, "queued, but in failed:default"),
}


@pytest.mark.parametrize(("plant", "fault"), PLANTED.values(), ids=PLANTED)
def test_what_is_wrong_is_found(fleet: Fleet, plant: Callable[[redis.Redis, str], None], fault: str) -> None:
    """Each way in which a job can be lost, doubled or stranded is told, and of no other job."""
    wronged, well = fleet.enqueue("tiny"), fleet.enqueue("tiny")
    assert fleet.faults() == {}
    plant(fleet.connection, wronged.id)
    assert fleet.faults() == {wronged.id: fault}
    assert fleet.state().places[well.id] == ("queue:default",)


def test_what_is_at_work_is_no_fault_while_somebody_works(fleet: Fleet) -> None:
    """In a hand, in RQ's intermediate queue or started: right while workers run, and wrong when none does."""
    jobs = [fleet.enqueue("tiny") for _ in range(3)]
    for plant, job in zip((_strand, _keep, _start), jobs, strict=True):
        plant(fleet.connection, job.id)
    state = fleet.state()
    assert faults(state, at_rest=False) == {}
    assert set(faults(state)) == {job.id for job in jobs}


@pytest.mark.parametrize("kind_of_server", ["valkey", "redis"])
def test_every_place_of_rq_is_known(fleet: Fleet) -> None:
    """Wherever RQ itself puts a job, it is found there, with RQ's own status."""
    queue = fleet.queue("default")
    first = fleet.enqueue("polite")
    waiting = fleet.enqueue("tiny", depends_on=first)
    canceled = fleet.enqueue("tiny")
    canceled.cancel()
    scheduled = queue.enqueue_in(timedelta(hours=1), "jobs.tiny")
    fleet.jobs[scheduled.id] = "default"
    limited = [fleet.enqueue("tiny", rate_limit=RateLimit("few", 1)) for _ in range(2)]
    assert fleet.faults() == {}
    kinds = {job.id: fleet.state().places[job.id][0].split(":")[0] for job in (first, waiting, canceled, scheduled)}
    assert list(kinds.values()) == ["queue", "deferred", "canceled", "scheduled"]
    assert [fleet.state().status[job.id] for job in limited] == ["queued", "rate_limited"]


def test_to_look_changes_nothing(fleet: Fleet) -> None:
    """Looking leaves every key as it was, also where RQ's own looking would fail an abandoned job."""
    job = fleet.enqueue("tiny")
    _start(fleet.connection, job.id)
    dump = _dump(fleet.rq)
    fleet.faults()
    assert _dump(fleet.rq) == dump
    assert fleet.queue("default").started_job_registry.count == 0  # RQ's: it cleans up
    assert _dump(fleet.rq) != dump


def _dump(server: redis.Redis) -> dict[bytes, object]:
    return {key: server.dump(key) for key in sorted(server.scan_iter(count=1000))}
