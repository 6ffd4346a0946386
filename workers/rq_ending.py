"""How one execution of a hosted worker ends: the horse, then all that it left, then RQ's record of it.

The main thread does nothing else meanwhile, and does not wait for Redis before the horse is gone: heartbeats have
threads of their own. After the horse the worker, a subreaper, has no children but the horse's leftovers; ECHILD is the
kernel's word that nobody is left. What was asked of the execution decides what RQ records; nothing asked: RQ does.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq.callbacks import execute_stopped_callback
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.timeouts import UnixSignalDeathPenalty
from rq.utils import now

from workers.rq_desk import Intent
from workers.rq_horse import STOPPED, text_of
from workers.rq_reaping import childless, is_recorded

if TYPE_CHECKING:
    from rq.executions import Execution
    from rq.job import Job
    from rq.queue import Queue

    from workers.rq_reaping import Exit, ReapingWorker
    from workers.rq_take import Hosting

DRAIN_S = 0.1  # how long after a horse's end its worker's own SIGTERM may come
LATE_S = 60  # RQ's own margin: how long after its timeout a job is ended from outside
NOTES_MAX_BYTES = 65536
CALLBACK_MIN_S = 0.05


class Ending:
    """Owns one execution from the fork on, in the worker's main thread."""

    def __init__(self, worker: ReapingWorker, hosting: Hosting, job: Job, queue: Queue, execution: Execution) -> None:  # noqa: PLR0917
        self._worker = worker
        self._hosting = hosting
        self._desk = hosting.desk
        self._job = job
        self._queue = queue
        self._execution = execution
        self._status: str | None = None
        self._failed: list[str] | None = None
        self._beat: threading.Thread | None = None
        self._beat_at_s = 0.0

    def see_to_it(self) -> None:
        """Wait for the end, and write it down."""
        self._job.started_at = now()
        self._beat_at_s = time.monotonic() + self._worker.job_monitoring_interval
        ended = self._await_horse()
        self._read_notes()
        if self._failed is not None:
            self._tell_failed(ended)
        alone = childless()
        self._desk.tell(
            "ended",
            execution=self._execution.id,
            pid=ended.pid,
            exit_code=ended.code,
            signal=ended.signal,
            childless=alone,
        )
        if not alone:
            self._await_childless()
        self._await_settled()
        self._worker.executions.pop(self._execution.id, None)
        self._job.ended_at = now()
        if ended.status != 0:
            self._write(ended)
        self._desk.tell("written", rq_job=self._job.id, execution=self._execution.id, status=self._status or "unknown")
        self._desk.finish()

    # -- waiting

    def _await_horse(self) -> Exit:
        """Wait for the horse alone: its death is known without Redis, and so is a wish to leave."""
        while not self._worker.horse_ended():
            self._wait()
        ended = self._worker.reap_horse()
        self._worker.forget_horse()
        return ended

    def _await_childless(self) -> None:
        while not (alone := childless()) and not self._unguarded():
            self._wait()
        if alone:
            self._desk.tell("childless", execution=self._execution.id)

    def _await_settled(self) -> None:
        while self._desk.intent is not None and not self._unguarded():
            self._wait()

    def _unguarded(self) -> bool:
        """Tell whether the agent is not to be waited for (any more)."""
        return self._desk.settled or self._desk.lost or self._desk.overdue()

    def _wait(self) -> None:
        """Wait for whatever comes next; send a heartbeat when it is due."""
        now_s = time.monotonic()
        if now_s >= self._beat_at_s:
            self._beat_at_s = now_s + self._worker.job_monitoring_interval
            self._beat_beside()
            self._ask_if_late()
        intent = self._desk.intent
        until_s = min(self._beat_at_s, intent.until_s + 1.1 if intent else self._beat_at_s)
        self._hosting.wake_up.wait(max(0.01, until_s - now_s))

    def _beat_beside(self) -> None:
        """Send heartbeats from another thread, which may wait for Redis; one at a time."""
        if self._beat is None or not self._beat.is_alive():
            self._beat = threading.Thread(target=self._send_heartbeat, daemon=True)
            before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            self._beat.start()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _send_heartbeat(self) -> None:
        if self._status is None:
            self._worker.maintain_heartbeats(self._job, self._execution)
        else:  # RQ has let go of the execution already
            with suppress(RedisError):
                self._worker.heartbeat()

    def _ask_if_late(self) -> None:
        """Have the agent end a job whose own alarm did not."""
        worked_s = (now() - self._job.started_at).total_seconds() if self._job.started_at else 0.0
        if self._job.timeout and self._job.timeout != -1 and worked_s > float(self._job.timeout) + LATE_S:
            self._desk.tell("asked", what="kill", execution=self._execution.id)

    # -- what the horse said

    def _read_notes(self) -> None:
        assert self._worker.notes
        ours, theirs = self._worker.notes
        self._worker.notes = None
        os.close(theirs)
        with suppress(BlockingIOError):
            for line in os.read(ours, NOTES_MAX_BYTES).splitlines():
                with suppress(ValueError):  # cut off
                    note = json.loads(line)
                    self._status = note.get("status", self._status)
                    self._failed = note.get("failed", self._failed)
        os.close(ours)

    def _tell_failed(self, ended: Exit) -> None:
        self._desk.tell(
            "failed",
            rq_job=self._job.id,
            execution=self._execution.id,
            pid=ended.pid,
            lines=self._failed,
            exit_code=None,
            signal=None,
        )

    # -- RQ's record

    def _write(self, ended: Exit) -> None:
        """Record what the horse did not."""
        try:
            self._status = text_of(self._job.get_status())
        except InvalidJobOperation:
            return  # deleted, or expired
        if is_recorded(self._job, self._execution):
            return
        intent = self._desk.intent or self._of_host(ended)
        match intent.outcome if intent else "":
            case "stopped":
                assert intent
                self._stopped(intent)
            case "requeued":
                requeue(self._worker, self._job, self._queue, self._execution)
            case "failed":
                assert intent
                self._failed_as(intent.words)
            case _:
                self._killed(ended, intent.words if intent else "")
        self._status = text_of(self._job.get_status(refresh=False))

    def _of_host(self, ended: Exit) -> Intent | None:
        """Give what becomes of a job that was stopped together with its worker, before anybody said so."""
        if ended.code != STOPPED and ended.signal != "SIGTERM":
            return None
        end_s = time.monotonic() + DRAIN_S
        while not self._worker.ended and time.monotonic() < end_s:
            self._hosting.wake_up.wait(end_s - time.monotonic())
        if not self._worker.ended:
            return None
        outcome = {"requeue": "requeued", "fail": "failed"}[self._hosting.on_stop]
        return Intent(outcome, "Stopped with its worker", time.monotonic())

    def _stopped(self, intent: Intent) -> None:
        """Record it as stopped: never retried, and the Result says who and why."""
        worker = self._worker
        left_s = intent.until_s - time.monotonic()
        if self._job._stopped_callback_name:
            self._call_back(left_s)
        worker._stopped_job_id = self._job.id
        worker.handle_job_failure(self._job, self._queue, exc_string=intent.words, execution=self._execution)

    def _call_back(self, left_s: float) -> None:
        if left_s < CALLBACK_MIN_S:
            self._worker.log.warning("Worker %s: no time left for the stopped callback", self._worker.name)
            return

        def penalty(timeout: float, *args: Any, **kwargs: Any) -> Bound:
            return Bound(min(float(timeout), left_s), *args, **kwargs)

        try:
            execute_stopped_callback(self._job, penalty)  # type: ignore[arg-type]
        except Exception:
            self._worker.log.exception("Worker %s: stopped callback of %s raised", self._worker.name, self._job.id)

    def _failed_as(self, words: str) -> None:
        self._worker.handle_job_failure(self._job, self._queue, exc_string=words, execution=self._execution)

    def _killed(self, ended: Exit, words: str) -> None:
        """Record it as RQ does when a horse ends unexpectedly: failed, or retried."""
        worker = self._worker
        signaled = f" (signal {os.WTERMSIG(ended.status)})" if os.WIFSIGNALED(ended.status) else ""
        text = words or f"Work-horse terminated unexpectedly; waitpid returned {ended.status}{signaled}; "
        worker.log.warning("Worker %s: job %s failed (%s)", worker.name, self._job.id, text)
        try:
            worker.handle_work_horse_killed(self._job, ended.pid, ended.status, ended.usage)
        except Exception:  # the project's own
            worker.log.exception("Worker %s: the handler for a killed work-horse raised", worker.name)
        worker.handle_job_failure(self._job, self._queue, exc_string=text, execution=self._execution)


def requeue(worker: ReapingWorker, job: Job, queue: Queue, execution: Execution) -> None:
    """Put a job back to the front, as if it had never been taken: no attempt is counted."""
    try:
        job.refresh()  # the horse may have saved its meta
    except NoSuchJobError:
        return
    job.started_at = job.ended_at = job.last_heartbeat = None
    job.worker_name = None
    with worker.connection.pipeline() as pipeline:
        worker.cleanup_execution(job, pipeline=pipeline, execution=execution)
        queue._enqueue_job(job, pipeline=pipeline, at_front=True)
        pipeline.execute()


class Bound(UnixSignalDeathPenalty):
    """RQ's alarm, with fractions of a second."""

    def setup_death_penalty(self) -> None:
        """Set the alarm."""
        signal.signal(signal.SIGALRM, self.handle_death_penalty)
        signal.setitimer(signal.ITIMER_REAL, self._timeout)
