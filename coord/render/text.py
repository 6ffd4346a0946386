"""Words and short forms that every view shares."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coord.messages import AgentState, Cause, Event, Outcome, one_line
from coord.plan import KILL, Plan, format_duration
from coord.seal import DOUBT_WORDS, Doubt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from coord.messages import AgentReport, FirstFailure, LeftBehind, ShutdownRequest, Survivor
    from coord.snapshot import Agent, OnRq, Snapshot

LEFT_SHOWN = 5
UNPROVED_SHOWN = 5
ENDED = (Outcome.RUNNING, Outcome.EXITED, Outcome.TERMINATED, Outcome.KILLED, Outcome.SURVIVED)


def at(time_us: int) -> str:
    """Redis time in microseconds -> `2026-11-22T08:00:00.123Z`."""
    moment = datetime.fromtimestamp(time_us / 1e6, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(value: float | None) -> str:
    """Give `1.4 ms`, `212 ms`, `2.05 s`; a dash for what was not measured."""
    if value is None:
        return "-"
    if value < 10:
        return f"{value:.1f} ms"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.2f} s"


def plural(count: int, noun: str) -> str:
    """Give `1 host`, `2 hosts`, `3 processes`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}es" if noun.endswith("s") else f"{count} {noun}s"


def outcomes(report: AgentReport) -> str:
    """Give `2 terminated, 1 killed`; `nothing ran` when the agent had no process."""
    if report.state is AgentState.LOST:
        return f"unknown; {len(report.processes)} when last heard"
    counted = [f"{count} {outcome.value}" for outcome in ENDED if (count := report.count(outcome))]
    return ", ".join(counted) or "nothing ran"


def why(request: ShutdownRequest) -> str:
    """Give who asked and what for, in one phrase."""
    reason = f": {request.reason}" if request.reason else ""
    match request.cause:
        case Cause.OPERATOR:
            return f"by {request.by}{reason}"
        case Cause.FAILURE:
            return f"after a failure{reason}"
        case Cause.HOST_LOST:
            return f"since a host was lost{reason}"
        case Cause.DRAIN:
            return f"since a host is being drained{reason}"


def fenced_words(request: ShutdownRequest) -> str:
    """Give who forbade the job, and when."""
    reason = f" ({request.reason})" if request.reason else ""
    return f"job {request.job_id} was shut down by {request.by} at {at(request.requested_us)}{reason}"


def plan_words(plan: Plan) -> str:
    """Give `SIGTERM, 10s, SIGKILL, 5s`."""
    return ", ".join(f"{step.signal}, {format_duration(round(step.wait_s, 3))}" for step in plan.steps)


def failure_words(failure: FirstFailure) -> str:
    """Give `rank3 on host b (pid 4242) exited with code 7`; of a function that raised, what it raised."""
    if failure.lost:
        return f"host {failure.host} is lost: nobody has heard from its agent of {failure.label} (pid {failure.pid})"
    if failure.signal:
        how = f"was killed by {failure.signal}"
    elif failure.exit_code is None and failure.stderr_tail:
        how = f"raised {failure.stderr_tail[-1]}"
    else:
        how = f"exited with code {failure.exit_code}"
    return f"{failure.label} on host {failure.host} (pid {failure.pid}) {how}"


def ago(seconds: float) -> str:
    """Give `7.2 s ago`, `3m20s ago`."""
    return f"{seconds:.1f} s ago" if seconds < 60 else f"{format_duration(round(seconds))} ago"


def heard_words(agent: Agent) -> str:
    """Give `agent X on host b, last heard 7.2 s ago`."""
    heard = "" if agent.last_heard_s is None else f", last heard {ago(agent.last_heard_s)}"
    return f"agent {agent.info.agent_id} on host {agent.info.host}{heard}"


def presumed_words(snapshot: Snapshot, agent: Agent) -> str:
    """Give `, presumed stopped by 2026-...Z` of a lost agent that stops by itself: no proof, and told apart from it."""
    presumed_us = snapshot.presumed_stopped_us(agent)
    return "" if presumed_us is None else f", presumed stopped by {at(presumed_us)}"


def event_words(event: Event) -> str:
    """Give the line that a follower prints for an event."""
    detail = event.detail
    host = detail.get("host", "")
    left = ", ".join(f"{detail[outcome]} {outcome}" for outcome in ENDED if outcome in detail)
    match event.kind:
        case "shutdown.requested":
            return f"shutdown requested by {detail.get('by')}"
        case "shutdown.shortened":
            return f"made more urgent by {detail.get('by')}"
        case "child.failed":
            return f"{host}: {detail.get('label')} (pid {detail.get('pid')}) failed first"
        case "agent.stopping":
            return f"{host}: asked {plural(detail.get(Outcome.RUNNING, 0), 'process')} to leave"
        case "agent.killing":
            return f"{host}: {KILL} to {plural(detail.get(Outcome.RUNNING, 0), 'hold-out')}"
        case "agent.stopped":
            return f"{host}: stopped: {left or 'nothing ran'}"
        case "job.verdict":
            return f"verdict: {detail.get('verdict')}"
    return _presence_words(event) or _rq_event_words(event) or f"{host}: {event.kind}"


def _presence_words(event: Event) -> str:
    who = f"agent {event.detail.get('agent_id')}"
    host = event.detail.get("host", "")
    match event.kind:
        case "agent.lost":
            return f"{host}: lost: nobody has heard from {who}"
        case "agent.back":
            return f"{host}: back: {who} was heard again"
        case "agent.joined":
            return f"{host}: {who} is there"
        case "record.restored":
            return "Redis had lost the request: it was written again"
        case "redis.lost":
            return f"{event.detail.get('error')}; the shutdown goes on, and is looked for again and again"
        case "redis.back":
            return "Redis is back"
    return ""


def _rq_event_words(event: Event) -> str:
    match event.kind:
        case "rq.sweeping":
            return f"RQ: {event.detail.get('by')} cancels what is queued"
        case "rq.swept":
            return f"RQ: {rq_counts(event.detail) or 'nothing of it was waiting'}"
        case "rq.lost":
            return "RQ: nobody canceled its jobs in time"
    return ""


def summary(snapshot: Snapshot) -> str:
    """Give the one sentence that answers the person who asked."""
    members = snapshot.members
    hosts = plural(len({agent.info.host for agent in members}), "host")
    processes = plural(sum(len(agent.report.processes) for agent in members), "process")
    took = "" if snapshot.took_s is None else f" in {milliseconds(snapshot.took_s * 1000)}"
    name = f"job {snapshot.job_id}"
    match snapshot.verdict:
        case None if not members and snapshot.rq.jobs:
            return (
                f"{name}: {snapshot.state.value}: {plural(snapshot.rq.jobs, 'job')} on RQ, no agent has any of it now"
            )
        case None:
            return f"{name}: {snapshot.state.value} on {hosts}"
        case verdict if verdict != "incomplete" and not members and snapshot.rq.any:
            return f"{name}: {verdict.value}: nothing of it is left on RQ{took}; it may not start any more"
        case verdict if verdict != "incomplete" and not members:
            return f"{name}: {verdict.value}: nothing of it was running; it may not start any more"
        case verdict if verdict == "clean":
            return f"{name}: clean: {processes} on {hosts}, all gone{took} without force, none is left"
        case verdict if verdict == "forced":
            killed = snapshot.count(Outcome.KILLED)
            return f"{name}: forced: {killed} of {processes} on {hosts} had to be killed; all gone{took}, none is left"
        case _:
            return f"{name}: incomplete: {_missing(snapshot)}"


def _missing(snapshot: Snapshot) -> str:
    lost = [f"{_unheard(agent)}{presumed_words(snapshot, agent)}" for agent in snapshot.lost]
    survived = [
        f"process {process.pid} ({process.command}) on host {agent.info.host} survived SIGKILL"
        f"{survivor_words(agent.report.survivors, process.pid)}"
        for agent in snapshot.agents
        for process in agent.report.processes
        if process.outcome is Outcome.SURVIVED
    ]
    unproved = [
        f"host {agent.info.host} could not prove that nothing is left"
        for agent in snapshot.agents
        if agent.state == "stopped" and agent.report.proof is None and not agent.report.count(Outcome.SURVIVED)
    ]
    forgot = ["the server lost the job's record, and nobody knows any more who else was in it"]
    return "; ".join(lost + survived + unproved + (forgot if snapshot.record_lost else []) + _missing_rq(snapshot.rq))


def _unheard(agent: Agent) -> str:
    if agent.doubt is None:
        return f"no answer from {heard_words(agent)}"
    has_none = "; has it the secret?" if agent.doubt in {Doubt.UNSIGNED, Doubt.UNKNOWN_KEY} else ""
    who = f"agent {agent.info.agent_id} on host {agent.info.host}"
    return f"what {who} said is not believed: {DOUBT_WORDS[agent.doubt]}{has_none}"


def refused_words(agent: Agent) -> str:
    """Give `host b did not obey 3 messages: 2 unsigned, 1 stale`: how often somebody tried."""
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(agent.refused.items()))
    return f"host {agent.info.host} did not obey {plural(sum(agent.refused.values()), 'message')}: {counted}"


def _missing_rq(rq: OnRq) -> list[str]:
    lost = ["nobody canceled its RQ jobs in time: call again with --rq-url"] if rq.lost else []
    lost += [f"that its RQ jobs are canceled is not believed: {DOUBT_WORDS[rq.doubt]}"] if rq.doubt else []
    named = [
        f"RQ job {each.rq_job} on host {each.host} (worker {each.worker}) has no proof"
        f"{f', RQ says {each.status}' if each.status else ''}"
        for each in rq.unproved[:UNPROVED_SHOWN]
    ]
    more = max(rq.unproved_count, len(rq.unproved)) - len(named)
    return lost + named + ([f"{more} more RQ jobs have no proof"] if more > 0 else [])


def rq_counts(counts: Mapping[str, int]) -> str:
    """Give `231 canceled, 12 stopped`; nothing when there was nothing."""
    words = ("canceled", "stopped", "requeued", "unproved")
    return ", ".join(f"{counts[word]} {word}" for word in words if counts.get(word))


def rq_words(rq: OnRq) -> str:
    """Give `RQ: 231 canceled, 12 stopped, of 300 jobs`; nothing for a job that is not on RQ."""
    if not rq.any:
        return ""
    counts = {
        "canceled": rq.canceled,
        "stopped": rq.stopped,
        "requeued": rq.requeued,
        "unproved": max(rq.unproved_count, len(rq.unproved)),
    }
    parts = [rq_counts(counts), f"of {plural(rq.jobs, 'job')}" if rq.jobs else ""]
    due = "; not all of it is canceled yet" if rq.due else ""
    return f"RQ: {', '.join(part for part in parts if part) or 'nothing of it was waiting'}{due}"


def survivor_words(survivors: Iterable[Survivor], pid: int) -> str:
    """Give ` (state D, in nfs_wait, of root)`: why a process is still there."""
    found = next((survivor for survivor in survivors if survivor.pid == pid), None)
    if found is None:
        return ""
    where = f", in {found.wchan}" if found.wchan else ""
    return f" (state {found.state}{where}, of {found.owner})"


def left_behind_words(left: Sequence[LeftBehind]) -> str:
    """Give `the killed left behind: /dev/shm/psm_x 64 MiB; lock file /data/x.lock; and 3 more`."""
    more = f"; and {len(left) - LEFT_SHOWN} more" if len(left) > LEFT_SHOWN else ""
    return f"the killed left behind: {'; '.join(one_line(each.text) for each in left[:LEFT_SHOWN])}{more}"
