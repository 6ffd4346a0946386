"""`coord run`: be the agent of one command."""

from __future__ import annotations

from typing import Any

import click

from coord.cli import options as opt
from coord.errors import UsageError

LABEL_MAX = 64


@click.command(
    "run",
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Exit codes: the command's own; 143 or 137 when it was stopped, with one line that says why; 126 not executable;
            127 not found; 4 Redis not reachable; 7 the job was shut down before
\b
Every option can also be given in the environment: --grace as COORD_GRACE, and so on. The job's grace is the
longest that its commands ask for.
\b
Examples:
  coord run --job-id train-42 -- python train.py --rank 3
  coord run --job-id web-1 --on-failure ignore --grace 30s -- gunicorn app:app
""",
)
@opt.job_id()
@opt.option("--label", default="", help="What to call the command in reports.  [default: its name]")
@opt.grace
@opt.option(
    "--on-failure",
    type=click.Choice(["stop", "ignore"]),
    default="stop",
    show_default=True,
    help="What a failure, or a signal to this command, means for the job on the other hosts.",
)
@opt.containment
@opt.ask
@opt.term_again
@opt.sweep_shm
@opt.min_replicas
@opt.redis_loss
@opt.common
@click.argument("argv", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(job_id: str, label: str, on_failure: str, argv: tuple[str, ...], **rest: Any) -> int:
    """Run a command as a part of a job: stopped with the job, and stopping the job when it fails."""
    from workers.command import Order, run_command
    from workers.containment import Choice
    from workers.stopper import Manner

    if len(label) > LABEL_MAX or not label.isprintable():
        raise UsageError(f"--label: {label!r} is no label", f"At most {LABEL_MAX} printable characters")
    chosen = opt.settings(rest)
    order = Order(
        job_id=job_id,
        argv=argv,
        label=label,
        manner=Manner(opt.plan(rest), rest["ask"] == "tree", rest["term_again"], rest["sweep_shm"], opt.loss(rest)),
        stop_on_failure=on_failure == "stop",
        containment=Choice(rest["containment"]),
    )
    return run_command(order, chosen, lambda: opt.redis_url(chosen))
