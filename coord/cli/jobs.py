"""`coord jobs`: the jobs that the record knows, the newest first."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from coord.cli import options as opt

if TYPE_CHECKING:
    from coord.snapshot import Snapshot

BROKEN_SHOWN = 20
JOBS_MAX = 10_000


@click.command("jobs")
@opt.option("--first", type=click.IntRange(0), default=0, help="Leave out this many of the newest.")
@opt.option("--count", type=click.IntRange(1, JOBS_MAX), default=100, show_default=True, help="Show at most this many.")
@opt.as_json
@opt.common
def command(first: int, count: int, json_: bool, **rest: Any) -> int:
    """List jobs, the newest first."""
    found = opt.coordinator(rest).jobs(first, count)
    show_jobs(found, json_=json_)
    if len(found) == count:
        click.echo(f"coord: there may be more: --first {first + count}", err=True)
    return 0


def show_jobs(snapshots: list[Snapshot], *, json_: bool) -> None:
    """Print them; on stderr, which of them can't be read."""
    say_broken(snapshots)
    if json_:
        from coord.render.document import jobs_document

        click.echo(json.dumps(jobs_document(snapshots)))
    elif snapshots:
        from coord.render.terminal import jobs_table

        opt.screen().print(jobs_table(snapshots))
    else:
        click.echo("coord: no jobs yet: start one with `coord run --job-id NAME -- COMMAND`", err=True)


def say_broken(snapshots: list[Snapshot]) -> None:
    """Say on stderr which jobs can't be read: they fail no list."""
    from coord.messages import one_line

    broken = [each for each in snapshots if each.broken]
    for each in broken[:BROKEN_SHOWN]:
        click.echo(f"coord: job {each.job_id} is broken: {one_line(each.broken)}", err=True)
    if more := len(broken[BROKEN_SHOWN:]):
        click.echo(f"coord: and {more} more are broken: --json tells why", err=True)
