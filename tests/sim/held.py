"""Holds simulated processes: what `tree` finds them by and signals them through, in place of /proc and pidfds."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import workers.stopper
import workers.tree
from coord.messages import Survivor
from tests.sim.clock import replacing
from workers.containment import Entry
from workers.marks import Mark
from workers.proc import Stat

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from tests.sim.processes import Group, Process
    from workers.events import Key
    from workers.handles import Status


class Contained:
    """What a containment is: finds the group's processes, and proves that none is left."""

    kills_at_once = False
    looks_max = 50

    def __init__(self, group: Group, proof: str | None = "subreaper") -> None:
        self.group = group
        self.proof = proof
        self._born = 0

    def entry(self) -> Entry:
        """Make a place for one more child."""
        self._born += 1
        return Entry(Mark(1, self._born), None)

    def members(self) -> list[Stat]:
        """Find everything alive, parents first."""
        return [Stat(each.pid, each.ppid, each.label, "S", 1, each.start) for each in self.group.living]

    def number(self, _stat: Stat) -> int | None:
        """Tell from which child a process comes; it does not show."""
        return None

    def belongs(self, stat: Stat, _pids: Collection[int]) -> bool:
        """Tell whether a process is still one of the group's."""
        return stat.pid in self.group.processes

    def reap(self) -> dict[int, Status]:
        """Take exits."""
        return self.group.host.reap(self.group)

    def decided(self, _key: Key) -> bool:
        """Tell whether all is known of how a process ended that is gone."""
        return True

    def empty(self) -> bool:
        """Tell whether nobody is left."""
        return not self.group.processes

    def kill(self) -> None:
        """Nothing kills all at once."""

    def facts(self) -> dict[str, Any]:
        """Nobody asks."""
        return {}

    def close(self) -> None:
        """Nothing is left."""


@dataclass(frozen=True, slots=True)
class Handle:
    """A handle on a simulated process."""

    process: Process
    fd: int

    @property
    def key(self) -> Key:
        """Name the process."""
        return self.process.key

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid

    def send(self, name: str) -> bool:
        """Send a signal; False when it is gone."""
        if not self.process.alive:
            return False
        self.process.group.host.signal(self.process, name)
        return True

    def gone(self) -> bool:
        """Tell whether it has ended."""
        return not self.process.alive

    def close(self) -> None:
        """Give it back."""
        if self.fd in self.process.fds:
            self.process.fds.remove(self.fd)


@contextmanager
def in_place_of_the_kernel(find: Callable[[int], Process | None]) -> Iterator[None]:
    """Let `tree` hold simulated processes. `find(pid)`: on the host whose code asks."""
    fds = count(100)

    def hold(process: Process) -> Handle:
        process.fds.append(next(fds))
        return Handle(process, process.fds[-1])

    def open_child(pid: int) -> Handle:
        process = find(pid)
        assert process is not None, "a child is there until its exit is taken"
        return hold(process)

    def open_found(stat: Stat, belongs: Callable[[Stat], bool]) -> Handle | None:
        process = find(stat.pid)
        return hold(process) if process and process.alive and belongs(stat) else None

    def survivor(key: Key) -> Survivor:
        return Survivor(key[0], "D", None, "root")

    class NoAftermath:
        """Nothing is left behind by what is not real."""

        sweep_shm = False

        def __init__(self, **_: Any) -> None: ...
        def note(self, _pids: Iterable[int]) -> None: ...
        def conclude(self) -> tuple[()]:
            return ()

    replaced: list[tuple[Any, str, Any]] = [
        (workers.tree, "open_child", open_child),
        (workers.tree, "open_found", open_found),
        (workers.tree, "read_command", lambda stat: stat.name),
        (workers.stopper, "survivor", survivor),
        (workers.stopper, "Aftermath", NoAftermath),
    ]
    with replacing(replaced):
        yield
