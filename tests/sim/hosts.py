"""The host side: runs the real agent as `coord run` does, until it ends or dies."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from coord.coordinator import new_request
from coord.errors import RefusedError, UnreachableError
from coord.ledger import AsyncLedger
from coord.messages import AgentInfo, Cause, FirstFailure
from coord.record import Record
from coord.render.text import failure_words
from tests.sim.clock import Program
from tests.sim.heirs import Heir
from tests.sim.held import Contained
from tests.sim.network import URL
from tests.sim.processes import Group, Nature
from workers.agent import Agent, Policy
from workers.link import Link
from workers.state import Phase
from workers.stop_file import StopFile
from workers.stopper import Manner

if TYPE_CHECKING:
    from coord.plan import Plan
    from coord.record import Answer, Call
    from tests.sim.world import Host, World
    from workers.containment import Containment
    from workers.state import Process as Known


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
    alone_after_s: float | None = None  # --on-redis-loss stop

    @property
    def manner(self) -> Manner:
        """Give how processes are stopped."""
        return Manner(self.plan, ask_all=self.ask_all, alone_after_s=self.alone_after_s)


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
        self.info = AgentInfo(
            name,
            host.name,
            f"rank{self.number}",
            self.number,
            "train",
            fail_fast=order.stop_on_failure,
            alone_s=order.manner.alone_s,
        )
        self.program = Program(name, host.clock, host.name)
        self.group = Group(host.kernel, order.job, name)
        self.group.reaper = self.program
        self.agent: SimAgent | None = None
        self.heir: Heir | None = None
        self.ended = False  # it ended by itself; its code then ran to its end
        self.crashed = False
        self.joined = False
        self.joined_s = 0.0
        self.started = 0  # children
        self.failed_s: float | None = None  # when it saw a child fail
        self.knew_s: float | None = None  # when it heard of the request
        self.frozen_s = self.troubled_s = 0.0  # how long it was frozen, and when it last had trouble
        self.was_frozen = False
        self.local_cause = False  # it had a reason of its own to stop
        self.record = Record(order.job, keyring=world.keyring())
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
    def knows(self) -> bool:
        """Tell whether it is an agent that obeys a request."""
        alive = self.joined and not self.crashed and not self.ended
        return bool(alive and self.agent and self.agent.request)

    @property
    def missing_to_others(self) -> bool:
        """Tell whether the job has lost it, in a way that its own policy is about."""
        return self.order.stop_on_failure and (self.crashed or self.failed_s is not None)

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
            manner=order.manner,
            log=log,
            containment=cast("Containment", Contained(self.group)),
            link=Link(),
            policy=Policy(self.by, self._failed if order.stop_on_failure else None),
        )
        agent.on_change = self._look
        self.group.told = lambda: world.in_program(self.program, agent.reap)
        try:
            async with agent:
                self.joined, self.joined_s = True, world.now_s
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
