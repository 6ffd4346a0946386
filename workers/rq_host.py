"""`coord worker`: the agent of a host that works RQ queues. Keeps N worker processes; stops, and proves, what they run.

The agent itself is a job of its own, named by its agent id: so a host can be stopped from anywhere, and how it ended is
in the record. It does not speak RQ: workers do, and clerks where a worker has died.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO, cast

from coord.coordinator import new_request
from coord.errors import INCOMPLETE, OK, USAGE, CoordError
from coord.keyrings import keyring
from coord.ledger import AsyncLedger
from coord.logs import logger
from coord.messages import COMMAND_MAX, AgentInfo, Cause, clip
from coord.plan import Plan
from coord.record import Record
from coord.render.text import plural
from workers import estate, sweep
from workers.containment import Subreaper, contain
from workers.link import guardian
from workers.outlet import Outlet
from workers.rq_agent import HostAgent, Mandate, StopFiles
from workers.rq_clerks import Clerks
from workers.rq_crew import Crew
from workers.rq_ground import Ground
from workers.rq_hearing import Hearing
from workers.rq_share import Shares
from workers.rq_slot import Board
from workers.rq_stops import Stops
from workers.state import Phase
from workers.wake_ups import hear, hear_children

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.messages import ShutdownRequest
    from coord.settings import Settings
    from workers.rq_order import RQOrder

STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
FLUSH_S = 1.0
SETTLE_S = 5.0  # how long the last clerk may take
SWEEP_AGAIN_S = 30.0


def run_workers(order: RQOrder, settings: Settings, redis_url: Callable[[], str]) -> int:
    """Work the queues until told to stop; gives the exit code."""
    return asyncio.run(RQHost(order, settings, redis_url()).run())


class RQHost:
    """One host's workers under one agent."""

    def __init__(self, order: RQOrder, settings: Settings, url: str) -> None:
        self.order = order
        self.url = url
        self._settings = settings
        agent_id = f"{order.name}-{os.getpid()}-{secrets.token_hex(4)}"
        self.record = Record(agent_id, settings.retain_s, keyring(settings.secret_file))
        self.info = AgentInfo(
            agent_id=agent_id,
            host=settings.host,
            label="coord worker",
            pid=os.getpid(),
            command=clip(f"coord worker {' '.join(order.queues)} -n {order.count}", COMMAND_MAX),
            alone_s=None if order.manner.alone_s is None else order.manner.alone_s + order.warm_s,
        )
        self._outlet = Outlet(2)
        self.log = logger(settings.log_level, cast("TextIO", self._outlet), agent=agent_id, host=settings.host)
        self._board = Board()
        self.spare: set[int] = set()  # pids of our own helpers
        self._signalled: list[signal.Signals] = []
        self._winding: asyncio.Task[None] | None = None
        self._sweeps: dict[str, asyncio.Task[Any]] = {}

    async def run(self) -> int:
        """Join, start the workers, keep them, wind up."""
        loop = asyncio.get_running_loop()
        hear_children(loop, lambda: None)
        hear(loop, STOPPING_SIGNALS, self._take_signal)
        sweep.start_if_needed(self.url, self._settings.secret_file)
        ledger = AsyncLedger(self.url, min_replicas=self._settings.min_replicas)
        containment = contain(self.order.containment, self.info.agent_id, self.log, Subreaper(spare=self.spare))
        files = StopFiles(self.info.agent_id)
        self.clerks = clerks = Clerks(self.spare, self._clerk_facts(), self.log)
        self.agent = agent = HostAgent(self._mandate(), ledger, containment, files)
        ground = Ground(
            self.order, self.info, self.url, self.log, self.spare, agent, clerks, files=files, board=self._board
        )
        self._stops = Stops(ground)
        self.shares = Shares(
            ledger, ground, self._stops, sweep=self.sweep, by=self._settings.by, retain_s=self._settings.retain_s
        )
        self.crew = Crew(ground, containment, self._stops, Hearing(ground, self._stops, self.shares))
        try:
            async with agent:
                hear_children(loop, agent.reap)
                self._be_watched(containment.facts(), files)
                agent.wait_for_more()
                agent.on_change = self.crew.look
                if self._signalled:
                    self.wind_up(self._drain_words())
                else:
                    self.crew.start()
                await agent.over()
                await self._settle(ledger)
        finally:
            if agent.state.phase is Phase.OVER:
                guardian.tell("over")
                self._leave_estate()
            containment.close()
            await ledger.close()
            self._outlet.drain(FLUSH_S)
        if not self.crew.refused:
            self._outlet.say(self._last_words())
            self._outlet.drain(FLUSH_S)
        return self._code()

    def _leave_estate(self) -> None:
        """Leave nothing to the next agent on this host, or what RQ could not be told."""
        if self._estate and self.agent.state.proved:
            if self.crew.settled:
                self._estate.remove()
            else:
                rq = {**self._estate.watch["rq"], "gone": True}
                estate.declare({**self._estate.watch, "rq": rq}, keepers=(os.getpid(), os.getppid()))

    def _elsewhere(self, request: ShutdownRequest) -> None:
        self.shares.hear(request)

    def _mandate(self) -> Mandate:
        return Mandate(
            record=self.record,
            info=self.info,
            manner=self.order.manner,
            log=self.log,
            works=lambda: [self.shares.keep(), self.shares.send()],
            elsewhere=self._elsewhere,
            wind_up=lambda: self.wind_up(None),
        )

    # -- winding up ----------------------------------------------------------------------------------------------------

    def wind_up(self, why: str | None) -> None:
        """Take nothing more; let what runs finish within the warm time; stop the rest. `why`: the record is told."""
        if self._winding is None:
            self._winding = self.agent.later(self._wind_up(why))

    async def _wind_up(self, why: str | None) -> None:
        self.crew.drain()
        if why is not None:
            await self._board.idle(self.order.warm_s)
        self.agent.seal()
        if why is not None:
            wish = new_request(self.record.job_id, Cause.DRAIN, self._settings.by, why)
            self.agent.ask(partial(self.record.request, wish, None))
        await self._stops.note_all(self._board.executions())
        self.agent.stop_all(self.order.manner.plan)

    def sweep(self, request: ShutdownRequest) -> None:
        """Have a clerk cancel what RQ still holds of a job."""
        if request.job_id == self.record.job_id or not request.rq or request.job_id in self._sweeps:
            return
        within_s = request.plan.total_s + SETTLE_S
        work = self.clerks.do(
            "sweep",
            within_s,
            job_id=request.job_id,
            who=self.info.agent_id,
            until_s=time.monotonic() + within_s,
        )
        task = self._sweeps[request.job_id] = self.agent.later(work)
        loop = asyncio.get_running_loop()  # a request that is broadcast again soon is no new one
        task.add_done_callback(lambda _: loop.call_later(SWEEP_AGAIN_S, self._sweeps.pop, request.job_id, None))

    def _take_signal(self, number: signal.Signals) -> None:
        """Wind up; a second SIGINT kills at once. Platforms send SIGTERM more than once: that changes nothing."""
        self._signalled.append(number)
        if self._signalled.count(signal.SIGINT) > 1:
            self.agent.stop_all(Plan.now(self.order.manner.plan.kill_wait_s))
        elif len(self._signalled) == 1 and hasattr(self, "crew"):
            self.wind_up(self._drain_words())

    def _drain_words(self) -> str:
        return f"{self._signalled[0].name} reached `coord worker` on host {self._settings.host}"

    async def _settle(self, ledger: AsyncLedger) -> None:
        """See to what RQ still has of workers that were killed, and leave every job."""
        with suppress(CoordError, TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                requeued = await self.crew.settle_all(SETTLE_S)
                if requeued:
                    await ledger.run(self.record.tally("requeued", requeued))
                await self.shares.over()
                if self._sweeps:
                    await asyncio.wait(self._sweeps.values())

    def _last_words(self) -> str:
        """Tell the person at this terminal how it ended."""
        why = f"stopped by {self._signalled[0].name}" if self._signalled else "the workers have ended"
        put_back = f"; {plural(self.crew.put_back, 'RQ job')} put back" if self.crew.put_back else ""
        if not self.agent.state.proved:
            return f"{why}{put_back}; not all of it is gone: see `coord status --job-id {self.record.job_id}`"
        if not self.crew.settled:
            return f"{why}{put_back}; RQ could not be told: the next `coord worker` on this host sees to it"
        return f"{why}{put_back}; nothing is left"

    def _code(self) -> int:
        if self.crew.refused:
            return USAGE
        return OK if self.agent.state.proved and self.crew.settled else INCOMPLETE

    # -- facts for others ----------------------------------------------------------------------------------------------

    def _clerk_facts(self) -> dict[str, Any]:
        return {
            "rq_url": self.order.rq_url,
            "config": self.order.config,
            "paths": list(self.order.paths),
            "record_url": self.url,
            "secret_file": self._settings.secret_file,
        }

    def _be_watched(self, containment: dict[str, Any], files: StopFiles) -> None:
        """Let the guardian know what it needs to take over; from its answer on it inherits what we start."""
        manner = self.order.manner
        watch = {
            **asdict(self.info),
            "job_id": self.record.job_id,
            "retain_s": self._settings.retain_s,
            "plan": manner.plan.to_list(),
            "stop_on_failure": False,
            "by": self._settings.by,
            "stop_file": files.path,
            "containment": containment,
            "ask_all": manner.ask_all,
            "term_again_s": manner.term_again_s,
            "sweep_shm": manner.sweep_shm,
        }
        order = self.order
        rq = {
            "prefix": self.info.agent_id,
            "as": order.ends_as,
            "config": order.config,
            "paths": list(order.paths),
        }
        self._estate = estate.declare({**watch, "rq": rq}, keepers=(os.getpid(), os.getppid()))
        path = str(self._estate.path) if self._estate else None
        watch |= {"rq": {**rq, "rq_url": order.rq_url}, "secret_file": self._settings.secret_file}
        guardian.tell("watch", **watch, redis_url=self.url, estate=path)
        guardian.answer()
