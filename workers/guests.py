"""The job's processes in a program that has others of its own: only those, and what they start, count.

The program waits for its own children itself (multiprocessing, subprocess): their exits are looked at, never taken.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from workers import forks
from workers.containment import Subreaper
from workers.handles import peek, reap_one
from workers.prctl import become_subreaper, is_subreaper, stop_being_subreaper
from workers.proc import children_of, descendants, read_stat

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from workers.events import Key
    from workers.handles import Status
    from workers.proc import Stat

TELL_S = 1.0  # how long an owner may take between having waited for a child and saying how it ended


class Guests(Subreaper):
    """`ended(pid)`: how a child ended that its owner has waited for already; None when nobody knows yet.

    Make it, and close it, in the program; all else is called on the agent's thread.
    """

    def __init__(self, spare: Collection[int], ended: Callable[[int], Status | None]) -> None:
        _adoption.begin()
        super().__init__(None, spare)
        self._ended = ended
        self._children: dict[Key, float | None] = {}  # started for the job, end unknown -> since when they are gone
        self._owned: set[Key] = set()  # their end is known; their owner waits for them
        self._expected = 0

    def admit(self, stat: Stat) -> None:
        """Count a child among the job's."""
        self._children[stat.key] = None

    def dismiss(self, stat: Stat) -> None:
        """Take that back."""
        del self._children[stat.key]

    def expect(self) -> None:
        """One more is being started: till `expect_no_more`, nobody can say that nobody is left."""
        self._expected += 1

    def expect_no_more(self) -> None:
        """It was admitted, or there is none."""
        self._expected -= 1

    def members(self) -> list[Stat]:
        """Find everything alive of the job, parents first."""
        inside: set[int] = set()
        found = []
        for stat in descendants(os.getpid(), self._spare):
            if stat.key in self._children or stat.ppid in inside or self.number(stat) is not None:
                inside.add(stat.pid)
                found.append(stat)
        return found

    def reap(self) -> dict[int, Status]:
        """Look how children ended, and take the exits of the job's orphans, which nobody else waits for."""
        exits = {}
        for key in list(self._children):
            if status := self._end_of(key):
                exits[key[0]] = status
                self._told(key)
        for pid in children_of(os.getpid()):
            self._reap_orphan(pid)
        self._owned = {key for key in self._owned if _is_there(key)}
        return exits

    def decided(self, key: Key) -> bool:
        """Tell whether it is known how a child that is gone ended, or that nobody will ever know."""
        since_s = self._children.get(key)
        if since_s is not None and time.monotonic() - since_s > TELL_S:
            self._told(key)
        return key not in self._children

    def empty(self) -> bool:
        """Tell whether nobody of the job is left below this program.

        A list of children that is read while one of them is reaped can miss others, but then that one is missing in
        the next: so two that are the same are whole.
        """
        before = children_of(os.getpid())
        return not self._expected and not self.members() and before == children_of(os.getpid()) and _readable(before)

    def close(self) -> None:
        """Leave the program as it was."""
        _adoption.end()

    def _told(self, key: Key) -> None:
        del self._children[key]
        self._owned.add(key)

    def _end_of(self, key: Key) -> Status | None:
        pid, _ = key
        stat = read_stat(pid)
        if stat and stat.key == key:
            if stat.alive:
                return None
            with suppress(ChildProcessError):
                if status := peek(pid):
                    return status
        if self._children[key] is None:
            self._children[key] = time.monotonic()
        return self._ended(pid)

    def _reap_orphan(self, pid: int) -> None:
        """Take the exit of one that is nobody's but the job's."""
        stat = read_stat(pid)
        if stat is None or stat.alive or stat.key in self._owned or stat.key in self._children or self._expected:
            return
        if self.number(stat) is not None:
            with suppress(ChildProcessError):
                reap_one(pid)


def _is_there(key: Key) -> bool:
    stat = read_stat(key[0])
    return stat is not None and stat.key == key


def _readable(pids: Collection[int]) -> bool:
    """Tell whether /proc shows all of them: what it hides may be the job's."""
    return all(read_stat(pid) for pid in pids)


class _Adoption:
    """Whether the program is a subreaper: it is while any scope is open, and then what it was before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._was = False

    def begin(self) -> None:
        with self._lock:
            if not self._users:
                self._was = is_subreaper()
            self._users += 1
            become_subreaper()

    def end(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and not self._was:
                stop_being_subreaper()


_adoption = _Adoption()
forks.in_child.append(_adoption.__init__)  # type: ignore[misc]  # a fork is no subreaper, and begins anew
