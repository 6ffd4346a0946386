"""Plain RQ workers in the same fleet. Promises: right target only, truthful."""

from __future__ import annotations

import json
import time
from threading import Thread
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from coord.messages import Unproved
from coord.rq import foreign as foreign_module

if TYPE_CHECKING:
    import pytest

    from tests.rqjobs.yard import Yard


def told(ear: Any) -> list[dict[str, Any]]:
    """Everything that a worker was told until now."""
    said = []
    while message := ear.get_message(timeout=0.2):
        said.append(json.loads(message["data"]))
    return said


def test_plain_worker_is_told_once(yard: Yard) -> None:
    """A plain worker gets `stop-execution` once, however often and by however many it is swept: twice can kill it."""
    job = yard.put()
    bench = yard.worker("w9", hosted=False)
    _, execution = bench.run()
    ear = bench.commands()
    yard.stop()
    threads = [Thread(target=yard.sweep, args=(who, 1.5)) for who in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yard.sweep("d", 0.5, again=True)
    assert told(ear) == [{"command": "stop-execution", "job_id": job.id, "execution_id": execution.id}]


def test_plain_worker_is_not_told_before_it_has_forked(yard: Yard) -> None:
    """While its work-horse is not there yet, a stop would make a plain worker kill itself: it is told later."""
    yard.put()
    bench = yard.worker("w9", hosted=False)
    job = bench.take()
    bench.prepare(job)
    ear = bench.commands()
    yard.stop()
    yard.sweep(bound_s=0.5)
    assert told(ear) == []
    bench.start(job)
    yard.sweep(bound_s=0.5, again=True)
    assert len(told(ear)) == 1


def test_control_without_the_guards_it_is_told_early_and_twice(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: with both guards off, a plain worker is told before it has forked, and again and again."""
    monkeypatch.setattr(foreign_module, "_forked", lambda *_: True)
    monkeypatch.setattr(foreign_module, "told_key", lambda _: f"coord:rq:told:{uuid4()}")
    yard.put()
    bench = yard.worker("w9", hosted=False)
    bench.prepare(bench.take())
    ear = bench.commands()
    yard.stop()
    yard.sweep(bound_s=0.5)
    assert len(told(ear)) > 1


def test_plain_worker_has_no_proof(yard: Yard) -> None:
    """What a plain worker ran is named, with its host and what RQ recorded, and the verdict is incomplete."""
    job = yard.put()
    bench = yard.worker("w9", hosted=False)
    job, execution = bench.run()
    ear = bench.commands()
    yard.stop()

    def obeys() -> None:
        while not told(ear):
            pass
        bench.worker._stopped_job_id = job.id
        bench.worker.handle_job_failure(job, yard.queue, exc_string="stopped", execution=execution)

    worker = Thread(target=obeys)
    worker.start()
    swept = yard.sweep()
    worker.join()
    host = bench.worker.hostname
    assert swept.unproved == (Unproved(str(host), "w9", job.id, "stopped", plain=True),)
    assert (swept.stopped, yard.look().rq.stopped, yard.look().verdict) == (1, 1, "incomplete")
    again = yard.sweep("again", again=True)
    assert (again.unproved, again.stopped, yard.look().verdict) == (swept.unproved, 0, "incomplete")


def test_dead_plain_worker_is_not_waited_for(yard: Yard) -> None:
    """What a plain worker ran that RQ has not heard from is named at once; what it left of others, nobody minds."""
    jobs = yard.put_many(2)
    bench = yard.worker("w9", hosted=False)
    for _ in jobs:
        _, execution = bench.run()
        yard.redis.delete(execution.key)
    yard.redis.hset(jobs[1].key, "status", "finished")
    yard.stop()
    began_s = time.monotonic()
    swept = yard.sweep(bound_s=60.0)
    assert time.monotonic() - began_s < 30
    assert [(each.rq_job, each.worker, each.status) for each in swept.unproved] == [(jobs[0].id, "w9", "started")]


def test_hosted_worker_is_not_told_by_rq(yard: Yard) -> None:
    """What a hosted worker runs is its agent's to stop: RQ's commands would kill it at once."""
    yard.put()
    bench = yard.worker("w1")
    bench.run()
    ear = bench.commands()
    yard.stop()
    swept = yard.sweep(bound_s=0.5)
    assert told(ear) == []
    assert [(each.worker, each.status) for each in swept.unproved] == [("w1", "started")]
