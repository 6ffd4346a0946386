"""Simulated processes: what a host's kernel would do, and what `tree` sees of it. They are the only thing that is fake.

A process leaves on SIGTERM after a while, ignores it, ends or fails by itself, starts others, or can't be killed for a
time. The tree, the stopper and all above them are the real ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

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
