"""A worker's hold on its horse: forks it, signals it, and waits for it; never for, or to, anybody else.

Signals come from other threads (RQ's commands), too. A horse is signalled under a lock, and only while it has not been
waited for: until then its number is its own.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from rq.worker.base import SHUTDOWN_SIGNAL

from workers import signals
from workers.rq_horse import HorseWorker
from workers.rq_take import ENDINGS, hold

if TYPE_CHECKING:
    from rq.executions import Execution
    from rq.job import Job
    from rq.queue import Queue


class Exit(NamedTuple):
    """What wait4(2) said of a horse."""

    pid: int
    status: int
    usage: Any

    @property
    def code(self) -> int | None:
        """Give its exit code; None when a signal ended it."""
        return os.WEXITSTATUS(self.status) if os.WIFEXITED(self.status) else None

    @property
    def signal(self) -> str | None:
        """Give the signal that ended it."""
        return _name(os.WTERMSIG(self.status)) if os.WIFSIGNALED(self.status) else None


class ReapingWorker(HorseWorker):
    """What of a worker deals with the horse's process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.exit: Exit | None = None  # of the last horse
        self._horse_lock = threading.Lock()
        super().__init__(*args, **kwargs)

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Fork. A signal to the horse waits until that can take it."""
        self.exit = None
        self.mask = hold(*ENDINGS)
        try:
            super().fork_work_horse(job, queue)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        with suppress(OSError):
            os.setpgid(self.horse_pid, self.horse_pid)  # it does so too, a little later

    def kill_horse(self, sig: signal.Signals = SHUTDOWN_SIGNAL) -> None:
        """Signal the horse's group, if there is one."""
        with self._horse_lock:
            pid = self.horse_pid
            if pid <= 0 or self.exit is not None:
                self.log.debug("Worker %s: no horse to signal", self.name)
                return
            try:
                signals.send_to_group(pid, sig)
            except ProcessLookupError:  # its group is just being made
                with suppress(ProcessLookupError):
                    signals.send(pid, None, sig)
        self.log.info("Worker %s: sent %s to horse %s", self.name, signal.Signals(sig).name, pid)

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """Wait for the horse. RQ's alarm may cut the wait off: what the horse ended with is kept for the next one."""
        if self.exit is None:
            try:
                os.waitid(os.P_PID, self.horse_pid, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:
                return None, None, None
            self.reap_horse()
        assert self.exit
        return self.exit

    def horse_ended(self) -> bool:
        """Tell whether the horse ended; it is not reaped yet."""
        return os.waitid(os.P_PID, self.horse_pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def reap_horse(self) -> Exit:
        """Take the exit of a horse that ended."""
        before = hold(*ENDINGS, signal.SIGALRM)
        try:
            with self._horse_lock:
                self.exit = Exit(*os.wait4(self.horse_pid, 0))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self.exit

    def dismiss_horse(self) -> None:
        """End a horse that waits at its gate: nothing of its job has begun."""
        with suppress(ProcessLookupError):
            signals.send(self.horse_pid, None, signal.SIGKILL)
        self.reap_horse()
        self.forget_horse()

    def forget_horse(self) -> None:
        """Know of no horse any more."""
        self._horse_pid = 0

    def _handle_stopped_job(self, job: Job, queue: Queue, execution: Execution) -> None:
        if not is_recorded(job, execution):  # it may have ended by itself just before
            super()._handle_stopped_job(job, queue, execution)


def is_recorded(job: Job, execution: Execution) -> bool:
    """Tell whether somebody has recorded how an execution ended: with that, RQ lets go of it."""
    return job.connection.zscore(job.started_job_registry.key, execution.composite_key) is None


def childless() -> bool:
    """Reap whoever ended; tell whether this process has no children left."""
    try:
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
            pass
    except ChildProcessError:
        return True
    return False


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"  # a real-time signal
