"""Which RQ jobs a job has, and where they are. Reads only, and never with RQ's `cleanup`: looking changes nothing.

A name X may be a job of ours (its index in the record, or `coord_job_id` in an RQ job's meta), an RQ group, or one RQ
job. What depends on an RQ job that was canceled or stopped belongs to it: it would stay deferred for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rq.group import Group
from rq.job import JOB_ID_PATTERN, Job, JobStatus
from rq.rate_limit import RateLimitRegistry
from rq.registry import (
    CanceledJobRegistry,
    DeferredJobRegistry,
    ReadyJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)

from coord.rq.meta import JOB_ID, text_in_meta
from coord.rq.where import PER_READ, hand_key, intermediate_key, queue_key, queue_names, texts, worker_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    import redis

SCAN_MAX = 500_000  # RQ jobs of which the meta is read in one look through the queues
WAITING = {
    JobStatus.QUEUED,
    JobStatus.DEFERRED,
    JobStatus.SCHEDULED,
    JobStatus.READY_TO_ENQUEUE,
    JobStatus.RATE_LIMITED,
}
LEAVES_DEPENDENTS = WAITING | {JobStatus.CANCELED, JobStatus.STOPPED}  # these never come to be, or never did
_FIELDS = ("status", "origin", "worker_name", "started_at", "rate_limit_key")


@dataclass(frozen=True, slots=True)
class Member:
    """An RQ job as RQ has it now."""

    id: str
    status: JobStatus
    origin: str
    worker: str
    started_at: str
    rate_limit: str


def named(connection: redis.Redis, name: str) -> set[str]:
    """Give the RQ jobs that go by this name: the members of a group, or the one RQ job."""
    found = texts(connection.smembers(Group.get_key(name)))
    if JOB_ID_PATTERN.fullmatch(name) and connection.exists(Job.key_for(name)):
        found.add(name)
    return found


def in_meta(connection: redis.Redis, name: str, known: Collection[str] = ()) -> set[str]:
    """Look through all queues and registries for RQ jobs whose meta says that they are of this job."""
    found: set[str] = set()
    for ids in batches(_everywhere(connection, known)):
        with connection.pipeline(transaction=False) as pipe:
            for each in ids:
                pipe.hget(Job.key_for(each), "meta")
            raws = pipe.execute()
        found |= {each for each, raw in zip(ids, raws, strict=True) if raw and text_in_meta(raw, JOB_ID) == name}
    return found


def look(connection: redis.Redis, ids: Iterable[str]) -> dict[str, Member]:
    """Read RQ jobs; those that RQ has forgotten are left out."""
    found = {}
    for some in batches(ids):
        with connection.pipeline(transaction=False) as pipe:
            for each in some:
                pipe.hmget(Job.key_for(each), _FIELDS)
            replies = pipe.execute()
        for each, fields in zip(some, replies, strict=True):
            member = _member(each, fields)
            if member:
                found[each] = member
    return found


def forgotten(connection: redis.Redis, ids: list[str]) -> set[str]:
    """Give those of which RQ has nothing any more."""
    with connection.pipeline(transaction=False) as pipe:
        for each in ids:
            pipe.exists(Job.key_for(each))
        return {each for each, there in zip(ids, pipe.execute(), strict=True) if not there}


def with_dependents(connection: redis.Redis, members: dict[str, Member]) -> dict[str, Member]:
    """Add what waits for those that never come to be, and what waits for that."""
    found, parents = dict(members), list(members.values())
    while parents:
        ids = [each.id for each in parents if each.status in LEAVES_DEPENDENTS]
        children: set[str] = set()
        for some in batches(ids):
            with connection.pipeline(transaction=False) as pipe:
                for each in some:
                    pipe.smembers(Job.dependents_key_for(each))
                children |= set().union(*map(texts, pipe.execute()))
        waiting = look(connection, children - found.keys())
        new = {each.id: each for each in waiting.values() if each.status is JobStatus.DEFERRED}
        found |= new
        parents = list(new.values())
    return found


def canceled_since(connection: redis.Redis, members: Iterable[Member], since_s: float, waited: Collection[str]) -> int:
    """Count those that are canceled and waited before, or were canceled since then: others were so before."""
    canceled = [each for each in members if each.status is JobStatus.CANCELED]
    others = [each for each in canceled if each.id not in waited]
    with connection.pipeline(transaction=False) as pipe:
        for each in others:
            pipe.zscore(CanceledJobRegistry(each.origin, connection=connection).key, each.id)
        scores = pipe.execute() if others else []
    return len(canceled) - len(others) + sum(1 for score in scores if score is not None and score >= since_s)


def positions(connection: redis.Redis, queue: str, longest: int = SCAN_MAX) -> dict[str, int] | None:
    """Give the place of each RQ job in a queue's list; None when it is too long to be read."""
    key = queue_key(queue)
    if connection.llen(key) > longest:
        return None
    ids: list[Any] = connection.lrange(key, 0, -1)
    return {each.decode(): place for place, each in enumerate(ids)}


def in_hands(connection: redis.Redis, workers: Collection[str]) -> set[str]:
    """Give the RQ jobs that hosted workers have taken and not begun."""
    names = list(workers)
    with connection.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hget(worker_key(name), "queues")
        queues = pipe.execute()
        keys = [
            hand_key(name, queue)
            for name, found in zip(names, queues, strict=True)
            for queue in (found or b"").decode().split(",")
            if queue
        ]
        for key in keys:
            pipe.lrange(key, 0, -1)
        return set().union(*map(texts, pipe.execute())) if keys else set()


def batches(values: Iterable[str], size: int = PER_READ) -> Iterator[list[str]]:
    """Give them in lists of at most `size`."""
    batch: list[str] = []
    for value in values:
        batch.append(value)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _everywhere(connection: redis.Redis, known: Collection[str]) -> Iterator[str]:
    """Give each RQ job that may still start and is not known, up to SCAN_MAX."""
    seen = set(known)
    for ids in _lists(connection):
        for each in ids - seen:
            seen.add(each)
            yield each
            if len(seen) - len(known) >= SCAN_MAX:
                return


def _lists(connection: redis.Redis) -> Iterator[set[str]]:
    for name in queue_names(connection):
        for key in (queue_key(name), intermediate_key(name)):
            for first in range(0, SCAN_MAX, PER_READ):
                found = texts(connection.lrange(key, first, first + PER_READ - 1))
                if not found:
                    break
                yield found
        for kind in (ScheduledJobRegistry, DeferredJobRegistry, ReadyJobRegistry):
            yield set(kind(name, connection=connection).get_job_ids(cleanup=False))
        started = StartedJobRegistry(name, connection=connection)
        yield {job_id for job_id, _ in started.get_job_and_execution_ids(cleanup=False)}
    for registry in RateLimitRegistry.all(connection):
        yield set(registry.get_rate_limited_job_ids())


def _member(job_id: str, fields: list[bytes | None]) -> Member | None:
    status, *rest = ((field or b"").decode(errors="replace") for field in fields)
    try:
        return Member(job_id, JobStatus(status), *rest)
    except ValueError:
        return None  # there is no such job, or a status of a newer RQ: neither can be canceled by this one
