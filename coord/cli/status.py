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
    from coord.coordinator import Coordinator
    from coord.ledger import Ledger

    chosen = opt.settings(rest)
    ledger = Ledger(opt.redis_url(chosen))
    if job_id is None:
        show_jobs(ledger.jobs(), json_=json_)
    else:
        show_job(Coordinator(ledger, job_id, chosen.by, retain_s=chosen.retain_s).status(), json_=json_)
    return 0
