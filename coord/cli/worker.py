"""`coord worker`: be the agent of a host that works RQ queues."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from coord.address import topology
from coord.cli import options as opt
from coord.errors import UsageError
from coord.plan import format_duration
from coord.settings import check_host

if TYPE_CHECKING:
    from coord.plan import Plan

COUNT_MAX = 1000
MARGIN_S = 2.0  # for RQ's state and the record, when all processes are gone
BUDGETS_S = {"heroku": 30.0, "kubernetes": 30.0, "ecs": 30.0, "spot": 120.0}  # from the first SIGTERM to SIGKILL
NOT_RQS = "RQ speaks to one server: it can't use a Sentinel's or a Cluster's URL, only the record can"
RQ_URL = "redis://localhost:6379/0"  # where `rq worker` looks when nobody says anything

# what `rq worker` has too, by the name that a worker process gets it under
AS_RQ: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("-w", "--worker-class"),
        {"envvar": "RQ_WORKER_CLASS", "help": "RQ worker class; coord's own ways are put on top."},
    ),
    (("-j", "--job-class"), {"envvar": "RQ_JOB_CLASS", "help": "RQ job class."}),
    (("--queue-class",), {"envvar": "RQ_QUEUE_CLASS", "help": "RQ queue class."}),
    (("--connection-class",), {"envvar": "RQ_CONNECTION_CLASS", "help": "Redis client class."}),
    (("-S", "--serializer"), {"envvar": "RQ_SERIALIZER", "help": "Serializer of RQ jobs."}),
    (("--results-ttl",), {"type": int, "help": "How long results are kept, in seconds."}),
    (("--worker-ttl",), {"type": int, "help": "How long RQ believes in a silent worker, in seconds."}),
    (("--maintenance-interval",), {"type": int, "help": "Seconds between two cleanups of RQ's registries."}),
    (("--job-monitoring-interval",), {"type": int, "help": "Seconds between two heartbeats of a running job."}),
    (("--max-jobs",), {"type": int, "help": "Each worker ends after so many jobs."}),
    (("--max-idle-time",), {"type": int, "help": "Each worker ends after so many seconds without a job."}),
    (
        ("-ds", "--dequeue-strategy"),
        {"type": click.Choice(["default", "random", "round_robin"]), "help": "Order of queues."},
    ),
    (("--exception-handler", "exception_handlers"), {"multiple": True, "help": "Called for each job that raised."}),
    (("-d", "--disable-default-exception-handler"), {"is_flag": True, "help": "Leave out RQ's own."}),
    (("--disable-job-desc-logging",), {"is_flag": True, "help": "Leave descriptions of jobs out of the log."}),
    (("--logging-level", "--logging_level"), {"help": "Level of the workers' own log."}),
    (("--log-format",), {"help": "Format of the workers' own log."}),
    (("--date-format",), {"help": "Format of the dates in it."}),
)
NAMES = tuple(names[-1].lstrip("-").replace("-", "_") for names, _ in AS_RQ)


def as_rq(command: Any) -> Any:
    """Add what `rq worker` has too."""
    for names, about in reversed(AS_RQ):
        command = click.option(*names, **about)(command)
    return command


@click.command(
    "worker",
    epilog="""\b
Exit codes: 0 all that ran has ended or was put back, with proof; 2 usage; 4 Redis not reachable;
            5 something could not be stopped
\b
Without any URL, RQ's Redis is redis://localhost:6379/0, as with `rq worker`, and the record is kept there too.
\b
Examples:
  coord worker high default                            as `rq worker high default`, but it stops well
  coord worker -n 4 --warm 20s --platform kubernetes   jobs may finish for 20 s, then they are put back
  coord shutdown --job-id nightly                      stops what of `nightly` runs on RQ, on all hosts
""",
)
@click.option("-n", "count", type=click.IntRange(1, COUNT_MAX), default=1, show_default=True, help="Worker processes.")
@opt.option("--name", help="What the host's agent is called; a number is added.  [default: worker-HOST]")
@opt.option(
    "--warm",
    type=opt.DURATION,
    default="0s",
    show_default=True,
    help="How long running jobs may go on when the host stops.",
)
@opt.grace
@opt.option(
    "--on-stop",
    type=click.Choice(["requeue", "fail"]),
    default="requeue",
    show_default=True,
    help="What becomes of jobs that the host's stop cut off: back to the front of their queue, or failed.",
)
@opt.option("--platform", type=click.Choice(list(BUDGETS_S)), help="Refuse waits that do not fit what it gives.")
@opt.option(
    "--budget",
    type=opt.DURATION,
    help="What the platform gives, where it gives something else: from SIGTERM to SIGKILL.",
)
@click.option("-b", "--burst", is_flag=True, help="End when the queues are empty.")
@click.option("-s", "--with-scheduler", is_flag=True, help="Run RQ's scheduler too, in a process of its own.")
@click.option("-u", "--url", envvar="RQ_REDIS_URL", help="RQ's Redis.  [default: --redis-url, else RQ's own default]")
@click.option("-c", "--config", envvar="RQ_CONFIG", help="Module with RQ settings.")
@click.option("-P", "--path", "paths", multiple=True, default=["."], help="Where to import from.  [default: .]")
@click.option("--pid", help="Write the process id to this file.")
@click.option("-v", "--verbose", is_flag=True, help="Show more.")
@click.option("-q", "--quiet", is_flag=True, help="Show less.")
@as_rq
@opt.containment
@opt.term_again
@opt.sweep_shm
@opt.min_replicas
@opt.redis_loss
@opt.common
@click.argument("queues", metavar="[QUEUE]...", nargs=-1)
def command(queues: tuple[str, ...], **rest: Any) -> int:
    """Work RQ queues: as `rq worker`, with N workers, and stopped as every job of coord is."""
    from workers.containment import Choice
    from workers.rq_host import run_workers
    from workers.rq_order import RQOrder
    from workers.rq_settings import SettingsError, read
    from workers.stopper import Manner

    plan = opt.plan(rest)
    fit(plan, rest["warm"], rest["platform"], rest["budget"])
    try:
        found = read(rest["config"], rest["paths"]) if rest["config"] else {}
    except SettingsError as error:
        raise UsageError(str(error), "Is it on --path?") from error
    rq_url = rest["url"] or (None if found.get("url") else rest["redis_url"] or RQ_URL)
    one_server(rq_url)
    chosen = opt.settings({**rest, "redis_url": rest["redis_url"] or rq_url or found["url"]})
    if rest["pid"]:
        with open(os.path.expanduser(rest["pid"]), "w", encoding="utf-8") as file:  # noqa: PTH111, PTH123
            file.write(str(os.getpid()))
    order = RQOrder(
        queues=tuple(queues or found.get("queues") or ["default"]),
        count=rest["count"],
        name=check_host(rest["name"] or found.get("name") or f"worker-{chosen.host}"),
        manner=Manner(plan, True, rest["term_again"], rest["sweep_shm"], opt.loss(rest)),  # noqa: FBT003
        warm_s=rest["warm"],
        on_stop=rest["on_stop"],
        burst=rest["burst"],
        with_scheduler=rest["with_scheduler"],
        rq_url=rq_url,
        config=rest["config"],
        paths=tuple(rest["paths"]),
        containment=Choice(rest["containment"]),
        options=options(rest),
    )
    return run_workers(order, chosen, lambda: opt.redis_url(chosen))


def one_server(rq_url: str | None) -> None:
    """Raise UsageError for a URL that RQ can't use, before any worker is started."""
    if rq_url and topology(rq_url):
        raise UsageError(NOT_RQS, "Give RQ's own as --url or RQ_REDIS_URL: redis://, rediss:// or unix://")


def options(rest: dict[str, Any]) -> dict[str, Any]:
    """Give what the workers get as RQ's own options: what was said."""
    level = "DEBUG" if rest["verbose"] else "WARNING" if rest["quiet"] else None
    said = {name: rest[name] for name in NAMES if rest[name] not in {None, False} and rest[name] != ()}
    said = {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}
    return said | ({"logging_level": level} if level else {})


def fit(plan: Plan, warm_s: float, platform: str | None, budget_s: float | None) -> None:
    """Raise UsageError, with the arithmetic, when the waits do not fit what the platform gives."""
    given_s, by = (budget_s, "the budget") if budget_s is not None else (BUDGETS_S.get(platform or ""), platform)
    if given_s is None:
        return
    parts = (
        (warm_s, "to finish (--warm)"),
        (plan.kill_max_s, "after SIGTERM (--grace)"),
        (plan.kill_wait_s, "after SIGKILL (--kill-wait)"),
        (MARGIN_S, "to write it down"),
    )
    total_s = sum(seconds for seconds, _ in parts)
    if total_s > given_s:
        words = " + ".join(f"{format_duration(seconds)} {what}" for seconds, what in parts)
        raise UsageError(
            f"{words} is {format_duration(total_s)}, but {by} gives {format_duration(given_s)}",
            "Make one of the waits shorter",
        )
