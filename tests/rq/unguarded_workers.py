"""Workers with one guard off each: the negative controls of the tests beside."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

from redis.backoff import NoBackoff
from redis.retry import Retry
from rq.executions import Execution
from rq.utils import as_text
from rq.worker.worker_classes import Worker

from coord.child import Stopped
from workers import prctl, rq_desk
from workers.rq_worker import CoordWorker

if TYPE_CHECKING:
    from rq.job import Job
    from rq.queue import Queue

    from workers.rq_horse import Horse


class RaisesAnywhere(CoordWorker):
    """SIGTERM raises wherever the horse is, in RQ's code, too."""

    def setup_work_horse_signals(self) -> None:
        """Have it raise."""
        super().setup_work_horse_signals()

        def anywhere(_number: int, _frame: Any) -> None:
            raise Stopped

        signal.signal(signal.SIGTERM, anywhere)
        if self._horse:
            self._horse._handler = anywhere  # type: ignore[assignment]


class Blind(CoordWorker):
    """Its horse begins although a stop was said already."""

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """Look at no stop file."""
        assert self._horse
        self._horse._told = lambda: None  # type: ignore[method-assign]
        return super().perform_job(job, queue, execution)


class Ungated(CoordWorker):
    """Its horse does not wait for the answer."""

    def _await_leave(self, horse: Horse) -> None:
        """Have an execution of one's own."""
        horse.at_gate = False
        self.execution = Execution("early", os.environ["RQ_JOB_ID"], self.connection, self.name)


class NoSubreaper(CoordWorker):
    """Orphans go to somebody else."""

    def register_birth(self) -> None:
        """Stop being a subreaper."""
        prctl.stop_being_subreaper()
        super().register_birth()


POP_S = 20


class NoHands(CoordWorker):
    """Jobs are taken as RQ takes them from several queues: popped, and nowhere until they are executed."""

    def _take(self, timeout_s: float | None) -> tuple[Job, Queue] | None:
        queues = {queue.key: queue for queue in self.queues}
        popped: Any = self.connection.blpop(list(queues), POP_S)
        if popped is None:
            return super()._take(timeout_s)
        queue = queues[as_text(popped[0])]
        job = queue.fetch_job(as_text(popped[1]))
        return (job, queue) if job else None


class Impatient(CoordWorker):
    """Gives Redis up at the first error."""

    def register_birth(self) -> None:
        """Have no patience."""
        self.connection.set_retry(Retry(NoBackoff(), 0))
        super().register_birth()


class WaitsForRedis(CoordWorker):
    """Leaves when Redis lets it."""

    def register_birth(self) -> None:
        """Have all patience."""
        rq_desk.PATIENCE_S = 1e6
        super().register_birth()


class Deaf(CoordWorker):
    """Handles what is published as RQ does."""

    def handle_payload(self, message: Any) -> None:
        """Let whatever is wrong with it end the thread."""
        Worker.handle_payload(self, message)


class Fragile(CoordWorker):
    """Its thread can be made to end."""

    def handle_payload(self, message: Any) -> None:
        """End the thread, if it is told to."""
        if message["data"] == b"die":
            raise RuntimeError("died")
        super().handle_payload(message)

    def subscribe(self) -> None:
        """Say so."""
        if self.pubsub_thread:
            self.log.info("listens again")
        super().subscribe()


class SlowOurs(CoordWorker):
    """Pauses when it has taken a job, so that a signal can come just then."""

    def reorder_queues(self, reference_queue: Queue) -> None:
        """Say so, and pause."""
        self.connection.set(f"taken:{self.name}", 1)
        time.sleep(1.0)
        super().reorder_queues(reference_queue)


class DiesEarly(CoordWorker):
    """Its horse dies before RQ has noted that it began."""

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:  # noqa: ARG002
        """Die."""
        signal.raise_signal(signal.SIGKILL)


class SlowTheirs(Worker):
    """RQ's, with the same pause."""

    def reorder_queues(self, reference_queue: Queue) -> None:
        """Say so, and pause."""
        self.connection.set(f"taken:{self.name}", 1)
        time.sleep(1.0)
        super().reorder_queues(reference_queue)
