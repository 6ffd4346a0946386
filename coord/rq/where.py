"""Where RQ's jobs are: the connection to RQ's Redis, and the keys of ours beside RQ's own.

RQ is asked through its own API wherever that can be done for many jobs at once; what it is asked else are reads.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from rq.executions import WORKER_EXECUTIONS_KEY_TEMPLATE
from rq.intermediate_queue import IntermediateQueue
from rq.queue import Queue
from rq.utils import as_text
from rq.worker.worker_classes import Worker

from coord.address import topology
from coord.connect import CONNECT_TIMEOUT_S, RETRIES
from coord.errors import UsageError
from coord.redis_errors import mapped, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

ANSWER_TIMEOUT_S = 15.0  # a pipeline of a thousand commands takes its time on a busy server
PER_READ = 1000  # commands in one pipeline

# set of the names of workers that an agent hosts: added at a worker's birth, taken out at its death, or by `settle`
WORKERS = "coord:rq:workers"


def hand_key(worker: str, queue: str) -> str:
    """List: the RQ job that a hosted worker has taken off a queue and not begun."""
    return f"coord:rq:hand:{worker}:{queue}"


def told_key(execution: str) -> str:
    """String, for a day: this execution of a plain RQ worker was told to stop. A second time can kill the worker."""
    return f"coord:rq:told:{execution}"


def settling_key(execution: str) -> str:
    """String, for half a minute: somebody has RQ write how this execution of a dead worker ended."""
    return f"coord:rq:settling:{execution}"


def connect(url: str | None = None, config: str | None = None) -> redis.Redis:
    """Give a connection to RQ's Redis: by its URL, else by a settings module, else as `rq worker` finds it.

    Connects with the first call. Raises UsageError for what can't be a URL or a settings module.
    """
    if not url and not config:
        url, config = os.environ.get("RQ_REDIS_URL"), os.environ.get("RQ_CONFIG")
    if url and topology(url):
        raise UsageError(
            f"RQ speaks to one server: it can't use {shown(url)}",
            "Keep the record there (--redis-url), and give RQ a redis://, rediss:// or unix:// URL of its own",
        )
    with mapped(url or f"(settings {config or 'REDIS_HOST'})"):
        if url:
            return redis.Redis.from_url(
                url,
                retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), RETRIES),
                socket_connect_timeout=CONNECT_TIMEOUT_S,
                socket_timeout=ANSWER_TIMEOUT_S,
                client_name="coord-rq",
            )
        return _as_rq_worker(config)


def _as_rq_worker(config: str | None) -> redis.Redis:
    from rq.cli.helpers import get_redis_from_config, read_config_file  # slow, and rarely needed

    try:
        settings: Any = read_config_file(config) if config else os.environ  # type: ignore[no-untyped-call]
    except ImportError as error:
        raise UsageError(f"RQ's settings module {config!r} can't be imported: {error}", "See --path") from error
    connection: redis.Redis = get_redis_from_config(settings)  # type: ignore[no-untyped-call]
    return connection


def shown_url(connection: redis.Redis) -> str:
    """Give an address to name in errors, without a password."""
    where = connection.connection_pool.connection_kwargs
    path = where.get("path")
    return f"unix://{path}" if path else f"redis://{where.get('host')}:{where.get('port')}/{where.get('db', 0)}"


def queue_names(connection: redis.Redis) -> set[str]:
    """Give the name of every queue that was ever used."""
    keys = connection.smembers(Queue.redis_queues_keys)
    return {_text(key).removeprefix(Queue.redis_queue_namespace_prefix) for key in keys}


def hosted_workers(connection: redis.Redis) -> set[str]:
    """Give the names of the workers that agents host."""
    return texts(connection.smembers(WORKERS))


def plain_workers(connection: redis.Redis, hosted: set[str]) -> set[str]:
    """Give the names of the workers that RQ knows and no agent hosts."""
    keys = texts(connection.smembers(Worker.redis_workers_keys))
    return {key.removeprefix(Worker.redis_worker_namespace_prefix) for key in keys} - hosted


def worker_key(name: str) -> str:
    """Give RQ's hash of a worker."""
    return f"{Worker.redis_worker_namespace_prefix}{name}"


def executions_key(worker: str) -> str:
    """Give RQ's set of what a worker runs."""
    return WORKER_EXECUTIONS_KEY_TEMPLATE.format(worker)


def queue_key(name: str) -> str:
    """Give RQ's list of a queue."""
    return f"{Queue.redis_queue_namespace_prefix}{name}"


def intermediate_key(name: str) -> str:
    """Give RQ's list of the jobs that plain workers have taken off a queue and not begun."""
    return IntermediateQueue.get_intermediate_queue_key(queue_key(name))


def texts(values: Iterable[Any]) -> set[str]:
    """Give what Redis answered as texts."""
    return {_text(value) for value in values}


def _text(value: Any) -> str:
    text: str = as_text(value)
    return text
