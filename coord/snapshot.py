"""A job as the record has it at one instant: decoded, and what follows from it. Pure.

The public JSON, the terminal tables and the exit code are all made of a Snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from coord.belief import believed, counts, doubt_of_report, doubt_of_swept
from coord.decode import (
    MessageError,
    decode_failure,
    decode_info,
    decode_report,
    decode_time,
    decode_unproved,
)
from coord.errors import INCOMPLETE, OK, STILL_RUNNING
from coord.messages import AgentInfo, AgentReport, AgentState, FirstFailure, Outcome, ShutdownRequest, Unproved

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coord.seal import Doubt, Keyring, Refusal


class Verdict(StrEnum):
    """How a job's shutdown ended."""

    CLEAN = "clean"
    FORCED = "forced"
    INCOMPLETE = "incomplete"


class JobState(StrEnum):
    """Where a job is; `stopped` only when nothing of it is left."""

    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    BROKEN = "broken"  # in a list: its record can't be read


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent of the job: what it said when it joined, and its last report."""

    info: AgentInfo
    report: AgentReport
    lease_left_s: float | None  # None: it left, or was declared lost
    left_us: int | None  # Redis time of its last word
    heard_us: int | None = None  # Redis time it was last heard
    last_heard_s: float | None = None  # seconds that have passed since then
    answered: bool = False  # it said that it stops its processes, or has
    refused: Mapping[str, int] = field(default_factory=dict)  # what it did not obey, counted by kind
    doubt: Doubt | None = None  # why its last word is not believed

    @property
    def state(self) -> AgentState:
        """What it is doing, by its own word; `lost` when that word is no longer to be trusted."""
        return self.report.state


@dataclass(frozen=True, slots=True)
class OnRq:
    """What of the job is or was on RQ. `jobs`: how many RQ jobs the record knows of."""

    jobs: int = 0
    canceled: int = 0
    stopped: int = 0
    requeued: int = 0
    unproved: tuple[Unproved, ...] = ()
    unproved_count: int = 0  # may be more than are listed
    due: bool = False  # somebody has to sweep them, or does
    lost: bool = False  # nobody did in time
    doubt: Doubt | None = None  # why the word that it was done is not believed

    @property
    def again(self) -> bool:
        """Tell whether it may be swept again: nobody did in time, or something was left without proof."""
        return not self.due and (self.lost or self.unproved_count > 0)

    @property
    def any(self) -> bool:
        """Tell whether the job has anything to do with RQ."""
        return self != OnRq()


@dataclass(frozen=True, slots=True)
class Kept:
    """The record's own words, for the case that the server loses them."""

    job: dict[str, str]
    reports: dict[str, str]  # by agent id


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job at one instant of Redis time."""

    job_id: str
    now_us: int
    created_us: int
    request: ShutdownRequest | None
    verdict: Verdict | None
    verdict_us: int | None
    first_failure: FirstFailure | None
    agents: tuple[Agent, ...]  # by host, then agent id
    rq: OnRq = OnRq()
    record_lost: bool = False  # the server lost the record, and nobody is left who knew all of it
    kept: Kept | None = field(default=None, repr=False, compare=False)
    refusal: Refusal | None = None  # the record's request, when it is not well signed: nobody obeys it
    broken: str = ""  # why its record can't be read: then there is nothing else

    @property
    def state(self) -> JobState:
        """`stopping` until every process was seen gone: an incomplete shutdown has not stopped the job."""
        if self.broken:
            return JobState.BROKEN
        if self.request is None:
            # of RQ jobs, the record knows that they were enlisted, not that they have ended
            return JobState.RUNNING if self.awaited or self.rq.jobs else JobState.STOPPED
        return JobState.STOPPED if self.verdict in {Verdict.CLEAN, Verdict.FORCED} else JobState.STOPPING

    @property
    def awaited(self) -> tuple[Agent, ...]:
        """Agents that hold a lease: the ones that run, or still have to answer a request."""
        return tuple(agent for agent in self.agents if agent.lease_left_s is not None)

    @property
    def silent(self) -> tuple[Agent, ...]:
        """Agents that have to answer the request and have not said yet that they obey it."""
        return tuple(agent for agent in self.awaited if not agent.answered) if self.request else ()

    @property
    def members(self) -> tuple[Agent, ...]:
        """Agents that the shutdown was about; all, while there is none."""
        if self.request is None:
            return self.agents
        since_us = self.request.requested_us
        return tuple(agent for agent in self.agents if agent.left_us is None or agent.left_us >= since_us)

    @property
    def lost(self) -> tuple[Agent, ...]:
        """Agents that nobody has heard from."""
        return tuple(agent for agent in self.agents if agent.state is AgentState.LOST)

    def presumed_stopped_us(self, agent: Agent) -> int | None:
        """By which Redis time a lost agent that stops by itself has done so, if its host goes on; None: unknown."""
        if agent.state is not AgentState.LOST or agent.info.alone_s is None or agent.heard_us is None:
            return None
        # it may have heard the request before, or still, and be at its plan
        more_s = self.request.plan.total_s if self.request else 0.0
        return agent.heard_us + round((agent.info.alone_s + more_s) * 1e6)

    @property
    def took_s(self) -> float | None:
        """Seconds from the request to the verdict, in Redis time."""
        if self.request is None or self.verdict_us is None:
            return None
        return (self.verdict_us - self.request.requested_us) / 1e6

    @property
    def exit_code(self) -> int:
        """How `coord shutdown` ends: 0 only with proof from every host."""
        if self.verdict is None:
            return STILL_RUNNING
        return INCOMPLETE if self.verdict is Verdict.INCOMPLETE else OK

    def count(self, outcome: Outcome) -> int:
        """Count the processes of all agents that ended so."""
        return sum(agent.report.count(outcome) for agent in self.members)


def broken_job(job_id: str, why: str) -> Snapshot:
    """Give what a list shows of a job whose record can't be read."""
    return Snapshot(job_id, 0, 0, None, None, None, None, (), broken=why)


def decode_snapshot(job_id: str, reply: Any, keyring: Keyring | None = None) -> Snapshot | None:
    """Read what `snapshot.lua` returns; None when there is no such job. Raises MessageError on a broken record.

    With a keyring, what is not well signed is not believed, and the verdict is made anew of what is.
    """
    try:
        return _decode(job_id, reply, keyring)
    except (KeyError, TypeError, ValueError) as error:
        raise MessageError(f"the record is broken: {error!r}") from error


def _decode(job_id: str, reply: Any, keyring: Keyring | None) -> Snapshot | None:
    now_us, *parts, lost, rq_jobs = reply
    job, infos, reports, leases, left, heard = (_pairs(part) for part in parts)
    if not job:
        return None
    now = int(now_us)
    fields = [job.get(name) for name in _REQUEST] + [now_us]
    request, refusal = believed(keyring, job_id, fields)
    asked = request.id if request else ""
    agents = []
    for agent_id, info in infos.items():
        report = reports.get(agent_id)
        doubt = doubt_of_report(keyring, (job_id, agent_id.decode(), asked), report) if report else None
        said = decode_report(report) if report and not doubt else AgentReport(AgentState.RUNNING)
        left_s = _left_s(leases.get(agent_id), now)
        unheard = keyring is not None and left_s is None  # who has left said so
        agents.append(
            Agent(
                info=decode_info(info),
                report=_believed(said, left_s, lost=agent_id in lost or unheard),
                lease_left_s=left_s,
                left_us=int(float(left[agent_id])) if agent_id in left else None,
                heard_us=int(float(heard[agent_id])) if agent_id in heard else None,
                last_heard_s=max(0.0, now - float(heard[agent_id])) / 1e6 if agent_id in heard else None,
                answered=said.state is not AgentState.RUNNING,
                refused=counts(job.get(b"refused:" + agent_id)),
                doubt=doubt,
            )
        )
    snapshot = Snapshot(
        job_id=job_id,
        now_us=now,
        created_us=decode_time(job[b"created_us"]),
        request=request,
        verdict=Verdict(job[b"verdict"].decode()) if b"verdict" in job else None,
        verdict_us=decode_time(job[b"verdict_us"]) if b"verdict_us" in job else None,
        first_failure=_first_failure(job),
        agents=tuple(sorted(agents, key=lambda agent: (agent.info.host, agent.info.agent_id))),
        rq=_on_rq(job, int(rq_jobs), keyring, job_id),
        record_lost=job.get(b"memory") == b"part",
        kept=Kept(_texts(job), _texts(reports)),
        refusal=refusal,
    )
    return snapshot if keyring is None else _proved(snapshot)


_REQUEST = (b"request", b"plan", b"requested_us", b"rev", b"rq", b"seal")


def _proved(snapshot: Snapshot) -> Snapshot:
    """Make the verdict anew of what is believed: it may be worse than the record's, never better."""
    verdict = snapshot.verdict
    if verdict is None or snapshot.request is None or snapshot.awaited:
        return replace(snapshot, verdict=None, verdict_us=None)
    unproved = any(
        agent.state is not AgentState.STOPPED or agent.report.proof is None or agent.report.count(Outcome.SURVIVED)
        for agent in snapshot.agents
    )
    if unproved or snapshot.rq.doubt:
        return replace(snapshot, verdict=Verdict.INCOMPLETE)
    if verdict is Verdict.CLEAN and snapshot.count(Outcome.KILLED):
        return replace(snapshot, verdict=Verdict.FORCED)
    return snapshot


def _on_rq(job: dict[bytes, bytes], jobs: int, keyring: Keyring | None, job_id: str) -> OnRq:
    return OnRq(
        jobs=jobs,
        canceled=int(job.get(b"rq_canceled", 0)),
        stopped=int(job.get(b"rq_stopped", 0)),
        requeued=int(job.get(b"rq_requeued", 0)),
        unproved=decode_unproved(job.get(b"rq_unproved", b"[]")),
        unproved_count=int(job.get(b"rq_unproved_count", 0)),
        due=b"rq_due_us" in job,
        lost=b"rq_lost" in job,
        doubt=doubt_of_swept(keyring, job_id, job),
    )


def _believed(said: AgentReport, lease_left_s: float | None, *, lost: bool) -> AgentReport:
    expired = lease_left_s is not None and lease_left_s < 0
    if said.state is not AgentState.STOPPED and (lost or expired):
        return replace(said, state=AgentState.LOST)
    return said


def _left_s(lease_us: bytes | None, now_us: int) -> float | None:
    return None if lease_us is None else (float(lease_us) - now_us) / 1e6


def _first_failure(job: dict[bytes, bytes]) -> FirstFailure | None:
    if b"first_failure" not in job:
        return None
    return replace(decode_failure(job[b"first_failure"]), at_us=decode_time(job[b"first_failure_us"]))


def _texts(words: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, value in words.items()}


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
