"""Tells the record that an agent died, or what became of its processes: a short-lived process, started by `heir`.

Reads one JSON object from stdin: `watch` (what the agent had told its guardian), and `death` or `report`.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from coord.coordinator import new_request
from coord.errors import CoordError
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
from coord.record import LEASE_S, Call, Record

TRY_S = 12.0
RETRY_S = 0.3


def main() -> None:
    """Tell it, trying again for a while when Redis is away."""
    what: dict[str, Any] = json.load(sys.stdin)
    watch = what["watch"]
    calls = died(watch, what["death"]) if "death" in what else [stopped(watch, what["report"])]
    ledger = Ledger(watch["redis_url"])
    end_s = time.monotonic() + TRY_S
    for call in calls:
        while True:
            try:
                ledger.run(call)
                break
            except CoordError:
                if time.monotonic() > end_s:
                    raise
                time.sleep(RETRY_S)


def died(watch: dict[str, Any], death: dict[str, Any]) -> list[Call[Any]]:
    """Keep the dead agent's lease while its heir works; its death is the job's failure if its policy says so."""
    record, info = _record(watch), _info(watch)
    calls: list[Call[Any]] = [record.beat(info.agent_id, Plan.from_list(watch["plan"]).total_s + 2 * LEASE_S)]
    if watch["stop_on_failure"]:
        reason = f"the agent of {info.label} on host {info.host} {death['how']}"
        failure = FirstFailure(
            info.agent_id, info.host, f"agent of {info.label}", info.pid, death["exit_code"], death["signal"]
        )
        calls.append(record.fail(failure, new_request(record.job_id, Cause.FAILURE, watch["by"], reason)))
    return calls


def stopped(watch: dict[str, Any], report: dict[str, Any]) -> Call[None]:
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
    return Record(watch["job_id"], watch["retain_s"])


def _info(watch: dict[str, Any]) -> AgentInfo:
    return AgentInfo(watch["agent_id"], watch["host"], watch["label"], watch["pid"], watch["command"])


if __name__ == "__main__":
    main()
