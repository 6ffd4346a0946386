"""The program of a worker process, and of the scheduler's: `python -P -m workers.rq_main`.

Its agent gives it one end of a socketpair, and the configuration as the first message. What RQ's own command does with
its options is done here with the same code of RQ. Exit codes: 0 it was to end; 2 it can't begin, and stderr says why in
one line; else it broke off.
"""

from __future__ import annotations

import logging.config
import os
import signal
import socket
import sys
from inspect import signature
from typing import TYPE_CHECKING, Any

import click
from redis.backoff import ExponentialWithJitterBackoff
from redis.connection import AbstractConnection
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import defaults
from rq.cli.helpers import CliConfig, read_config_file
from rq.utils import import_attribute
from rq.worker.worker_classes import SpawnWorker, Worker

from workers import rq_fits
from workers.prctl import become_subreaper
from workers.rq_aside import hide_main, step_aside
from workers.rq_desk import Desk
from workers.rq_hands import WakeUp
from workers.rq_scheduler import schedule
from workers.rq_take import Hosting
from workers.rq_worker import CoordWorker

if TYPE_CHECKING:
    from redis import Redis

LINK = "COORD_RQ_LINK"
CANT_BEGIN = 2
BROKE_OFF = 1
# Redis may be away for minutes: a job's result is worth the wait
PATIENCE = {"base": 0.05, "cap": 2.0}
PATIENCE_TRIES = 300
STRATEGIES = ("default", "random", "round_robin")


class CantBeginError(Exception):
    """Says why in one line."""


def main() -> int:
    """Do what the agent says, until the end; gives the exit code."""
    wake_up = WakeUp()
    desk = Desk(socket.socket(fileno=int(os.environ.pop(LINK))), wake_up)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: desk.leave())
    try:
        config = desk.receive()
        desk.open()
        if misfit := rq_fits.misfit():
            raise CantBeginError(misfit)
        hide_main()
        step_aside(config.get("paths") or ["."])
        return _be(config, desk, wake_up)
    except (CantBeginError, click.UsageError, ImportError, AttributeError, ValueError) as error:
        text = error.format_message() if isinstance(error, click.UsageError) else str(error)
        print(f"coord worker: {text}", file=sys.stderr)  # noqa: T201
        return CANT_BEGIN
    except EOFError:
        return 0
    except RedisError as error:
        print(f"coord worker: {error}", file=sys.stderr)  # noqa: T201
        return BROKE_OFF


def _be(config: dict[str, Any], desk: Desk, wake_up: WakeUp) -> int:
    options = config.get("options") or {}
    chosen = _chosen(config, options)
    settings = read_config_file(config["config"]) if config.get("config") else {}
    if settings.get("DICT_CONFIG"):
        logging.config.dictConfig(settings["DICT_CONFIG"])
    connection = _patient(chosen.connection)
    names = config.get("queues") or settings.get("QUEUES") or ["default"]
    if config.get("role") == "scheduler":
        return schedule(desk, wake_up, connection, names, config=config)
    become_subreaper()
    hosting = Hosting(
        desk=desk,
        wake_up=wake_up,
        agent_id=config.get("agent_id") or "",
        record_url=config.get("record_url"),
        stop_file=config.get("stop_file"),
        host_stop_file=config.get("host_stop_file"),
        warm_s=float(config.get("warm_s") or 0.0),
        on_stop=config.get("on_stop") or "requeue",
    )
    worker = _worker(chosen, connection, names, config, hosting=hosting)
    return _work(worker, hosting, config, options)


def _chosen(config: dict[str, Any], options: dict[str, Any]) -> CliConfig:
    """Give the classes and the connection as RQ's command finds them: options, then environment, then RQ's own."""

    def choice(name: str, default: str) -> str:
        return str(options.get(name) or os.environ.get(f"RQ_{name.upper()}") or default)

    return CliConfig(
        url=config.get("url") or os.environ.get("RQ_REDIS_URL"),
        config=config.get("config") or os.environ.get("RQ_CONFIG"),
        worker_class=choice("worker_class", defaults.DEFAULT_WORKER_CLASS),
        job_class=choice("job_class", defaults.DEFAULT_JOB_CLASS),
        queue_class=choice("queue_class", defaults.DEFAULT_QUEUE_CLASS),
        connection_class=choice("connection_class", defaults.DEFAULT_CONNECTION_CLASS),
    )


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value


def _patient(connection: Redis) -> Redis:
    connection.set_retry(Retry(ExponentialWithJitterBackoff(**PATIENCE), PATIENCE_TRIES))
    pool = connection.connection_pool
    if "driver_info" in signature(AbstractConnection).parameters and issubclass(
        pool.connection_class, AbstractConnection
    ):  # each connection, so each work-horse, would read redis-py's version from a file, and tell it in two round trips
        pool.connection_kwargs.setdefault("driver_info", None)
    return connection


def worker_class(named: type, hosting: Hosting | None) -> type[CoordWorker]:
    """Give the class of a hosted worker: ours, and what the project's adds to RQ's. Raises CantBeginError."""
    what = f"{named.__module__}.{named.__qualname__}"
    if issubclass(named, SpawnWorker):
        raise CantBeginError(f"{what} starts its work-horses afresh, without what stops them; use a class with fork")
    if not issubclass(named, Worker):
        raise CantBeginError(f"{what} is no subclass of rq.Worker: it has no work-horse that could be stopped")
    bases = (named,) if issubclass(named, CoordWorker) else (CoordWorker,) if named is Worker else (CoordWorker, named)
    try:
        return type(named.__name__, bases, {"hosting": hosting, "__module__": named.__module__})
    except TypeError as error:
        raise CantBeginError(f"{what} can't be combined with coord's worker: {error}") from error


def _worker(
    chosen: CliConfig, connection: Redis, names: list[str], config: dict[str, Any], *, hosting: Hosting
) -> CoordWorker:
    options = config.get("options") or {}
    serializer = options.get("serializer")
    queues = [
        chosen.queue_class(name, connection=connection, job_class=chosen.job_class, serializer=serializer)
        for name in names
    ]
    worker = worker_class(chosen.worker_class, hosting)(
        queues,
        name=config["name"],
        connection=connection,
        worker_ttl=options.get("worker_ttl") or defaults.DEFAULT_WORKER_TTL,
        default_result_ttl=_given(options.get("results_ttl"), defaults.DEFAULT_RESULT_TTL),
        maintenance_interval=options.get("maintenance_interval") or defaults.DEFAULT_MAINTENANCE_TASK_INTERVAL,
        job_monitoring_interval=options.get("job_monitoring_interval") or defaults.DEFAULT_JOB_MONITORING_INTERVAL,
        job_class=chosen.job_class,
        queue_class=chosen.queue_class,
        exception_handlers=[import_attribute(name) for name in options.get("exception_handlers") or ()] or None,
        disable_default_exception_handler=bool(options.get("disable_default_exception_handler")),
        log_job_description=not options.get("disable_job_desc_logging"),
        serializer=serializer,
    )
    assert isinstance(worker, CoordWorker)
    return worker


def _work(worker: CoordWorker, hosting: Hosting, config: dict[str, Any], options: dict[str, Any]) -> int:
    strategy = options.get("dequeue_strategy") or "default"
    if strategy not in STRATEGIES:
        raise CantBeginError(f"the dequeue strategy {strategy!r} is none of {', '.join(STRATEGIES)}")
    worker.work(
        burst=bool(config.get("burst")),
        logging_level=options.get("logging_level"),
        date_format=options.get("date_format") or defaults.DEFAULT_LOGGING_DATE_FORMAT,
        log_format=options.get("log_format") or defaults.DEFAULT_LOGGING_FORMAT,
        max_jobs=options.get("max_jobs"),
        max_idle_time=options.get("max_idle_time"),
        dequeue_strategy=strategy,
    )
    desk = hosting.desk
    why = (desk.why or "drained") if desk.draining else next(iter(hosting.why), None)
    if why is None or worker.executions:
        return BROKE_OFF  # RQ's loop logged what it was
    desk.tell("bye", why=why, clean=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
