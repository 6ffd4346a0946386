"""Connections to the record's Redis, as its URL says: for calls, blocking or not, and for the ear on the channel.

One server is retried for moments only: who calls knows how long it may wait. Where a failover can be waited for, in
a Sentinel's service or a Cluster, callers that would retry wait for one. Raises what redis-py raises, and UsageError
for a URL; `redis_errors` maps the rest.
"""

from __future__ import annotations

from typing import Any, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from coord.address import topology

CONNECT_TIMEOUT_S = 3.0
ANSWER_TIMEOUT_S = 5.0
INQUIRY_TIMEOUT_S = 1.0  # of a sentinel, or of a node about its Cluster: another one may know
RETRIES = 2
FAILOVER_S = 15.0  # how long a call that is retried waits for another primary


def blocking(url: str) -> redis.Redis:
    """Open one that blocks."""
    if told := topology(url):
        from coord.routed import Routed

        return cast("redis.Redis", Routed(told, FAILOVER_S, _one_blocking))
    return redis.Redis.from_url(url, retry=Retry(_backoff(), RETRIES), **_timeouts())


def waiting(url: str, retries: int) -> redis.asyncio.Redis:
    """Open one for asyncio. `retries`: how often a call is tried again when the connection fails."""
    if told := topology(url):
        from coord.routed import AsyncRouted

        return cast("redis.asyncio.Redis", AsyncRouted(told, FAILOVER_S if retries else 0.0, _one_waiting))
    return redis.asyncio.Redis.from_url(url, retry=AsyncRetry(_backoff(), retries), **_timeouts())


def ear(url: str, beside: redis.asyncio.Redis | None = None) -> redis.asyncio.Redis:
    """Open one that may wait for ever for what is published; a dead one is found by the beat.

    `beside`: the one for calls; when it finds that the primary is another one, the ear goes there, too.
    """
    if told := topology(url):
        from coord.routed import AsyncRouted, RoutedEar

        made = RoutedEar(told, _one_waiting, ear)
        calls: object = beside
        if isinstance(calls, AsyncRouted):
            calls.on_found(made.left_behind)
        return cast("redis.asyncio.Redis", made)
    return redis.asyncio.Redis.from_url(
        url, retry=AsyncRetry(NoBackoff(), 0), **{**_timeouts(), "socket_timeout": None}
    )


def _one_blocking(url: str, brief: bool) -> redis.Redis:
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **_timeouts(brief=brief))


def _one_waiting(url: str, brief: bool) -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(url, retry=AsyncRetry(NoBackoff(), 0), **_timeouts(brief=brief))


def _backoff() -> ExponentialBackoff:
    return ExponentialBackoff(cap=0.5, base=0.05)


def _timeouts(*, brief: bool = False) -> dict[str, Any]:
    return {
        "socket_connect_timeout": INQUIRY_TIMEOUT_S if brief else CONNECT_TIMEOUT_S,
        "socket_timeout": INQUIRY_TIMEOUT_S if brief else ANSWER_TIMEOUT_S,
        "client_name": "coord",
        "protocol": 2,  # with 3, redis-py asks two things more before the first call, each a round trip
    }
