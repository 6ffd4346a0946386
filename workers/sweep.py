"""Sees to what agents of this host left that died together with their guardians: a short-lived process of its own.

The next agent starts it. It runs each dead agent's plan on its processes, and tells the record. What is in a cgroup is
proved to be gone; without one, processes are found by their mark, which finds them but proves nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coord.keyrings import with_file
from workers.cgroups import Cgroup
from workers.containment import Subreaper
from workers.estate import abandoned
from workers.heir import Heir, settle
from workers.marks import read_mark
from workers.proc import read_stat

if TYPE_CHECKING:
    from collections.abc import Collection

    from workers.estate import Estate
    from workers.handles import Status
    from workers.proc import Stat

DEATH = {"signal": None, "exit_code": None, "how": "died together with its guardian"}


def start_if_needed(redis_url: str | None, secret_file: str | None = None) -> None:
    """Start it when there is something to see to; it belongs to nobody's tree.

    It speaks to the record with our secrets: an estate, which stands on a disk, has none. `redis_url` None: there is
    no record to tell, so it sees to those alone that had none either.
    """
    if any(_told_to(estate, redis_url) for estate in abandoned()):
        environment = {**with_file(os.environ, secret_file), "COORD_REDIS_URL": redis_url or ""}
        argv = [sys.executable, "-P", "-m", "workers.sweep"]
        subprocess.run(argv, check=False, env=environment, stdin=subprocess.DEVNULL)


def main() -> None:
    """Leave the parent's tree, then see to each."""
    if os.fork():
        os._exit(0)
    os.setsid()
    redis_url = os.environ["COORD_REDIS_URL"] or None
    for estate in abandoned():
        if _told_to(estate, redis_url):
            see_to(estate, redis_url)


def _told_to(estate: Estate, redis_url: str | None) -> bool:
    return bool(redis_url or estate.watch.get("local"))


def see_to(estate: Estate, redis_url: str | None) -> None:
    """Stop what is left of one agent, report it in its name, and forget it."""
    watch = {
        **estate.watch,
        "redis_url": None if estate.watch.get("local") else redis_url,
        "secret_file": None,  # ours are in the environment
    }
    settle(Heir(watch, Strays(watch["containment"])), watch, None, DEATH)
    estate.remove()


def take_over(told: dict[str, str]) -> None:
    """Stop what a program with a scope left when it died. `told`: its last message of each kind."""
    watch = json.loads(told["watch"])
    death = {**DEATH, "how": "died without a word"}
    settle(Heir(watch, Strays(watch["containment"])), watch, json.loads(told.get("stopping", "null")), death)
    if watch["estate"]:
        Path(watch["estate"]).unlink(missing_ok=True)


class Strays(Subreaper):
    """Processes of a dead agent that have fallen to nobody: in its cgroup, or marked by it."""

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__(facts["owner"])
        self._folder = Cgroup(facts["cgroup"]) if facts["cgroup"] else None
        self._held = self._folder.hold() if self._folder else None
        self._numbers: dict[int, int] = {}
        self.proof = "cgroup" if self._folder else None
        self.kills_at_once = self._folder is not None

    def members(self) -> list[Stat]:
        """Find them in the cgroup and by their mark, oldest first."""
        self._numbers = self._folder.members() if self._folder else {}
        for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
            mark = read_mark(pid)
            if mark and mark.owner == self.owner:
                self._numbers[pid] = mark.number
        stats = [stat for pid in self._numbers if (stat := read_stat(pid)) and stat.alive]
        return sorted(stats, key=lambda stat: stat.start_ticks)

    def number(self, stat: Stat) -> int | None:
        """Tell from which child a process comes."""
        return self._numbers.get(stat.pid)

    def belongs(self, stat: Stat, pids: Collection[int]) -> bool:
        """Tell whether a process is still one of those that were found: its key is."""
        del self
        return stat.pid in pids

    def reap(self) -> dict[int, Status]:
        """Nobody here is a child of this process."""
        return {}

    def empty(self) -> bool:
        """Tell whether nobody is left, as far as it shows."""
        return not self.members() and (self._folder is None or self._folder.emptied())

    def kill(self) -> None:
        """Kill everything in the cgroup at one instant."""
        if self._folder:
            self._folder.kill()

    def close(self) -> None:
        """Remove the cgroup."""
        if self._folder:
            self._folder.remove()


if __name__ == "__main__":
    main()
