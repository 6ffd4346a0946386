"""One job and its RQ jobs, with workers that do exactly what they are told: RQ's own steps, one at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from redis import Redis
from rq import Queue, Worker
from rq.job import Job

from coord.record import Record
from coord.rq import enqueue, enqueue_many
from coord.rq.settle import Settle
from coord.rq.sweep import Sweep
from coord.rq.where import WORKERS, connect, hand_key

if TYPE_CHECKING:
    from coord.coordinator import Coordinator
    from coord.ledger import Ledger
    from coord.rq.settle import As, Settled
    from coord.rq.sweep import Swept
    from coord.snapshot import Snapshot

FUNCTION = "os.getpid"
WORDS = "the host was lost"


class Yard:
    """`x`: the job's id."""

    def __init__(self, url: str, ledger: Ledger, coordinator: Coordinator, x: str) -> None:
        self.url = url
        self.x = x
        self.ledger = ledger
        self.record = Record(x)
        self.coordinator = coordinator
        self.redis = Redis.from_url(url)
        self.queue = Queue("high", connection=self.redis)

    def put(self, *args: Any, queue: Queue | None = None, **words: Any) -> Job:
        """Enqueue an RQ job of the job."""
        return enqueue(queue or self.queue, FUNCTION, *args, job_id=self.x, record_url=self.url, **words)

    def put_many(self, count: int, **words: Any) -> list[Job]:
        datas = [Queue.prepare_data(FUNCTION, **words) for _ in range(count)]
        return enqueue_many(self.queue, datas, job_id=self.x, record_url=self.url)

    def stop(self, **words: Any) -> None:
        self.coordinator.request(self.x, **words)

    def sweep(self, who: str = "me", bound_s: float = 20.0, **words: Any) -> Swept:
        return self.sweeper(who, bound_s, **words).run()

    def sweeper(self, who: str = "me", bound_s: float = 20.0, **words: Any) -> Sweep:
        return Sweep(connect(self.url), self.ledger, self.record, who, time.monotonic() + bound_s, **words)

    def settle(self, *workers: str, how: As = "requeued") -> Settled:
        from coord.rq.duties import _Fences

        return Settle(connect(self.url), how, WORDS, _Fences(self.ledger)).run(workers)

    def look(self) -> Snapshot:
        return self.coordinator.status(self.x)

    def status(self, job: Job) -> str:
        return Job.fetch(job.id, connection=self.redis).get_status().value

    def statuses(self, jobs: list[Job]) -> set[str]:
        return {self.status(job) for job in jobs}

    def worker(self, name: str, *, hosted: bool = True, queue: Queue | None = None) -> Bench:
        return Bench(self, name, queue or self.queue, hosted=hosted)


class Bench:
    """A worker that takes one step when told; it never forks, and dies when nobody tells it any more."""

    def __init__(self, yard: Yard, name: str, queue: Queue, *, hosted: bool) -> None:
        self.name = name
        self.queue = queue
        self.redis = yard.redis
        self.worker = Worker([queue], name=name, connection=Redis.from_url(yard.url))
        self.worker.register_birth()  # type: ignore[no-untyped-call]
        self.hosted = hosted
        if hosted:
            self.redis.sadd(WORKERS, name)

    def take(self) -> Job:
        """Take an RQ job off the queue: into its hand, or as plain workers of several queues do, into nothing."""
        taken: Any
        if self.hosted:
            taken = self.redis.lmove(self.queue.key, hand_key(self.name, self.queue.name))
        else:
            taken = self.redis.lpop(self.queue.key)
        return Job.fetch(taken.decode(), connection=self.redis, serializer=self.queue.serializer)

    def prepare(self, job: Job) -> Any:
        """Write the execution, as the worker does before it forks."""
        execution = self.worker.prepare_execution(job)
        self.redis.lrem(hand_key(self.name, self.queue.name), 1, job.id)
        return execution

    def start(self, job: Job) -> None:
        """Write `started`, as the work-horse does."""
        self.worker.prepare_job_execution(job)

    def run(self) -> tuple[Job, Any]:
        """Take one, and have it running."""
        job = self.take()
        execution = self.prepare(job)
        self.start(job)
        return job, execution

    def commands(self) -> Any:
        """Hear what this worker is told, by RQ's own channel."""
        ear = self.redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        ear.subscribe(f"rq:pubsub:{self.name}")
        assert ear.get_message(timeout=5) is None
        return ear
