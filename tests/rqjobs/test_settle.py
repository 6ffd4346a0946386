"""What dead workers were at is written in RQ as it was. Promises: our own death is safe, truthful, idempotent."""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING

import pytest
from rq import Queue, Retry, Worker
from rq.job import Job
from rq.rate_limit import RateLimit

from coord.rq import settle as settle_module
from coord.rq.dead import put_lost_hands_back
from coord.rq.where import WORKERS, hand_key

if TYPE_CHECKING:
    from tests.rqjobs.yard import Bench, Yard


def nothing_left(yard: Yard, bench: Bench) -> None:
    """RQ knows nothing of the dead worker, and has nothing running."""
    assert yard.queue.started_job_registry.get_job_ids(cleanup=False) == []
    assert yard.redis.keys("rq:execution:*") == []
    assert not yard.redis.exists(f"rq:worker:{bench.name}:executions")
    assert not yard.redis.exists(hand_key(bench.name, "high"))
    assert bench.name.encode() not in yard.redis.smembers(WORKERS)
    assert bench.name not in [worker.name for worker in Worker.all(yard.redis)]


def test_running_one_goes_back_to_the_front(yard: Yard) -> None:
    """What a dead worker was running is the next to run, as if it had not been taken, and its attempts are its own."""
    first = yard.put(retry=Retry(3, interval=5))
    others = yard.put_many(3)
    bench = yard.worker("w1")
    job, _ = bench.run()
    assert job.id == first.id
    settled = yard.settle("w1")
    assert (settled.requeued, settled.put_back) == (1, 0)
    job = Job.fetch(first.id, connection=yard.redis)
    assert job.get_status().value == "queued"
    assert (job.retries_left, job.number_of_retries, job.worker_name, job.started_at) == (3, None, None, None)
    assert yard.queue.get_job_ids() == [first.id, *(each.id for each in others)]
    nothing_left(yard, bench)


def test_several_go_back_in_their_order(yard: Yard) -> None:
    """What several dead workers were running stands in its queue again in the order in which it stood there."""
    jobs = yard.put_many(6)
    names = ["w3", "w1", "w4", "w2"]
    for name in names:
        yard.worker(name).run()
    assert yard.settle(*names).requeued == 4
    assert yard.queue.get_job_ids() == [job.id for job in jobs]


def test_one_in_the_hand_goes_back_to_the_front(yard: Yard) -> None:
    """What was taken and not begun is the next to run; of what was canceled meanwhile, nothing comes back."""
    jobs = yard.put_many(4)
    bench = yard.worker("w1")
    taken = [bench.take(), bench.take()]
    taken[0].cancel()
    settled = yard.settle("w1")
    assert (settled.requeued, settled.put_back) == (0, 1)
    assert yard.queue.get_job_ids() == [job.id for job in jobs[1:]]
    nothing_left(yard, bench)


@pytest.mark.parametrize("steps", ["taken", "prepared in hand", "prepared", "started in hand", "started"])
def test_whenever_the_worker_dies_it_is_in_one_place(yard: Yard, steps: str) -> None:
    """At whichever step the worker died, the RQ job is in its queue once, and nowhere else."""
    jobs = yard.put_many(2)
    bench = yard.worker("w1")
    job = bench.take()
    if "prepared" in steps or "started" in steps:
        bench.worker.prepare_execution(job)
    if "started" in steps:
        bench.start(job)
    if not steps.endswith("hand") and steps != "taken":
        yard.redis.lrem(hand_key("w1", "high"), 1, job.id)
    yard.settle("w1")
    assert yard.queue.get_job_ids() == [job.id for job in jobs]
    assert yard.statuses(jobs) == {"queued"}
    nothing_left(yard, bench)


def test_control_without_emptying_the_hand_it_would_run_twice(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: when what was running is not taken out of the hand, it stands in its queue twice."""
    monkeypatch.setattr(settle_module, "drop", lambda *_: None)
    job = yard.put()
    bench = yard.worker("w1")
    bench.start(bench.take())
    bench.worker.prepare_execution(job)
    yard.settle("w1")
    assert yard.queue.get_job_ids() == [job.id, job.id]


@pytest.mark.parametrize(("how", "status"), [("stopped", "stopped"), ("failed", "failed")])
def test_running_one_ends_as_it_was_told(yard: Yard, how: str, status: str) -> None:
    """A dead worker's RQ job is stopped or failed by RQ's own code, with our words as its result."""
    job = yard.put()
    bench = yard.worker("w1")
    bench.run()
    settled = yard.settle("w1", how=how)  # type: ignore[arg-type]
    assert {"stopped": settled.stopped, "failed": settled.failed}[how] == 1
    assert yard.status(job) == status
    assert job.id in yard.queue.failed_job_registry.get_job_ids(cleanup=False)
    result = job.latest_result()
    assert result is not None
    assert result.exc_string == "the host was lost"
    nothing_left(yard, bench)


def test_stopped_one_is_not_retried_and_failed_one_is(yard: Yard) -> None:
    """A retry is RQ's business: what failed is tried again if it has retries left; what was stopped is not."""
    jobs = [yard.put(retry=Retry(2)) for _ in range(2)]
    for name in ("w1", "w2"):
        yard.worker(name).run()
    yard.settle("w1", how="stopped")
    yard.settle("w2", how="failed")
    assert [yard.status(job) for job in jobs] == ["stopped", "queued"]
    assert [Job.fetch(job.id, connection=yard.redis).retries_left for job in jobs] == [2, 1]


def test_what_has_ended_stays_as_it_ended(yard: Yard) -> None:
    """A work-horse that wrote its result before its worker died has done so: the RQ job runs no second time."""
    job = yard.put()
    bench = yard.worker("w1")
    job, execution = bench.run()
    job.ended_at = job.started_at
    bench.worker.handle_job_success(job, yard.queue, yard.queue.started_job_registry, execution)
    yard.redis.sadd("rq:worker:w1:executions", execution.composite_key)
    assert yard.settle("w1").requeued == 0
    assert yard.status(job) == "finished"
    assert yard.queue.get_job_ids() == []
    nothing_left(yard, bench)


def test_retried_one_is_not_put_back_twice(yard: Yard) -> None:
    """An RQ job that stands in its queue again already is not put there a second time."""
    job = yard.put()
    bench = yard.worker("w1")
    taken = bench.take()
    bench.prepare(taken)
    yard.queue.push_job_id(job.id)
    yard.settle("w1")
    assert yard.queue.get_job_ids() == [job.id]
    nothing_left(yard, bench)


def test_one_that_runs_elsewhere_is_left_alone(yard: Yard) -> None:
    """An RQ job that another worker runs by now is not touched; only the dead worker's execution goes."""
    yard.put()
    dead, alive = yard.worker("w1"), yard.worker("w2")
    job, _ = dead.run()
    alive.prepare(job)
    alive.start(job)
    yard.settle("w1")
    assert yard.status(job) == "started"
    assert yard.queue.get_job_ids() == []
    assert len(yard.queue.started_job_registry.get_job_ids(cleanup=False)) == 1


def test_one_of_a_fenced_job_is_stopped(yard: Yard) -> None:
    """A worker that died while its job was shut down leaves an RQ job that is stopped, not one that starts again."""
    job = yard.put()
    bench = yard.worker("w1")
    bench.run()
    yard.stop(reason="enough")
    settled = yard.settle("w1")
    assert (settled.stopped, settled.stopped_of) == (1, {yard.x: 1})
    assert yard.status(job) == "stopped"
    result = job.latest_result()
    assert result is not None
    assert "enough" in (result.exc_string or "")


def test_forgotten_execution_is_found(yard: Yard) -> None:
    """A host that comes back after RQ has forgotten the execution still finds what its workers were running."""
    job = yard.put()
    bench = yard.worker("w1")
    _, execution = bench.run()
    yard.redis.delete(execution.key, "rq:worker:w1:executions", "rq:worker:w1")
    assert yard.settle("w1").requeued == 1
    assert yard.queue.get_job_ids() == [job.id]


def test_deleted_rq_job_leaves_nothing(yard: Yard) -> None:
    """An RQ job that a user deleted while it ran comes not back, and no trace of it breaks RQ's dashboard."""
    job = yard.put()
    bench = yard.worker("w1")
    bench.run()
    yard.redis.delete(job.key)
    yard.settle("w1")
    assert yard.queue.get_job_ids() == []
    nothing_left(yard, bench)


def test_rate_limited_one_keeps_its_slot(yard: Yard) -> None:
    """A requeued RQ job that holds a slot of its rate limit keeps it: nobody else gets in before it."""
    jobs = [yard.put(rate_limit=RateLimit("api", 1)) for _ in range(2)]
    assert [yard.status(job) for job in jobs] == ["queued", "rate_limited"]
    yard.worker("w1").run()
    yard.settle("w1")
    assert yard.queue.get_job_ids() == [jobs[0].id]
    assert [yard.status(job) for job in jobs] == ["queued", "rate_limited"]


@pytest.mark.parametrize("how", ["requeued", "stopped", "failed"])
def test_settling_again_and_at_once_changes_nothing(yard: Yard, how: str) -> None:
    """Several that settle the same dead workers at once, and again later, make of each RQ job one outcome."""
    jobs = yard.put_many(12)
    names = [f"w{number}" for number in range(8)]
    for number, name in enumerate(names):
        bench = yard.worker(name)
        bench.take() if number % 2 else bench.run()
    threads = [Thread(target=lambda: yard.settle(*names, how=how)) for _ in range(4)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yard.settle(*names, how=how)  # type: ignore[arg-type]
    queued = yard.queue.get_job_ids()
    ended = [job.id for job in jobs if yard.status(job) != "queued"]
    assert sorted(queued + ended) == sorted(job.id for job in jobs)
    assert len(ended) == (0 if how == "requeued" else 4)
    for job in jobs:
        assert len(job.results()) == (job.id in ended)
    assert yard.redis.keys("coord:rq:hand:*") == []


def test_plain_workers_are_not_found_by_prefix(yard: Yard) -> None:
    """An agent's workers are found by its id; plain workers, and those of other agents, are left alone."""
    from coord.rq import duties

    for name in ("a-1-x-1", "a-1-x-2", "b-1-x-1"):
        yard.worker(name)
    yard.worker("a-1-x-9", hosted=False)
    said = duties.settle(
        {"prefix": "a-1-x-", "rq_url": yard.url, "as": "requeued", "words": "", "record_url": yard.url}
    )
    assert said["workers"] == 2
    assert sorted(yard.redis.smembers(WORKERS)) == [b"b-1-x-1"]
    assert sorted(worker.name for worker in Worker.all(yard.redis)) == ["a-1-x-9", "b-1-x-1"]


def test_other_queues_and_serializers(yard: Yard) -> None:
    """A worker of several queues is settled in each, and an RQ job keeps the data that its own serializer wrote."""
    low = Queue("low", connection=yard.redis, serializer="json")
    job = yard.put(1, queue=low, meta={"mine": 1})
    bench = yard.worker("w1", queue=low)
    bench.run()
    yard.settle("w1")
    assert low.get_job_ids() == [job.id]
    found = Job.fetch(job.id, connection=yard.redis, serializer=low.serializer)
    assert (found.args, found.meta["mine"]) == ([1], 1)


def test_what_lost_hosts_had_goes_back(yard: Yard) -> None:
    """What a host that never comes back had taken and not begun goes back; what live workers have stays with them."""
    jobs = yard.put_many(3)
    lost, alive = yard.worker("a-1-x-1"), yard.worker("b-1-x-1")
    lost.take()
    alive.take()
    yard.redis.delete("rq:worker:a-1-x-1")
    assert put_lost_hands_back(yard.redis) == 1
    assert yard.queue.get_job_ids() == [jobs[0].id, jobs[2].id]
    assert sorted(yard.redis.smembers(WORKERS)) == [b"b-1-x-1"]  # nothing is left of the other one


def test_a_lost_worker_is_known_as_long_as_rq_has_something_of_it(yard: Yard) -> None:
    """What it ran would else be taken for a plain worker's; with that settled, its name goes too."""
    yard.put(1)
    yard.worker("a-1-x-1").run()
    yard.redis.delete("rq:worker:a-1-x-1")
    assert put_lost_hands_back(yard.redis) == 0
    assert yard.redis.sismember(WORKERS, "a-1-x-1")
    yard.settle("a-1-x-1")
    assert not yard.redis.smembers(WORKERS)
