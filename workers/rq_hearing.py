"""Hears what RQ workers say to their agent, and does what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coord.messages import clip
from workers.rq_slot import Execution, Intent, Slot

if TYPE_CHECKING:
    from workers.rq_ground import Ground
    from workers.rq_share import Shares
    from workers.rq_stops import Stops

LABEL_MAX = 64
FINAL = {"finished", "failed", "stopped", "canceled"}


class Hearing:
    """Of one host. `requeued`: how many RQ jobs its workers have put back."""

    def __init__(self, ground: Ground, stops: Stops, shares: Shares) -> None:
        self._ground = ground
        self._stops = stops
        self.shares = shares
        self.requeued = 0

    def heard(self, slot: Slot, message: dict[str, Any]) -> None:
        """Take one message."""
        getattr(self, f"_on_{message['kind']}")(slot, message)

    def _on_up(self, slot: Slot, message: dict[str, Any]) -> None:
        slot.up = True
        self._ground.log.info("worker.up", worker=slot.name, pid=message["pid"])

    def _on_may(self, slot: Slot, message: dict[str, Any]) -> None:
        ids = [message["job_id"], message["group"], message["rq_job"]]
        execution = Execution(
            rq_job=message["rq_job"],
            queue=message["queue"],
            label=clip(message["label"], LABEL_MAX),
            job_id=message["job_id"],
            ids=tuple(dict.fromkeys(each for each in ids if each)),
            stop_on_failure=message["on_failure"] == "stop",
            slot=slot,
        )
        self._ground.board.begin(execution)
        self._ground.agent.later(self._answer(slot, execution, message["ticket"]))

    async def _answer(self, slot: Slot, execution: Execution, ticket: int) -> None:
        request = await self.shares.may(execution)
        if request is None:
            slot.tell("answer", ticket=ticket, word="go")
            return
        self._ground.log.info("job.refused", rq_job=execution.rq_job, job=request.job_id)
        slot.tell("answer", ticket=ticket, word="fenced", words=f"job {request.job_id} was shut down by {request.by}")

    def _on_forked(self, slot: Slot, message: dict[str, Any]) -> None:
        execution = slot.execution
        if execution:
            execution.id, execution.horse_pid = message["execution"], message["pid"]
            slot.tree.begin(message["pid"])
            execution.forked.set()
            self.shares.began(execution)

    def _on_failed(self, slot: Slot, message: dict[str, Any]) -> None:
        if slot.execution and slot.execution.rq_job == message["rq_job"]:
            self.shares.failed(slot.execution, message)

    def _on_ended(self, slot: Slot, message: dict[str, Any]) -> None:
        status = (message["exit_code"], message["signal"])
        slot.tree.ended(message["pid"], status, childless=message["childless"])
        execution = slot.execution
        if message["childless"]:
            self._seen_gone(slot)
        elif execution and execution.keeper:
            execution.keeper.told()
        elif execution and execution.intent:
            self._ground.agent.later(self._stops.rest(execution, execution.intent))
        elif execution:
            words = f"the rest of RQ job {execution.rq_job}, which has ended"
            rest = Intent("", words, {"reason": words})
            self._ground.agent.later(self._stops.run(slot, execution, rest, self._ground.order.manner.plan))

    def _on_childless(self, slot: Slot, _message: dict[str, Any]) -> None:
        slot.tree.childless = True
        self._seen_gone(slot)

    def _seen_gone(self, slot: Slot) -> None:
        execution = slot.execution
        if execution and execution.keeper:
            execution.keeper.told()
        if execution:
            self._stops.settle(execution)

    def _on_noted(self, slot: Slot, _message: dict[str, Any]) -> None:
        if slot.execution:
            slot.execution.noted.set()

    def _on_written(self, slot: Slot, message: dict[str, Any]) -> None:
        execution = slot.execution
        if execution and execution.rq_job == message["rq_job"]:
            if message["status"] == "queued" and execution.intent and execution.intent.ends_as == "requeued":
                self.requeued += 1
            if execution.refused and message["status"] == "canceled":
                self.shares.count(execution, "canceled", execution.refused)
            if message["status"] == "stopped":
                self.shares.count(execution, "stopped")
            self.free(execution, for_good=message["status"] in FINAL)

    def _on_asked(self, slot: Slot, message: dict[str, Any]) -> None:
        """Somebody used RQ's own commands."""
        if message["what"] == "shutdown":
            slot.tell("drain")
        elif slot.execution:
            ends_as = "stopped" if message["what"] == "stop" else "killed"
            words = f"Stopped by RQ's {message['what']} command" if ends_as == "stopped" else "Killed by RQ's command"
            intent = Intent(ends_as, words, {"cause": "operator", "reason": words})
            self._ground.agent.later(self._stops.stop(slot.execution, intent, self._ground.order.manner.plan))

    def _on_bye(self, slot: Slot, message: dict[str, Any]) -> None:
        if message.get("clean", True):  # else it could not tell RQ: as one that died
            slot.bye = message["why"]
            if slot.execution:  # which it has given back, before it was told that it may
                self.free(slot.execution)

    def free(self, execution: Execution, *, for_good: bool = False) -> None:
        """Its worker is free for something else."""
        self._ground.board.end(execution)
        self.shares.left(execution, for_good=for_good)
