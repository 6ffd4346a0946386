"""What SIGTERM does in a work-horse: it raises `coord.child.Stopped` in the job's function, and nowhere else.

RQ's own code before and after the function must not be cut off: it commits the job's outcome. A SIGTERM before the
function waits for it to begin; one after it changes nothing any more. A handler that the function sets stays.

The platform may signal every process of a host at once. While there is time to finish (`warm_s`), such a signal is
ignored: one that means this job comes with a stop file.

`HorseWorker` is the worker's class as far as it runs in the horse.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rq.job import Job, JobStatus

from coord.child import Stopped
from coord.sigterm import Leave, Left, bell, raise_on_sigterm
from workers.prctl import set_parent_death_signal
from workers.rq_about import surroundings
from workers.rq_take import TakingWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from rq.executions import Execution
    from rq.queue import Queue

    from workers.rq_gate import Gate

STOPPED = 143  # the exit code that leaves the outcome to the worker
LINES_MAX = 20
LINE_MAX = 500


class Horse:
    """Made in the fork."""

    def __init__(self, stop_files: Sequence[str], warm_s: float) -> None:
        self._stop_files = stop_files
        self._warm_s = warm_s
        self._worker_pid = os.getppid()
        self._pid = os.getpid()
        self.at_gate = True  # it is not said yet that anything of it may run
        self._before = True  # the function has not begun
        self._inside = False
        self.came = False  # a SIGTERM that counts
        self.raised = False

    def begin(self) -> None:
        """Take SIGTERM over."""
        self._handler = LeaveJob(self)
        raise_on_sigterm(self._handler)
        os.register_at_fork(after_in_child=self._leave_alone)

    def run(self, function: Callable[[], Any]) -> Any:
        """Call the job's function."""
        try:
            self._inside = True
            self._before = False
            # the file alone: no look of the agent found this process yet, which was being born
            if not self.raised and (self.came or self._told() is not None):
                self.raised = True
                raise Stopped(STOPPED)
            return function()
        finally:
            self._inside = False
            signal.signal(signal.SIGTERM, self._handler)  # the function's own would act in RQ's code

    def over(self, error: BaseException | None = None) -> None:
        """RQ is about to record what the function did: leave it to the worker instead, when it was stopped."""
        self._before = self._inside = False
        told = self._told()
        if error is None:
            stopped = told is not None and told.get("as") == "stopped"
        else:
            stopped = told is not None or self.raised or isinstance(error, Left)
        if stopped and not self.is_elsewhere():
            leave()

    def meant(self) -> bool:
        """Tell whether a SIGTERM of now means this job."""
        return self._warm_s <= 0 or self._told() is not None or os.getppid() != self._worker_pid

    def wants_raise(self) -> bool:
        """Note a SIGTERM; tell whether to raise here and now. Who has not begun leaves."""
        if self.at_gate and self.meant():
            leave()
        if self.raised or not (self._before or self._inside) or not self.meant():
            return False
        self.came = True
        return self._inside

    def _told(self) -> dict[str, Any] | None:
        """Give what the stop file says; None when nothing is to be stopped."""
        for path in self._stop_files:
            with suppress(FileNotFoundError):
                try:
                    with open(path, "rb") as file:  # noqa: PTH123  # in a signal handler: as little as can be
                        told = json.loads(file.read())
                except ValueError:
                    return {}
                return told if isinstance(told, dict) else {}
        return None

    def is_elsewhere(self) -> bool:
        """Tell whether this process is one that the function forked: there, SIGTERM does what it does under RQ."""
        return os.getpid() != self._pid

    def _leave_alone(self) -> None:
        if isinstance(signal.getsignal(signal.SIGTERM), LeaveJob):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


class LeaveJob(Leave):
    """The handler."""

    raised = Stopped

    def __init__(self, horse: Horse) -> None:
        super().__init__()
        self._horse = horse

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM."""
        if self._horse.is_elsewhere():  # it came before the fork's own hook
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if not self._horse.wants_raise():
            return
        if self.later(frame) and bell.again():
            return
        self._horse.raised = True
        raise Stopped(128 + number)

    def again(self) -> None:
        """Have it raised once more, since it was dropped."""
        self._horse.raised = False
        super().again()


def leave() -> None:
    """End this process, and leave the outcome to the worker."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(STOPPED)


class HorseWorker(TakingWorker):
    """What of a worker happens in its horse."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.notes: tuple[int, int] | None = None  # a pipe: what the horse tells the worker
        self.mask: set[signal.Signals | int] = set()  # of signals, as it was before the fork
        self.gate: Gate | None = None
        self._horse: Horse | None = None  # in the horse of a hosted worker
        self._worker_pid = os.getpid()
        super().__init__(*args, **kwargs)

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """Become the horse."""
        signal.set_wakeup_fd(-1)  # the worker's
        self._close_copies()
        if self.hosting:
            os.environ.update(surroundings(self.hosting, job))
        super().main_work_horse(job, queue)

    def setup_work_horse_signals(self) -> None:
        """Let signals in again, when each has who takes it."""
        super().setup_work_horse_signals()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if self.hosting:
            self._horse = Horse(self.hosting.stop_files, self.hosting.warm_s)
            self._horse.begin()
        set_parent_death_signal()
        if os.getppid() != self._worker_pid:
            signal.raise_signal(signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        if self._horse:
            self._await_leave(self._horse)

    def _await_leave(self, horse: Horse) -> None:
        """Wait until the job may be executed."""
        assert self.gate
        execution = self.gate.wait(self.connection, self.name)
        if execution is None:
            leave()
        else:
            self.executions[execution.id] = execution
            horse.at_gate = False

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """Perform the job, and note for the worker how it ended."""
        horse = self._horse
        if horse is None:
            return super().perform_job(job, queue, execution)
        perform = job.perform
        job.perform = lambda: horse.run(perform)  # type: ignore[method-assign]
        try:
            done = super().perform_job(job, queue, execution)
        except Stopped:
            leave()
        self._note(status=text_of(job.get_status(refresh=False)))
        return done

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """Prepare; alone, every job comes by way of RQ's list, not only that of a worker with one queue."""
        alone = self.taken is not None and not self.hosting
        super().prepare_job_execution(job, remove_from_intermediate_queue or alone)

    def _finalize_success(self, job: Job, queue: Queue, execution: Execution, return_value: Any) -> None:
        if self._horse:
            self._horse.over()
        super()._finalize_success(job, queue, execution, return_value)

    def _finalize_failure(self, job: Job, queue: Queue, execution: Execution, exc_info: Any) -> None:
        if self._horse:
            self._horse.over(exc_info[1])
        super()._finalize_failure(job, queue, execution, exc_info)

    def handle_job_failure(  # noqa: PLR0917  # RQ's
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        """Record a failure; the agent hears of those that are final."""
        super().handle_job_failure(job, queue, started_job_registry, exc_string, execution)
        if execution and self.hosting and job.get_status(refresh=False) == JobStatus.FAILED:
            lines = [line[:LINE_MAX] for line in exc_string.splitlines()[-LINES_MAX:]]
            self.report_failure(job, execution, lines)

    def report_failure(self, job: Job, execution: Execution, lines: list[str]) -> None:
        """Tell of it: in the horse, the worker."""
        self._note(failed=lines)

    def _note(self, **notes: Any) -> None:
        if self.notes:
            with suppress(OSError):  # the worker is gone
                os.write(self.notes[1], json.dumps(notes).encode() + b"\n")

    def _close_copies(self) -> None:
        """Close what is the worker's: its link, its waits for jobs, and where it hears commands."""
        if self.hosting:
            self.hosting.desk.forget()
        if self._hands:
            self._hands.forget()
        connection = getattr(self.pubsub, "connection", None)
        socket = getattr(connection, "_sock", None)
        if socket:
            with suppress(OSError):
                os.close(socket.detach())


def text_of(status: Any) -> str:
    """Give RQ's status as text."""
    return str(getattr(status, "value", status))
