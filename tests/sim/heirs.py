"""What goes on after an agent's death, by the real stopper and the real calls: its guardian, or the next agent."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from coord.errors import CoordError
from coord.ledger import AsyncLedger
from coord.record import Answer
from tests.sim.clock import Program
from tests.sim.held import Contained
from tests.sim.network import URL
from workers.obituary import died, stopped
from workers.state import Phase
from workers.stop_file import StopFile
from workers.stopper import Manner, Stopper
from workers.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.record import Call
    from tests.sim.hosts import Run
    from workers.containment import Containment
    from workers.events import Key
    from workers.handles import Handle
    from workers.state import State

TRY_S = 12.0  # as in `obituary`
RETRY_S = 0.3


class Heir:
    """Who stops what a dead agent left. `proof`: what shows that nobody is left; None: nothing does."""

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
        await self._tell([partial(stopped, watch, self._report())])
        world.say(self.program.name, "ended", proof=self._stopper.proof)
        run.group.reaper = None
        run.group.strays = False
        run.ended = True

    def _forget(self, handle: Handle) -> None:
        asyncio.get_running_loop().remove_reader(cast("int", handle.fd))

    def _stir(self) -> None:
        self._stopper.collect(self._stopper._tree.held)

    async def _tell(self, makers: list[Callable[[], Call[Any]]]) -> None:
        ledger = AsyncLedger(URL, retries=2)
        loop = asyncio.get_running_loop()
        end_s = loop.time() + TRY_S
        try:
            for make in makers:
                while True:
                    try:
                        answer = await ledger.run(make())
                        if not (isinstance(answer, Answer) and answer.word == "plan"):  # else it is signed again
                            break
                    except CoordError:
                        if loop.time() > end_s:
                            self.world.say(self.program.name, "could not tell")
                            return
                        await asyncio.sleep(RETRY_S)
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
