"""A host's share in one job, and what the record is told of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from coord.coordinator import new_request
from coord.memory import restored_by_agent
from coord.messages import (
    PROCESSES_MAX,
    SURVIVORS_MAX,
    AgentReport,
    AgentState,
    Cause,
    FirstFailure,
    Outcome,
    ProcessReport,
)
from coord.render.text import failure_words

if TYPE_CHECKING:
    from coord.ledger import AsyncLedger
    from coord.messages import AgentInfo, ShutdownRequest
    from coord.plan import Plan
    from coord.record import Answer, Call, Record
    from workers.rq_slot import Execution, ExecutionKeeper

WHY = ("id", "cause", "by", "reason")  # what processes are told of a request


class Share:
    """This host's part in one job."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.joined = False
        self.lock = asyncio.Lock()  # one join or enrolment at a time
        self.request: ShutdownRequest | None = None
        self.heard_s = 0.0  # when it was, by the loop's clock
        self.running: set[Execution] = set()
        self.targets: list[Execution] = []  # what the request found running
        self.failed = False  # something of it failed for good, and the record does not know yet
        self.heard = asyncio.Event()  # its request
        self.done: list[str] = []  # RQ jobs that the record need not know any more
        self.idle_since_s = 0.0
        self.stopping: asyncio.Task[None] | None = None
        self.told: set[Execution] | None = None  # whom the record knows as running; None: nobody yet

    @property
    def keepers(self) -> list[ExecutionKeeper]:
        """Give who stops what the request found."""
        return [each.keeper for each in self.targets if each.keeper]


async def beat(ledger: AsyncLedger, share: Share, info: AgentInfo, *, plan: Plan, by: str) -> Answer:
    """Keep the share's place in the record: renew it, tell again what the server lost, and give up who is lost."""
    record, known = share.record, share.request
    answer = await ledger.run(record.beat(info.agent_id))
    call: Call[Answer] | None = None
    if known and not (answer.request or answer.refusal):
        age_s = known.elapsed_s + asyncio.get_running_loop().time() - share.heard_s
        call = restored_by_agent(record, replace(known, elapsed_s=age_s), info, None)
    elif answer.word == "missing":
        call = record.enrol(info)
    elif answer.word in {"unknown", "back"}:
        call = record.join(info, plan, again=answer.word == "unknown")
    elif answer.lost:
        wish = new_request(record.job_id, Cause.HOST_LOST, by, failure_words(answer.lost.failure))
        call = record.host_lost(answer.lost, wish)
    if call is None:
        return answer
    answer = await ledger.run(call)
    await ledger.remember(record.job_id)
    return answer


async def report(share: Share, info: AgentInfo, kind: str) -> Call[str]:
    """Make the report of what this host does for a job, as it is now. `kind`: the event."""
    if kind == "agent.running":
        return _running(share, info)
    now_s = time.monotonic()
    processes: list[ProcessReport] = [each for keeper in share.keepers for each in keeper.state.reports()]
    last = kind == "agent.stopped"
    proved = all(keeper.state.proved for keeper in share.keepers)
    signals = [s for keeper in share.keepers if (s := keeper.first_signal_s) is not None]
    gone = [s for keeper in share.keepers if (s := keeper.all_gone_s) is not None]
    return share.record.report(
        info,
        AgentReport(
            AgentState.STOPPED if last else AgentState.STOPPING,
            "subreaper" if last and proved else None,
            tuple(processes[:PROCESSES_MAX]),
            survivors=tuple(each for keeper in share.keepers for each in keeper.survivors)[:SURVIVORS_MAX],
            left_behind=tuple(each for keeper in share.keepers for each in keeper.left_behind),
        ),
        kind,
        signal_age_s=now_s - min(signals) if signals else None,
        gone_age_s=now_s - max(gone) if last and proved and gone else None,
        request_id=share.request.id if share.request else "",
    )


def _running(share: Share, info: AgentInfo) -> Call[str]:
    moments = None if not share.told else ()  # one event for all that comes and goes
    share.told = set(share.running)
    processes = tuple(
        ProcessReport(each.horse_pid, each.label, each.label, Outcome.RUNNING) for each in share.told if each.horse_pid
    )
    report = AgentReport(AgentState.RUNNING, processes=processes[:PROCESSES_MAX])
    return share.record.report(info, report, "agent.running", moments=moments)


def words_of(request: ShutdownRequest) -> str:
    """Say who stopped an RQ job, and why."""
    reason = f": {request.reason}" if request.reason else ""
    return f"Stopped by coord: job {request.job_id} was shut down by {request.by} ({request.cause}){reason}"


def failure_of(execution: Execution, info: AgentInfo, told: dict[str, Any]) -> FirstFailure:
    """Give the failure of an RQ job that its worker told of."""
    return FirstFailure(
        agent_id=info.agent_id,
        host=info.host,
        label=execution.label,
        pid=told["pid"],
        exit_code=told["exit_code"],
        signal=told["signal"],
        stderr_tail=tuple(told["lines"]),
    )
