"""Holds processes by handle: what a job's processes are signalled through. A handle (pidfd) can't come to mean another.

Refused by construction: pid <= 1, ourselves, and what is not what it was when it was found. Where the kernel or a
sandbox has no pidfds, a handle is (pid, start time), looked at again right before each signal.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from coord.errors import CoordError
from workers.proc import read_stat
from workers.signals import hold, send

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from workers.events import Key
    from workers.proc import Stat

SPARE_FDS = 8

Status: TypeAlias = tuple[int | None, str | None]  # exit code, or the signal's name


@dataclass(frozen=True, slots=True)
class Handle:
    """One process, alive or dead, never another one. `fd`: its pidfd, readable from its end on; or None."""

    key: Key
    fd: int | None

    @property
    def pid(self) -> int:
        """The process's number, for people."""
        return self.key[0]

    def send(self, name: str) -> bool:
        """Send a signal; False when the process is gone. Raises PermissionError for another user's process."""
        number = signal.Signals[name]
        if self.fd is None and not self._same():
            return False
        try:
            send(self.pid, self.fd, number)
        except ProcessLookupError:
            return False
        return True

    def gone(self) -> bool:
        """Tell whether it has ended: a pidfd is readable from then on, pidfd_open(2)."""
        if self.fd is None:
            stat = self._same()
            return stat is None or not stat.alive
        poll = select.poll()  # select(2) knows no descriptor above 1023
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Give the handle back."""
        if self.fd is not None:
            os.close(self.fd)

    def _same(self) -> Stat | None:
        stat = read_stat(self.pid)
        return stat if stat and stat.key == self.key else None


def open_child(pid: int) -> Handle:
    """Hold a child that this process started and has not waited for: its pid can't be used again yet."""
    _refuse_ours(pid)
    fd = hold(pid)
    stat = read_stat(pid)
    if stat is None:
        if fd is not None:
            os.close(fd)
        raise CoordError(f"process {pid} is not a child of this agent")
    return Handle(stat.key, fd)


def open_found(stat: Stat, belongs: Callable[[Stat], bool]) -> Handle | None:
    """Hold a process that was found in /proc; None when it is gone, or no longer what was found.

    Looking again after opening closes the gap in which the pid could have gone to a stranger.
    """
    _refuse_ours(stat.pid)
    try:
        fd = _spared(hold(stat.pid))
    except ProcessLookupError:
        return None
    again = read_stat(stat.pid)
    if again is None or again.key != stat.key or not belongs(again):
        if fd is not None:
            os.close(fd)
        return None
    return Handle(stat.key, fd)


def childless(spare: Collection[int] = ()) -> bool:
    """Tell whether this process has no child, dead or alive, but `spare`: waitid(2) then fails with ECHILD."""
    if spare:
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
        return {int(pid) for pid in children} <= set(spare)
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def reap() -> dict[int, Status]:
    """Take the exit of every child that has one, by pid."""
    exits: dict[int, Status] = {}
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return exits
        if found is None:
            return exits
        exits[found.si_pid] = _status(found)


def peek(pid: int) -> Status | None:
    """Look how a child ended, and leave its exit to whoever waits for it. Raises ChildProcessError."""
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return _status(found) if found else None


def reap_one(pid: int) -> None:
    """Take the exit of one child, if it has one. Raises ChildProcessError."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def _status(found: os.waitid_result) -> Status:
    if found.si_code == os.CLD_EXITED:
        return found.si_status, None
    return None, signal_name(found.si_status)


def signal_name(number: int) -> str:
    """`15` -> `SIGTERM`; a real-time signal has no name of its own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def signal_number(name: str) -> int:
    """`SIGTERM` -> `15`, and what `signal_name` gave for a real-time signal."""
    if name.startswith("SIGRTMIN+"):
        return signal.SIGRTMIN + int(name.removeprefix("SIGRTMIN+"))
    return signal.Signals[name].value


def _spared(fd: int | None) -> int | None:
    """Give it back, or close it and raise OSError (EMFILE) when it is among the last: /proc and Redis need some, too.

    The kernel gives the lowest number that is free, so a high one says how many are left.
    """
    if fd is None or fd < resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FDS:
        return fd
    os.close(fd)
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def _refuse_ours(pid: int) -> None:
    if pid <= 1 or pid == os.getpid():
        raise CoordError(f"refused to hold process {pid}: it is never a child's")
