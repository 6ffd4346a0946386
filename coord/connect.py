"""Connections to the record's Redis, as its URL says: for calls, blocking or not, and for the ear on the channel.

Neither retries for long: who calls knows how long it may wait. Raises what redis-py raises; `redis_errors` maps it.
"""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

CONNECT_TIMEOUT_S = 3.0
ANSWER_TIMEOUT_S = 5.0
RETRIES = 2


def blocking(url: str) -> redis.Redis:
    """Open one that blocks."""
    return redis.Redis.from_url(url, retry=Retry(_backoff(), RETRIES), **_timeouts())


def waiting(url: str, retries: int) -> redis.asyncio.Redis:
    """Open one for asyncio. `retries`: how often a call is tried again when the connection fails."""
    return redis.asyncio.Redis.from_url(url, retry=AsyncRetry(_backoff(), retries), **_timeouts())


def ear(url: str) -> redis.asyncio.Redis:
    """Open one that may wait for ever for what is published; a dead one is found by the beat."""
    return redis.asyncio.Redis.from_url(
        url, retry=AsyncRetry(NoBackoff(), 0), **{**_timeouts(), "socket_timeout": None}
    )


def _backoff() -> ExponentialBackoff:
    return ExponentialBackoff(cap=0.5, base=0.05)


def _timeouts() -> dict[str, Any]:
    return {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": ANSWER_TIMEOUT_S,
        "client_name": "coord",
        "protocol": 2,  # with 3, redis-py asks two things more before the first call, each a round trip
    }
