"""The job's processes in a program that has others of its own: only those, and what they start, count.

The program waits for its own children itself (multiprocessing, subprocess): their exits are looked at, never taken.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from workers.containment import Subreaper
from workers.handles import peek, reap_one
from workers.prctl import is_subreaper, stop_being_subreaper
from workers.proc import children_of, descendants, read_stat

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from workers.events import Key
    from workers.handles import Status
    from workers.proc import Stat

LOOKS = 2  # /proc can miss what moves while it is read


class Guests(Subreaper):
    """`ended(pid)`: how a child ended that its owner has waited for already; None when nobody knows."""

    def __init__(self, spare: Collection[int], ended: Callable[[int], Status | None]) -> None:
        self._was = is_subreaper()
        super().__init__(None, spare)
        self._ended = ended
        self._children: dict[Key, bool] = {}  # those started for the job -> whether its end was told

    def admit(self, stat: Stat) -> None:
        """Count a child among the job's."""
        self._children[stat.key] = False

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
        for key, told in self._children.items():
            if not told and (status := self._end_of(key)):
                exits[key[0]] = status
                self._children[key] = True
        owned = {pid for pid, _ in self._children}
        for pid in children_of(os.getpid()):
            stat = read_stat(pid) if pid not in owned else None
            if stat and not stat.alive and self.number(stat) is not None:
                with suppress(ChildProcessError):
                    reap_one(pid)
        return exits

    def empty(self) -> bool:
        """Tell whether nobody of the job is left: nothing in two looks at all that descends from this program."""
        return all(not self.members() and self._all_readable() for _ in range(LOOKS))

    def close(self) -> None:
        """Leave the program as it was."""
        if not self._was:
            stop_being_subreaper()

    def _end_of(self, key: Key) -> Status | None:
        pid, _ = key
        stat = read_stat(pid)
        if stat and stat.key == key and stat.alive:
            return None
        with suppress(ChildProcessError):
            if stat and stat.key == key and (status := peek(pid)):
                return status
        return self._ended(pid)

    def _all_readable(self) -> bool:
        return all(pid in self._spare or read_stat(pid) for pid in children_of(os.getpid()))
