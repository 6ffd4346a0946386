"""What `coord doctor` found, for a person: one sentence, then a line per finding, the most important first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from coord.finding import Status, count
from coord.render.terminal import escape
from coord.render.text import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from coord.finding import Finding

_COLOURS = {Status.FAIL: "bold red", Status.WARN: "yellow", Status.UNKNOWN: "magenta", Status.OK: "green"}


def findings_view(host: str, findings: Sequence[Finding]) -> list[RenderableType]:
    """Give the whole answer."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(f"[{_COLOURS[finding.status]}]{finding.status}[/]", finding.name, escape(finding.found))
        if finding.advice:
            table.add_row("", "", f"[cyan]-> {escape(finding.advice)}[/]")
    return [_summary(host, findings), table]


def _summary(host: str, findings: Sequence[Finding]) -> str:
    counted = count(findings)
    notes = [
        plural(counted[status], noun)
        for status, noun in ((Status.FAIL, "failure"), (Status.WARN, "warning"))
        if counted[status]
    ]
    if counted[Status.UNKNOWN]:
        notes.append(f"{counted[Status.UNKNOWN]} unknown")
    fit, colour = ("is not fit", "bold red") if counted[Status.FAIL] else ("is fit", "bold green")
    return f"[{colour}]host {escape(host)} {fit} for coord[/]: {', '.join(notes) or 'all is well'}"
