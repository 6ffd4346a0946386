"""Starts a child's program: in a session of its own, in its place in the containment, tied to this agent's life."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coord.errors import NOT_EXECUTABLE, NOT_FOUND, CoordError
from coord.messages import COMMAND_MAX, clip
from workers.prctl import end_with_parent, libc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from workers.containment import Entry


# what exec says of the program; other errors are of this host: no process, descriptor or memory left
OF_THE_PROGRAM = {errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.ELOOP, errno.EINVAL}
ENOENT_HINT = "Correct the command after `--`"


@dataclass(frozen=True, slots=True)
class Program:
    """What to start. stdin and stdout are ours; stderr too, unless a descriptor is given."""

    path: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    stderr: int | None = None


def find_program(name: str) -> str:
    """Give the program's path. Raises CoordError with exit code 127 (not found) or 126 (not executable), as a shell."""
    found = shutil.which(name)
    if found:
        return found
    if ("/" in name or name in {".", ".."}) and os.path.isdir(name):  # noqa: PTH112  # a name that is too long for a path is no error here
        raise CoordError(f"{name!r} is a directory", ENOENT_HINT, exit_code=NOT_EXECUTABLE)
    folders = [""] if "/" in name else os.get_exec_path()
    if any(os.path.isfile(os.path.join(folder, name)) for folder in folders):  # noqa: PTH113, PTH118
        raise CoordError(f"{name!r} is not executable", f"Run chmod +x {name}", exit_code=NOT_EXECUTABLE)
    raise CoordError(f"{clip(name, COMMAND_MAX)!r} was not found", ENOENT_HINT, exit_code=NOT_FOUND)


def start(program: Program, entry: Entry) -> int:
    """Start it; gives its pid. Raises CoordError when it can't be started.

    If the agent and its guardian are killed at one instant, the kernel still sends it SIGTERM.
    """
    try:
        with signals_held():
            return _spawn(program, in_place(entry, os.getpid()))
    except OSError as error:
        if error.errno not in OF_THE_PROGRAM:
            raise CoordError(f"{program.path!r} can't be started: {error.strerror}", "See `coord doctor`") from error
        raise CoordError(
            f"{program.path!r} can't be started: {error.strerror}",
            "Does it begin with #! and an interpreter that exists?",
            exit_code=NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE,
        ) from error


def in_place(entry: Entry, parent_pid: int | None) -> Callable[[], None]:
    """Give what a child does before it is its program; between fork and exec it calls the kernel only.

    `parent_pid`: the kernel sends it SIGTERM when this thread ends; None: it does not.
    """
    libc()  # loaded before the fork

    def prepare() -> None:
        _forget_handlers()
        if parent_pid is not None:
            end_with_parent(parent_pid)
        entry.take()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return prepare


@contextmanager
def signals_held(*numbers: signal.Signals) -> Iterator[None]:
    """Hold signals back: one that reaches a child before it is its program must neither get lost nor wake the agent.

    `numbers`: these; else all.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers or signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _spawn(program: Program, prepare: Callable[[], None]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: see above
        popen = subprocess.Popen(
            program.argv,
            executable=program.path,
            env=program.environment,
            stderr=program.stderr,
            start_new_session=True,
            close_fds=False,  # what the caller passes on is meant for the command
            preexec_fn=prepare,  # noqa: PLW1509  # it calls the kernel only
        )
    popen.returncode = 0  # the tree reaps it, and Popen must not
    return popen.pid


def _forget_handlers() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
