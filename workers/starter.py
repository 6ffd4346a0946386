"""Starts the children of a `JobScope`, and takes them in: what multiprocessing makes, programs, and what runs already.

A child has its place before it runs anything of the program's, and nothing of that runs once a stop has begun.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import warnings
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from coord.errors import CoordError, UsageError
from coord.keyrings import without_secret
from coord.messages import clip, one_line
from workers import forks
from workers.engine import EngineEnded
from workers.marks import read_mark
from workers.proc import descendants, read_stat
from workers.rank import STOPPED, Rank
from workers.starting import in_place, signals_held
from workers.terms import LABEL_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess

    from workers.children import Owner
    from workers.containment import Entry
    from workers.scoped_job import ScopedJob

LOOKS_MAX = 50  # for what an adopted process starts while it is adopted
TELL_S = 1.0  # how long multiprocessing may take to know how a rank ended
OF_FORKS = ".*use of fork.* may lead to deadlocks"  # beside threads: ours stands still meanwhile, see `forks`


class Starter:
    """`stopped()`: what to raise when the job is being stopped."""

    def __init__(self, job: ScopedJob, context: BaseContext, stopped: Callable[[], BaseException]) -> None:
        self._job = job
        self._context = context
        self._stopped = stopped

    def spawn(
        self, target: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any], label: str | None
    ) -> BaseProcess:
        """Start a rank; see `JobScope.spawn`."""
        make: Callable[..., BaseProcess] = self._context.Process  # type: ignore[attr-defined]  # every context has it
        with self._place() as entry:
            name = label or f"{getattr(target, '__name__', 'rank').strip('<>')}-{entry.mark.number - 1}"
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            forks.private.add(ours)
            try:
                with theirs:
                    process = make(target=self._rank(name, theirs).run, args=(target, args, kwargs), name=name)
                    with self._held(), _quiet():
                        process.start()
                with suppress(ProcessLookupError):
                    entry.give(process.pid or 0)
                self._take_in(process, entry, (name, f"{name}()"), ours)
                ours.send(b"1")
            except BaseException:
                forks.close(ours)  # a rank that waits for its word leaves
                raise
        return process

    def popen(self, argv: Any, label: str | None, options: dict[str, Any]) -> subprocess.Popen[Any]:
        """Start a program; see `JobScope.popen`."""
        words = [argv] if isinstance(argv, str | bytes | os.PathLike) else argv
        command = " ".join(os.fsdecode(word) for word in words)
        name = label or clip(os.path.basename(command.split(" ", 1)[0]), LABEL_MAX)
        env, then = options.pop("env", None), options.pop("preexec_fn", None)
        environment = {
            **(without_secret(os.environ) if env is None else env),
            **self._job.environment,
            "COORD_LABEL": name,
        }
        options = {"start_new_session": "process_group" not in options, **options}
        with self._place() as entry:
            prepare = _before_exec(in_place(entry, _tied()), self._job.stop_file, then)
            with signals_held(), _quiet():
                process = subprocess.Popen(argv, env=environment, preexec_fn=prepare, **options)  # noqa: PLW1509
            self._take_in(process, entry, (name, command))
        return process

    def adopt(self, process: Owner, label: str | None) -> None:
        """Take in what runs already; see `JobScope.adopt`."""
        if self._job.children.has(process):
            return
        stat = read_stat(process.pid) if process.pid else None
        if stat is None or not stat.alive:
            raise UsageError("the process to adopt does not run", "Start it first")
        name = label or str(getattr(process, "name", stat.name))
        with self._place() as entry:
            for _ in range(LOOKS_MAX):
                if not any([_given(entry, each.pid) for each in (stat, *descendants(stat.pid))]):  # noqa: C419  # each
                    break
            self._take_in(process, entry, (name, stat.name))

    @contextmanager
    def _place(self) -> Iterator[Entry]:
        """Give a place for a child that is about to be started; a stop that begins meanwhile does not end before."""
        if not self._job.expect():
            raise self._stopped()
        entry = self._job.entry()
        try:
            yield entry
        except BaseException:
            if entry.cgroup:
                entry.cgroup.remove()
            raise
        finally:
            self._job.expect_no_more()

    def _rank(self, name: str, line: socket.socket) -> Rank:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return Rank({**self._job.environment, "COORD_LABEL": name}, line, frozenset(map(int, mask)), _tied())

    def _held(self) -> AbstractContextManager[None]:
        """Hold back the signals that could reach a rank before it is one: Ctrl-C must not end it with a traceback."""
        match self._context.get_start_method():
            case "fork":
                return signals_held()
            case "spawn":
                resource_tracker.ensure_running()  # which would let them through
                return signals_held(signal.SIGINT)
            case _:
                return nullcontext()  # its server starts it

    def _take_in(self, process: Owner, entry: Entry, names: tuple[str, str], line: socket.socket | None = None) -> None:
        """Have the agent watch it. Raises `stopped`, or CoordError when it failed at once."""
        self._job.children.add(process, line)
        label, command = clip(names[0], LABEL_MAX), one_line(names[1])
        try:
            running = self._job.admit(process.pid or 0, entry, label, command)
        except EngineEnded:
            process.kill()
            running = False
        if running is False:
            raise self._stopped()
        if running is None and (how := self._how_ended(process)):
            raise CoordError(f"{label} ended while it was being started: {how}", "What it printed may say why")

    def _how_ended(self, process: Owner) -> str:
        """Say how it failed; empty: it did not."""
        if isinstance(process, subprocess.Popen):
            with suppress(subprocess.TimeoutExpired):
                process.wait(TELL_S)
        else:
            process.join(TELL_S)
        code, name = self._job.children.ended(process.pid or 0) or (None, None)
        return "" if code == 0 else f"killed by {name}" if name else f"exit code {'unknown' if code is None else code}"


def _before_exec(
    prepare: Callable[[], None], stop_file: str | None, then: Callable[[], None] | None
) -> Callable[[], None]:
    def before_exec() -> None:
        prepare()
        if stop_file and os.path.exists(stop_file):
            os._exit(STOPPED)
        if then:
            then()

    return before_exec


def _given(entry: Entry, pid: int) -> bool:
    """Put a process in its place, if it is not there, and may be put there; it is found below its parent, too."""
    if read_mark(pid) == entry.mark:
        return False
    with suppress(ProcessLookupError, PermissionError):
        entry.give(pid)
        return True
    return False


def _tied() -> int | None:
    """A child dies with the thread that started it; only the main thread is sure to live as long as the program."""
    return os.getpid() if threading.current_thread() is threading.main_thread() else None


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", OF_FORKS, DeprecationWarning)
        yield
