"""The job behind a `JobScope`: its agent on a thread, its containment, and its guardian."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TextIO, cast

from coord.coordinator import new_request
from coord.embedded import ensure
from coord.errors import CoordError
from coord.ledger import AsyncLedger
from coord.logs import logger
from coord.messages import COMMAND_MAX, STDERR_LINES_MAX, AgentInfo, Cause, FirstFailure, Outcome, clip
from coord.plan import Plan
from coord.record import Record
from coord.render.text import failure_words
from workers import sweep
from workers.agent import Agent
from workers.beside import Beside
from workers.containment import Choice, contain
from workers.engine import Engine
from workers.guests import Guests
from workers.keeper import Keeper
from workers.rank import how_it_ended
from workers.state import Phase
from workers.stopper import Manner

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.messages import ShutdownRequest
    from coord.record import Answer, Call
    from workers.containment import Entry
    from workers.handles import Status
    from workers.proc import Stat
    from workers.state import Process, State

LEARN_S = 5.0  # how long reading the job's first failure may take at the end
REPORT_SOON_S = 0.05  # many children started in a row are reported together


@dataclass(frozen=True, slots=True)
class Terms:
    """What a scope was told. `redis_url` None: the embedded server."""

    job_id: str
    label: str
    plan: Plan
    stop_on_failure: bool
    containment: Choice
    local: bool
    redis_url: str | None
    host: str
    by: str
    retain_s: int
    log_level: str
    sweep_shm: bool


class ScopedJob:
    """Use: `open`, then `admit` children, then `seal` or `stop`, then `close`. Called from the program's threads.

    `changed()`: something happened; called on the agent's thread. `ended(pid)`: as `Guests` wants it.
    """

    def __init__(self, terms: Terms, *, changed: Callable[[], None], ended: Callable[[int], Status | None]) -> None:
        self.terms = terms
        self.endings: dict[int, str] = {}  # pid of a rank -> the file that says how it ended
        self.first_failure: FirstFailure | None = None
        self._changed = changed
        self._spare: set[int] = set()
        self._url = None if terms.local else terms.redis_url or ensure()
        self._info = AgentInfo(
            agent_id=f"{terms.host}-{os.getpid()}-{secrets.token_hex(4)}",
            host=terms.host,
            label=terms.label,
            pid=os.getpid(),
            command=clip(" ".join(sys.argv), COMMAND_MAX),
        )
        self._record = Record(terms.job_id, terms.retain_s)
        self._log = logger(
            terms.log_level, cast("TextIO", sys.stderr), job=terms.job_id, agent=self._info.agent_id, host=terms.host
        )
        self._guests = Guests(self._spare, ended)
        self._beside = Beside(self._spare)
        self._manner = Manner(terms.plan, ask_all=False, sweep_shm=terms.sweep_shm)
        self._engine = Engine(self._work)
        self._report_planned = False

    def open(self) -> None:
        """Join the job. Raises RefusedError when it is fenced, UnreachableError when Redis can't be used."""
        if self._url:
            sweep.start_if_needed(self._url)
        terms = self.terms
        self._containment = contain(terms.containment, self._info.agent_id, self._log, self._guests)
        try:
            self._keeper = self._engine.start()
        except BaseException:
            self._containment.close()
            raise
        watch = {
            **asdict(self._info),
            "job_id": terms.job_id,
            "retain_s": terms.retain_s,
            "plan": terms.plan.to_list(),
            "stop_on_failure": terms.stop_on_failure,
            "by": terms.by,
            "stop_file": self._keeper.stop_file.path,
            "containment": self._containment.facts(),
            "ask_all": False,
            "term_again_s": 0.0,
            "sweep_shm": terms.sweep_shm,
        }
        self._beside.start(watch, self._url)
        self._engine.call(self._beside.again_if_it_dies)

    def close(self, timeout_s: float) -> None:
        """Wait for the agent's end; what it could not see gone within the time, its guardian sees to."""
        if self._engine.wait(timeout_s):
            self._beside.over(proved=self.state.proved)
        self._beside.close()
        self._containment.close()

    # -- what the program wants ----------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the job's processes on this host are."""
        return self._keeper.state

    @property
    def request(self) -> ShutdownRequest | None:
        """The job's request, if there is one."""
        return self._keeper.request if isinstance(self._keeper, Agent) else None

    @property
    def environment(self) -> dict[str, str]:
        """What every child finds in its environment."""
        facts = {
            "COORD_REDIS_URL": self._url,
            "COORD_JOB_ID": self.terms.job_id,
            "COORD_AGENT_ID": self._info.agent_id,
            "COORD_STOP_FILE": self._keeper.stop_file.path,
        }
        return {name: value for name, value in facts.items() if value}

    @property
    def agent_id(self) -> str:
        """How the record names this program."""
        return self._info.agent_id

    def later(self, wait_s: float, call: Callable[[], None]) -> None:
        """Call something later; on the agent's thread."""
        asyncio.get_running_loop().call_later(wait_s, call)

    def entry(self) -> Entry:
        """Make a place for one more child."""
        return self._containment.entry()

    def admit(self, stat: Stat, entry: Entry, label: str, command: str) -> None:
        """Take in a child that was just started; if the stop was faster, it is stopped at once."""
        self._guests.admit(stat)
        self._engine.call(self._keeper.adopt, stat.pid, entry.mark.number, label, command)
        self._engine.call(self._report_soon)

    def seal(self) -> None:
        """No more children will come."""
        self._engine.call(self._keeper.seal)

    def stop(self, cause: Cause, reason: str) -> None:
        """Stop all of the job's processes, here and on the other hosts."""

        def begin() -> None:
            if self.state.phase is Phase.RUNNING:
                self._keeper.stop(self.terms.plan)
                if isinstance(self._keeper, Agent) and self.terms.stop_on_failure:
                    self._keeper.ask(self._record.request(self._wish(cause, reason), None))

        self._engine.call(begin)

    def stop_now(self) -> None:
        """Kill what is left here."""
        self._engine.call(self._keeper.stop, Plan.now(self.terms.plan.kill_wait_s))

    # -- on the agent's thread -----------------------------------------------------------------------------------------

    async def _work(self, ready: Callable[[Keeper], None]) -> None:
        if self._url is None:
            keeper = Keeper(
                self._info.agent_id,
                self._manner,
                log=self._log,
                containment=self._containment,
                link=self._beside.link,
                stop_on_failure=self.terms.stop_on_failure,
            )
            async with keeper:
                self._begin(keeper, ready)
                await keeper.over()
            return
        ledger = AsyncLedger(self._url)
        try:
            agent = Agent(
                ledger,
                self._record,
                self._info,
                manner=self._manner,
                log=self._log,
                containment=self._containment,
                link=self._beside.link,
                failed=self._failed if self.terms.stop_on_failure else None,
            )
            async with agent:
                self._begin(agent, ready)
                await agent.over()
                await self._learn(ledger)
        finally:
            await ledger.close()

    def _begin(self, keeper: Keeper, ready: Callable[[Keeper], None]) -> None:
        keeper.wait_for_more()
        keeper.on_change = self._look_for_failure
        ready(keeper)

    def _look_for_failure(self) -> None:
        if self.first_failure is None and self.terms.stop_on_failure:
            left = (each for each in self.state.processes.values() if each.outcome is Outcome.EXITED)
            failing = next((each for each in left if each.found.child and (each.exit_code != 0 or each.signal)), None)
            self.first_failure = self._failure_of(failing) if failing else None
        self._changed()

    def _failure_of(self, process: Process) -> FirstFailure:
        pid = process.found.key[0]
        _, trace = how_it_ended(self.endings.get(pid, ""))
        return FirstFailure(
            agent_id=self._info.agent_id,
            host=self._info.host,
            label=process.found.label,
            pid=pid,
            exit_code=process.exit_code,
            signal=process.signal,
            stderr_tail=tuple(clip(line) for line in trace.splitlines()[-STDERR_LINES_MAX:]),
        )

    async def _failed(self, process: Process) -> Call[Answer]:
        failure = self._failure_of(process)
        return self._record.fail(failure, self._wish(Cause.FAILURE, failure_words(failure)))

    async def _learn(self, ledger: AsyncLedger) -> None:
        """Read which failure was the first: it may have been on another host."""
        try:
            async with asyncio.timeout(LEARN_S):
                snapshot = await ledger.run(self._record.snapshot())
        except (CoordError, TimeoutError):
            return
        if snapshot and snapshot.request:
            self.first_failure = snapshot.first_failure

    def _report_soon(self) -> None:
        if isinstance(self._keeper, Agent) and not self._report_planned:
            self._report_planned = True
            asyncio.get_running_loop().call_later(REPORT_SOON_S, self._report)

    def _report(self) -> None:
        self._report_planned = False
        if isinstance(self._keeper, Agent) and self.state.phase is Phase.RUNNING:
            self._keeper.report()

    def _wish(self, cause: Cause, reason: str) -> ShutdownRequest:
        return new_request(self.terms.job_id, cause, self.terms.by, reason)
