"""The tree of one RQ worker: the work-horse and all below it, but not the worker, who has to write down how it ended.

While the worker lives it is the subreaper of its horse's tree, so the kernel's word that nobody is left (ECHILD) is the
worker's to pass on. When the worker has died, its orphans have fallen to this process, who tells them by their mark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workers.containment import Entry, Subreaper
from workers.handles import childless
from workers.proc import descendants

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from workers.containment import Containment
    from workers.events import Key
    from workers.handles import Status
    from workers.proc import Stat


class WorkerTree(Subreaper):
    """What one worker started. `ours()`: pids of this process's own children that are nobody's orphans."""

    looks_max = 1  # nobody left in /proc, and no word of the worker yet: it will come

    def __init__(self, base: Containment, ours: Callable[[], Collection[int]]) -> None:
        self._base = base  # what makes this process a subreaper, and gives the marks
        self._ours = ours
        self._entry = base.entry()
        self.pid = 0
        self.dead = False  # the worker itself has gone
        self.childless = True  # the worker's word
        self._exits: dict[int, Status] = {}
        self._awaited: int | None = None  # the horse's pid, until the worker said how it ended

    def entry(self) -> Entry:
        """Give the worker's own place: what it starts is born with its mark."""
        return self._entry

    def begin(self, horse_pid: int) -> None:
        """A horse was started."""
        self._awaited = horse_pid
        self.childless = False

    def ended(self, horse_pid: int, status: Status, *, childless: bool) -> None:
        """Hear from the worker how its horse ended, and whether that was all."""
        self._exits[horse_pid] = status
        self._awaited = None
        self.childless = childless

    def members(self) -> list[Stat]:
        """Find everything alive, parents first."""
        if not self.dead:
            return descendants(self.pid)
        number = self._entry.mark.number
        return [
            stat for stat in self._base.members() if stat.pid not in self._ours() and self._base.number(stat) == number
        ]

    def number(self, stat: Stat) -> int | None:
        """Tell from which child a process comes: there is one here."""
        del stat
        return self._entry.mark.number

    def belongs(self, stat: Stat, pids: Collection[int]) -> bool:
        """Tell whether a process is still one of those that were found: `pids`, or a child of the worker."""
        return stat.ppid in pids or stat.ppid == self.pid or self._base.belongs(stat, pids)

    def reap(self) -> dict[int, Status]:
        """Give the exits that the worker told."""
        exits, self._exits = self._exits, {}
        return exits

    def decided(self, key: Key) -> bool:
        """Tell whether all is known of how a process ended that is gone."""
        return self.dead or key[0] != self._awaited

    def empty(self) -> bool:
        """Tell whether nobody is left: the worker's word while it lives; then that no orphan is among our children."""
        if not self.dead:
            return self.childless
        return childless(set(self._ours())) if self._ours() else childless()

    def facts(self) -> dict[str, Any]:
        """Give what `taken_over` needs: nothing, an heir takes over the whole host."""
        return {}

    def worker_died(self) -> None:
        """Hear that the worker has gone: its orphans are ours now."""
        self.dead = True
        self._awaited = None
