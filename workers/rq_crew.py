"""A host's worker processes: starts them, and replaces those that die."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from coord.keyrings import without_secret
from coord.messages import Outcome
from workers.rq_slot import Intent, Slot
from workers.rq_trees import WorkerTree
from workers.starting import Program, start
from workers.stop_file import StopFile

if TYPE_CHECKING:
    from workers.containment import Containment
    from workers.rq_ground import Ground
    from workers.rq_hearing import Hearing
    from workers.rq_stops import Stops
    from workers.state import Process

AGAIN_S, AGAIN_MAX_S = 0.1, 10.0  # before a worker that died is replaced
STEADY_S = 30.0  # one that lived so long was none of a row of failures
STARTS_MAX = 3  # workers in a row that ended before they were up: it makes no sense to go on
SETTLE_S = 10.0
REFUSED = 2  # a worker's exit code: what it was told makes no sense, and it has said so


class Crew:
    """All of them. `refused`: they could not be started as they were told. `settled`: RQ was told of all that died."""

    def __init__(self, ground: Ground, containment: Containment, stops: Stops, hearing: Hearing) -> None:
        self._ground = ground
        self._containment = containment
        self._stops = stops
        self._hearing = hearing
        self._slots: dict[int, Slot] = {}  # by place
        self._born = 0
        self._failures = 0
        self._again_s = AGAIN_S
        self._dead: list[str] = []  # names of those that RQ may still have something of
        self._burying: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()
        self.refused = False
        self.settled = True
        self.put_back = 0  # RQ jobs, by workers and clerks, at the end
        self.draining = False

    # -- starting and replacing ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all."""
        places = self._ground.order.count + self._ground.order.with_scheduler
        for place in range(places):
            self._start_one(place)

    def _start_one(self, place: int) -> None:
        if self.draining or not self._ground.agent.may_start():
            return
        self._born += 1
        name = f"{self._ground.info.agent_id}.{self._born}"
        tree = WorkerTree(self._containment, self._ours)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stop_file = StopFile.of(name)
        scheduler = place == self._ground.order.count
        slot = Slot(name, tree, ours, stop_file=stop_file, heard=self._hearing.heard, scheduler=scheduler)
        self._ground.files.others[stop_file] = self._ground.order.ends_as
        os.set_inheritable(theirs.fileno(), True)  # noqa: FBT003
        environment = {**without_secret(os.environ), "COORD_RQ_LINK": str(theirs.fileno())}
        argv = (sys.executable, "-P", "-m", "workers.rq_main")
        with theirs:
            slot.pid = tree.pid = start(Program(sys.executable, argv, environment), tree.entry())
        slot.born_s = self._loop.time()
        self._slots[place] = slot
        slot.tell("config", **self._config(slot))
        label = "scheduler" if scheduler else f"worker{self._born}"
        slot.key = self._ground.agent.adopt(slot.pid, tree.entry().mark.number, label, f"coord worker {name}")

    def _config(self, slot: Slot) -> dict[str, Any]:
        order = self._ground.order
        return {
            "role": "scheduler" if slot.scheduler else "worker",
            "name": slot.name,
            "queues": list(order.queues),
            "url": order.rq_url,
            "config": order.config,
            "paths": list(order.paths),
            "stop_file": slot.stop_file.path,
            "host_stop_file": self._ground.files.path,
            "agent_id": self._ground.info.agent_id,
            "record_url": self._ground.url,
            "warm_s": order.warm_s,
            "on_stop": order.on_stop,
            "burst": order.burst,
            "options": order.options,
        }

    def look(self) -> None:
        """See whether a worker has ended."""
        processes = self._ground.agent.state.processes
        for place, slot in list(self._slots.items()):
            process = processes.get(slot.key)
            if process and process.outcome is not Outcome.RUNNING:
                del self._slots[place]
                slot.close()
                burying = self._ground.agent.later(self._replace(place, slot, process))
                self._burying.add(burying)
                burying.add_done_callback(self._burying.discard)

    async def _replace(self, place: int, slot: Slot, process: Process) -> None:
        """See to what a worker left, then start another."""
        if slot.bye is None:
            await self._bury(slot, process)
        self._ground.files.others.pop(slot.stop_file, None)
        slot.stop_file.remove()
        lived_s = self._loop.time() - slot.born_s
        self._failures = 0 if slot.up else self._failures + 1
        if not slot.up:
            self.refused = self.refused or process.exit_code == REFUSED or self._failures >= STARTS_MAX
        if self.refused or (slot.bye is not None and not slot.scheduler):
            self._leave()
            return
        self._again_s = AGAIN_S if lived_s > STEADY_S else min(2 * self._again_s, AGAIN_MAX_S)
        self._loop.call_later(self._again_s, self._start_one, place)

    def _leave(self) -> None:
        """When the last worker has left by itself, the work is over; a scheduler alone has nothing to do."""
        if self.draining:
            return
        if self.refused or all(slot.scheduler for slot in self._slots.values()):
            self.drain()
            self._ground.agent.seal()

    async def _bury(self, slot: Slot, process: Process) -> None:
        """A worker died: stop what it was running, then have RQ told the truth about it."""
        slot.tree.worker_died()
        execution = slot.execution
        if execution and execution.keeper:
            execution.keeper.told()
        how = f"was killed by {process.signal}" if process.signal else f"exited with code {process.exit_code}"
        intent = Intent("failed", f"The worker process {how} while it ran this job", {"reason": f"the worker {how}"})
        if execution:
            await self._stops.run(slot, execution, execution.intent or intent, self._ground.order.manner.plan)
            self._hearing.free(execution)
        if not slot.up:
            return
        if self.draining:
            self._dead.append(slot.name)  # with all others, at the end
        else:
            ends_as = execution.intent.ends_as if execution and execution.intent else "failed"
            words = execution.intent.words if execution and execution.intent else intent.words
            said = await self._settle([slot.name], ends_as, words, SETTLE_S)
            while not _told(said) and not self.draining:  # an outage
                await asyncio.sleep(AGAIN_S)
                said = await self._settle([slot.name], ends_as, words, SETTLE_S)
            if not _told(said):
                self._dead.append(slot.name)
            if execution and execution.rq_job in said.get("ended", ()):
                code, signal = process.exit_code, process.signal
                facts = {"pid": slot.pid, "exit_code": code, "signal": signal, "lines": [intent.words]}
                self._hearing.shares.failed(execution, facts)

    def drain(self) -> None:
        """Have them take nothing more."""
        self.draining = True
        for slot in self._slots.values():
            slot.tell("drain")

    # -- RQ's state of the dead ----------------------------------------------------------------------------------------

    async def settle_all(self, within_s: float) -> int:
        """Have RQ told of all workers that did not leave by themselves; gives how many RQ jobs went back in all."""
        if self._burying:
            await asyncio.wait(self._burying, timeout=within_s)
        names = self._dead + [slot.name for slot in self._slots.values() if slot.bye is None and slot.up]
        if names:
            words = f"Its host {self._ground.info.host} was stopped"
            self.settled = False  # it may take too long
            said = await self._settle(names, self._ground.order.ends_as, words, within_s)
            self.settled = _told(said)
            self.put_back = int(said.get("requeued", 0))
        self.put_back += self._hearing.requeued
        return self._hearing.requeued

    async def _settle(self, names: list[str], ends_as: str, words: str, within_s: float) -> dict[str, Any]:
        said = await self._ground.clerks.do(
            "settle", within_s, workers=names, words=words, job_id=self._ground.info.agent_id, **{"as": ends_as}
        )
        counts = {name: count for name, count in said.items() if isinstance(count, int)}
        self._ground.log.info("workers.settled", **(counts | {"workers": names}))
        return said

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _ours(self) -> set[int]:
        """Give the children of this process that are nobody's orphans."""
        return {slot.pid for slot in self._slots.values()} | self._ground.spare


def _told(said: dict[str, Any]) -> bool:
    """Tell whether a clerk could do it."""
    return bool(said) and "error" not in said
