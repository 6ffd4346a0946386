"""RQ's worker, such that it can be stopped at any instant: no job is lost, and none counts as failed that was stopped.

Alone it is RQ's `Worker` without its defects; RQ's own suite runs it so. Hosted by an agent (`Hosting`), it asks before
each execution, the agent signals what is executed, and what RQ records follows from what was asked: see `rq_ending`.

It is made of parts, each a class of its own: what takes jobs (`rq_take`), what happens in the horse (`rq_horse`), what
holds the horse's process (`rq_reaping`), what hears RQ's commands (`rq_commands`). SIGTERM sets a flag, and ends the
wait for jobs; nothing is raised wherever the main thread is.
"""

from __future__ import annotations

import gc
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from rq.exceptions import StopRequested
from rq.utils import now
from rq.worker.base import WorkerStatus

from coord.rq.cancel import cancel
from coord.rq.dead import put_lost_hands_back
from coord.rq.members import look
from coord.rq.where import WORKERS
from workers.rq_about import about
from workers.rq_commands import CommandedWorker
from workers.rq_ending import Ending, requeue
from workers.rq_gate import Gate
from workers.rq_scheduler import PromptScheduler
from workers.rq_take import ENDINGS, UNREACHABLE, nothing

if TYPE_CHECKING:
    from rq.executions import Execution
    from rq.job import Job
    from rq.queue import Queue

    from workers.rq_take import Hosting

OUTAGE_S = 120  # how much longer than by RQ an execution of ours counts as alive without a heartbeat


class FencedError(Exception):
    """A job is not executed, and that is seen to."""


class CoordWorker(CommandedWorker):
    """See above."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._executing = False
        self._cold = False
        self._executed = 0
        self._max_jobs: int | None = None
        self._queue: Queue  # of the job that is executed
        super().__init__(*args, **kwargs)

    # -- beginning and end

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """Work until the end; gives whether any job was executed."""
        self._max_jobs = kwargs.get("max_jobs")
        try:
            return super().work(*args, **kwargs)
        finally:
            if not self.is_horse:
                self.wake_up.close()

    @property
    def connection_timeout(self) -> int:
        """Give RQ's; hosted, what waits for long has connections of its own."""
        return 30 if self.hosting else super().connection_timeout

    def _install_signal_handlers(self) -> None:
        super()._install_signal_handlers()
        self.wake_up.listen()
        if self.hosting:
            gc.freeze()  # what is there now stays: a collection in a work-horse need not look at it, and copy it
            signal.signal(signal.SIGCHLD, nothing)
            self.hosting.desk.tell("up", name=self.name, pid=os.getpid())

    def register_birth(self) -> None:
        """Register with RQ, then as one of ours: who is one of ours and not in RQ has been dead for long."""
        super().register_birth()
        if self.hosting:
            self.connection.sadd(WORKERS, self.name)

    def register_death(self) -> None:
        """Put back what is in our hands, and leave."""
        if self._hands:
            self.hands.empty(self.places())
        super().register_death()
        if self.hosting:
            self.connection.srem(WORKERS, self.name)

    def run_maintenance_tasks(self) -> None:
        """See to what others left, as RQ's workers do; and to what is in hands, of which RQ does not know."""
        super().run_maintenance_tasks()
        if self.hosting:
            put_lost_hands_back(self.connection)

    def _start_scheduler(
        self,
        burst: bool = False,
        logging_level: str | None = "INFO",
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        """Start a scheduler that ends at once when it is to; RQ's own waits for its second to be over."""
        if burst:
            super()._start_scheduler(burst, logging_level, date_format, log_format)
            return
        self.scheduler = PromptScheduler(
            self.queues,
            connection=self.connection,
            logging_level=self.log.level if logging_level is None else logging_level,
            date_format=date_format,
            log_format=log_format,
            serializer=self.serializer,
        )
        self.scheduler.acquire_locks(auto_start=True)

    def request_stop(self, signum: int, frame: Any) -> None:
        """Handle the first signal."""
        if self.hosting:
            self.hosting.desk.leave()
            self._stop_requested = True
            return
        for number in ENDINGS:
            signal.signal(number, self.request_force_stop)
        self._shutdown_requested_date = now()
        self.handle_warm_shutdown_request()
        self.leaving = True
        self._stop_requested = self.get_state() == WorkerStatus.BUSY
        self.wake_up.ring()

    def request_force_stop(self, signum: int, frame: Any) -> None:
        """Handle a second signal, without an agent: the horse is killed, and recorded as any that dies so."""
        if not self._executing:
            super().request_force_stop(signum, frame)
        elif self._shutdown_requested_date and (now() - self._shutdown_requested_date).total_seconds() >= 1:
            self.log.warning("Worker %s: cold shut down", self.name)
            self._cold = True
            self.kill_horse()

    # -- one execution, in the worker

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Execute a job, unless it is not to be."""
        self._executing = True
        try:
            if self.ended:
                self.give_back()
                raise StopRequested
            self._queue = queue
            super().execute_job(job, queue)
            if not self.hosting and self.exit and self.exit.status:
                self.let_go()  # the horse may have died before it could
        except FencedError:
            return
        finally:
            self._executing = False
            self._stopped_job_id = None
            self.taken = None
        if self._shutdown_requested_date:
            with suppress(*UNREACHABLE):
                self.set_shutdown_requested_date()
        if self._cold:
            raise SystemExit
        self._executed += 1
        if self._max_jobs is not None and self._executed >= self._max_jobs:
            self.because("max-jobs")

    def prepare_execution(self, job: Job) -> Execution:
        """Have RQ record the execution, when the agent said that it may be; its horse is born meanwhile, and waits."""
        if not self.hosting:
            return super().prepare_execution(job)
        ticket = self.hosting.desk.ask(**about(job, self._queue))
        self._fork(job, self._queue)
        try:
            answer = self.hosting.desk.answer(ticket)
            if answer and answer.word == "go":
                return super().prepare_execution(job)
        except BaseException:
            self._dismiss()
            raise
        self._dismiss()
        if answer:
            self._cancel(self.hosting, job, answer.words)
            raise FencedError
        self.give_back()
        raise StopRequested

    def _fork(self, job: Job, queue: Queue) -> None:
        """Fork a horse that waits at its gate."""
        self.gate = Gate()
        self.notes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            super().fork_work_horse(job, queue)
        except OSError:  # no process, no memory: another worker may have them
            self.give_back()
            raise
        self.gate.leave_outside()

    def _dismiss(self) -> None:
        """End the horse at its gate."""
        assert self.gate
        assert self.notes
        self.dismiss_horse()
        self.gate.close()
        for end in self.notes:
            os.close(end)
        self.notes = None

    def _cancel(self, hosting: Hosting, job: Job, words: str) -> None:
        """Cancel a job that is fenced."""
        self.log.info("Worker %s: job %s is not executed: %s", self.name, job.id, words)
        # a sweep may cancel it at the same instant: one of the two does, and counts it
        canceled = cancel(self.connection, look(self.connection, [job.id]).values())
        self.let_go()
        hosting.desk.tell("written", rq_job=job.id, execution=None, status="canceled" if canceled else "fenced")

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Fork; hosted, let the horse begin. From now on the agent, or a command, may mean this execution."""
        execution = next(iter(self.executions.values()), None)
        if self.hosting:
            assert execution
            assert self.gate
            self.hosting.desk.begin(execution.id)
            self.gate.open(execution)
            self.hosting.desk.tell("forked", rq_job=job.id, execution=execution.id, pid=self.horse_pid)
            return
        try:
            super().fork_work_horse(job, queue)
        except OSError:
            if execution:
                requeue(self, job, queue, execution)
            raise
        if self._cold or self._stopped_job_id == job.id:  # asked while we forked
            self.kill_horse()

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        """Wait for the horse's end, and see to it that RQ knows how it ended."""
        if self.hosting:
            Ending(self, self.hosting, job, queue, execution).see_to_it()
        else:
            super().monitor_work_horse(job, queue, execution)

    def report_failure(self, job: Job, execution: Execution, lines: list[str]) -> None:
        """Tell the agent of a final failure; in the horse, the worker."""
        if self.is_horse:
            super().report_failure(job, execution, lines)
        elif self.hosting and not self.hosting.desk.intent:
            self.hosting.desk.tell(
                "failed",
                rq_job=job.id,
                execution=execution.id,
                pid=self.exit.pid if self.exit else None,
                lines=lines,
                exit_code=self.exit.code if self.exit else None,
                signal=self.exit.signal if self.exit else None,
            )

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Give how long an execution counts as alive: hosted, as long as an outage of Redis may take."""
        return super().get_heartbeat_ttl(job, working_time) + (OUTAGE_S if self.hosting else 0)

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Send heartbeats; one that fails is followed by another."""
        try:
            super().maintain_heartbeats(job, execution)
            self.listen_again()
        except RedisError as error:
            self.log.warning("Worker %s: no heartbeat: %s", self.name, error)
