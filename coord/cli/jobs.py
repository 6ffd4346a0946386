"""`coord jobs`: the jobs that the record knows, the newest first."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from coord.cli import options as opt

if TYPE_CHECKING:
    from coord.snapshot import Snapshot


@click.command("jobs")
@opt.option("--first", type=click.IntRange(0), default=0, help="Leave out this many of the newest.")
@opt.option("--count", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Show at most this many.")
@opt.as_json
@opt.common
def command(first: int, count: int, json_: bool, **rest: Any) -> int:
    """List jobs, the newest first."""
    show_jobs(opt.coordinator(rest).jobs(first, count), json_=json_)
    return 0


def show_jobs(snapshots: list[Snapshot], *, json_: bool) -> None:
    """Print them."""
    if json_:
        from coord.render.document import jobs_document

        click.echo(json.dumps(jobs_document(snapshots)))
    elif snapshots:
        from coord.render.terminal import jobs_table

        opt.screen().print(jobs_table(snapshots))
    else:
        click.echo("coord: no jobs yet: start one with `coord run --job-id NAME -- COMMAND`", err=True)
