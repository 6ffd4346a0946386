"""A world: hosts, one server, the network between, and what is true of them, whatever anybody believes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from coord.redis_clock import RedisClock
from coord.seal import Keyring
from tests.sim.clock import EPOCH_S, WHERE, HostClock, Program, StuckError, VirtualLoop
from tests.sim.invariants import Invariants
from tests.sim.network import Network
from tests.sim.processes import Kernel, Process
from tests.sim.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from random import Random

    from tests.sim.hosts import Run
    from tests.sim.lua import Scripts

UNWIND_MAX_S = 3600.0  # virtual seconds that all programs' ends may take, once the history is over


class Host:
    """A machine."""

    def __init__(self, world: World, name: str, clock: HostClock) -> None:
        self.name = name
        self.clock = clock
        self.kernel = Kernel(world.loop, world.network.nowhere, world.invariants.born, world.invariants.signalled)
        self.kernel.ended = world.process_ended
        self.estates: list[Run] = []  # runs that died together with their guardians
        self.down = False


class World:
    """All of it."""

    def __init__(self, rng: Random, scripts: Scripts, secrets: tuple[bytes, ...] = ()) -> None:
        self.rng = rng
        self.loop = VirtualLoop()
        self.network = Network(self.loop, rng)
        self.trace: list[tuple[float, str, str, dict[str, Any]]] = []
        self.runs: dict[str, Run] = {}
        self.programs: list[Program] = []
        self.hosts: dict[str, Host] = {}
        self.closed = False
        self.healed_s: float | None = None
        self.troubled_s = 0.0  # when all last had trouble
        self.invariants = Invariants(self)
        self.server = Server(self.network, scripts, self.invariants.ran)
        self.server.before = self.invariants.runs
        self.server.subscribed = self.invariants.subscribed
        self._numbers = 0
        self._secrets = list(secrets)

    def host(self, name: str) -> Host:
        """Give a host; a new one gets a clock of its own."""
        if name not in self.hosts:
            clock = HostClock(self.rng.uniform(10.0, 1e5), self.rng.uniform(0.99, 1.01))
            self.hosts[name] = Host(self, name, clock)
        return self.hosts[name]

    def next_number(self) -> int:
        """Count what needs a name."""
        self._numbers += 1
        return self._numbers

    @property
    def now_s(self) -> float:
        """Give the true time."""
        return self.loop.now_s

    @property
    def now_us(self) -> int:
        """Give Redis' time."""
        return round((EPOCH_S + self.loop.now_s) * 1e6)

    def keyring(self) -> Keyring | None:
        """Give a program its secrets, in an order of its own; None: there are none."""
        if not self._secrets:
            return None
        secrets = self.rng.sample(self._secrets, len(self._secrets))
        return Keyring(secrets, RedisClock(lambda: time.monotonic(), lambda: time.time()))  # noqa: PLW0108  # as they are then

    # -- what is written down ------------------------------------------------------------------------------------------

    def say(self, who: str, what: str, **facts: Any) -> None:
        """Write down what happened."""
        if not self.closed:
            self.trace.append((self.loop.now_s, who, what, facts))

    def log(self, who: str) -> Log:
        """Give a program its log."""
        return Log(self, who)

    # -- programs ------------------------------------------------------------------------------------------------------

    def spawn(self, program: Program, work: Coroutine[Any, Any, None]) -> None:
        """Start a program."""
        self.programs.append(program)
        task = program.context().run(self.loop.create_task, work)
        task.add_done_callback(lambda done: self._ended(program, done))

    def kill(self, program: Program) -> None:
        """Let it run no more code; the kernel closes its connections."""
        program.dead = True
        for wire in list(program.wires):
            wire.close()

    def in_program(self, program: Program, callback: Callable[[], None]) -> None:
        """Have a program called."""
        if not program.dead:
            program.context().run(self.loop.call_soon, callback)

    def later(self, wait_s: float, callback: Callable[..., None], *args: Any) -> None:
        """Let the world do something, after so much true time."""
        self.loop.after(wait_s, self.network.nowhere, self._unless_closed, callback, *args)

    def _unless_closed(self, callback: Callable[..., None], *args: Any) -> None:
        if not self.closed:
            callback(*args)

    def find(self, pid: int) -> Process | None:
        """Find a process on the host whose code asks."""
        place = WHERE.get()
        return self.hosts[place.host].kernel.processes.get(pid) if place else None

    def process_ended(self, process: Process) -> None:
        """A process has gone."""
        run = self.runs[process.group.agent_id]
        run.local_cause = True
        self.invariants.ended(process)
        self.say(run.name, "process ended", pid=process.pid, status=process.status)

    def noted(self, run: Run) -> None:
        """Something changed at an agent."""
        self.invariants.noted(run)

    def _ended(self, program: Program, task: asyncio.Task[None]) -> None:
        if not self.closed and not task.cancelled() and (error := task.exception()):
            self.invariants.broken(f"{program.name} raised {error!r}")

    # -- the end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all programs, the dead ones too: their code runs to its end where it can reach nothing any more."""
        self.closed = True
        self.network.open = None
        self.server.stop()
        for host in self.hosts.values():
            for process in list(host.kernel.processes.values()):
                host.kernel.vanish(process.group)
        self.loop.steps = 0  # to unwind takes some, even after a history without an end
        tasks = []
        for program in self.programs:
            program.dead, program.frozen_until_s = False, 0.0
            for handle in program.buried:
                self.loop.call_soon(handle._run)
            tasks += [task for task in program.tasks if not task.done()]
        self.loop.run_until_complete(self._unwind(tasks))
        self.loop.close()
        self.server.scripts.socket = None

    async def _unwind(self, tasks: list[asyncio.Task[Any]]) -> None:
        end_s = self.now_s + UNWIND_MAX_S
        while (left := [task for task in tasks if not task.done()]) and self.now_s < end_s:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=20.0)
        if left:
            raise StuckError(f"programs that do not end: {left}")
        await asyncio.sleep(1.0)


class Log:
    """A program's log, as part of the trace."""

    def __init__(self, world: World, who: str) -> None:
        self._world = world
        self._who = who

    def _say(self, event: str, **facts: Any) -> None:
        self._world.say(self._who, event, **facts)

    def debug(self, event: str, **facts: Any) -> None:
        """Say nothing."""

    info = warning = error = _say
