"""Stops what RQ workers run: first the worker notes what is meant, then the tree is signalled, and seen gone."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from workers.rq_slot import Execution, ExecutionKeeper, Intent, Slot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coord.plan import Plan
    from workers.rq_ground import Ground

FORK_S = 10.0  # between the leave to start and the start
WRITE_S = 2.0  # how long a worker may take to write RQ's state


class Stops:
    """Of one host."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._loop = asyncio.get_running_loop()

    async def stop(self, execution: Execution, intent: Intent, plan: Plan) -> None:
        """Stop one execution, which may not have a process yet, and see its tree gone; RQ's state is written then."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FORK_S):
                await execution.forked.wait()
        if execution.ended.is_set():
            return
        await self._noted_stop(execution.slot, execution, intent, plan)

    async def _noted_stop(self, slot: Slot, execution: Execution, intent: Intent, plan: Plan) -> None:
        """First what is meant by it, then the signal."""
        execution.awaited = True
        end_s = self._loop.time() + plan.total_s
        if not await slot.note(execution, intent, end_s):
            self._ground.log.error("worker.silent", worker=slot.name, hint="it is killed, and its job is seen to")
            self._ground.agent.kill(slot.key)
        await self.run(slot, execution, intent, plan)
        if execution.first:
            await execution.first
        slot.tell("settled", execution=execution.id)
        with suppress(TimeoutError):  # RQ's state is a part of the answer
            async with asyncio.timeout(max(WRITE_S, end_s - self._loop.time())):
                await execution.ended.wait()

    async def rest(self, execution: Execution, intent: Intent) -> None:
        """Ask what a horse left behind that was stopped with its whole host; then its worker may write."""
        execution.awaited = True
        await self.run(execution.slot, execution, intent, self._ground.order.manner.plan)
        execution.slot.tell("settled", execution=execution.id)

    async def run(self, slot: Slot, execution: Execution, intent: Intent, plan: Plan) -> None:
        """Run the plan on what an execution has running, and see it gone."""
        keeper = execution.keeper
        if keeper is None:
            self._ground.files.others[slot.stop_file] = intent.ends_as or self._ground.order.ends_as
            keeper = execution.keeper = ExecutionKeeper(
                execution, intent, self._ground.order.manner, self._ground.log.bind(rq_job=execution.rq_job)
            )
            async with keeper:
                keeper.stop(plan)
                await keeper.over()
        else:
            keeper.stop(plan)
            await keeper.over()

    async def note_all(self, executions: Iterable[Execution]) -> None:
        """Have every worker note what becomes of what it runs, before the whole host is signalled."""
        intent = Intent(self._ground.order.ends_as, f"Its host {self._ground.info.host} was stopped", {})
        end_s = self._loop.time() + self._ground.order.manner.plan.total_s
        unknowing = [each for each in executions if each.forked.is_set() and not each.intent]
        await asyncio.gather(*(each.slot.note(each, intent, end_s) for each in unknowing))
        for each in unknowing:
            self.settle(each)  # it may have ended before that, and its worker waits for a word

    def settle(self, execution: Execution) -> None:
        """Let the worker write RQ's state, if all is gone, and nobody else sees to it: of what stops with its host."""
        slot = execution.slot
        if execution.intent and not execution.awaited and slot.execution is execution and slot.tree.childless:
            slot.tell("settled", execution=execution.id)
