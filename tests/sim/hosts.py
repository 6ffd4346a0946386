"""The host side: runs the real agent as `coord run` does, and what becomes of its processes when it dies."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from coord.coordinator import new_request
from coord.errors import CoordError, RefusedError, UnreachableError
from coord.ledger import AsyncLedger
from coord.messages import AgentInfo, Cause, FirstFailure
from coord.record import Record
from coord.render.text import failure_words
from tests.sim.clock import Program
from tests.sim.processes import Contained, Group, Nature
from workers.agent import Agent, FailFast
from workers.link import Link
from workers.obituary import died, stopped
from workers.state import Phase
from workers.stop_file import StopFile
from workers.stopper import Manner, Stopper
from workers.tree import Tree

if TYPE_CHECKING:
    from coord.plan import Plan
    from coord.record import Answer, Call
    from tests.sim.world import Host, World
    from workers.containment import Containment
    from workers.events import Key
    from workers.handles import Handle
    from workers.state import Process as Known
    from workers.state import State

URL = "redis://server:6379"
OBITUARY_TRY_S = 12.0
OBITUARY_RETRY_S = 0.3
ABSENT = "died together with its guardian"


@dataclass(frozen=True)
class Child:
    """A child, and how long after the last one it is started."""

    after_s: float
    nature: Nature


@dataclass(frozen=True)
class Order:
    """What an agent is told to do."""

    job: str
    plan: Plan
    children: tuple[Child, ...]
    stop_on_failure: bool = True
    ask_all: bool = True


class SimAgent(Agent):
    """An agent that writes no file."""

    def new_stop_file(self, agent_id: str) -> StopFile:
        """There is no place for one."""
        del agent_id
        return StopFile(None)


class Run:
    """One run of `coord run`: an agent and its children."""

    def __init__(self, world: World, host: Host, order: Order) -> None:
        self.world = world
        self.host = host
        self.order = order
        self.number = world.next_number()
        name = f"{host.name}-{self.number}"
        self.info = AgentInfo(name, host.name, f"rank{self.number}", self.number, "train")
        self.program = Program(name, host.clock, host.name)
        self.group = Group(host.kernel, order.job, name)
        self.group.reaper = self.program
        self.agent: SimAgent | None = None
        self.heir: Heir | None = None
        self.ended = False  # it ended by itself; its code then ran to its end
        self.crashed = False
        self.joined = False
        self.started = 0  # children
        self.failed_s: float | None = None  # when it saw a child fail
        self.knew_s: float | None = None  # when it heard of the request
        self.frozen_s = self.troubled_s = 0.0  # how long it was frozen, and when it last had trouble
        self.local_cause = False  # it had a reason of its own to stop
        self.record = Record(order.job)
        self.by = f"op@{host.name}"

    @property
    def name(self) -> str:
        """The agent's id."""
        return self.info.agent_id

    @property
    def running(self) -> bool:
        """Tell whether it is an agent at work."""
        agent = self.agent
        return bool(agent and self.joined and not self.crashed and agent.state.phase is Phase.RUNNING)

    @property
    def missing_to_others(self) -> bool:
        """Tell whether the job has lost it, in a way that its policy, or that of those who are left, is about."""
        failed = self.failed_s is not None and self.order.stop_on_failure
        return failed or (self.crashed and (self.heir is None or self.order.stop_on_failure))

    def start(self) -> None:
        """Start the program."""
        self.world.runs[self.name] = self
        self.world.say(self.name, "starts", job=self.order.job)
        self.world.spawn(self.program, self._main())

    async def _main(self) -> None:
        world, order = self.world, self.order
        ledger = AsyncLedger(URL)
        log: Any = world.log(self.name)
        agent = self.agent = SimAgent(
            ledger,
            self.record,
            self.info,
            manner=Manner(order.plan, ask_all=order.ask_all),
            log=log,
            containment=cast("Containment", Contained(self.group)),
            link=Link(),
            fail_fast=FailFast(self.by, self._failed) if order.stop_on_failure else None,
        )
        agent.on_change = self._look
        self.group.told = lambda: world.in_program(self.program, agent.reap)
        try:
            async with agent:
                self.joined = True
                await self._start_children(agent)
                await agent.over()
        except RefusedError:
            world.say(self.name, "refused")
        except UnreachableError as error:
            world.say(self.name, "unreachable", why=error.message[:60])
        finally:
            await ledger.close()
        self.ended = True
        self.group.reaper = None
        world.say(self.name, "ended", told=agent.told)

    async def _start_children(self, agent: SimAgent) -> None:
        agent.wait_for_more()
        for number, child in enumerate(self.order.children, 1):
            if child.after_s:
                await asyncio.sleep(child.after_s)
            if not agent.may_start():
                break
            self.world.invariants.starts(self)
            process = self.host.kernel.spawn(self.group, child.nature, f"{self.info.label}.{number}")
            self.started += 1
            agent.adopt(process.pid, number, process.label, "train")
            agent.report()
        agent.seal()

    def _look(self) -> None:
        self.world.noted(self)

    async def _failed(self, process: Known) -> Call[Answer]:
        self.failed_s = self.world.now_s
        await asyncio.sleep(0)
        failure = FirstFailure(
            self.name,
            self.host.name,
            self.info.label,
            process.found.key[0],
            process.exit_code,
            process.signal,
        )
        wish = new_request(self.order.job, Cause.FAILURE, self.by, failure_words(failure))
        return self.record.fail(failure, wish)

    # -- how it dies ---------------------------------------------------------------------------------------------------

    def crash(self, *, guarded: bool) -> None:
        """SIGKILL the agent; without `guarded`, its guardian too. The kernel sends its children SIGTERM."""
        if self.program.dead or self.ended:
            return
        self.world.say(self.name, "killed", guarded=guarded)
        self._die()
        if guarded and self.joined:
            self.heir = Heir(self)
            self.heir.start()
        else:
            self.group.reaper = None
            self.group.told = lambda: None
            self.group.strays = True
            self.host.estates.append(self)
        for process in self.group.living:
            if process.ppid == 0:
                self.host.kernel.deliver(process, "SIGTERM")

    def power_off(self) -> None:
        """The host is gone, with all that was on it."""
        self._die()
        self.host.kernel.vanish(self.group)

    def _die(self) -> None:
        self.crashed = True
        self.local_cause = True
        self.world.kill(self.program)
        if self.heir:
            self.world.kill(self.heir.program)

    def watch(self) -> dict[str, Any]:
        """What its guardian was told of it."""
        return {
            **asdict(self.info),
            "job_id": self.order.job,
            "retain_s": 7 * 24 * 3600,
            "plan": self.order.plan.to_list(),
            "stop_on_failure": self.order.stop_on_failure,
            "by": self.by,
        }


class Heir:
    """What goes on after an agent's death, by the real stopper and the real calls: its guardian, or the next agent."""

    def __init__(self, run: Run, proof: str | None = "subreaper") -> None:
        self.run = run
        self.world = run.world
        self.program = Program(f"{run.name}'s heir", run.host.clock, run.host.name)
        self.over = asyncio.Event()
        self._proof = proof
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Take over."""
        self.run.group.reaper = self.program if self._proof else None
        self.world.spawn(self.program, self._main())

    async def _main(self) -> None:
        run, world = self.run, self.world
        watch = run.watch()
        how = {"how": "was killed by SIGKILL", "exit_code": None, "signal": "SIGKILL"}
        telling = asyncio.get_running_loop().create_task(self._tell(died(watch, how)))
        loop = asyncio.get_running_loop()
        tree = Tree(
            cast("Containment", Contained(run.group, self._proof)),
            lambda handle: loop.add_reader(cast("int", handle.fd), self._stir),
            self._forget,
            label=run.info.label,
        )
        self._stopper = Stopper(Manner(run.order.plan), tree, StopFile(None), self)
        run.group.told = lambda: world.in_program(self.program, self._stir)
        self._stopper.stop(run.order.plan)
        await self.over.wait()
        await telling
        await self._tell([stopped(watch, self._report())])
        world.say(self.program.name, "ended", proof=self._stopper.proof)
        run.group.reaper = None
        run.group.strays = False
        run.ended = True

    def _forget(self, handle: Handle) -> None:
        asyncio.get_running_loop().remove_reader(cast("int", handle.fd))

    def _stir(self) -> None:
        self._stopper.collect(self._stopper._tree.held)

    async def _tell(self, calls: list[Call[Any]]) -> None:
        ledger = AsyncLedger(URL, retries=2)
        loop = asyncio.get_running_loop()
        end_s = loop.time() + OBITUARY_TRY_S
        try:
            for call in calls:
                while True:
                    try:
                        await ledger.run(call)
                        break
                    except CoordError:
                        if loop.time() > end_s:
                            self.world.say(self.program.name, "could not tell")
                            return
                        await asyncio.sleep(OBITUARY_RETRY_S)
        finally:
            await ledger.close()

    def _report(self) -> dict[str, Any]:
        stopper, now_s = self._stopper, self.now_s()
        return {
            "proof": stopper.proof,
            "left_behind": [],
            "survivors": [each.to_dict() for each in stopper.survivors],
            "processes": [process.to_dict() for process in stopper.state.reports()],
            "signal_age_s": None if stopper.first_signal_s is None else now_s - stopper.first_signal_s,
            "gone_age_s": now_s - stopper.all_gone_s if stopper.all_gone_s and stopper.state.proved else None,
        }

    # -- what the stopper asks for -------------------------------------------------------------------------------------

    def now_s(self) -> float:
        """Give the host's time."""
        return asyncio.get_running_loop().time()

    def wake(self, at_s: float) -> None:
        """Have the stopper go on then."""
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(at_s, self._stopper.due)

    def announce(self, state: State) -> None:
        """Nobody reads it."""

    def note(self, before: State) -> None:
        """See when it is over."""
        if self._stopper.state.phase is Phase.OVER and before.phase is not Phase.OVER:
            self.over.set()

    def refused(self, key: Key, signal: str) -> None:
        """Nothing to note."""
