"""Our worker without an agent, beside RQ's own: what RQ's loses or dies of, ours does not."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from rq import Callback, Queue
from rq.command import send_stop_job_command
from rq.worker import Worker

from tests.harness import MARK, end_with_all, leftovers, surroundings, until
from tests.rq.agent_end import HERE
from tests.strait import Strait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rq.job import Job

PROGRAM = """
import sys
sys.path.append({here!r})
from redis import Redis
from rq.utils import import_attribute
worker = import_attribute({kind!r})({names!r}, name={name!r}, connection=Redis.from_url({url!r}), **{options!r})
worker.work()
"""
OURS, THEIRS = "workers.rq_worker.CoordWorker", "rq.worker.Worker"
both = pytest.mark.parametrize("kind", [OURS, THEIRS])


class Alone:
    """One worker of a kind, on one queue or more, in a process of its own."""

    def __init__(self, url: str, folder: Path, kind: str, names: list[str], **options: object) -> None:
        self.redis = Redis.from_url(url)
        self.token = secrets.token_hex(8)
        self.queues = [Queue(f"{name}-{self.token}", connection=self.redis) for name in names]
        self.queue = self.queues[0]
        self.name = f"alone-{self.token}"
        self.note = folder / f"note-{self.token}"
        program = PROGRAM.format(
            here=HERE,
            kind=kind,
            names=[queue.name for queue in self.queues],
            name=self.name,
            url=options.pop("worker_url", url),
            options=options,
        )
        self._log = (folder / f"log-{self.token}").open("w+b")
        self.popen = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**surroundings(), MARK: self.token},
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        until(lambda: self.state in {"idle", "busy"}, "the worker to work")

    @property
    def state(self) -> str | None:
        """What RQ says that it does."""
        found: Any = self.redis.hget(f"rq:worker:{self.name}", "state")
        return str(found, "ascii") if found else None

    def say(self, text: str) -> None:
        """Wait until the job has said something."""
        until(lambda: self.note.exists() and text in self.note.read_text(), f"a job to say {text}")

    def places(self, job: Job) -> list[str]:
        """Where a job is."""
        found = [queue.name for queue in self.queues if job.id in queue.get_job_ids()]
        found += ["stuck" for queue in self.queues if job.id in queue.intermediate_queue.get_job_ids()]
        status = job.get_status()
        return [*found, status.value] if status and status.value != "queued" else found

    def close(self) -> None:
        """End it."""
        end_with_all(self.popen, self.token)
        self._log.close()
        self.redis.close()


@contextmanager
def alone(url: str, folder: Path, kind: str, names: tuple[str, ...] = ("one",), **options: object) -> Iterator[Alone]:
    """Give a worker that works."""
    worker = Alone(url, folder, kind, list(names), **options)
    try:
        yield worker
    finally:
        worker.close()


@both
def test_a_second_stop_never_kills_the_worker_itself(server: str, tmp_path: Path, kind: str) -> None:
    """`stop-job` again while `on_stopped` runs: there is no horse any more, and RQ's worker kills its own group."""
    with alone(server, tmp_path, kind) as worker:
        callback = Callback("errands.on_stopped", timeout=4)
        job = worker.queue.enqueue("errands.wait", str(worker.note), on_stopped=callback)
        worker.say("begun")
        send_stop_job_command(worker.redis, job.id)
        worker.say("on_stopped")
        for _ in range(3):
            worker.redis.publish(f"rq:pubsub:{worker.name}", f'{{"command": "stop-job", "job_id": "{job.id}"}}')
        if kind == THEIRS:
            assert worker.popen.wait(30) == -signal.SIGKILL
            assert job.get_status() == "started"
        else:
            until(lambda: job.get_status() == "stopped", "the job to be stopped")
            until(lambda: worker.state == "idle", "the worker to go on")


@both
def test_a_cold_shutdown_leaves_no_job_started(server: str, tmp_path: Path, kind: str) -> None:
    """Two signals: the horse is killed, and its job is recorded as one that was; RQ leaves it `started`."""
    with alone(server, tmp_path, kind) as worker:
        job = worker.queue.enqueue("errands.wait", str(worker.note))
        worker.say("begun")
        worker.popen.terminate()
        time.sleep(1.2)  # RQ takes two within a second for one
        worker.popen.terminate()
        assert worker.popen.wait(30) == 0
        assert job.get_status() == ("failed" if kind == OURS else "started")
        assert not leftovers(worker.token)


@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_no_job_is_lost_to_a_signal_at_any_instant(server: str, tmp_path: Path, names: tuple[str, ...]) -> None:
    """A busy queue of tiny jobs, and SIGTERM: each job was done, or is in a queue."""
    import random

    chance = random.Random(f"alone {names}")
    for _ in range(10):
        with alone(server, tmp_path, OURS, names) as worker:
            jobs = [chance.choice(worker.queues).enqueue("errands.add", 1, 2) for _ in range(20)]
            done = jobs[chance.randrange(8)]
            until(lambda done=done: done.get_status() == "finished", "some jobs to be done")  # type: ignore[misc]
            time.sleep(chance.random() * 0.03)
            worker.popen.terminate()
            assert worker.popen.wait(30) == 0
            for job in jobs:
                assert worker.places(job) in ([job.origin], ["finished"])


@pytest.mark.parametrize("names", [("one",), ("one", "two")])
@pytest.mark.parametrize("kind", ["unguarded_workers.SlowOurs", "unguarded_workers.SlowTheirs"])
def test_a_job_that_was_just_taken_is_not_lost_to_a_signal(
    server: str, tmp_path: Path, kind: str, names: tuple[str, ...]
) -> None:
    """SIGTERM between the dequeue and the fork: the job is back in its queue. RQ's is in no queue any more."""
    with alone(server, tmp_path, kind, names) as worker:
        job = worker.queue.enqueue("errands.add", 1, 2)
        until(lambda: worker.redis.exists(f"taken:{worker.name}"), "the job to be taken")
        worker.popen.terminate()
        assert worker.popen.wait(30) == 0
        if "Ours" in kind:
            assert worker.places(job) == [worker.queue.name]
        else:
            assert worker.places(job) == (["stuck"] if len(names) == 1 else [])


@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_a_horse_that_dies_at_once_leaves_its_job_in_one_place(
    server: str, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """It failed, and RQ's list of what may be stuck has it no more: it would fail again."""
    with alone(server, tmp_path, "unguarded_workers.DiesEarly", names) as worker:
        job = worker.queue.enqueue("errands.never", str(worker.note))
        until(lambda: worker.places(job) == ["failed"], "the job to be failed, and nowhere else")


@both
def test_a_heartbeat_that_fails_ends_nothing(server: str, tmp_path: Path, kind: str) -> None:
    """Redis is away for some seconds of a job: it ends, and the worker goes on; RQ's quits, and orphans its horse."""
    strait = Strait(server, tmp_path)
    try:
        with alone(server, tmp_path, kind, worker_url=strait.url, job_monitoring_interval=1) as worker:
            gate = tmp_path / "gate"
            job = worker.queue.enqueue("errands.wait_for", str(worker.note), str(gate))
            worker.say("begun")
            strait.cut()
            if kind == THEIRS:
                assert worker.popen.wait(40) != 0
                assert leftovers(worker.token)
                return
            time.sleep(8.0)  # longer than the client's own patience
            strait.open()
            gate.touch()
            until(lambda: job.get_status() == "finished", "the job to end")
            until(lambda: worker.state == "idle", "the worker to go on")
    finally:
        strait.close()


@both
def test_a_horse_does_not_outlive_its_worker(server: str, tmp_path: Path, kind: str) -> None:
    """The worker is killed: its horse ends, too, before another worker retries the job. RQ's works on."""
    with alone(server, tmp_path, kind) as worker:
        worker.queue.enqueue("errands.wait", str(worker.note))
        worker.say("begun")
        handle = os.pidfd_open(worker.popen.pid)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
        worker.popen.wait()
        if kind == OURS:
            until(lambda: not leftovers(worker.token), "the horse to end")
        else:
            time.sleep(1.0)
            assert leftovers(worker.token)
        assert worker.redis.publish(f"rq:pubsub:{worker.name}", "is anybody there?") == (0 if kind == OURS else 1)


@both
def test_garbage_makes_nobody_deaf(server: str, tmp_path: Path, kind: str) -> None:
    """One message that is no JSON: RQ's worker never hears a command again."""
    with alone(server, tmp_path, kind) as worker:
        job = worker.queue.enqueue("errands.wait", str(worker.note))
        worker.say("begun")
        worker.redis.publish(f"rq:pubsub:{worker.name}", "not json")
        send_stop_job_command(worker.redis, job.id)
        if kind == OURS:
            until(lambda: job.get_status() == "stopped", "the job to be stopped")
        else:
            time.sleep(1.0)
            assert job.get_status() == "started"


@both
def test_a_worker_of_either_kind_can_be_found(server: str, tmp_path: Path, kind: str) -> None:
    """`rq info` and dashboards see ours as they see theirs."""
    with alone(server, tmp_path, kind) as worker:
        found = Worker.find_by_key(f"rq:worker:{worker.name}", connection=worker.redis)
        assert found
        assert found.queue_names() == [worker.queue.name]
        assert found.get_state() == "idle"
