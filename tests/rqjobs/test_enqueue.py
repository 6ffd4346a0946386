"""RQ jobs are enqueued as parts of a job, or refused. Promises: fenced, nothing missed."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from rq import Callback, Queue
from rq.group import Group
from rq.job import Job

import coord.rq as producers
from coord.errors import RefusedError, UsageError
from coord.rq import enqueue, enqueue_many
from coord.rq.members import batches
from tests.harness import until
from tests.rqjobs.yard import FUNCTION

if TYPE_CHECKING:
    from tests.rqjobs.yard import Yard


def test_enqueued_as_rq_does(yard: Yard) -> None:
    """What `queue.enqueue` takes goes to it as it is, and the RQ job knows its job; the record knows it, too."""
    first = yard.put()
    job = enqueue(
        yard.queue,
        "json.dumps",
        [1],
        rq_job_id="mine",
        job_id=yard.x,
        on_failure="ignore",
        rq_on_failure=Callback("os.getpid"),
        record_url=yard.url,
        depends_on=first,
        meta={"a": 1},
        job_timeout=7,
        indent=2,
    )
    found = Job.fetch("mine", connection=yard.redis)
    assert found.meta == {"a": 1, "coord_job_id": yard.x, "coord_on_failure": "ignore"}
    assert (found.args, found.kwargs, found.timeout, found.get_status().value) == (([1],), {"indent": 2}, 7, "deferred")
    assert found._failure_callback_name == "os.getpid"
    assert dict(yard.ledger.rq_jobs(yard.record)) == {first.id: "high", job.id: "high"}
    assert yard.x in [snapshot.job_id for snapshot in yard.coordinator.jobs()]


def test_many_at_once(yard: Yard) -> None:
    """Hundreds are enlisted and enqueued in one call each; their ids and metas stay, and a group can have them."""
    datas = [Queue.prepare_data("json.dumps", (n,), job_id=f"n{n}", meta={"n": n}) for n in range(300)]
    jobs = enqueue_many(yard.queue, iter(datas), job_id=yard.x, group="g", record_url=yard.url)
    assert [job.id for job in jobs] == yard.queue.get_job_ids() == [f"n{n}" for n in range(300)]
    assert jobs[7].meta == {"n": 7, "coord_job_id": yard.x, "coord_on_failure": "stop"}
    assert len(Group.fetch("g", yard.redis).get_jobs()) == 300
    assert yard.look().rq.jobs == 300
    assert enqueue_many(yard.queue, [], job_id=yard.x, record_url=yard.url) == []


def test_record_is_where_it_was_said(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is where the call says, else where COORD_REDIS_URL says, else in the queue's own Redis."""
    monkeypatch.delenv("COORD_REDIS_URL", raising=False)
    enqueue(yard.queue, FUNCTION, job_id=yard.x)
    assert yard.look().rq.jobs == 1
    monkeypatch.setenv("COORD_REDIS_URL", yard.url)
    nowhere = Queue("high", connection=Redis.from_url("unix:///no/such.sock"))
    with pytest.raises(Exception, match="No such file"):
        enqueue(nowhere, FUNCTION, job_id=yard.x)
    assert yard.look().rq.jobs == 2
    nowhere.connection.close()


@pytest.mark.parametrize("words", [{"job_id": ""}, {"job_id": "a{b}"}, {"job_id": "x", "on_failure": "maybe"}])
def test_what_can_t_be_is_refused_first(yard: Yard, words: dict[str, Any]) -> None:
    """A job id that can't be, and a policy that there isn't, are usage errors, and nothing is enqueued."""
    with pytest.raises(UsageError):
        enqueue(yard.queue, FUNCTION, record_url=yard.url, **words)
    assert yard.queue.count == 0
    assert yard.redis.keys("coord:*") == []


def test_fenced_job_gets_no_more(yard: Yard) -> None:
    """Once a job was shut down, nothing of it is enqueued, one or many, and the error says who forbade it."""
    yard.put()
    yard.stop(reason="enough")
    yard.sweep()
    with pytest.raises(RefusedError, match="enough"):
        yard.put()
    with pytest.raises(RefusedError, match="was shut down by"):
        yard.put_many(3)
    assert yard.queue.count == 0
    assert yard.look().rq.jobs == 1


def test_index_stays_bounded(yard: Yard) -> None:
    """A job that is used for years keeps what RQ still knows, and not each RQ job that it ever had."""
    first = yard.put()
    old = [f"old{number}" for number in range(99_999)]
    for some in batches(old, 5000):
        assert yard.ledger.run(yard.record.enlist(dict.fromkeys(some, "high"))).word == "enlisted"
    last = yard.put()
    assert set(dict(yard.ledger.rq_jobs(yard.record))) == {first.id, last.id}


def between(yard: Yard, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Scenario: the job is shut down and swept between the enlisting of an RQ job and its enqueuing."""
    real = getattr(Queue, name)

    def late(self: Queue, *args: Any, **words: Any) -> Any:
        monkeypatch.setattr(Queue, name, real)
        yard.stop()
        assert (swept := yard.sweep()).word == "swept"
        assert swept.canceled == 0
        return real(self, *args, **words)

    monkeypatch.setattr(Queue, name, late)
    yard.redis.sadd("rq:queues", yard.queue.key)  # it was used before


@pytest.mark.parametrize("name", ["enqueue", "enqueue_many"])
def test_stopped_in_between_is_taken_back(yard: Yard, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A producer that was too late to be refused and too early to be swept takes its RQ jobs back itself."""
    between(yard, monkeypatch, name)
    with pytest.raises(RefusedError):
        yard.put() if name == "enqueue" else yard.put_many(3)
    assert yard.queue.count == 0
    assert yard.look().rq.canceled == (1 if name == "enqueue" else 3)


def test_control_without_the_second_look_it_stays(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without the look after, an RQ job of a job that was swept stands in the queue."""
    between(yard, monkeypatch, "enqueue")
    monkeypatch.setattr(producers._Index, "check", lambda *_: None)
    yard.put()
    assert yard.queue.count == 1


def test_producers_that_go_on_get_nowhere(yard: Yard) -> None:
    """However many enqueue while the job is shut down: in the end nothing of it is queued, each was told."""
    begun = Event()

    def produce(number: int) -> int:
        queue = Queue("high", connection=Redis.from_url(yard.url))
        count = 0
        try:
            while count < 5000:
                yard.put(number, queue=queue) if number % 2 else yard.put_many(20)
                count += 1
                if count == 5:
                    begun.set()
        except RefusedError:
            return count
        finally:
            queue.connection.close()
        raise AssertionError("nobody refused it")

    yard.put()
    with ThreadPoolExecutor(4) as threads:
        counts = [threads.submit(produce, number) for number in range(4)]
        begun.wait(20)
        yard.stop()
        swept = yard.sweep()
        assert max(each.result() for each in counts) >= 5
    assert (swept.word, yard.queue.count) == ("swept", 0)
    statuses = [Job(each, connection=yard.redis) for each, _ in yard.ledger.rq_jobs(yard.record)]
    found = {job.get_status().value for job in statuses if yard.redis.exists(job.key)}
    assert found == {"canceled"}
    assert yard.look().rq.canceled == len(yard.queue.canceled_job_registry)


def test_plain_worker_runs_it_as_any_other(yard: Yard, lab: Any) -> None:
    """An RQ job that was enqueued so runs on a plain `rq worker`: nothing of ours is needed there."""
    job = enqueue(yard.queue, json.dumps, {"a": 1}, job_id=yard.x, record_url=yard.url)
    rq = os.path.join(os.path.dirname(sys.executable), "rq")  # noqa: PTH118, PTH120
    ended = lab.call("worker", "--burst", "--url", yard.url, "high", program=rq)
    assert ended.code == 0, ended.err
    until(lambda: job.get_status().value == "finished", "it to finish")
    assert job.return_value() == '{"a": 1}'
