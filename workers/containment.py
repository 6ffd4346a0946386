"""How the processes of one agent are kept together: who is of its trees, and what proves that nobody is left.

Two ways. `subreaper`: no orphan leaves the agent, and waitid(2) says when it has no child left. `cgroup`: that, and a
cgroup per child, which the kernel kills at one instant, and which outlives even the agent and its guardian.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from workers.cgroups import PREFIX, Cgroup, NoCgroupError, alone, clear, home, usable
from workers.handles import childless, reap
from workers.marks import Mark, new_owner, put_on, read_mark
from workers.prctl import become_subreaper
from workers.proc import descendants, read_stat

if TYPE_CHECKING:
    from collections.abc import Collection

    from structlog.typing import FilteringBoundLogger

    from workers.events import Key
    from workers.handles import Status
    from workers.proc import Stat

LOOKS_MAX = 50  # a tree that hides or changes during so many looks in a row is looked at again later


class Choice(StrEnum):
    """What `--containment` says."""

    AUTO = "auto"
    CGROUP = "cgroup"
    SUBREAPER = "subreaper"


@dataclass(frozen=True, slots=True)
class Entry:
    """A new child's place: what it takes on before it becomes its program, so that all that it starts has it too."""

    mark: Mark
    cgroup: Cgroup | None

    def take(self) -> None:
        """Take it, in the child. Raises OSError."""
        self.give(0)

    def give(self, pid: int) -> None:
        """Put a process in it that runs already. Raises OSError."""
        put_on(self.mark, pid)
        if self.cgroup:
            self.cgroup.take_in(pid)


class Subreaper:
    """Keeps orphans, and tells the trees of several children apart by the mark that each is born with.

    `spare`: pids of our own helpers, which belong to nobody's tree.
    """

    proof: str | None = "subreaper"  # what `empty` shows; None: it shows nothing for certain
    kills_at_once = False
    looks_max = LOOKS_MAX

    def __init__(self, owner: int | None = None, spare: Collection[int] = ()) -> None:
        become_subreaper()
        self.owner = new_owner() if owner is None else owner
        self._spare = spare
        self._born = 0

    def entry(self) -> Entry:
        """Make a place for one more child."""
        self._born += 1
        return Entry(Mark(self.owner, self._born), None)

    def members(self) -> list[Stat]:
        """Find everything alive, parents first. One look: what moves meanwhile can be missed."""
        return descendants(os.getpid(), self._spare)

    def number(self, stat: Stat) -> int | None:
        """Tell from which child a process comes; None when it does not show."""
        mark = read_mark(stat.pid)
        return mark.number if mark and mark.owner == self.owner else None

    def belongs(self, stat: Stat, pids: Collection[int]) -> bool:
        """Tell whether a process is still one of those that were found: `pids`, this process among them."""
        del self
        return stat.ppid in pids

    def reap(self) -> dict[int, Status]:
        """Take the exits of children and orphans."""
        return reap()

    def decided(self, key: Key) -> bool:
        """Tell whether all is known of how a process ended that is gone."""
        del self, key
        return True

    def empty(self) -> bool:
        """Tell whether nobody is left: the kernel's word, not that of a list that ran empty."""
        return childless(self._spare)

    def kill(self) -> None:
        """Kill everything at one instant, where something can."""

    def facts(self) -> dict[str, Any]:
        """Give what `taken_over` needs."""
        return {"owner": self.owner, "cgroup": None}

    def close(self) -> None:
        """Leave nothing of our own behind."""


class InCgroup:
    """A cgroup per child, in one folder of the agent's, and a subreaper: what leaves its cgroup is still found."""

    proof: str | None = "cgroup"
    kills_at_once = True
    looks_max = LOOKS_MAX

    def __init__(self, base: Subreaper, folder: Cgroup) -> None:
        self._base = base
        self._folder = folder
        self._held = folder.hold()
        self._numbers: dict[int, int] = {}  # pid -> child's number, at the last look

    def entry(self) -> Entry:
        """Make a cgroup for one more child. Raises NoCgroupError."""
        mark = self._base.entry().mark
        return Entry(mark, Cgroup.make(self._folder.path, str(mark.number)))

    def members(self) -> list[Stat]:
        """Find those in the cgroups, and those that left them: they can't leave the subreaper."""
        self._numbers = self._folder.members()
        found = self._base.members()
        known = {stat.pid for stat in found}
        others = [stat for pid in self._numbers if pid not in known and (stat := read_stat(pid))]
        return found + [stat for stat in others if stat.alive]

    def number(self, stat: Stat) -> int | None:
        """Tell from which child a process comes: whose cgroup it is in, else by its mark."""
        return self._numbers.get(stat.pid) or self._base.number(stat)

    def belongs(self, stat: Stat, pids: Collection[int]) -> bool:
        """Tell whether a process is still one of those that were found."""
        return self._base.belongs(stat, pids) or stat.pid in self._folder.members()

    def reap(self) -> dict[int, Status]:
        """Take the exits of children and orphans."""
        return self._base.reap()

    def decided(self, key: Key) -> bool:
        """Tell whether all is known of how a process ended that is gone."""
        return self._base.decided(key)

    def empty(self) -> bool:
        """Tell whether the cgroup is empty, and no child is left either."""
        return self._base.empty() and self._folder.emptied()

    def kill(self) -> None:
        """Kill everything in the cgroup at one instant."""
        self._folder.kill()

    def facts(self) -> dict[str, Any]:
        """Give what `taken_over` needs."""
        return {**self._base.facts(), "cgroup": self._folder.path}

    def close(self) -> None:
        """Remove the cgroup, if nobody survived in it."""
        self._base.close()
        self._folder.remove()
        if self._held is not None:
            os.close(self._held)
            self._held = None


Containment: TypeAlias = Subreaper | InCgroup


def contain(choice: Choice, agent_id: str, log: FilteringBoundLogger, base: Subreaper | None = None) -> Containment:
    """Choose what this host allows. Raises NoCgroupError when a cgroup was asked for and can't be had."""
    base = base or Subreaper()
    if choice is not Choice.SUBREAPER:
        try:
            parent = home()
            with alone(parent):
                clear(parent)
                folder = Cgroup.make(parent, PREFIX + re.sub(r"[^\w.-]", "_", agent_id))
                contained = InCgroup(base, folder)
            usable(folder)
        except NoCgroupError as error:
            if choice is Choice.CGROUP:
                raise
            log.debug("containment.chosen", containment="subreaper", reason=str(error))
        else:
            return contained
    return base


def taken_over(facts: dict[str, Any], spare: Collection[int]) -> Containment:
    """Go on with what a dead agent kept together; its orphans have fallen to this process."""
    base = Subreaper(facts["owner"], spare)
    return InCgroup(base, Cgroup(facts["cgroup"])) if facts["cgroup"] else base
