"""`JobScope`: the processes that a Python program starts for a job, stopped together, here and on other hosts.

A rank that fails stops all the others, with one deadline for all; leaving the block by an exception, by Ctrl-C or by
SIGTERM does the same. When the block has been left, nothing that was started in it is there any more.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from coord.errors import UsageError
from coord.keys import check_job_id
from coord.messages import Cause, Outcome, clip, one_line
from coord.plan import Plan, wished
from coord.record import RETAIN_S
from coord.settings import acting_on, check_host, check_retain, host_name, variable
from workers.containment import Choice
from workers.interrupts import Interrupts
from workers.job_stopped import JobStopped, stopped
from workers.proc import descendants, read_stat
from workers.rank import Rank, how_it_ended
from workers.scoped_job import ScopedJob, Terms
from workers.starting import in_place, signals_held
from workers.state import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess
    from types import TracebackType

    from workers.containment import Entry
    from workers.handles import Status

LOOK_S = 0.2  # between two looks while waiting, so that no signal is missed for long
MARGIN_S = 30.0  # beyond the plan: for the record to be told
NAME_MAX = 64


class JobScope:
    """One program's part of a job. Use it in `with`; leaving the block waits for all, and leaves nothing behind.

    `job_id`: as for `coord run`; the record refuses one that was shut down before. `redis_url`: else COORD_REDIS_URL,
    else this user's embedded server; `local`: no server at all, this program's processes only.
    `grace_s`, `grace_max_s`, `kill_wait_s`: the plan; see `coord run`. `on_failure`: `stop` or `ignore`.
    `containment`: `auto`, `cgroup` or `subreaper`. `sweep_shm`: remove shared memory and semaphores that only ranks
    had. `context`: the multiprocessing context of `spawn`; its start method may be any. `host`, `label`: how the record
    names this host and this program. `log_level`: of lines on stderr.

    Raises UsageError for what can't be, RefusedError when the job was shut down before, UnreachableError when Redis
    can't be used; `join`, and the end of the block, raise JobStopped when somebody or something stopped the job.
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
        containment: str = "auto",
        sweep_shm: bool = False,
        context: BaseContext | None = None,
        host: str | None = None,
        label: str | None = None,
        log_level: str = "warning",
    ) -> None:
        if on_failure not in {"stop", "ignore"}:
            raise UsageError(f"on_failure is 'stop' or 'ignore', not {on_failure!r}")
        host = check_host(host or variable("COORD_HOST", check_host) or host_name())
        terms = Terms(
            job_id=check_job_id(job_id),
            label=clip(label or Path(sys.argv[0] or "python").name, NAME_MAX),
            plan=wished(grace_s, kill_wait_s, grace_max_s) or Plan.of(),
            stop_on_failure=on_failure == "stop",
            containment=Choice(containment),
            local=local,
            redis_url=redis_url or os.environ.get("COORD_REDIS_URL") or None,
            host=host,
            by=acting_on(host),
            retain_s=check_retain(RETAIN_S),
            log_level=log_level,
            sweep_shm=sweep_shm,
        )
        self._job = ScopedJob(terms, changed=self._changed, ended=self._how_ended)
        self._terms = terms
        self._context = context or multiprocessing.get_context()
        self._processes: dict[int, BaseProcess | subprocess.Popen[Any]] = {}
        self._news = threading.Condition()
        self._interrupts = Interrupts(self._stopped)

    # -- starting ------------------------------------------------------------------------------------------------------

    def spawn(self, target: Callable[..., object], *args: Any, label: str | None = None, **kwargs: Any) -> BaseProcess:
        """Start a rank: `target(*args, **kwargs)` in a process of its own. Gives the multiprocessing.Process.

        In it, SIGTERM raises SystemExit in the main thread, so `finally` blocks run. `label`: the rank's name, else the
        function's name and a number. Raises JobStopped when the job is being stopped.
        """
        with self._own_work():
            entry = self._job.entry()
            label = label or f"{getattr(target, '__name__', 'rank')}-{entry.mark.number - 1}"
            ending = str(Path(self._folder.name, str(entry.mark.number)))
            rank = Rank(entry, {**self._job.environment, "COORD_LABEL": label}, ending, self._tied())
            make: type[BaseProcess] = self._context.Process  # type: ignore[attr-defined]  # every context has it
            process = make(target=rank.run, args=(target, args, kwargs), name=label)
            with warnings.catch_warnings():
                # of forks beside threads: ours stands still meanwhile, and what others do, is not changed by a warning
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            self._job.endings[process.pid or 0] = ending
            self._admit(process, entry, label, f"{label}()")
        return process

    def popen(self, argv: Sequence[str], *, label: str | None = None, **options: Any) -> subprocess.Popen[Any]:
        """Start a program for the job; `options` are those of subprocess.Popen. Raises JobStopped."""
        with self._own_work():
            entry = self._job.entry()
            label = label or clip(Path(argv[0]).name, NAME_MAX)
            environment = {**(options.pop("env", None) or os.environ), **self._job.environment, "COORD_LABEL": label}
            then, prepare = options.pop("preexec_fn", None), in_place(entry, self._tied())

            def before_exec() -> None:
                prepare()
                if then:
                    then()

            options = {"start_new_session": True, **options}
            with signals_held(), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                popen = subprocess.Popen(argv, env=environment, preexec_fn=before_exec, **options)  # noqa: PLW1509
            self._admit(popen, entry, label, " ".join(map(str, argv)))
        return popen

    def adopt(self, process: BaseProcess | subprocess.Popen[Any], *, label: str | None = None) -> None:
        """Take in a process that this program started by other means; and what it has started since.

        Unlike a rank, it must see itself to acting on SIGTERM. Raises UsageError for one that does not run.
        """
        with self._own_work():
            stat = read_stat(process.pid) if process.pid else None
            if stat is None or not stat.alive:
                raise UsageError("the process to adopt does not run", "Start it first")
            entry = self._job.entry()
            for each in (stat, *descendants(stat.pid)):
                with suppress(ProcessLookupError):
                    entry.give(each.pid)
            self._admit(process, entry, label or getattr(process, "name", "") or stat.name, stat.name)

    def _admit(self, process: BaseProcess | subprocess.Popen[Any], entry: Entry, label: str, command: str) -> None:
        pid = process.pid or 0
        self._processes[pid] = process
        if stat := read_stat(pid):
            self._job.admit(stat, entry, clip(label, NAME_MAX), one_line(command))

    def _tied(self) -> int | None:
        """A child dies with the thread that started it; only the main thread is sure to live as long as the program."""
        return os.getpid() if threading.current_thread() is threading.main_thread() else None

    # -- waiting -------------------------------------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Tell whether the job is being stopped."""
        return self._job.state.phase is not Phase.RUNNING

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until all ranks have ended well; False when `timeout_s` has passed before.

        Raises JobStopped when the job was stopped instead: by a rank that failed, here or elsewhere, or by a person;
        nothing of it is left on this host then.
        """
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._own_work(may_be_stopping=True):
            while not self._settled():
                wait_s = LOOK_S if end_s is None else min(LOOK_S, end_s - time.monotonic())
                if wait_s <= 0:
                    return False
                with self._news:
                    self._news.wait(wait_s)
            self._reap()
            if self.stopping:
                raise self._stopped()
        return True

    def _settled(self) -> bool:
        state = self._job.state
        return state.phase is Phase.OVER or (state.phase is Phase.RUNNING and not state.children)

    # -- the block -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory(prefix="coord-scope-")
        try:
            self._job.open()
        except BaseException:
            self._folder.cleanup()
            raise
        self._interrupts.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._interrupts.own_work():
            try:
                self._leave(kind, error)
            finally:
                self._job.close(self._terms.plan.total_s + MARGIN_S)
                self._reap()
                self._folder.cleanup()
        self._interrupts.give_back()

    def _leave(self, kind: type[BaseException] | None, error: BaseException | None) -> None:
        if error is None:
            try:
                self.join()
            except BaseException as caught:  # noqa: BLE001  # raised again when all is over
                error = caught
        self._end(error)
        if error is not None and kind is None:
            raise error
        if error is not None and self._job.first_failure and not isinstance(error, JobStopped):
            error.add_note(str(self._stopped()))

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            self._job.seal()
        elif not isinstance(error, JobStopped):
            drained = isinstance(error, KeyboardInterrupt | SystemExit)
            what = type(error).__name__ if drained else f"{type(error).__name__}: {error}"
            reason = f"{self._terms.label} on host {self._terms.host} left its scope: {what}"
            self._job.stop(Cause.DRAIN if drained else Cause.FAILURE, one_line(reason))
        while self._job.state.phase is not Phase.OVER:
            try:
                with self._news:
                    self._news.wait(LOOK_S)
            except KeyboardInterrupt:
                self._job.stop_now()

    # -- being stopped -------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Something happened; on the agent's thread."""
        with self._news:
            self._news.notify_all()
        if self.stopping:
            self._interrupts.interrupt(self._job.later)

    @contextmanager
    def _own_work(self, *, may_be_stopping: bool = False) -> Iterator[None]:
        with self._interrupts.own_work():
            if self.stopping and not may_be_stopping:
                raise self._stopped()
            yield

    def _stopped(self) -> JobStopped:
        failure = self._job.first_failure
        ours = failure and failure.agent_id == self._job.agent_id
        trace = how_it_ended(self._job.endings.get(failure.pid, ""))[1] if failure and ours else ""
        return stopped(self._terms.job_id, failure, self._job.request, trace)

    # -- ends ----------------------------------------------------------------------------------------------------------

    def _how_ended(self, pid: int) -> Status | None:
        """Tell how a child ended that was waited for already; on the agent's thread."""
        process = self._processes.get(pid)
        if isinstance(process, subprocess.Popen):
            code = process.returncode
        else:
            code = getattr(getattr(process, "_popen", None), "returncode", None)
        if code is None:
            code, _ = how_it_ended(self._job.endings.get(pid, ""))
        if code is None:
            return None
        return (None, signal.Signals(-code).name) if code < 0 else (code, None)

    def _reap(self) -> None:
        """Have multiprocessing and subprocess take the exits of those that are gone: no zombie stays."""
        ended = {key[0] for key, each in self._job.state.processes.items() if each.outcome is not Outcome.RUNNING}
        for pid in ended & self._processes.keys():
            process = self._processes[pid]
            if isinstance(process, subprocess.Popen):
                process.poll()
            else:
                process.join(0)
