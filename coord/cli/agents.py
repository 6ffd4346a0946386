"""`coord agents`: the agents that run, or still have to answer a request."""

from __future__ import annotations

import json
from typing import Any

import click

from coord.cli import options as opt


@click.command("agents")
@opt.job_id(required=False)
@opt.as_json
@opt.common
def command(job_id: str | None, json_: bool, **rest: Any) -> int:
    """List agents, of one job or of all."""
    from coord.cli.jobs import JOBS_MAX, say_broken

    coordinator = opt.coordinator(rest)
    snapshots = [coordinator.status(job_id)] if job_id else coordinator.jobs(count=JOBS_MAX)
    say_broken(snapshots)
    if json_:
        from coord.render.document import agents_document

        click.echo(json.dumps(agents_document(snapshots)))
    elif any(snapshot.awaited for snapshot in snapshots):
        from coord.render.terminal import agents_table

        opt.screen().print(agents_table(snapshots))
    else:
        click.echo("coord: no agent is running", err=True)
    return 0
