"""Simulated processes: what a host's kernel would do, and what `tree` sees of it. They are the only thing that is fake.

A process leaves on SIGTERM after a while, ignores it, ends or fails by itself, starts others, or can't be killed for a
time. The tree, the stopper and all above them are the real ones.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
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

    from tests.sim.clock import Program, VirtualLoop
    from workers.events import Key
    from workers.handles import Status

KILL_S = 0.002  # how long the kernel takes to take a killed process away


@dataclass(frozen=True)
class Nature:
    """How a process behaves. Times are seconds; None: never."""

    ends_after_s: float | None = None  # by itself
    exit_code: int = 0
    leaves_after_s: float | None = 0.1  # after SIGTERM
    stuck_s: float = 0.0  # how long it stays after SIGKILL
    young: tuple[float, ...] = ()  # when it starts others, which live like it
    lone: bool = False  # those lose their parent at once
    foreign: bool = False  # may not be signalled


@dataclass(eq=False)
class Process:
    """One process."""

    pid: int
    ppid: int
    start: int
    group: Group
    nature: Nature
    label: str
    asked_s: float | None = None
    alive: bool = True
    dying: bool = False
    stopped: bool = False
    status: Status = (None, None)
    fds: list[int] = field(default_factory=list)

    @property
    def key(self) -> Key:
        """Name it."""
        return self.pid, self.start


class Group:
    """The trees of one agent on one host. `reaper`: who gets its orphans and their exits; None: init."""

    def __init__(self, host: Kernel, job: str, agent_id: str) -> None:
        self.host = host
        self.job = job
        self.agent_id = agent_id
        self.reaper: Program | None = None
        self.told: Callable[[], None] = lambda: None  # SIGCHLD
        self.processes: dict[int, Process] = {}
        self.strays = False  # nobody of ours looks after them any more

    @property
    def living(self) -> list[Process]:
        """Who is alive."""
        return [each for each in self.processes.values() if each.alive]


class Kernel:
    """One host's processes. `born(process)` and `signalled(process, name)` are called each time, before it happens."""

    def __init__(
        self,
        loop: VirtualLoop,
        nowhere: Any,
        born: Callable[[Process], None],
        signalled: Callable[[Process, str], None],
    ) -> None:
        self.loop = loop
        self.born = born
        self.signalled = signalled
        self.ended: Callable[[Process], None] = lambda _: None
        self.processes: dict[int, Process] = {}
        self._nowhere = nowhere
        self._pids = count(1000)

    def spawn(self, group: Group, nature: Nature, label: str, ppid: int = 0) -> Process:
        """Start a process; `ppid` 0: the agent itself is its parent."""
        pid = next(self._pids)
        process = Process(pid, ppid, pid * 7, group, nature, label)
        self.born(process)
        self.processes[pid] = group.processes[pid] = process
        if nature.ends_after_s is not None:
            self._later(nature.ends_after_s, self._end, process, (nature.exit_code, None))
        for after_s in nature.young:
            self._later(after_s, self._fork, process)
        return process

    def signal(self, process: Process, name: str) -> None:
        """Send a signal."""
        if not process.alive:
            return
        if process.nature.foreign:
            raise PermissionError(1, "Operation not permitted")
        if name in {"SIGTERM", "SIGKILL"}:
            self.signalled(process, name)
        self.deliver(process, name)

    def deliver(self, process: Process, name: str) -> None:
        """Let a signal have its effect."""
        nature = process.nature
        if name == "SIGSTOP":
            process.stopped = True
        elif name == "SIGCONT":
            process.stopped = False
            if process.asked_s is not None:
                self._leave_soon(process)
        elif name == "SIGKILL" and not process.dying:
            process.dying = True
            self._later(KILL_S + nature.stuck_s, self._end, process, (None, "SIGKILL"))
        elif name == "SIGTERM" and process.asked_s is None:
            process.asked_s = self.loop.now_s
            self._leave_soon(process)

    def vanish(self, group: Group) -> None:
        """Power off: all of it is gone, and nobody is told."""
        for process in group.processes.values():
            process.alive = False
            self.processes.pop(process.pid, None)
        group.processes.clear()

    def _leave_soon(self, process: Process) -> None:
        after_s = process.nature.leaves_after_s
        if after_s is not None and not process.stopped:
            self._later(after_s, self._leave, process)

    def _leave(self, process: Process) -> None:
        if not process.stopped:
            self._end(process, (0, None) if process.pid % 2 else (None, "SIGTERM"))

    def _fork(self, parent: Process) -> None:
        if parent.alive and not parent.stopped and not parent.dying:
            nature = Nature(leaves_after_s=parent.nature.leaves_after_s, stuck_s=parent.nature.stuck_s)
            self.spawn(parent.group, nature, parent.label, 0 if parent.nature.lone else parent.pid)

    def _end(self, process: Process, status: Status) -> None:
        if not process.alive or (process.stopped and status[1] != "SIGKILL"):
            return
        process.alive = False
        process.status = status
        group = process.group
        for orphan in [each for each in group.processes.values() if each.ppid == process.pid]:
            orphan.ppid = 0
            if not orphan.alive:
                self._forget(orphan)
        if process.ppid or group.reaper is None:
            self._forget(process)  # its parent, or init, takes its exit at once
        self.ended(process)
        for fd in process.fds:
            self.loop.stir(fd)
        group.told()

    def _forget(self, process: Process) -> None:
        self.processes.pop(process.pid, None)
        process.group.processes.pop(process.pid, None)

    def reap(self, group: Group) -> dict[int, Status]:
        """Take the exits of a reaper's children."""
        ended = [each for each in group.processes.values() if not each.alive and each.ppid == 0]
        for process in ended:
            self._forget(process)
        return {process.pid: process.status for process in ended}

    def _later(self, wait_s: float, callback: Any, *args: Any) -> None:
        self.loop.after(wait_s, self._nowhere, callback, *args)


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


class Handles:
    """Opens handles, in place of those of `workers.handles`."""

    def __init__(self) -> None:
        self.tables: dict[Any, Kernel] = {}
        self._fds = count(100)

    def hold(self, process: Process) -> Handle:
        """Open one."""
        fd = next(self._fds)
        process.fds.append(fd)
        return Handle(process, fd)


@contextmanager
def in_place_of_the_kernel(find: Callable[[int], Process | None]) -> Iterator[None]:
    """Let `tree` hold simulated processes. `find(pid)`: on the host whose code asks."""
    handles = Handles()

    def open_child(pid: int) -> Handle:
        process = find(pid)
        assert process is not None, "a child is there until its exit is taken"
        return handles.hold(process)

    def open_found(stat: Stat, belongs: Callable[[Stat], bool]) -> Handle | None:
        process = find(stat.pid)
        return handles.hold(process) if process and process.alive and belongs(stat) else None

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
