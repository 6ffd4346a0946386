"""What a server answers, as values or errors of ours, for both doors of `ledger`; and how long it may take."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from coord.connect import ANSWER_TIMEOUT_S
from coord.decode import MessageError
from coord.errors import CoordError, UnreachableError
from coord.redis_errors import mapped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coord.record import Call

WAIT_S = 1.0  # for replicas

T = TypeVar("T")


@contextmanager
def awaited(url: str) -> Iterator[None]:
    """Do as `mapped`, and lose no cancellation: before Python 3.12, asyncio.wait_for in redis-py loses some."""
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        with mapped(url):
            yield
    except CoordError:
        if task is None or task.cancelling() <= before:
            raise
    if task and task.cancelling() > before:
        raise asyncio.CancelledError


def decoded(call: Call[T], reply: Any) -> T:
    """Read the answer of a call; raises CoordError for what it can't be."""
    try:
        return call.decode(reply)
    except MessageError as error:
        raise CoordError(f"the record has something in {call.keys[0]} that this coord can't read: {error}") from error


def read(url: str, call: Call[T], reply: Any) -> T | CoordError:
    """Give what was said of one of many; raises UnreachableError for what would be said of all."""
    try:
        if isinstance(reply, Exception):
            with mapped(url):
                raise reply
        return decoded(call, reply)
    except UnreachableError:
        raise
    except CoordError as error:
        return error


def together(pipe: Any, call: Call[Any], count: int) -> Any:
    """Put a write on the job, and a wait for the replicas to have it, on one connection: WAIT knows no other's writes.

    What was written before has come to them before. A job that is not there any more was lost, and has no copies.
    """
    pipe.expire(call.keys[0], call.args[0])
    pipe.wait(count, round(WAIT_S * 1000))
    return pipe


def block_ms(wait_s: float) -> int | None:
    """XREAD takes 0 for ever, and an idle server ends the shortest wait with its next tick, up to 100 ms later."""
    return round(min(wait_s, ANSWER_TIMEOUT_S / 2) * 1000) or None
