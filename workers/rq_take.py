"""How a worker gets its next job: RQ's dequeue, but a wait can be ended at once, and a job is never nowhere.

`rq_hands` does the moving.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq.exceptions import StopRequested
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job, JobStatus
from rq.logutils import blue, green
from rq.suspension import is_suspended
from rq.worker.base import WorkerStatus
from rq.worker.worker_classes import Worker

from coord.rq.where import WORKERS, hand_key
from workers.rq_hands import Hands, Place, Taken, WakeUp

if TYPE_CHECKING:
    from redis.client import Pipeline
    from rq.queue import Queue

    from workers.rq_desk import Desk

BLOCK_S = 30.0  # how long a hosted worker waits for jobs in one go
PAUSE_S = 1.0
ENDINGS = (signal.SIGTERM, signal.SIGINT)
UNREACHABLE = (RedisConnectionError, RedisTimeoutError)


@dataclass(slots=True)
class Hosting:
    """What a worker knows of its agent."""

    desk: Desk
    wake_up: WakeUp
    agent_id: str = ""
    record_url: str | None = None
    stop_file: str | None = None
    host_stop_file: str | None = None
    warm_s: float = 0.0
    on_stop: str = "requeue"
    why: list[str] = field(default_factory=list)  # the worker ends, when nobody asked it to

    @property
    def stop_files(self) -> tuple[str, ...]:
        """Give the files whose existence says that a horse is to stop."""
        return tuple(path for path in (self.stop_file, self.host_stop_file) if path)


class TakingWorker(Worker):
    """`hosting` None: without an agent."""

    hosting: Hosting | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.leaving = False
        self.deaf_s: float | None = None  # since when no thread listens to commands
        self.taken: Taken | None = None  # the job in our hand
        self._hands: Hands | None = None
        self._wake_up: WakeUp | None = None
        super().__init__(*args, **kwargs)

    @property
    def wake_up(self) -> WakeUp:
        """Give what ends the waits of the main thread."""
        if self.hosting:
            return self.hosting.wake_up
        if self._wake_up is None:
            self._wake_up = WakeUp()
        return self._wake_up

    @property
    def hands(self) -> Hands:
        """Give what moves jobs."""
        if self._hands is None:
            self._hands = Hands(self.connection, self.wake_up, ours=self.hosting is not None)
        return self._hands

    @property
    def ended(self) -> bool:
        """Tell whether nothing more is to be taken."""
        return self.leaving or (self.hosting is not None and self.hosting.desk.draining)

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Tell whether maintenance is due; who leaves leaves it to others."""
        return not self.ended and bool(super().should_run_maintenance_tasks)

    def interrupted(self) -> bool:
        """Tell whether the main thread has something else to do than to wait for jobs."""
        return self.ended or (self.deaf_s is not None and time.monotonic() - self.deaf_s < PAUSE_S)

    def because(self, why: str) -> None:
        """Note why the worker ends by itself."""
        if self.hosting:
            self.hosting.why.append(why)

    def places(self) -> list[Place]:
        """Give the keys of each queue, in order: with a hand of our own; alone, with RQ's list of what may be stuck."""
        if self.hosting:
            return [Place(queue.key, hand_key(self.name, queue.name)) for queue in self._ordered_queues]
        return [
            Place(queue.key, IntermediateQueue.get_intermediate_queue_key(queue.key)) for queue in self._ordered_queues
        ]

    def listen_again(self) -> None:
        """See to it that commands are heard."""

    def check_for_suspension(self, burst: bool) -> None:
        """Wait while RQ is suspended."""
        before = None
        while not self.ended and is_suspended(self.connection, self):
            if burst:
                self.log.info("Worker %s: suspended in burst mode, exiting", self.name)
                self.because("burst")
                raise StopRequested
            if before is None:
                self.log.info("Worker %s: suspended, run `rq resume` to resume", self.name)
                before = self.get_state()
                self.set_state(WorkerStatus.SUSPENDED)
            self.wake_up.wait(PAUSE_S)
        if before is not None:
            self.set_state(before)

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Take a job; None when there is none (`timeout` None: now; else until `max_idle_time` seconds are over)."""
        since_s, pause_s, idle = time.monotonic(), PAUSE_S, False
        self.taken = None
        self.procline("Listening on " + ",".join(self.queue_names()))
        while True:
            self._stop_if_ended()
            try:
                if not idle:
                    self.set_state(WorkerStatus.IDLE)
                    idle = True
                self.heartbeat()
                if self.should_run_maintenance_tasks:
                    self.run_maintenance_tasks()
                self.listen_again()
                if found := self._take(self._wait_s(timeout, max_idle_time, since_s)):
                    return found
            except UNREACHABLE as error:
                self.log.error("Worker %s: %s; trying again in %g s", self.name, error, pause_s)  # noqa: TRY400
                self.wake_up.wait(pause_s)
                pause_s = min(pause_s * self.exponential_backoff_factor, self.max_connection_wait_time)
                continue
            self._stop_if_ended()
            if timeout is None:
                self.because("burst")
                return None
            if max_idle_time is not None and time.monotonic() - since_s >= max_idle_time:
                self.because("idle")
                return None

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Send a heartbeat; its commands in one go. Who lives is one of ours, whoever took us for dead."""
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)
            if self.hosting:
                pipeline.sadd(WORKERS, self.name)
            return
        with self.connection.pipeline(transaction=False) as own:
            self.heartbeat(timeout, own)
            own.execute()

    def give_back(self) -> None:
        """Put the job in our hand back to the front of its queue."""
        if self.taken:
            self.hands.put_back(self.taken)
        self.taken = None

    def let_go(self) -> None:
        """Drop the job in our hand: it is not to be executed."""
        if self.taken:
            self.hands.drop(self.taken)
        self.taken = None

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """Set RQ's state. The step to `busy` is RQ's record of the execution: with it, the job leaves our hand."""
        super().set_state(state, pipeline)
        if state == WorkerStatus.BUSY and pipeline is not None and self.hosting and self.taken:
            pipeline.lrem(self.taken.place.hand, 1, self.taken.job_id)

    def _stop_if_ended(self) -> None:
        if self.ended:
            raise StopRequested

    def _wait_s(self, timeout: int | None, max_idle_time: int | None, since_s: float) -> float | None:
        if timeout is None:
            return None
        waits = [float(timeout)]
        if max_idle_time is not None:
            waits.append(max(0.01, max_idle_time - (time.monotonic() - since_s)))
        if self.hosting:
            waits.append(BLOCK_S)
        return min(waits)

    def _take(self, timeout_s: float | None) -> tuple[Job, Queue] | None:
        """Take jobs until there is one to be executed."""
        while True:
            if self.taken is None:  # else what could not be read when Redis went away
                self.taken = self.hands.take(self.places(), timeout_s, self.interrupted)
            if self.taken is None:
                return None
            if found := self._read(self.taken):
                return found
            self.taken = None

    def _read(self, taken: Taken) -> tuple[Job, Queue] | None:
        """Read the job that was taken; None when it is none to be executed, and is let go."""
        try:
            found = self.queue_class._fetch_dequeued_job(  # RQ's own, shared by its dequeues
                self.connection,
                taken.place.queue,
                taken.job_id,
                job_class=self.job_class,
                serializer=self.serializer,
                death_penalty_class=self.death_penalty_class,
            )
        except UNREACHABLE:
            raise
        except Exception:
            self.log.exception("Worker %s: job %s can't be read", self.name, taken.job_id)
            self._shelve(taken)
            return None
        if found is None or found[0].get_status(refresh=False) == JobStatus.CANCELED:
            self.hands.drop(taken)
            return None
        job, queue = found
        self.reorder_queues(reference_queue=queue)
        job.redis_server_version = self.get_redis_server_version()
        if self.log_job_description:
            self.log.info("Worker %s: %s: %s (%s)", self.name, green(queue.name), blue(job.description), job.id)
        else:
            self.log.info("Worker %s: %s: %s", self.name, green(queue.name), job.id)
        return job, queue

    def _shelve(self, taken: Taken) -> None:
        """Leave a job that can't be read where RQ's worker would leave it, for RQ's maintenance."""
        if self.hosting:
            with self.connection.pipeline() as pipeline:
                pipeline.lrem(taken.place.hand, 1, taken.job_id)
                pipeline.rpush(IntermediateQueue.get_intermediate_queue_key(taken.place.queue), taken.job_id)
                pipeline.execute()


def nothing(_number: int, _frame: Any) -> None:
    """Handle a signal whose number rings, which is enough."""


def hold(*numbers: signal.Signals) -> set[signal.Signals | int]:
    """Block signals; gives the mask before."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
