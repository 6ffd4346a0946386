"""What a coordinator does: makes a request, follows it (`following`), lists jobs. Written once, for both of its kinds.

The record is asked through a door: `ledger.AsyncLedger` waits for Redis, `blocking.Blocking` blocks. Knows nothing of
Redis, and nothing of how processes are stopped.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from coord.door import forged, no_such_job, status
from coord.errors import CoordError, RefusedError, UnreachableError
from coord.following import MARGIN_S, follow
from coord.record import LEASE_S, Record
from coord.snapshot import Snapshot, broken_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.door import Door, RqSide
    from coord.messages import ShutdownRequest
    from coord.plan import Plan
    from coord.record import Answer, Call
    from coord.seal import Keyring

__all__ = ["LEASE_S", "MARGIN_S", "Requested", "follow", "jobs", "request", "status"]

JOBS_PER_READ = 100  # so that no answer gets large
SHORTEN_TRIES = 20  # each one lost means that somebody else made the request more urgent
SIGN_TRIES = 20  # each one lost means that an agent joined with a longer wait meanwhile


@dataclass(frozen=True, slots=True)
class Requested:
    """What came of a request: `created`, or `exists`/`shortened` when there was one; and the one that holds now.

    `copies`: how many replicas were seen to have it, when a number of them was asked for.
    """

    word: str
    request: ShutdownRequest
    copies: int | None = None


async def request(
    door: Door, record: Record, wish: ShutdownRequest, plan: Plan | None, *, fence_unknown: bool, rq: RqSide
) -> Requested:
    """Have the job stopped. A plan makes an existing request more urgent, never less.

    Raises NoSuchJobError, and RefusedError where a request must be signed and is not.
    """
    made = await _requested(door, record, wish, plan, fence_unknown=fence_unknown, rq=rq)
    if not door.min_replicas:
        return made
    try:
        return replace(made, copies=await door.copies(record.snapshot()))
    except UnreachableError:  # it was recorded; who follows learns whether it still is
        return replace(made, copies=0)


async def _requested(
    door: Door, record: Record, wish: ShutdownRequest, plan: Plan | None, *, fence_unknown: bool, rq: RqSide
) -> Requested:
    answer = await _recorded(door, lambda: record.request(wish, plan, fence_unknown=fence_unknown))
    unknown = answer.request is None
    if unknown and not await rq.has(record.job_id):
        raise no_such_job(record.job_id, rq.unknown)
    if unknown:
        answer = await _recorded(door, lambda: record.request(wish, plan, fence_unknown=True, rq=True))
    if unknown or fence_unknown:
        await door.remember(record.job_id)
    if answer.request is None:
        raise no_such_job(record.job_id)
    if answer.request.id == wish.id:  # also where it `exists`: the first answer was lost on the way
        if fence_unknown and not answer.request.rq and await rq.has(record.job_id):  # fenced first, then looked for
            await _recorded(door, lambda: record.request(wish, plan, rq=True))
        return Requested("created", answer.request)
    if answer.request.rq and (await status(door, record)).rq.again:
        await door.run(record.claim(rq.who, again=True))
    if plan is None:
        return Requested(answer.word, answer.request)
    return await _shorten(door, record, answer.request, wish=wish, plan=plan)


async def _recorded(door: Door, make: Callable[[], Call[Answer]]) -> Answer:
    """Run a call that may have to be signed; made anew when what was signed is so no longer."""
    for _ in range(SIGN_TRIES):
        answer = await door.run(make())
        if answer.refusal:
            raise forged(answer.refusal)
        if answer.word == "unsigned":
            raise RefusedError(
                "the job's agents obey signed requests only, and there is no secret here; nothing was changed",
                "Give theirs: --secret-file or COORD_SECRET_FILE",
            )
        if answer.word != "plan":
            return answer
    raise CoordError("what the request's plan is made of changes all the time", "Try again")


async def jobs(door: Door, first: int, count: int, keyring: Keyring | None = None) -> list[Snapshot]:
    """One page of jobs, the newest first. What can't be read is there as broken; what has expired is dropped."""
    found: list[Snapshot] = []
    expired: list[str] = []
    while len(found) < count:
        place = first + len(found) + len(expired)
        job_ids = await door.job_ids(place, min(JOBS_PER_READ, count - len(found)))
        if not job_ids:
            break
        read = await door.run_all([Record(job_id, keyring=keyring).snapshot() for job_id in job_ids])
        for job_id, snapshot in zip(job_ids, read, strict=True):
            if snapshot is None:
                expired.append(job_id)
            else:
                found.append(snapshot if isinstance(snapshot, Snapshot) else broken_job(job_id, str(snapshot)))
    with suppress(UnreachableError):  # who may only read leaves them there
        await door.forget(expired)
    return found


async def _shorten(
    door: Door, record: Record, existing: ShutdownRequest, *, wish: ShutdownRequest, plan: Plan
) -> Requested:
    for _ in range(SHORTEN_TRIES):
        shorter = existing.plan.shortened(plan, existing.elapsed_s)
        if shorter == existing.plan or (await status(door, record)).verdict:
            return Requested("exists", existing)
        make = partial(record.shorten, existing, shorter, wish.by, wish.reason)
        answer = await _recorded(door, make)
        if answer.request is None:
            raise no_such_job(record.job_id)
        if answer.word == "shortened":
            return Requested("shortened", answer.request)
        existing = answer.request
    raise CoordError(f"job {record.job_id}'s request changes all the time", "Try again")
