"""`coord status`: what a job is doing, or did."""

from __future__ import annotations

from typing import Any

import click

from coord.cli import options as opt


@click.command("status")
@opt.job_id(required=False)
@opt.as_json
@opt.common
def command(job_id: str | None, json_: bool, **rest: Any) -> int:
    """Show a job: who runs, who failed first, who is gone. Without --job-id: all jobs."""
    from coord.cli.jobs import show_jobs
    from coord.cli.shutdown import show_job

    coordinator = opt.coordinator(rest)
    if job_id is None:
        show_jobs(coordinator.jobs(), json_=json_)
    else:
        show_job(coordinator.status(job_id), json_=json_)
    return 0
