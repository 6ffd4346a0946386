"""Makes an orphan, and looks what becomes of it: who inherits it, and whether that reaps it once it has ended."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from workers.proc import read_stat

WAIT_S = 5.0  # there are inits that look every other second
LOOK_S = 0.005


@dataclass(frozen=True, slots=True)
class Fate:
    """Who inherited it, and whether it was reaped within WAIT_S of its end."""

    heir_pid: int
    reaped: bool


class Orphan:
    """Ends as soon as it is one. Make it early: it may take its heir a while to notice. Raises OSError where it can't.

    A process forks twice; the one in between ends at once.
    """

    def __init__(self) -> None:
        told_fd, tell_fd, go_fd, went_fd = fds = (*os.pipe(), *os.pipe())
        try:
            parent_pid = os.fork()
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        if parent_pid == 0:
            _be_parent(told_fd, tell_fd, go_fd, went_fd)
        os.close(tell_fd)
        os.close(go_fd)
        try:
            with suppress(ChildProcessError):
                os.waitpid(parent_pid, 0)  # its child has a new parent from now on
            self._pid = _number(told_fd)
            stat = read_stat(self._pid)
            os.write(went_fd, b"go")
            self._heir_pid = _number(told_fd)
            os.read(told_fd, 32)  # nothing more: it has ended
        finally:
            os.close(told_fd)
            os.close(went_fd)
        if stat is None:
            raise ProcessLookupError(f"/proc does not show process {self._pid}")
        self._start_ticks = stat.start_ticks
        self._end_s = time.monotonic() + WAIT_S

    def fate(self) -> Fate:
        """Wait until it is reaped, or until its time is over."""
        while self._there():
            if time.monotonic() > self._end_s:
                return Fate(self._heir_pid, reaped=False)
            time.sleep(LOOK_S)
        return Fate(self._heir_pid, reaped=True)

    def _there(self) -> bool:
        stat = read_stat(self._pid)
        return stat is not None and stat.start_ticks == self._start_ticks


def _number(told_fd: int) -> int:
    told = os.read(told_fd, 32)
    if not told:
        raise BlockingIOError("no second process could be forked")
    return int(told)


def _be_parent(told_fd: int, tell_fd: int, go_fd: int, went_fd: int) -> NoReturn:
    try:
        if os.fork() == 0:
            os.close(told_fd)
            os.close(went_fd)
            os.write(tell_fd, b"%d" % os.getpid())
            os.read(go_fd, 2)
            os.write(tell_fd, b"%d" % os.getppid())
    finally:
        os._exit(0)
