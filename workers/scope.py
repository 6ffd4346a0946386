"""`JobScope`: the processes that a Python program starts for a job, stopped together, here and on other hosts.

A rank that fails stops all the others, with one deadline for all; leaving the block by an exception, by Ctrl-C or by
SIGTERM does the same. When the block has been left, nothing that was started in it is there any more.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from coord.errors import UsageError
from coord.messages import Cause, one_line
from coord.plan import wished
from coord.settings import LOSS_AFTER_S
from workers.children import Children
from workers.interrupts import Interrupts
from workers.job_stopped import JobStopped
from workers.scoped_job import MARGIN_S, ScopedJob
from workers.starter import Starter
from workers.state import Phase
from workers.terms import Terms

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess
    from types import TracebackType

LOOK_S = 0.1  # between two looks while waiting: at what Python may have missed
DRAINED = (KeyboardInterrupt, SystemExit, GeneratorExit, JobStopped)  # no failures of the program's own


class JobScope:
    """One program's part of a job. Use it in `with`, once; leaving the block waits for all, and leaves nothing behind.

    `job_id`: as for `coord run`; the record refuses one that was shut down before. `redis_url`: else COORD_REDIS_URL,
    else this user's embedded server; `local`: no server at all, this program's processes only.
    `grace_s` (10), `grace_max_s`, `kill_wait_s` (5): the plan, in seconds; see `coord run`. `on_failure`: `stop` all
    when one fails, or `ignore` it. `containment`: `auto`, `cgroup` or `subreaper`; else COORD_CONTAINMENT.
    `sweep_shm`: remove shared memory and semaphores that only ranks had. `context`: the multiprocessing context of
    `spawn`, with any start method. `host`, `label`: how the record names this host (else COORD_HOST) and this program.
    `log_level`: of lines on stderr. `on_redis_loss`: `keep` going when Redis stays away, or `stop` all here when it has
    been away for `redis_loss_after_s` (60). `secret_file`: its secrets, else COORD_SECRET_FILE, else COORD_SECRET.

    In the main thread, a stop raises JobStopped wherever the program is; in another one, the scope's methods raise it.
    Raises UsageError for what can't be; when the block is entered, RefusedError when the job was shut down before, and
    UnreachableError when Redis can't be used.
    """

    def __init__(  # noqa: PLR0913  # a program sets what a command has options for
        self,
        job_id: str,
        *,
        redis_url: str | None = None,
        local: bool = False,
        grace_s: float | None = None,
        grace_max_s: float | None = None,
        kill_wait_s: float | None = None,
        on_failure: str = "stop",
        containment: str | None = None,
        sweep_shm: bool = False,
        context: BaseContext | None = None,
        host: str | None = None,
        label: str | None = None,
        log_level: str = "warning",
        on_redis_loss: str = "keep",
        redis_loss_after_s: float = LOSS_AFTER_S,
        secret_file: str | None = None,
    ) -> None:
        self._terms = Terms.of(
            job_id,
            redis_url=redis_url,
            local=local,
            plan=wished(grace_s, kill_wait_s, grace_max_s),
            on_failure=on_failure,
            containment=containment,
            sweep_shm=sweep_shm,
            host=host,
            label=label,
            log_level=log_level,
            on_redis_loss=on_redis_loss,
            redis_loss_after_s=redis_loss_after_s,
            secret_file=secret_file,
        )
        self._context = context or multiprocessing.get_context()
        self._children = Children()
        self._news = threading.Condition()
        self._errors: weakref.WeakSet[JobStopped] = weakref.WeakSet()
        self._job: ScopedJob | None = None
        self._left = False

    # -- starting ------------------------------------------------------------------------------------------------------

    def spawn(self, target: Callable[..., object], *args: Any, label: str | None = None, **kwargs: Any) -> BaseProcess:
        """Start a rank: `target(*args, **kwargs)` in a process of its own. Gives the multiprocessing.Process.

        In it, SIGTERM raises SystemExit in the main thread, so `finally` blocks run. `label`: the rank's name, else the
        function's name and a number. Raises JobStopped when the job is being stopped.

        A rank shuts down its own pools (joblib: `get_reusable_executor().shutdown()`): as any multiprocessing.Process,
        it waits at its end for its children before these pools tell them to leave, which can take minutes, or for ever.
        """
        with self._own_work():
            return self._starter.spawn(target, args, kwargs, label)

    def popen(
        self, argv: str | Sequence[str | os.PathLike[str]], *, label: str | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a program; `options` are those of subprocess.Popen, and so are the errors.

        It gets a session of its own. Raises JobStopped when the job is being stopped.
        """
        with self._own_work():
            return self._starter.popen(argv, label, options)

    def adopt(self, process: BaseProcess | subprocess.Popen[Any], *, label: str | None = None) -> None:
        """Take in a process that this program started by other means, and what it has started since.

        Unlike a rank, it must see itself to acting on SIGTERM. Raises UsageError for one that does not run, JobStopped
        when the job is being stopped.
        """
        with self._own_work():
            self._starter.adopt(process, label)

    # -- waiting -------------------------------------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Tell whether the job is being stopped, or was."""
        return self._opened.state.phase is not Phase.RUNNING

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until all ranks have ended; False when `timeout_s` has passed before. More may be started afterwards.

        Raises JobStopped when the job was stopped instead: by a rank that failed, here or elsewhere, or by a person;
        nothing of it is left on this host then. With on_failure="ignore", look at `exitcode` yourself.
        """
        with self._own_work():
            return self._wait(None if timeout_s is None else time.monotonic() + timeout_s)

    def _wait(self, end_s: float | None) -> bool:
        while not self._opened.settled and (self.stopping or self._opened.state.children):
            wait_s = LOOK_S if end_s is None else min(LOOK_S, end_s - time.monotonic())
            if wait_s <= 0:
                return False
            self._sleep(wait_s)
            self._interrupts.check(but_own=True)
        self._children.settle()
        if self.stopping or self._opened.error:
            raise self._stopped()
        return True

    def _sleep(self, wait_s: float) -> None:
        with self._news:
            self._news.wait(wait_s)

    # -- the block -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Join the job."""
        if self._job:
            raise UsageError("a JobScope is used once", "Make a new one")
        self._job = _job_of(self._terms, self._children, self._changed)
        self._starter = Starter(self._job, self._context, self._stopped)
        self._interrupts = Interrupts(self._stopped, self._job.later)
        self._interrupts.take()
        try:
            self._job.open(self._interrupts.check)
        except BaseException:
            self._interrupts.give_back()
            raise
        try:
            self._interrupts.check()
        except BaseException as error:
            self._leave(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for all, or stop all; raises what came meanwhile."""
        if os.getpid() == self._opened.pid and (caught := self._leave(error)) and caught is not error:
            raise caught

    def _leave(self, error: BaseException | None) -> BaseException | None:
        """Leave nothing behind; gives what is to be raised."""
        self._left = True
        try:
            self._interrupts.leave()
            if error is None:
                try:
                    self._wait(None)
                except BaseException as caught:  # noqa: BLE001  # raised again when all is over
                    error = caught
            error = self._end(error)
        finally:
            self._opened.close(MARGIN_S)
            self._children.close()
            late = self._interrupts.noted()
            self._interrupts.give_back()
        return error if late is None or isinstance(error, KeyboardInterrupt | SystemExit) else late

    def _end(self, error: BaseException | None) -> BaseException | None:
        """Wait until nothing is left; gives what is to be raised: a signal that came meanwhile goes first."""
        job, presses = self._opened, int(isinstance(error, KeyboardInterrupt))
        if error is None:
            job.seal()
        elif not self.stopping:
            what = type(error).__name__ if isinstance(error, DRAINED) else f"{type(error).__name__}: {error}"
            reason = f"{self._terms.label} on host {self._terms.host} left its scope: {what}"
            job.stop(Cause.DRAIN if isinstance(error, DRAINED) else Cause.FAILURE, one_line(reason))
        began_s = time.monotonic()
        while not job.settled and time.monotonic() < began_s + job.state.plan.total_s + MARGIN_S:
            self._sleep(LOOK_S)
            if came := self._interrupts.noted():
                presses += isinstance(came, KeyboardInterrupt)
                error = error if isinstance(error, KeyboardInterrupt | SystemExit) else came
            if presses > 1:
                job.stop_now()
        if isinstance(error, JobStopped) and error in self._errors:
            self._tell(error)  # by now, more may be known
        elif error is not None and job.first_failure:
            error.add_note(str(self._stopped()))
        return error

    # -- being stopped -------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Something happened; on the agent's thread."""
        with self._news:
            self._news.notify_all()
        if self.stopping:
            self._interrupts.interrupt()

    @contextmanager
    def _own_work(self) -> Iterator[None]:
        """Be in the midst of what must not be cut off; what came meanwhile is raised at the end."""
        if self._left or os.getpid() != self._opened.pid:
            raise UsageError("this JobScope is not open, or another process's", "Use it inside of its `with` block")
        self._children.reap()
        try:
            yield
        finally:
            self._interrupts.check()

    @property
    def _opened(self) -> ScopedJob:
        if self._job is None:
            raise UsageError("this JobScope is not open", "Use it inside of its `with` block")
        return self._job

    def _stopped(self) -> JobStopped:
        error = JobStopped("")
        self._errors.add(error)
        self._interrupts.raised(error)
        self._tell(error)
        return error

    def _tell(self, error: JobStopped) -> None:
        job, failure = self._opened, self._opened.first_failure
        ours = failure is not None and failure.agent_id == job.agent_id
        trace = self._children.trace(failure.pid) if failure and ours else ""
        error.tell(self._terms.job_id, failure, job.request, trace)
        error.__cause__ = error.__cause__ or job.error


def _job_of(terms: Terms, children: Children, changed: Callable[[], None]) -> ScopedJob:
    if terms.local:
        return ScopedJob(terms, children, changed)
    from workers.recorded_job import RecordedJob  # a local one does without Redis, which is slow to import

    return RecordedJob(terms, children, changed)
