"""What of a job waits on RQ is canceled, all of it. Promises: nothing missed, bounded, right target only, truthful."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from rq import Queue, Repeat, Retry
from rq.group import Group
from rq.job import Dependency, Job
from rq.rate_limit import RateLimit

from coord.rq import sweep as sweep_module
from coord.rq.members import look
from coord.rq.where import WORKERS, hand_key
from tests.harness import until

if TYPE_CHECKING:
    from tests.rqjobs.yard import Yard


def everything(yard: Yard) -> list[Job]:
    """Put RQ jobs of every kind that waits, and one level and two levels of what depends on them."""
    later = Queue("later", connection=yard.redis)
    jobs = [
        yard.put(),
        yard.put(retry=Retry(3)),
        yard.put(repeat=Repeat(3, interval=1)),
        yard.put(queue=later, at_front=True),
        *(yard.put(rate_limit=RateLimit("api", 1)) for _ in range(3)),
        later.enqueue_in(timedelta(hours=1), "os.getpid", meta={"coord_job_id": yard.x}),
        later.enqueue("os.getpid", meta={"a": ["coord_job_id"], "coord_job_id": yard.x}),
    ]
    child = yard.queue.enqueue("os.getpid", depends_on=jobs[0])
    failing = yard.queue.enqueue("os.getpid", depends_on=Dependency([jobs[1], jobs[2]], allow_failure=True))
    return [*jobs, child, failing, later.enqueue("os.getpid", depends_on=child)]


def test_all_that_waits_is_canceled(yard: Yard) -> None:
    """Queued, deferred, scheduled, rate-limited, dependents of dependents, enlisted or by meta: all is canceled."""
    jobs = everything(yard)
    others = [yard.queue.enqueue("os.getpid") for _ in range(5)]
    others.append(yard.queue.enqueue("os.getpid", meta={"coord_job_id": yard.x + "-other"}))
    others.append(yard.queue.enqueue("os.getpid", depends_on=others[0]))
    yard.stop()
    swept = yard.sweep()
    assert (swept.word, swept.canceled, swept.unproved) == ("swept", len(jobs), ())
    assert yard.statuses(jobs) == {"canceled"}
    assert yard.statuses(others[:-1]) == {"queued"}
    assert yard.status(others[-1]) == "deferred"
    assert yard.queue.get_job_ids() == [job.id for job in others[:-1]]
    assert Queue("later", connection=yard.redis).count == 0
    assert yard.redis.zcard("rq:rl:api:rate_limited") == yard.redis.zcard("rq:rl:api:allowed") == 0
    assert yard.look().verdict == "clean"
    assert yard.look().rq.canceled == len(jobs)


@pytest.mark.parametrize("count", [1, 300, 3000])
def test_many_are_canceled(yard: Yard, count: int) -> None:
    """However many wait, all are canceled, and the queue keeps what is not theirs, in its order."""
    before = [yard.queue.enqueue("os.getpid") for _ in range(3)]
    yard.put_many(count)
    after = yard.queue.enqueue("os.getpid")
    yard.stop()
    assert yard.sweep().canceled == count
    assert yard.queue.get_job_ids() == [job.id for job in [*before, after]]
    assert len(yard.queue.canceled_job_registry) == count


@pytest.mark.parametrize("kind", ["group", "one"])
def test_what_nobody_enlisted_is_swept_by_its_name(yard: Yard, kind: str) -> None:
    """An RQ group, or one RQ job, is stopped by its own name, though coord never heard of it."""
    group = Group.create(yard.redis, yard.x)
    if kind == "group":
        jobs = group.enqueue_many(yard.queue, [Queue.prepare_data("os.getpid") for _ in range(20)])
    else:
        yard.x = "just-one"
        jobs = [yard.queue.enqueue("os.getpid", job_id=yard.x)]
    from coord.record import Record

    yard.record = Record(yard.x)
    other = yard.queue.enqueue("os.getpid")
    yard.ledger.run(yard.record.request(wish(yard), None, fence_unknown=True, rq=True))
    assert yard.sweep().canceled == len(jobs)
    assert yard.statuses(jobs) == {"canceled"}
    assert yard.queue.get_job_ids() == [other.id]


def wish(yard: Yard) -> Any:
    from coord.coordinator import new_request
    from coord.messages import Cause

    return new_request(yard.x, Cause.OPERATOR, "op@desk", "")


def test_what_has_ended_stays_as_it_ended(yard: Yard) -> None:
    """Finished, failed and canceled RQ jobs stay what they are."""
    jobs = yard.put_many(3)
    for job, status in zip(jobs, ("finished", "failed", "canceled"), strict=True):
        yard.queue.remove(job)
        yard.redis.hset(job.key, "status", status)
    yard.stop()
    assert yard.sweep().canceled == 0
    assert [yard.status(job) for job in jobs] == ["finished", "failed", "canceled"]


def test_one_in_a_hand_is_left_to_its_worker(yard: Yard) -> None:
    """A hosted worker that has taken an RQ job asks the fence: until it has, there is no word that all is swept."""
    jobs = yard.put_many(3)
    bench = yard.worker("w1")
    bench.take()
    yard.stop()
    swept = yard.sweep(bound_s=1.0)
    assert (swept.canceled, yard.status(jobs[0])) == (2, "queued")
    assert [each.rq_job for each in swept.unproved] == [jobs[0].id]
    assert yard.look().verdict == "incomplete"


def test_one_that_leaves_a_hand_is_found(yard: Yard) -> None:
    """What was on its way when the sweep began is found where it comes to: back in its queue, or running."""
    jobs = yard.put_many(2)
    bench = yard.worker("w1")
    bench.take()
    yard.stop()
    sweeper = yard.sweeper()
    sweeper._index = dict(yard.ledger.rq_jobs(yard.record))
    sweeper._round(deep=True)
    assert set(sweeper._left) == {jobs[0].id}
    yard.settle("w1")
    assert yard.sweep().canceled == 2
    assert yard.statuses(jobs) == {"canceled"}


def test_lost_one_is_canceled_in_the_end(yard: Yard) -> None:
    """An RQ job that a plain worker took and lost stands in no list: after a while it is canceled all the same."""
    jobs = yard.put_many(2)
    yard.worker("w9", hosted=False).take()
    yard.stop()
    assert yard.sweep().canceled == 2
    assert yard.statuses(jobs) == {"canceled"}


def test_several_sweep_at_once_without_harm(yard: Yard) -> None:
    """Sweepers that know nothing of each other cancel each RQ job once, and raise nothing."""
    jobs = yard.put_many(600)
    yard.stop()
    done: list[str] = []

    def work(who: str) -> None:
        sweeper = yard.sweeper(who)
        sweeper._index = dict(yard.ledger.rq_jobs(yard.record))
        while sweeper._left or not sweeper._known:
            sweeper._round(deep=True)
        done.append(who)

    threads = [Thread(target=work, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4
    assert yard.statuses(jobs) == {"canceled"}
    assert len(yard.queue.canceled_job_registry) == 600


def begun_meanwhile(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Scenario: between the last look at an RQ job and its cancellation, a worker begins it."""
    from coord.rq import cancel as cancel_module

    jobs = yard.put_many(3)
    bench = yard.worker("w1")
    begun: list[str] = []

    def begins(connection: Any, ids: Any) -> Any:
        found = look(connection, ids)
        if not begun:
            begun.append(bench.run()[0].id)
        return found

    monkeypatch.setattr(cancel_module, "look", begins)
    yard.stop()
    yard.sweep(bound_s=0.5)
    assert begun == [jobs[0].id]
    return yard.statuses([jobs[0]])


def test_one_that_was_begun_meanwhile_is_not_called_canceled(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """An RQ job that starts while it is being canceled is not called canceled while it runs."""
    assert begun_meanwhile(yard, monkeypatch) == {"started"}


def test_control_without_the_watch_a_running_one_is_called_canceled(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: without the watch on it, RQ has a running job as canceled."""
    from redis.client import Pipeline

    monkeypatch.setattr(Pipeline, "watch", lambda *_: True)
    assert begun_meanwhile(yard, monkeypatch) == {"canceled"}


def late_one(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> str:
    """Scenario: an RQ job of the job is enqueued by its meta, by a cron for example, right after the first look."""
    yard.put()
    late: list[Job] = []
    real = sweep_module.Sweep._round

    def rounds(self: sweep_module.Sweep, *, deep: bool) -> None:
        real(self, deep=deep)
        if not late:
            late.append(yard.queue.enqueue("os.getpid", meta={"coord_job_id": yard.x}))

    monkeypatch.setattr(sweep_module.Sweep, "_round", rounds)
    yard.stop()
    yard.sweep()
    return yard.status(late[0])


def test_late_ones_are_found(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep looks again before it says that nothing is left: what came in between is canceled, too."""
    assert late_one(yard, monkeypatch) == "canceled"


def test_control_with_one_look_the_late_one_stays(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a sweep that looks once leaves the late one queued."""

    def once(self: sweep_module.Sweep) -> None:
        self._round(deep=True)

    monkeypatch.setattr(sweep_module.Sweep, "_until_quiet", once)
    assert late_one(yard, monkeypatch) == "queued"


def test_another_redis_is_not_called_swept(yard: Yard) -> None:
    """Where there never was a queue of the job, nobody claims to have swept it: its RQ jobs are elsewhere."""
    yard.put()
    yard.stop()
    yard.redis.delete("rq:queues")
    assert yard.sweep().word == "elsewhere"
    assert yard.look().verdict is None


def test_reading_changes_nothing(yard: Yard) -> None:
    """A sweep that finds abandoned RQ jobs of others lets RQ's clean-up be: looking fails and retries nobody."""
    other = yard.queue.enqueue("os.getpid")
    bench = yard.worker("w9", hosted=False)
    _, execution = bench.run()
    yard.redis.zadd(yard.queue.started_job_registry.key, {execution.composite_key: 1})
    yard.put()
    yard.stop()
    assert yard.sweep().canceled == 1
    assert yard.status(other) == "started"
    assert yard.queue.started_job_registry.get_job_ids(cleanup=False) == [other.id]


def test_keys_are_those_of_the_contract() -> None:
    """Hosted workers and sweepers mean the same keys."""
    assert (WORKERS, hand_key("w", "q")) == ("coord:rq:workers", "coord:rq:hand:w:q")


def test_outage_in_between_costs_nothing(yard: Yard) -> None:
    """A server that hangs for longer than we wait for an answer, in the middle of a sweep, is waited for."""
    jobs = yard.put_many(2000)
    yard.stop()
    sweeper = yard.sweeper(bound_s=40.0)
    with ThreadPoolExecutor(1) as thread:
        swept = thread.submit(sweeper.run)
        until(lambda: len(yard.queue.canceled_job_registry) > 0, "some to be canceled")
        yard.redis.client_pause(7000)
        assert swept.result().word == "swept"
    assert yard.statuses(jobs) == {"canceled"}
    assert yard.look().rq.canceled == yard.look().rq.jobs == 2000
