"""The job behind a `JobScope`: its keeper on a thread, its containment, its guardian. With a record: `recorded_job`."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO, cast

from coord.errors import CoordError
from coord.logs import logger
from coord.messages import Outcome
from coord.plan import Plan
from workers import sweep
from workers.beside import Beside
from workers.containment import contain
from workers.engine import Engine, EngineEnded
from workers.guests import Guests
from workers.job_stopped import failure_of
from workers.keeper import Keeper
from workers.outlet import LateOutlet
from workers.proc import read_stat
from workers.state import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.messages import Cause, FirstFailure, ShutdownRequest
    from workers.cgroups import Cgroup
    from workers.children import Children
    from workers.containment import Entry
    from workers.events import Key
    from workers.state import Process, State
    from workers.terms import Terms

FLUSH_S = 1.0  # how long the end waits for a slow reader of stderr
MARGIN_S = 30.0  # beyond the plan: for the record to be told


class ScopedJob:
    """Use: `open`, then `expect` and `admit` children, then `seal` or `stop`, then `close`. From the program's threads.

    `changed()`: something happened; called on the agent's thread.
    """

    def __init__(self, terms: Terms, children: Children, changed: Callable[[], None]) -> None:
        self.terms = terms
        self.children = children
        self.first_failure: FirstFailure | None = None
        self._changed = changed
        self._url: str | None = None
        self._keeper: Keeper | None = None
        self._spare: set[int] = set()
        self._entries: dict[Key, Entry] = {}  # of the children that run
        self._emptied: list[Cgroup] = []  # of those that are gone, perhaps not with all that they started
        self._over_s: float | None = None
        self._info = terms.info
        self._outlet = LateOutlet(2)
        stream = cast("TextIO", self._outlet)
        self._log = logger(terms.log_level, stream, job=terms.job_id, agent=self._info.agent_id, host=terms.host)
        self._beside = Beside(self._spare, self._log)
        self._manner = terms.manner
        self._settled = False
        self._engine = Engine(self._until_left)

    def open(self, check: Callable[[], None]) -> None:
        """Begin. Raises NoCgroupError, OSError, or what `check` raises, which is called again and again meanwhile."""
        sweep.start_if_needed(self._url)
        self._guests = Guests(self._spare, self.children.ended)
        try:
            self._containment = contain(self.terms.containment, self._info.agent_id, self._log, self._guests)
        except BaseException:
            self._guests.close()
            raise
        try:
            keeper = self._engine.start(check)
            facts = {"stop_file": keeper.stop_file.path, "containment": self._containment.facts()}
            self._beside.start({**asdict(self._info), **self.terms.left_to_an_heir(), **facts}, self._url)
            self._engine.call(self._beside.again_if_it_dies)
        except BaseException:
            self.seal()
            self.close(MARGIN_S)
            raise

    def close(self, timeout_s: float) -> None:
        """Wait for the agent's end; what it could not see gone within the time, its guardian sees to."""
        with suppress(EngineEnded):
            self._engine.post(self._left.set)
        if self._engine.wait(timeout_s):
            self._beside.over(proved=self._keeper is None or self.state.proved)
        self._beside.close()
        self._containment.close()
        for each in self._keeper.survivors if self._keeper else ():
            self._log.error("child.survived", pid=each.pid, state=each.state, owner=each.owner)
        self._outlet.close(FLUSH_S)

    # -- what the program wants to know --------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the job's processes on this host are."""
        return self._kept.state

    @property
    def _kept(self) -> Keeper:
        if self._keeper is None:
            raise EngineEnded
        return self._keeper

    @property
    def settled(self) -> bool:
        """Tell whether nothing will change any more: all is over here, and the record was told, or had time enough."""
        late = self._over_s is not None and time.monotonic() > self._over_s + MARGIN_S
        return late or self._settled or not self._engine.running

    @property
    def error(self) -> BaseException | None:
        """What ended the agent's thread before its time: a defect of ours."""
        return self._engine.error

    @property
    def request(self) -> ShutdownRequest | None:
        """The job's request, if there is one."""
        return None

    @property
    def pid(self) -> int:
        """The program: a fork of it has no part in the job."""
        return self._info.pid

    @property
    def agent_id(self) -> str:
        """How the record names this program."""
        return self._info.agent_id

    @property
    def environment(self) -> dict[str, str]:
        """What every child finds in its environment."""
        facts = {
            "COORD_REDIS_URL": self._url,
            "COORD_JOB_ID": self.terms.job_id,
            "COORD_AGENT_ID": self._info.agent_id,
            "COORD_STOP_FILE": self.stop_file,
        }
        return {name: value for name, value in facts.items() if value}

    @property
    def stop_file(self) -> str | None:
        """The file that is there when a stop has begun."""
        return self._keeper.stop_file.path if self._keeper else None

    # -- what it wants done --------------------------------------------------------------------------------------------

    def later(self, wait_s: float, call: Callable[[], None]) -> None:
        """Call something later, on the agent's thread, as long as there is one."""
        with suppress(EngineEnded):
            self._engine.post(lambda: cast("None", asyncio.get_running_loop().call_later(wait_s, call)))

    def entry(self) -> Entry:
        """Make a place for one more child."""
        return self._containment.entry()

    def expect(self) -> bool:
        """Announce a child: a stop will not end before `expect_no_more`. False: there is a stop, none may start."""

        def begin() -> bool:
            may_start = self.state.phase is Phase.RUNNING
            if may_start:
                self._guests.expect()
            return may_start

        with suppress(EngineEnded):
            return self._engine.call(begin)
        return False

    def expect_no_more(self) -> None:
        """It was admitted, or could not be started."""

        def end() -> None:
            self._guests.expect_no_more()
            if not self._kept.may_start():
                self._kept.look()

        with suppress(EngineEnded):
            self._engine.call(end)

    def admit(self, pid: int, entry: Entry, label: str, command: str) -> bool | None:
        """Take in a child that was just started. False: a stop was faster, it is stopped at once; None: it is gone."""

        def take_in() -> bool | None:
            stat = read_stat(pid)
            if stat is None:
                return None
            self._guests.admit(stat)
            try:
                self._kept.adopt(pid, entry.mark.number, label, command)
            except (CoordError, ProcessLookupError):  # nobody's child any more: a server of forks has waited for it
                self._guests.dismiss(stat)
                return None
            self._entries[stat.key] = entry
            self._adopted()
            return self._kept.may_start()

        return self._engine.call(take_in)

    def seal(self) -> None:
        """No more children will come."""
        with suppress(EngineEnded):
            self._engine.call(self._kept.seal)

    def stop(self, cause: Cause, reason: str) -> None:
        """Stop all of the job's processes, here and on the other hosts."""

        def begin() -> None:
            if self._kept.may_start():
                self._kept.stop(self.terms.plan)
                self._stop_elsewhere(cause, reason)

        with suppress(EngineEnded):
            self._engine.call(begin)

    def stop_now(self) -> None:
        """Kill what is left here."""
        with suppress(EngineEnded):
            self._engine.call(self._kept.stop, Plan.now(self.terms.plan.kill_wait_s))

    # -- on the agent's thread -----------------------------------------------------------------------------------------

    async def _until_left(self, ready: Callable[[Keeper], None]) -> None:
        """Work, and stay until the program has left the block: it may have to be nudged."""
        self._left = asyncio.Event()
        await self._work(ready)
        self._settled = True
        self._changed()
        await self._left.wait()

    async def _work(self, ready: Callable[[Keeper], None]) -> None:
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

    def _begin(self, keeper: Keeper, ready: Callable[[Keeper], None]) -> None:
        keeper.wait_for_more()
        keeper.on_change = self._look
        self._keeper = keeper
        ready(keeper)

    def _adopted(self) -> None:
        """Tell others of a new child."""

    def _stop_elsewhere(self, cause: Cause, reason: str) -> None:
        """Have the job stopped on the other hosts."""

    def _look(self) -> None:
        if self.state.phase is Phase.OVER:
            self._over_s = self._over_s or time.monotonic()
        self._look_for_failure()
        self._clear()
        self._changed()

    def _look_for_failure(self) -> None:
        if self.first_failure is None and self.terms.stop_on_failure:
            left = (each for each in self.state.processes.values() if each.outcome is Outcome.EXITED)
            failing = next((each for each in left if each.found.child and (each.exit_code != 0 or each.signal)), None)
            self.first_failure = self._failure_of(failing) if failing else None

    def _failure_of(self, process: Process) -> FirstFailure:
        return failure_of(process, self._info, self.children.trace(process.found.key[0]))

    def _clear(self) -> None:
        """Let go of children that are gone, and of their cgroups: a program may start any number of them."""
        for key, entry in list(self._entries.items()):
            process = self.state.processes.get(key)
            if process is None or process.outcome is not Outcome.RUNNING:
                del self._entries[key]
                self.children.gone(key[0])
                if entry.cgroup:
                    self._emptied.append(entry.cgroup)
        for cgroup in self._emptied:
            cgroup.remove()
        self._emptied = [cgroup for cgroup in self._emptied if cgroup.exists()]
