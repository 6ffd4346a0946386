"""Whatever coord does, what it leaves in Redis goes by itself, or has an owner who takes it away. Promise: bounded."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import TYPE_CHECKING

import redis
from rq import Queue

from coord.keys import JOBS_INDEX, OWNED
from coord.ledger import Ledger
from coord.rq import enqueue, enqueue_many
from tests.harness import Lab, private_server, until

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKS = ("worker", "lifetimes", "-n", "1")


def for_ever(raw: redis.Redis) -> list[str]:
    """Give the keys that no server would ever drop and nobody owns; RQ's own are RQ's affair."""
    keys = sorted(key.decode() for key in raw.scan_iter(count=1000))
    assert keys
    return [
        key
        for key in keys
        if raw.ttl(key) == -1 and not key.startswith("rq:") and not any(fnmatch(key, owned) for owned in OWNED)
    ]


def a_batch_of_everything(lab: Lab, raw: redis.Redis) -> Iterator[str]:
    """Scenario: all that writes to Redis is done once; gives its name after each."""
    queue = Queue("lifetimes", connection=raw)
    lab.call("run", "--job-id", "ends", "--", "true")
    yield "run"
    lab.call("run", "--job-id", "fails", "--", "false")
    yield "run that fails"
    started = lab.run("stops", "sleep", "60")
    yield "run that goes on"
    lab.call("shutdown", "--job-id", "stops", "--grace", "9s")
    started.end()
    lab.call("shutdown", "--job-id", "stops", "--now")
    yield "shutdown, twice"
    lab.call("shutdown", "--job-id", "never", "--fence")
    yield "shutdown --fence"
    lab.call("doctor")
    yield "doctor"
    enqueue(queue, "time.sleep", 60, job_id="group")
    enqueue_many(queue, [Queue.prepare_data("time.sleep", (60,))] * 3, job_id="group")
    yield "enqueue"
    worker = lab.start(*WORKS)
    until(lambda: lab.status("group")["agents"], "a worker to begin")
    yield "worker at work"
    lab.call("shutdown", "--job-id", "group")
    yield "shutdown of RQ jobs"
    worker.popen.terminate()
    worker.end()
    yield "worker that left"
    killed = lab.start(*WORKS)
    enqueue(queue, "time.sleep", 60, job_id="killed")
    until(lambda: (lab.status("killed") or {"agents": ()})["agents"], "a worker to begin")
    killed.popen.kill()
    killed.end()
    yield "worker whose guardian was killed"
    for command in ("jobs", "agents", "status"):
        lab.call(command)
    yield "lists"


def test_every_key_has_a_lifetime_or_an_owner() -> None:
    """After a batch of everything, each key of coord's expires, but for those of which `keys.OWNED` names the owner."""
    with private_server() as url, redis.Redis.from_url(url) as raw:
        lab = _lab(url)
        try:
            for done in a_batch_of_everything(lab, raw):
                assert for_ever(raw) == [], done
            assert raw.ttl(JOBS_INDEX) > 0
            raw.persist(JOBS_INDEX)
            assert for_ever(raw) == [JOBS_INDEX]  # this test does look
        finally:
            left = lab.left()
            lab.close()
            lab.ledger.close()
    assert not left


def _lab(url: str) -> Lab:
    folder = url.removeprefix("unix://").rpartition("/")[0]
    return Lab({"COORD_REDIS_URL": url, "COORD_RUNTIME_DIR": folder, "RQ_REDIS_URL": url}, Ledger(url))
