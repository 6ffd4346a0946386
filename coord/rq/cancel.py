"""Cancels RQ jobs that wait, many at a time, by RQ's own `Job.cancel`.

Each batch is one transaction that happens only if none of its jobs was changed meanwhile: canceling one that a worker
has just begun would say that it never ran, while it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.exceptions import WatchError
from rq.job import Job, JobStatus
from rq.rate_limit import RateLimitRegistry

from coord.rq.members import WAITING, batches, look
from coord.rq.where import intermediate_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import redis
    from redis.client import Pipeline

    from coord.rq.members import Member

PER_TRANSACTION = 250


class _Known(Job):
    """An RQ job of which we know the status: so RQ need not ask for it, one round trip each."""

    known: JobStatus

    def _fetch_status(self) -> JobStatus:
        return self.known


def cancel(connection: redis.Redis, members: Iterable[Member], between: Callable[[], None] = lambda: None) -> set[str]:
    """Cancel those that still wait; gives the ids that were canceled. The others changed meanwhile: look again.

    `between`: called between two transactions.
    """
    by_id = {member.id: member for member in members}
    canceled: set[str] = set()
    for ids in batches(by_id, PER_TRANSACTION):
        canceled |= _cancel(connection, ids)
        between()
    _release_slots(connection, [by_id[each] for each in canceled])
    return canceled


def _cancel(connection: redis.Redis, ids: list[str]) -> set[str]:
    """In one transaction; in two halves when one of them changed meanwhile."""
    with connection.pipeline() as pipe:
        pipe.watch(*map(Job.key_for, ids))  # type: ignore[no-untyped-call]
        waiting = [member for member in look(connection, ids).values() if member.status in WAITING]
        pipe.multi()
        for member in waiting:
            _add(pipe, connection, member)
        try:
            pipe.execute()
        except WatchError:
            half = len(ids) // 2
            return _cancel(connection, ids[:half]) | _cancel(connection, ids[half:]) if half else set()
    return {member.id for member in waiting}


def _add(pipe: Pipeline, connection: redis.Redis, member: Member) -> None:
    job = _Known(member.id, connection=connection)
    job.known, job.origin = member.status, member.origin
    job.cancel(pipeline=pipe)
    pipe.lrem(intermediate_key(member.origin), 1, member.id)
    if member.rate_limit:
        RateLimitRegistry(member.rate_limit, connection).cancel(member.id, pipeline=pipe)


def _release_slots(connection: redis.Redis, members: list[Member]) -> None:
    """Who was queued under a rate limit had a slot; RQ gives it to the next, once it is free."""
    for member in members:
        if member.rate_limit and member.status is not JobStatus.RATE_LIMITED:
            RateLimitRegistry(member.rate_limit, connection).cancel(member.id)
