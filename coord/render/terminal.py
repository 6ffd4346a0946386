"""A job as tables for a person; rich draws them, with colours where the terminal has some."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import markup
from rich.table import Table

from coord.messages import AgentState, Outcome, clip
from coord.render.text import (
    ago,
    at,
    failure_words,
    left_behind_words,
    milliseconds,
    outcomes,
    plan_words,
    refused_words,
    rq_words,
    summary,
    why,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from coord.snapshot import Snapshot

COMMAND_SHOWN = 60
STDERR_SHOWN = 8  # lines; --json has all that were kept
LISTED_MAX = 20  # processes a person reads; --json has all

_COLOURS = {
    AgentState.RUNNING: "green",
    AgentState.STOPPING: "yellow",
    AgentState.STOPPED: "cyan",
    AgentState.LOST: "bold red",
}


def job_view(snapshot: Snapshot) -> list[RenderableType]:
    """Give the whole answer: one sentence, the request, who failed first, the hosts, and who held out."""
    colour = {"clean": "green", "forced": "yellow", "incomplete": "bold red"}.get(snapshot.verdict or "", "bold")
    view: list[RenderableType] = [f"[{colour}]{escape(summary(snapshot))}[/]"]
    if snapshot.refusal:
        view.append(f"[bold red]{escape(snapshot.refusal.words)}[/]")
    if snapshot.request:
        request = snapshot.request
        view.append(
            escape(f"requested {why(request)} at {at(request.requested_us)} (plan: {plan_words(request.plan)})")
        )
    if snapshot.first_failure:
        view.append(escape(f"first failure: {failure_words(snapshot.first_failure)}"))
        view += [escape(f"  | {line}") for line in snapshot.first_failure.stderr_tail[-STDERR_SHOWN:]]
    if snapshot.agents:
        view += [hosts_table(snapshot)]
    if words := rq_words(snapshot.rq):
        view.append(escape(words))
    view += [escape(refused_words(agent)) for agent in snapshot.agents if agent.refused]
    return [*view, *_unproved(snapshot), *_held_out(snapshot), *_left_behind(snapshot)]


def hosts_table(snapshot: Snapshot) -> Table:
    """Give a line per agent."""
    columns = ["host", "agent", "state", "processes", "proof", "first signal", "all gone"]
    open_ended = any(agent.state is not AgentState.STOPPED for agent in snapshot.agents)
    table = _table(*columns, *(["last heard"] if open_ended else []))
    for agent in snapshot.agents:
        report = agent.report
        silent = open_ended and agent.state is not AgentState.STOPPED and agent.last_heard_s is not None
        table.add_row(
            escape(agent.info.host),
            escape(agent.info.agent_id),
            f"[{_COLOURS[agent.state]}]{agent.state.value}[/]",
            outcomes(report),
            report.proof or "-",
            milliseconds(report.first_signal_ms),
            milliseconds(report.all_gone_ms),
            *([ago(agent.last_heard_s or 0.0) if silent else "-"] if open_ended else []),
        )
    return table


def jobs_table(snapshots: Iterable[Snapshot]) -> Table:
    """Give a line per job, as they come."""
    table = _table("job", "state", "verdict", "agents", "hosts", "since")
    for snapshot in snapshots:
        hosts = sorted({agent.info.host for agent in snapshot.agents})
        table.add_row(
            escape(snapshot.job_id),
            snapshot.state.value,
            snapshot.verdict.value if snapshot.verdict else "-",
            str(len(snapshot.agents)),
            escape(", ".join(hosts[:5]) + (f" and {len(hosts) - 5} more" if len(hosts) > 5 else "")) or "-",
            "-" if snapshot.broken else at(snapshot.created_us),
        )
    return table


def agents_table(snapshots: Iterable[Snapshot]) -> Table:
    """Give a line per agent that runs or still has to answer."""
    table = _table("host", "agent", "job", "state", "label", "command")
    for snapshot in snapshots:
        for agent in snapshot.awaited:
            table.add_row(
                escape(agent.info.host),
                escape(agent.info.agent_id),
                escape(snapshot.job_id),
                f"[{_COLOURS[agent.state]}]{agent.state.value}[/]",
                escape(agent.info.label),
                escape(agent.info.command),
            )
    return table


def _unproved(snapshot: Snapshot) -> list[RenderableType]:
    rows = snapshot.rq.unproved
    if not rows:
        return []
    table = _table("RQ job without proof", "host", "worker", "RQ says")
    for each in rows[:LISTED_MAX]:
        table.add_row(escape(each.rq_job), escape(each.host), escape(each.worker), escape(each.status))
    more = len(rows) - LISTED_MAX
    return [table, *([f"and {more} more: --json lists them all"] if more > 0 else [])]


def _held_out(snapshot: Snapshot) -> list[RenderableType]:
    rows = [
        (agent.info.host, process)
        for agent in snapshot.agents
        for process in agent.report.processes
        if process.outcome in {Outcome.KILLED, Outcome.SURVIVED}
    ]
    if not rows:
        return []
    table = _table("held out", "host", "label", "command", "outcome", "took")
    for host, process in rows[:LISTED_MAX]:
        took = None if process.took_s is None else process.took_s * 1000
        table.add_row(
            str(process.pid),
            escape(host),
            escape(process.label),
            escape(clip(process.command, COMMAND_SHOWN)),
            process.outcome.value,
            milliseconds(took),
        )
    more = len(rows) - LISTED_MAX
    return [table, *([f"and {more} more: --json lists them all"] if more > 0 else [])]


def _left_behind(snapshot: Snapshot) -> list[RenderableType]:
    left = ((agent.info.host, agent.report.left_behind) for agent in snapshot.agents if agent.report.left_behind)
    return [escape(f"on host {host}, {left_behind_words(things)}") for host, things in left]


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def escape(text: str) -> str:
    """Make a text that is not ours fit for the screen: no markup, and no control characters that move a cursor."""
    return markup.escape("".join(char if char.isprintable() else " " for char in text.expandtabs(4)))
