"""Writes in RQ what became of dead workers' RQ jobs. Called when their processes were seen gone, and only then.

What a worker had taken and not begun goes back to the front of its queue. What it was running is requeued there, its
attempts not counted; or it is stopped or failed, by RQ's own code. What has ended stays as it ended. May be called
again at any time, by several at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Literal

from redis.exceptions import WatchError
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.utils import now
from rq.worker.worker_classes import Worker

from coord.errors import CoordError
from coord.redis_errors import mapped
from coord.rq.dead import TRIES, drop, executions_of, forget, put_hand_back, requeue
from coord.rq.where import WORKERS, queue_key, queue_names, settling_key, shown_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import redis
    from rq.executions import Execution

As = Literal["requeued", "failed", "stopped"]
LOCK_S = 30


@dataclass
class Settled:
    """How many RQ jobs came to what; `put_back`: taken off a queue, and never begun."""

    workers: int = 0
    requeued: int = 0
    stopped: int = 0
    failed: int = 0
    put_back: int = 0
    ended: list[str] = field(default_factory=list)  # RQ job ids that failed for good: no retry is left
    stopped_of: dict[str, int] = field(default_factory=dict)  # job id -> how many RQ jobs of it were stopped


class _Dead(Worker):
    """A dead worker, in whose name RQ's own code is run; the connection stays as it is."""

    def _set_connection(self, connection: redis.Redis) -> redis.Redis:
        return connection


@dataclass
class Settle:
    """`how`: what becomes of RQ jobs that were running; `words`: why, for the RQ Result.

    `fenced`: gives the job that an RQ job belongs to, and why that was shut down, if it was: then it is stopped.
    """

    connection: redis.Redis
    how: As
    words: str
    fenced: Callable[[Job], tuple[str, str] | None]
    settled: Settled = field(default_factory=Settled)

    def run(self, workers: Iterable[str]) -> Settled:
        """Settle each of these workers. Raises UnreachableError; what was settled by then stays settled."""
        names = sorted(workers)
        with mapped(shown_url(self.connection)):
            queues = queue_names(self.connection)
            workers = {name: _Dead([], name, connection=self.connection, prepare_for_work=False) for name in names}
            found = executions_of(self.connection, names, queues).values()
            # the oldest last: so it is the first in its queue again
            for execution in sorted(chain(*found), key=lambda each: each.created_at, reverse=True):
                self._finalize(workers[execution.worker_name], execution, queues)
            for worker in workers.values():
                self._bury(worker, queues)
        return self.settled

    def _bury(self, worker: Worker, queues: set[str]) -> None:
        name = worker.name
        worker.refresh()  # type: ignore[no-untyped-call]
        for queue in queues | {queue.name for queue in worker.queues}:
            self.settled.put_back += put_hand_back(self.connection, name, queue)
        if self.connection.exists(worker.key):
            worker.register_death()  # type: ignore[no-untyped-call]
        self.connection.srem(worker.redis_workers_keys, worker.key)
        self.connection.srem(WORKERS, name)
        self.settled.workers += 1

    def _finalize(self, worker: Worker, execution: Execution, queues: set[str]) -> None:
        """Look, decide, write; look again when somebody else wrote meanwhile."""
        for _ in range(TRIES):
            with self.connection.pipeline() as pipe:
                pipe.watch(Job.key_for(execution.job_id), execution.key)  # type: ignore[no-untyped-call]
                try:
                    job = Job.fetch(execution.job_id, connection=self.connection)
                except NoSuchJobError:
                    forget(self.connection, execution, queues)
                    return
                outcome = self._outcome(worker, job)
                if outcome in {"stopped", "failed"}:
                    pipe.reset()
                    self._fail(worker, execution, job, stopped=outcome == "stopped")
                    return
                pipe.multi()
                execution.delete(job, pipe)
                drop(pipe, worker.name, job)
                if outcome:
                    requeue(pipe, job)
                try:
                    pipe.execute()
                except WatchError:
                    continue
                self.settled.requeued += outcome == "requeued"
                self.settled.put_back += outcome == "put back"
                return
        raise CoordError(f"RQ job {execution.job_id} changes all the time", "Try again")

    def _outcome(self, worker: Worker, job: Job) -> str | None:
        """What becomes of it; None: nothing, it has ended, waits, or runs elsewhere."""
        status = job.get_status(refresh=False)
        if status is JobStatus.STARTED and job.worker_name == worker.name:
            return "stopped" if self.fenced(job) else self.how
        if status is JobStatus.QUEUED and self.connection.lpos(queue_key(job.origin), job.id) is None:
            return "put back"
        return None

    def _fail(self, worker: Worker, execution: Execution, job: Job, *, stopped: bool) -> None:
        """Have RQ write it, once: its own code looks at nothing that another may have written meanwhile."""
        if not self.connection.set(settling_key(execution.id), 1, nx=True, ex=LOCK_S):
            return
        drop(self.connection, worker.name, job)
        name, words = self.fenced(job) or ("", self.words)
        job.ended_at = now()
        worker._stopped_job_id = job.id if stopped else None  # noqa: SLF001  # RQ has no other way
        queue = Queue(job.origin, connection=self.connection, serializer=job.serializer)
        worker.handle_job_failure(job, queue, exc_string=words, execution=execution)
        status = job.get_status()
        if status is JobStatus.STARTED:
            raise CoordError(f"RQ job {job.id} could not be written as ended", "Try again")
        if status is JobStatus.STOPPED:
            self.settled.stopped += 1
            self.settled.stopped_of[name] = self.settled.stopped_of.get(name, 0) + 1
        else:
            self.settled.failed += 1
        if status is JobStatus.FAILED:
            self.settled.ended.append(job.id)
