"""What a coordinator does: makes a request, follows it to its verdict, lists jobs. Written once, for both of its kinds.

The record is asked through a door: `ledger.AsyncLedger` waits for Redis, `blocking.Blocking` blocks. Knows nothing of
Redis, and nothing of how processes are stopped.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from coord.errors import CoordError, NoSuchJobError
from coord.record import BEAT_S, LEASE_S, Call, Record

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from coord.messages import Event, ShutdownRequest
    from coord.plan import Plan
    from coord.snapshot import Snapshot

MARGIN_S = 5.0  # for reports on their way, after the plan and a lease have passed
SHORTEN_TRIES = 20  # each one lost means that somebody else made the request more urgent
FOLLOW_S = 0.5  # look again at least this often
SILENCE_S = 2 * BEAT_S  # who could not look for longer can't tell whether Redis was away

T = TypeVar("T")


class Door(Protocol):
    """The way to the record. Each call raises UnreachableError when Redis can't be used."""

    async def run(self, call: Call[T]) -> T:
        """Run one script and read its answer."""

    async def events(self, record: Record, after: str, wait_s: float) -> list[Event]:
        """Read the job's events after an id, waiting up to `wait_s` for the first one."""

    async def job_ids(self, first: int, count: int) -> list[str]:
        """Give one page of the index of jobs, the newest first."""

    async def remember(self, job_id: str) -> None:
        """Put the job into the index."""

    async def forget(self, job_id: str) -> None:
        """Take the job out of the index."""


class RqSide(Protocol):
    """What of a job is on RQ. `who`: whose claim it is to sweep it; `unknown`: where it was looked for in vain."""

    who: str
    unknown: str

    async def has(self, name: str) -> bool:
        """Tell whether RQ knows something by this name. Raises UnreachableError."""

    def beside(self, record: Record) -> Sweeping:
        """Give what sweeps a job while it is followed."""


class Sweeping(Protocol):
    """Sweeps one job, beside who follows it."""

    def see(self, snapshot: Snapshot) -> None:
        """Begin when the job is to be swept."""

    def close(self) -> None:
        """Break it off."""


class Watch:
    """Knows whether its owner could see Redis all the time."""

    _seen_s: float | None = None

    def was_away(self) -> bool:
        """Tell whether there was a gap since the last time this was asked."""
        before_s, self._seen_s = self._seen_s, time.monotonic()
        return before_s is None or self._seen_s - before_s > SILENCE_S


@dataclass(frozen=True, slots=True)
class Requested:
    """What came of a request: `created`, or `exists`/`shortened` when there was one; and the one that holds now."""

    word: str
    request: ShutdownRequest


async def request(
    door: Door, record: Record, wish: ShutdownRequest, plan: Plan | None, *, fence_unknown: bool, rq: RqSide
) -> Requested:
    """Have the job stopped. A plan makes an existing request more urgent, never less. Raises NoSuchJobError."""
    answer = await door.run(record.request(wish, plan, fence_unknown=fence_unknown))
    unknown = answer.request is None
    if unknown and not await rq.has(record.job_id):
        raise no_such_job(record.job_id, rq.unknown)
    if unknown:
        answer = await door.run(record.request(wish, plan, fence_unknown=True, rq=True))
    if unknown or fence_unknown:
        await door.remember(record.job_id)
    if answer.request is None:
        raise no_such_job(record.job_id)
    if answer.word == "created":
        if fence_unknown and not answer.request.rq and await rq.has(record.job_id):  # fenced first, then looked for
            await door.run(record.request(wish, plan, rq=True))
        return Requested(answer.word, answer.request)
    if answer.request.rq and (await status(door, record)).rq.again:
        await door.run(record.claim(rq.who, again=True))
    if plan is None:
        return Requested(answer.word, answer.request)
    return await _shorten(door, record, answer.request, wish=wish, plan=plan)


async def status(door: Door, record: Record) -> Snapshot:
    """Read the job. Raises NoSuchJobError."""
    snapshot = await door.run(record.snapshot())
    if snapshot is None:
        raise no_such_job(record.job_id)
    return snapshot


async def follow(
    door: Door, record: Record, timeout_s: float | None, rq: RqSide
) -> AsyncGenerator[tuple[Snapshot, list[Event]], None]:
    """Give the job each time something happened to it, until its verdict or until `timeout_s` has passed.

    Bounded once there is a request: who has not answered when its plan, a lease and MARGIN_S are over is declared lost.
    """
    end_s = None if timeout_s is None else time.monotonic() + timeout_s
    snapshot, seen = await status(door, record), "0"
    sweeping = rq.beside(record)
    watch = Watch()
    try:
        while True:
            sweeping.see(snapshot)
            events = await door.events(record, seen, 0.0 if snapshot.verdict else _wait_s(end_s))
            seen = events[-1].id if events else seen
            if snapshot.request and not snapshot.verdict:
                await door.run(record.settle(_bound_s(snapshot.request), was_away=watch.was_away()))
            snapshot = await status(door, record)
            yield snapshot, [event for event in events if _concerns(event, snapshot)]
            if (snapshot.verdict and not events) or (end_s is not None and time.monotonic() >= end_s):
                return
    finally:
        sweeping.close()


async def jobs(door: Door, first: int, count: int) -> list[Snapshot]:
    """One page of jobs, the newest first. Entries whose job has expired are dropped from the index on the way."""
    found = []
    for job_id in await door.job_ids(first, count):
        snapshot = await door.run(Record(job_id).snapshot())
        if snapshot:
            found.append(snapshot)
        else:
            await door.forget(job_id)
    return found


def no_such_job(job_id: str, also: str = "") -> NoSuchJobError:
    """Say that nobody ever joined the job: a typing error must not look like success."""
    return NoSuchJobError(
        f"no job {job_id!r}: nobody ever joined it{also}; nothing was changed",
        "See `coord jobs`, or forbid it in advance with `coord shutdown --fence`",
    )


async def _shorten(
    door: Door, record: Record, existing: ShutdownRequest, *, wish: ShutdownRequest, plan: Plan
) -> Requested:
    for _ in range(SHORTEN_TRIES):
        shorter = existing.plan.shortened(plan, existing.elapsed_s)
        if shorter == existing.plan or (await status(door, record)).verdict:
            return Requested("exists", existing)
        answer = await door.run(record.shorten(existing, shorter, wish.by, wish.reason))
        if answer.request is None:
            raise no_such_job(record.job_id)
        if answer.word == "shortened":
            return Requested("shortened", answer.request)
        existing = answer.request
    raise CoordError(f"job {record.job_id}'s request changes all the time", "Try again")


def _bound_s(request: ShutdownRequest) -> float:
    return request.plan.total_s + LEASE_S + MARGIN_S


def _wait_s(end_s: float | None) -> float:
    return FOLLOW_S if end_s is None else max(0.001, min(FOLLOW_S, end_s - time.monotonic()))


def _concerns(event: Event, snapshot: Snapshot) -> bool:
    """Leave out what the job did before anybody wanted it stopped."""
    return snapshot.request is not None and event.at_us >= snapshot.request.requested_us
