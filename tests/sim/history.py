"""Plays one history and judges it: what is drawn happens, then all is healed, and everything must come to its end."""

from __future__ import annotations

import asyncio
import gc
import random
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import coord
import workers.obituary
from coord import ledger
from coord.record import BEAT_S, LEASE_S
from tests.sim.clock import StuckError, replacing, virtual_time
from tests.sim.draw import JOB, draw
from tests.sim.forger import Forger
from tests.sim.held import in_place_of_the_kernel
from tests.sim.hosts import Run
from tests.sim.lua import Scripts
from tests.sim.people import Person, bound_s
from tests.sim.troubles import Troubles
from tests.sim.world import World

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tests.sim.draw import Script

PATIENCE_S = 6.0  # as in prelude.lua
LEARN_S = 9.0  # from the heal until every agent knows: a dead connection is found after 5 s, then a beat, and margins
LOST_S = LEASE_S + PATIENCE_S + 5 * BEAT_S + 5.0  # from the last trouble until survivors have stopped a job
MARGIN_S = 3.0  # for reports on their way


@dataclass(frozen=True)
class Ended:
    """How a history ended."""

    seed: int
    found: tuple[str, ...]  # invariants that did not hold
    trace: tuple[tuple[float, str, str, dict[str, Any]], ...]
    took_s: float  # virtual
    steps: int


@cache
def scripts() -> Scripts:
    """Give the record's scripts, compiled."""
    folder = Path(coord.__file__).parent / "lua"
    names = [path.stem for path in folder.glob("*.lua") if path.stem != "prelude"]
    return Scripts({name: ledger.script_text(name) for name in names})


def play(seed: int, fault: AbstractContextManager[None] | None = None) -> Ended:
    """Play the history of a seed; with a planted fault, if one is given."""
    rng = Random(seed)
    script = draw(rng)
    gc.disable()  # what is collected, and when, must not depend on what was played before
    chance = random.getstate()
    random.seed(seed)  # the server's own
    try:
        with fault or nullcontext():
            world = World(rng, scripts(), script.secrets)
            heirs: list[tuple[Any, str, Any]] = [(workers.obituary, "keyring", world.keyring)]
            with virtual_time(world.loop, rng), in_place_of_the_kernel(world.find), replacing(heirs):
                _play(world, script)
                trace, took_s, steps = tuple(world.trace), world.now_s, world.loop.steps
                world.close()
    finally:
        gc.enable()
        random.setstate(chance)
    return Ended(seed, tuple(world.invariants.found), trace, took_s, steps)


def _play(world: World, script: Script) -> None:
    try:
        world.loop.run_until_complete(_History(world, script).run())
    except StuckError as error:
        world.invariants.broken(str(error))
    for failed in world.loop.failed[:1]:
        world.invariants.broken(f"an error that nobody caught: {failed.get('exception')!r} {failed.get('message')}")


class _History:
    """One history, while it is played."""

    def __init__(self, world: World, script: Script) -> None:
        self.world = world
        self.script = script
        self.people: list[Person] = []
        self.troubles = Troubles(world, self.people)

    async def run(self) -> None:
        """Play it to its end, or to the first invariant that does not hold."""
        world, script = self.world, self.script
        for host, slow_s in script.slow.items():
            world.network.link(host).slow_s = slow_s
        for at_s, host, order in script.starts:
            world.later(at_s, self._start, host, order)
        for at_s, host, plan, fence in script.stops:
            world.later(at_s, self._stop, Person(world, world.host(host), JOB, plan, fence=fence))
        for trouble in script.troubles:
            world.later(trouble.at_s, self.troubles.happens, trouble)
        if script.forger:
            Forger(world).start()
        await self._until(script.heal_s)
        self.troubles.heal()
        await self._end()

    def _start(self, name: str, order: Any) -> None:
        host = self.world.host(name)
        if not host.down:
            self.troubles.inherit(host)
            Run(self.world, host, order).start()

    def _stop(self, person: Person) -> None:
        self.people.append(person)
        person.start()

    async def _until(self, true_s: float) -> None:
        while self.world.now_s < true_s and not self.world.invariants.found:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(min(0.5, true_s - self.world.now_s))

    async def _end(self) -> None:
        """All is healed: whoever asks now gets a verdict within its bound, and everything is gone."""
        world = self.world
        healed_s = world.now_s
        if self.script.by_itself:
            await self._until_all(self._stops_by_itself, "a failure or a lost host stops nobody", healed_s)
        if world.server.losses:
            await self._until_all(self._written_again, "a request that somebody knows is not written again", healed_s)
        last = Person(world, world.host("person"), JOB, fence=True)
        self._stop(last)
        asked_s = world.now_s
        await self._until_all(lambda: self._told(last, asked_s), "somebody has no verdict", healed_s)
        await self._until_all(lambda: self._quiet(asked_s), "somebody does not end", healed_s)
        world.invariants.unharmed()

    async def _until_all(self, fact: Any, what: str, healed_s: float) -> None:
        while not self.world.invariants.found:
            left_s = fact()
            if left_s is None:
                return
            if left_s < 0:
                self.world.invariants.broken(f"{what} {self.world.now_s - healed_s:.1f} s after all was healed")
                return
            await asyncio.sleep(0.25)

    def _stops_by_itself(self) -> float | None:
        """Give how many seconds are left in which survivors must stop the job; None: they have, or need not."""
        world = self.world
        runs = [run for run in world.runs.values() if run.order.job == JOB and run.joined]
        missing = any(run.missing_to_others and world.invariants.known(run) for run in runs)
        others = any(run.running for run in runs)
        if not missing or not others or JOB in world.invariants.requested:
            return None
        if JOB in world.invariants.claimed:  # the record took the forger's word: who is not awaited is not missed
            return None
        since_s = max(world.troubled_s, *(run.troubled_s for run in runs))
        return since_s + LOST_S - world.now_s

    def _written_again(self) -> float | None:
        """Give how many seconds are left in which who knows of the request must write it again; None: it is there."""
        world = self.world
        knowing = any(run.knows for run in world.runs.values()) or any(person.knows for person in self.people)
        if not knowing or world.invariants.request_of(JOB):
            return None
        return world.troubled_s + LEARN_S + MARGIN_S - world.now_s

    def _told(self, last: Person, healed_s: float) -> float | None:
        """Give how many seconds are left in which all must be told; None: all are."""
        waiting = [each for each in self.people if not each.over and not each.program.dead]
        if not waiting:
            return None
        seen = last.seen
        bound = bound_s(seen) if seen and seen.request else 20.0
        return healed_s + bound + MARGIN_S + LEARN_S - self.world.now_s

    def _quiet(self, healed_s: float) -> float | None:
        """Give how many seconds are left in which all runs of the job must end; None: all have."""
        left = [run for run in self.world.runs.values() if run.order.job == JOB and not self._over(run)]
        if not left:
            return None
        plan_s = max(run.order.plan.total_s for run in left)
        return healed_s + LEARN_S + 2 * plan_s + 15.0 + MARGIN_S - self.world.now_s

    @staticmethod
    def _over(run: Run) -> bool:
        """Tell whether it has ended, and its processes are gone or were called survivors."""
        if run.crashed and (run.heir is None or run.heir.program.dead):
            return True
        return run.ended
