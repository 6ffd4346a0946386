"""The public JSON documents. Their shape is a contract: fields are added, never given another meaning."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from coord.messages import AgentState
from coord.render.text import at

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coord.finding import Finding
    from coord.messages import FirstFailure, ShutdownRequest
    from coord.seal import Refusal
    from coord.snapshot import Agent, OnRq, Snapshot

SCHEMA = 1


def job_document(snapshot: Snapshot) -> dict[str, Any]:
    """Give the document of `coord shutdown --json` and `coord status --json`."""
    return {
        "schema": SCHEMA,
        "job_id": snapshot.job_id,
        "state": snapshot.state,
        "verdict": snapshot.verdict,
        "request": _request(snapshot.request),
        "first_failure": _first_failure(snapshot.first_failure),
        "agents": [_agent(snapshot, agent) for agent in snapshot.agents],
        "rq": _rq(snapshot.rq),
        "record_lost": snapshot.record_lost,
        "refused": _refusal(snapshot.refusal),
    }


def jobs_document(snapshots: Iterable[Snapshot]) -> dict[str, Any]:
    """Give the document of `coord jobs --json`."""
    return {
        "schema": SCHEMA,
        "jobs": [
            {
                "job_id": snapshot.job_id,
                "state": snapshot.state,
                "verdict": snapshot.verdict,
                "created_at": None if snapshot.broken else at(snapshot.created_us),
                "agents": len(snapshot.agents),
                "hosts": sorted({agent.info.host for agent in snapshot.agents}),
                "broken": snapshot.broken or None,
            }
            for snapshot in snapshots
        ],
    }


def agents_document(snapshots: Iterable[Snapshot]) -> dict[str, Any]:
    """Give the document of `coord agents --json`: agents that run or still have to answer."""
    return {
        "schema": SCHEMA,
        "agents": [
            {
                "job_id": snapshot.job_id,
                "label": agent.info.label,
                "command": agent.info.command,
                **_agent(snapshot, agent),
            }
            for snapshot in snapshots
            for agent in snapshot.awaited
        ],
    }


def findings_document(host: str, findings: Iterable[Finding]) -> dict[str, Any]:
    """Give the document of `coord doctor --json`."""
    return {
        "schema": SCHEMA,
        "host": host,
        "findings": [
            {
                "name": finding.name,
                "status": finding.status,
                "found": finding.found,
                "advice": finding.advice or None,
            }
            for finding in findings
        ],
    }


def _request(request: ShutdownRequest | None) -> dict[str, Any] | None:
    if request is None:
        return None
    return {
        "id": request.id,
        "cause": request.cause,
        "by": request.by,
        "reason": request.reason,
        "requested_at": at(request.requested_us),
        "plan": request.plan.to_list(),
    }


def _first_failure(failure: FirstFailure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    document = asdict(failure)
    document["at"] = at(document.pop("at_us"))
    document["stderr_tail"] = list(document.pop("stderr_tail"))
    return document


def _rq(rq: OnRq) -> dict[str, Any]:
    return {
        "canceled": rq.canceled,
        "stopped": rq.stopped,
        "requeued": rq.requeued,
        "jobs": rq.jobs,
        "unproved": [asdict(each) for each in rq.unproved],
        "lost": rq.lost,
    }


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _agent(snapshot: Snapshot, agent: Agent) -> dict[str, Any]:
    report, presumed_us = agent.report, snapshot.presumed_stopped_us(agent)
    return {
        "agent_id": agent.info.agent_id,
        "host": agent.info.host,
        "state": agent.state,
        "proof": report.proof,
        "first_signal_ms": report.first_signal_ms,
        "all_gone_ms": report.all_gone_ms,
        "processes": [asdict(process) for process in report.processes],
        "survivors": [asdict(survivor) for survivor in report.survivors],
        "left_behind": [asdict(thing) for thing in report.left_behind],
        "last_heard_s": _seconds(agent.last_heard_s if agent.state is not AgentState.STOPPED else None),
        "presumed_stopped_at": None if presumed_us is None else at(presumed_us),
        "refused": dict(agent.refused),
        "doubt": agent.doubt,
    }


def _refusal(refusal: Refusal | None) -> dict[str, Any] | None:
    return {"why": refusal.doubt, "claimed_by": refusal.by} if refusal else None
