"""`coord run -- COMMAND`: an agent with one child, the command.

Starts it in a session of its own, passes what reaches it through, and ends as it ended.
"""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import signal
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from coord.coordinator import new_request
from coord.errors import CoordError
from coord.keyrings import keyring, without_secret
from coord.ledger import AsyncLedger
from coord.logs import logger
from coord.messages import (
    COMMAND_MAX,
    AgentInfo,
    Cause,
    FirstFailure,
    clip,
)
from coord.plan import Plan, format_duration
from coord.record import Record
from coord.render.text import failure_words
from workers import estate, sweep
from workers.agent import Agent, Policy
from workers.containment import Choice, contain
from workers.ending import Ending
from workers.handles import signal_number
from workers.link import guardian
from workers.outlet import Outlet
from workers.starting import Program, find_program, start
from workers.state import Phase, Process
from workers.stderr_tail import StderrTail
from workers.wake_ups import hear, hear_children

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.record import Answer, Call
    from coord.settings import Settings
    from workers.containment import Containment, Entry
    from workers.stopper import Manner

STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TAIL_S = 0.05  # how long a failure's report waits for the last words on stderr
HINT_S = 0.5  # after Ctrl-C: who is still waiting then, wants to know for what
PLATFORM_S = 0.1
FLUSH_S = 1.0  # how long the end waits for a slow reader of our stderr
LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Order:
    """What `coord run` was told."""

    job_id: str
    argv: tuple[str, ...]
    label: str
    manner: Manner
    stop_on_failure: bool
    containment: Choice = Choice.AUTO


def run_command(order: Order, settings: Settings, redis_url: Callable[[], str]) -> int:
    """Run the command to its end; gives the exit code of `coord run`. The command is checked before Redis is asked."""
    path = find_program(order.argv[0])
    return asyncio.run(CommandRun(order, settings, path).run(redis_url()))


class CommandRun:
    """One command under one agent."""

    def __init__(self, order: Order, settings: Settings, path: str) -> None:
        self._order = order
        self._settings = settings
        self._path = path
        self._label = order.label or clip(Path(order.argv[0]).name, 64)
        self._record = Record(order.job_id, settings.retain_s, keyring(settings.secret_file))
        self._info = AgentInfo(
            agent_id=f"{settings.host}-{os.getpid()}-{secrets.token_hex(4)}",
            host=settings.host,
            label=self._label,
            pid=os.getpid(),
            command=clip(" ".join(order.argv), COMMAND_MAX),
            fail_fast=order.stop_on_failure,
            alone_s=order.manner.alone_s,
        )
        self._outlet = Outlet(2)
        self._log = logger(
            settings.log_level,
            cast("TextIO", self._outlet),
            job=order.job_id,
            agent=self._info.agent_id,
            host=settings.host,
        )
        self._tail: StderrTail | None = None
        self._agent: Agent | None = None
        self._estate: estate.Estate | None = None
        self._signalled: list[signal.Signals] = []
        self._drained_by: str | None = None  # the signal that began the stop, if one did

    async def run(self, url: str) -> int:
        """Join, start, watch, report."""
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        hear_children(loop, lambda: None)
        hear(loop, STOPPING_SIGNALS, self._take_signal)
        sweep.start_if_needed(url, self._settings.secret_file)
        ledger = AsyncLedger(url, min_replicas=self._settings.min_replicas)
        containment = contain(self._order.containment, self._info.agent_id, self._log)
        agent = Agent(
            ledger,
            self._record,
            self._info,
            manner=self._order.manner,
            log=self._log,
            containment=containment,
            link=guardian,
            policy=Policy(self._settings.by, self._failed if self._order.stop_on_failure else None),
        )
        try:
            await self._see_through(agent, url, containment)
        except asyncio.CancelledError:
            if not self._signalled:
                raise
            return self._stopped_before_start()
        finally:
            if agent.state.phase is Phase.OVER or not agent.state.processes:
                guardian.tell("over")
            containment.close()
            if self._estate and (agent.state.proved or not agent.state.processes):
                self._estate.remove()
            await ledger.close()
            self._outlet.drain(FLUSH_S)
        code = await self._end(agent)
        self._outlet.drain(FLUSH_S)
        for each in STOPPING_SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # too late to change how this ends
        return code

    async def _see_through(self, agent: Agent, url: str, containment: Containment) -> None:
        """From the join to the end of the last process."""
        async with agent:
            hear_children(asyncio.get_running_loop(), agent.reap)
            self._agent = agent
            self._be_watched(agent, url, containment)
            if self._signalled:
                self._drained_by = self._signalled[0].name
                # a cancellation can get lost when what it cancels ends at the same moment; the signal does not
                agent.stop(self._order.manner.plan)
            if agent.may_start():
                entry = containment.entry()
                pid = self._start_or_fail(agent, url, entry)
                agent.adopt(pid, entry.mark.number, self._label, self._info.command)
                agent.report()
            await agent.over()

    def _be_watched(self, agent: Agent, url: str, containment: Containment) -> None:
        """Let the guardian know what it needs to take over; from its answer on it inherits what we start."""
        watch = {
            **asdict(self._info),
            "job_id": self._order.job_id,
            "retain_s": self._settings.retain_s,
            "plan": self._order.manner.plan.to_list(),
            "stop_on_failure": self._order.stop_on_failure,
            "by": self._settings.by,
            "stop_file": agent.stop_file.path,
            "containment": containment.facts(),
            "ask_all": self._order.manner.ask_all,
            "term_again_s": self._order.manner.term_again_s,
            "sweep_shm": self._order.manner.sweep_shm,
        }
        self._estate = estate.declare(watch, keepers=(os.getpid(), os.getppid()))
        path = str(self._estate.path) if self._estate else None
        guardian.tell("watch", **watch, redis_url=url, secret_file=self._settings.secret_file, estate=path)
        guardian.answer()

    def _start_or_fail(self, agent: Agent, url: str, entry: Entry) -> int:
        """Start it; a rank that can't be started is missing to the others as much as one that failed."""
        try:
            return self._start(agent, url, entry)
        except CoordError as error:
            if self._order.stop_on_failure:
                reason = f"{self._label} on host {self._settings.host} could not be started: {error.message}"
                wish = new_request(self._order.job_id, Cause.FAILURE, self._settings.by, reason)
                agent.ask(partial(self._record.request, wish, None))
            raise

    def _start(self, agent: Agent, url: str, entry: Entry) -> int:
        """Start the command in its own session; stdin and stdout are ours, stderr too where it is a terminal."""
        if not os.isatty(2):
            self._tail = StderrTail(2)
        environment = {
            **without_secret(os.environ),
            "COORD_REDIS_URL": url,  # what is called inside of the job means the same record
            "COORD_JOB_ID": self._order.job_id,
            "COORD_AGENT_ID": self._info.agent_id,
            "COORD_LABEL": self._label,
            **({"COORD_STOP_FILE": agent.stop_file.path} if agent.stop_file.path else {}),
        }
        stderr = self._tail.write_fd if self._tail else None
        try:
            return start(Program(self._path, self._order.argv, environment, stderr), entry)
        finally:
            if self._tail:
                self._tail.close_write()

    # -- what stops it -------------------------------------------------------------------------------------------------

    def _take_signal(self, number: signal.Signals) -> None:
        """Run the plan; a second SIGINT kills at once. Platforms send SIGTERM more than once: that changes nothing."""
        self._signalled.append(number)
        agent = self._agent
        if agent is None:
            if self._task and len(self._signalled) == 1:
                self._task.cancel()
            return
        if self._signalled.count(signal.SIGINT) > 1:
            agent.stop(Plan.now(self._order.manner.plan.kill_wait_s))
        elif len(self._signalled) == 1 and agent.state.phase is Phase.RUNNING:
            self._drained_by = number.name
            agent.stop(self._order.manner.plan)
            if number is signal.SIGINT:
                asyncio.get_running_loop().call_later(HINT_S, self._hint, agent)
            if self._order.stop_on_failure:
                agent.ask(partial(self._drain, number))

    def _hint(self, agent: Agent) -> None:
        if agent.state.phase is Phase.STOPPING:
            left = format_duration(math.ceil(max(0.0, agent.state.kill_at_s - time.monotonic())))
            self._outlet.say(f"asked {self._label} to leave; it has {left} left. Ctrl-C again kills it at once")

    def _drain(self, number: signal.Signals) -> Call[Answer]:
        reason = f"{number.name} reached `coord run` of {self._label} on host {self._settings.host}"
        return self._record.request(new_request(self._order.job_id, Cause.DRAIN, self._settings.by, reason), None)

    async def _failed(self, process: Process) -> Call[Answer]:
        """The command failed by itself: say what it said last, and have the job stopped."""
        if process.signal == "SIGTERM":
            # a platform that signals every process at once may have reached the command first
            await asyncio.sleep(PLATFORM_S)
            if self._signalled:
                return self._drain(self._signalled[0])
        lines = await asyncio.to_thread(self._tail.lines, TAIL_S) if self._tail else ()
        failure = FirstFailure(
            agent_id=self._info.agent_id,
            host=self._settings.host,
            label=self._label,
            pid=process.found.key[0],
            exit_code=process.exit_code,
            signal=process.signal,
            stderr_tail=lines,
        )
        wish = new_request(self._order.job_id, Cause.FAILURE, self._settings.by, failure_words(failure))
        if self._agent:
            self._agent.caused = wish.id, failure
        return self._record.fail(failure, wish)

    # -- how it ends ---------------------------------------------------------------------------------------------------

    def _stopped_before_start(self) -> int:
        self._outlet.say(f"{self._signalled[0].name} received before {self._label} was started")
        return 128 + self._signalled[0]

    async def _end(self, agent: Agent) -> int:
        ending = Ending(
            job_id=self._order.job_id,
            label=self._label,
            state=agent.state,
            request=agent.request or agent.alone,
            drained_by=self._drained_by,
            stop_on_failure=self._order.stop_on_failure,
            told=agent.told,
            signal_number=signal_number,
            survivors=agent.survivors,
            left_behind=agent.left_behind,
        )
        await self._pass_on_stderr(wait=ending.ended_by_itself)
        for line in ending.lines():
            self._outlet.say(line)
        return ending.code()

    async def _pass_on_stderr(self, *, wait: bool) -> None:
        """Wait for who reads our stderr: as long as the command itself would have, but not for long after a stop."""
        end_s = time.monotonic() + FLUSH_S
        while self._tail and not self._tail.passed and (wait or time.monotonic() < end_s):
            if self._signalled:
                wait = False
            await asyncio.sleep(LOOK_S)
