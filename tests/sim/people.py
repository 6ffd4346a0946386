"""Who shuts jobs down and follows that, as `coord shutdown` does; who was told that Redis is away tries again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from coord import control
from coord.connect import RETRIES
from coord.coordinator import new_request
from coord.errors import CoordError, NoSuchJobError, UnreachableError
from coord.ledger import AsyncLedger
from coord.messages import Cause
from coord.record import LEASE_S, Record
from tests.sim.clock import Program
from tests.sim.invariants import GOOD
from tests.sim.network import URL

if TYPE_CHECKING:
    from coord.plan import Plan
    from coord.snapshot import Snapshot
    from tests.sim.world import Host, World

AGAIN_S = 1.5
TRIES = 20


class NoRq:
    """Nothing of these jobs is on RQ."""

    who = unknown = ""

    async def has(self, name: str) -> bool:
        """It has nothing."""
        del name
        return False

    def beside(self, record: Record) -> NoRq:
        """Nothing is to be swept."""
        del record
        return self

    def see(self, snapshot: Snapshot) -> None:
        """Nothing is to be swept."""

    def close(self) -> None:
        """Nothing was begun."""


class Person:
    """One of them. `seen`: the job as it was last told to it."""

    def __init__(self, world: World, host: Host, job: str, plan: Plan | None = None, *, fence: bool = False) -> None:
        self.world = world
        self.job = job
        self.plan = plan
        self.fence = fence
        self.seen: Snapshot | None = None
        self.over = False
        self.looked_s: float | None = None  # when it last saw the job; None: not since it began to follow
        self.program = Program(f"person{world.next_number()}", host.clock, host.name)

    def start(self) -> None:
        """Begin."""
        self.world.say(self.program.name, "shuts down", job=self.job, fence=self.fence)
        self.world.spawn(self.program, self._main())

    async def _main(self) -> None:
        for _ in range(TRIES):
            try:
                await self._shut_down()
                break
            except NoSuchJobError:
                self.world.say(self.program.name, "no such job")
                if self.seen and self.seen.request:
                    self.world.invariants.broken(f"{self.program.name} followed a job, and is told that there is none")
                break
            except UnreachableError as error:
                self.world.say(self.program.name, "unreachable", why=error.message[:60])
                self._gave_up()
                await asyncio.sleep(AGAIN_S)
        self.over = True

    async def _shut_down(self) -> None:
        ledger = AsyncLedger(URL, retries=RETRIES)
        try:
            record, name = Record(self.job, keyring=self.world.keyring()), self.program.name
            wish = new_request(self.job, Cause.OPERATOR, name, "it is time")
            answer = await control.request(ledger, record, wish, self.plan, fence_unknown=self.fence, rq=NoRq())
            self.world.say(name, "was told", word=answer.word)
            self.looked_s = None
            async for snapshot, _ in control.follow(ledger, record, None, NoRq()):
                self._see(snapshot)
        finally:
            await ledger.close()

    def _see(self, snapshot: Snapshot) -> None:
        self.looked_s = self.world.now_s
        self.world.invariants.presumed(snapshot)
        known = self.seen.verdict if self.seen else None
        self.seen = snapshot
        if snapshot.verdict is not known and snapshot.verdict is not None:
            self.world.say(self.program.name, "sees", verdict=snapshot.verdict)
            if snapshot.verdict.encode() in GOOD:
                self.world.invariants.nobody_lives(self.job, f"{self.program.name} is told {snapshot.verdict}")

    @property
    def knows(self) -> bool:
        """Tell whether it follows a job that is to be stopped."""
        following = not self.over and not self.program.dead and self.looked_s is not None
        return following and self.seen is not None and self.seen.request is not None

    def _gave_up(self) -> None:
        """Who follows waits for Redis as long as the shutdown may take."""
        if self.seen and self.seen.request and self.looked_s is not None:
            away_s = self.world.now_s - self.looked_s
            if away_s < bound_s(self.seen) * 0.98:
                self.world.invariants.broken(f"{self.program.name} gave up when Redis was away for {away_s:.1f} s")
        self.looked_s = None


def bound_s(snapshot: Snapshot) -> float:
    """Give how long a shutdown may take from its request to its verdict."""
    if snapshot.request is None:
        raise CoordError("nobody asked")
    return snapshot.request.plan.total_s + LEASE_S + control.MARGIN_S
