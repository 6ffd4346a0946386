"""Tells the record that an agent died, or what became of its processes: a short-lived process, started by `heir`.

Reads one JSON object from stdin: `watch` (what the agent had told its guardian), and `death` or `report`. When the
agent hosted RQ workers, it then writes in RQ what became of their RQ jobs, if all their processes were seen gone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from coord.coordinator import new_request
from coord.errors import CoordError
from coord.keyrings import keyring
from coord.ledger import Ledger
from coord.messages import (
    AgentInfo,
    AgentReport,
    AgentState,
    Cause,
    FirstFailure,
    LeftBehind,
    Outcome,
    ProcessReport,
    Survivor,
)
from coord.plan import Plan
from coord.record import LEASE_S, Answer, Call, Record

if TYPE_CHECKING:
    from collections.abc import Callable

TRY_S = 12.0
RETRY_S = 0.3
SIGN_TRIES = 20


def main() -> None:
    """Tell it, trying again for a while when Redis is away."""
    what: dict[str, Any] = json.load(sys.stdin)
    watch = what["watch"]
    makers = died(watch, what["death"]) if "death" in what else [partial(stopped, watch, what["report"])]
    ledger = Ledger(watch["redis_url"])
    duties: list[Callable[[], object]] = [partial(tell, ledger, make) for make in makers]
    if watch.get("rq") and "report" in what and (what["report"]["proof"] or watch["rq"].get("gone")):
        duties.append(partial(settle, watch))
    end_s = time.monotonic() + TRY_S
    for duty in duties:
        while True:
            try:
                duty()
                break
            except CoordError:
                if time.monotonic() > end_s:
                    raise
                time.sleep(RETRY_S)


def tell(ledger: Ledger, make: Callable[[], Call[Any]]) -> None:
    """Tell the record; at once again where it knows better what has to be signed."""
    for _ in range(SIGN_TRIES):
        answer = ledger.run(make())
        if not (isinstance(answer, Answer) and answer.word == "plan"):
            return


def settle(watch: dict[str, Any]) -> None:
    """Write in RQ what became of what the dead agent's workers had. `watch["rq"]`: where, whose, and what then.

    An estate has no URL in it, since it stands on a disk: then it is that of who sees to it. `gone`: all processes were
    seen gone by the agent itself, which could not tell RQ.
    """
    from coord.rq import duties

    rq = watch["rq"]
    sys.path += rq.get("paths") or ["."]  # of a settings module
    here = None if rq.get("config") else os.environ.get("RQ_REDIS_URL") or watch["redis_url"]
    duties.settle(
        {
            "prefix": rq["prefix"],
            "rq_url": rq.get("rq_url") or here,
            "config": rq.get("config"),
            "as": rq["as"],
            "words": f"the agent on host {watch['host']} died; what it ran was stopped",
            "record_url": watch["redis_url"],
            "job_id": watch["job_id"],
            "retain_s": watch["retain_s"],
        }
    )


def died(watch: dict[str, Any], death: dict[str, Any]) -> list[Callable[[], Call[Any]]]:
    """Keep the dead agent's lease while its heir works; its death is the job's failure if its policy says so."""
    record, info = _record(watch), _info(watch)
    lease_s = Plan.from_list(watch["plan"]).total_s + 2 * LEASE_S
    calls: list[Callable[[], Call[Any]]] = [partial(record.beat, info.agent_id, lease_s)]
    if watch["stop_on_failure"]:
        reason = f"the agent of {info.label} on host {info.host} {death['how']}"
        failure = FirstFailure(
            info.agent_id, info.host, f"agent of {info.label}", info.pid, death["exit_code"], death["signal"]
        )
        wish = new_request(record.job_id, Cause.FAILURE, watch["by"], reason)
        calls.append(partial(record.fail, failure, wish))
    return calls


def stopped(watch: dict[str, Any], report: dict[str, Any]) -> Call[str]:
    """Report in the dead agent's name."""
    processes = tuple(
        ProcessReport(**{**process, "outcome": Outcome(process["outcome"])}) for process in report["processes"]
    )
    return _record(watch).report(
        _info(watch),
        AgentReport(
            AgentState.STOPPED,
            report["proof"],
            processes,
            survivors=tuple(Survivor(**each) for each in report["survivors"]),
            left_behind=tuple(LeftBehind(**each) for each in report["left_behind"]),
        ),
        "agent.stopped",
        signal_age_s=report["signal_age_s"],
        gone_age_s=report["gone_age_s"],
    )


def _record(watch: dict[str, Any]) -> Record:
    return Record(watch["job_id"], watch["retain_s"], keyring())  # where `heir` says in the environment


def _info(watch: dict[str, Any]) -> AgentInfo:
    return AgentInfo(watch["agent_id"], watch["host"], watch["label"], watch["pid"], watch["command"])


if __name__ == "__main__":
    main()
