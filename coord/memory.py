"""What is still known of a job that the server has lost, by who followed it or worked for it: to write it again. Pure.

A server loses what it acknowledged when it starts again without persistence, or when its replica takes over too early.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coord.messages import AgentInfo, FirstFailure, Outcome, ShutdownRequest, dump, encode
from coord.record import LEASE_S, Answer, Call, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from coord.snapshot import Agent, Snapshot

MARGIN_US = 1000
# what `restore` writes by itself, or what is only true for a while
OWN = {"request", "plan", "requested_us", "rev", "seal", "verdict", "verdict_us", "killed", "survived"}
PASSING = {"patience_us", "forgot_us", "memory", "rq_due_us", "rq_by"}


@dataclass(frozen=True, slots=True)
class Member:
    """An agent as it is remembered. `state`: `awaited`, `left` or `lost`; `info`, `report`: JSON as it was kept."""

    agent_id: str
    info: str
    state: str = "awaited"
    heard_age_s: float = 0.0
    left_age_s: float = 0.0
    report: str = ""
    killed: int = 0
    survived: int = 0


def lost(before: Snapshot, now: Snapshot | None) -> bool:
    """Tell whether the server has forgotten something of a requested shutdown that it knew before."""
    if before.request is None:
        return False
    if now is None or now.request is None or now.created_us != before.created_us:
        return True
    if now.request.id == before.request.id and now.request.rev < before.request.rev:
        return True
    there = {agent.info.agent_id: agent for agent in now.agents}
    return any(_took_back(agent, there.get(agent.info.agent_id)) for agent in before.agents)


def restored(record: Record, before: Snapshot, since_s: float) -> Call[Answer]:
    """Give the call that writes again what was there `since_s` ago, when it was last read."""
    if before.request is None or before.kept is None:
        raise ValueError("there is nothing to write again")
    fields = {name: value for name, value in before.kept.job.items() if name not in OWN | PASSING}
    request = replace(before.request, elapsed_s=before.request.elapsed_s + since_s, rq=before.rq.due)
    members = [_member(agent, before, since_s) for agent in before.agents]
    return record.restore(
        _words(request, fields, members, whole=not before.record_lost, seal=record.pen.again(request) or request.seal)
    )


def restored_by_agent(
    record: Record, request: ShutdownRequest, info: AgentInfo, failure: FirstFailure | None
) -> Call[Answer]:
    """Give the call that an agent makes: it knows the request, itself, and the failure if that was seen here."""
    fields = {"first_failure": encode(failure)} if failure else {}
    if record.keyring:
        fields["sealed"] = record.keyring.ids
    members = [Member(info.agent_id, encode(info))]
    return record.restore(_words(request, fields, members, whole=False, seal=record.pen.again(request) or request.seal))


def _took_back(before: Agent, now: Agent | None) -> bool:
    """Its last word is gone, and it was not heard again."""
    if before.left_us is None or (now and now.left_us is not None):
        return False
    return now is None or (now.heard_us or 0) <= (before.heard_us or 0) + MARGIN_US


def _member(agent: Agent, before: Snapshot, since_s: float) -> Member:
    agent_id = agent.info.agent_id
    left_age_s = 0.0
    state, killed, survived = "lost", 0, 0
    if agent.lease_left_s is not None:
        state = "awaited"
    elif agent.left_us is not None:
        state = "left"
        left_age_s = (before.now_us - agent.left_us) / 1e6 + since_s
        asked = before.request is not None and agent.left_us >= before.request.requested_us
        killed = agent.report.count(Outcome.KILLED) if asked else 0
        survived = max(agent.report.count(Outcome.SURVIVED), int(agent.report.proof is None))
    return Member(
        agent_id,
        encode(agent.info),
        state,
        heard_age_s=(agent.last_heard_s or 0.0) + since_s,
        left_age_s=left_age_s,
        report=before.kept.reports.get(agent_id, "") if before.kept else "",
        killed=killed,
        survived=survived,
    )


def _words(
    request: ShutdownRequest, fields: Mapping[str, str], members: Iterable[Member], *, whole: bool, seal: str
) -> list[str | int]:
    """Give what restore.lua takes. `request` with its age of now; `whole`: all are named who had to answer.

    When it was made may be sealed, so a sealed one keeps that.
    """
    plan, age_us = dump(request.plan.to_list()), _us(request.elapsed_s)
    words: list[str | int] = [
        request.body(),
        plan,
        request.rev,
        age_us,
        int(request.rq),
        dump(dict(fields)),
        int(whole),
        seal,
        request.requested_us,
    ]
    for each in members:
        ages = (_us(each.heard_age_s), _us(each.left_age_s), _us(LEASE_S))
        words += (each.agent_id, each.info, each.state, *ages, each.report, each.killed, each.survived)
    return words


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
