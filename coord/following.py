"""Follows a shutdown to its verdict: asks again who has not answered, gives up who can't, and outlives Redis' absences.

All that it does stands in the record: it may be killed, started again or run elsewhere, and goes on.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from coord import memory
from coord.door import EVENTS_PER_READ, forged, glance, no_such_job, status
from coord.errors import NoSuchJobError, UnreachableError
from coord.messages import Event
from coord.record import BEAT_S, LEASE_S, SILENCE_S

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from coord.door import Door, RqSide
    from coord.messages import ShutdownRequest
    from coord.record import Record
    from coord.snapshot import Snapshot

MARGIN_S = 5.0  # for reports on their way, after the plan and a lease have passed
LOOK_S = 0.5  # look again at least this often
LONG_S = 0.02  # to read a job; a small one takes a millisecond
RESTS = 4  # times as long as that
REST_MAX_S = 3.0  # less than SILENCE_S: somebody has to look who is lost
MANY = 500  # agents
QUIET_S = 0.25  # nobody reports any more, for now
READS_MAX = 10_000  # of events, before the job is read again
MARGIN_MS = 1000  # between the clock that a script reads and the one that its events go by


async def follow(
    door: Door, record: Record, timeout_s: float | None, rq: RqSide, *, asked: ShutdownRequest | None = None
) -> AsyncGenerator[tuple[Snapshot, list[Event]], None]:
    """Give the job each time something happened to it, until its verdict or until `timeout_s` has passed.

    Bounded once there is a request: who has not answered when its plan, a lease and MARGIN_S are over is declared lost.
    Redis may be away as long as that, or until the timeout; then it raises UnreachableError. `asked`: the request that
    was made a moment ago; without one, Redis has to be there at the beginning.
    """
    follower = Follower(door, record, timeout_s)
    await follower.begin(asked)
    sweeping = rq.beside(record)
    try:
        while True:
            sweeping.see(follower.snapshot)
            events = await follower.look()
            yield follower.snapshot, [event for event in events if _concerns(event, follower.snapshot)]
            if follower.is_over(events):
                return
    finally:
        sweeping.close()


class Follower:
    """One look after another. `snapshot`: the job when it was last seen."""

    snapshot: Snapshot
    _seen_s: float  # when that was, in monotonic time

    def __init__(self, door: Door, record: Record, timeout_s: float | None) -> None:
        self._door = door
        self._record = record
        self._end_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._seen = "0"  # id of the last event
        self._settled_s: float | None = None
        self._asked_s = time.monotonic()
        self._away_since_s: float | None = None
        self._had_verdict = False
        self._rested_s = 0.0

    async def begin(self, asked: ShutdownRequest | None = None) -> None:
        """Look for the first time. Raises NoSuchJobError, UnreachableError: at once, if nothing was asked just now."""
        end_s = time.monotonic() + _bound_s(asked) if asked else 0.0
        while True:
            try:
                self.snapshot, self._seen_s = await self._first(), time.monotonic()
            except (NoSuchJobError, UnreachableError):  # lost, agents write it again
                if self._late or time.monotonic() >= end_s:
                    raise
                self._away_since_s = self._away_since_s or time.monotonic()
                await self._door.pause(self._at_most(LOOK_S))
            else:
                return

    async def _first(self) -> Snapshot:
        found, agents = await self._door.run(glance(self._record, MANY))
        if agents > MANY and found and found.request and not found.verdict:
            # they all report now, and a long answer would wait until they have
            self._rested_s = time.monotonic() + REST_MAX_S
        elif found is None or agents > MANY:
            found = await status(self._door, self._record)
        return found

    async def look(self) -> list[Event]:
        """Wait until something happened, at most LOOK_S, and give it. Raises UnreachableError when Redis stays away."""
        self._had_verdict = self.snapshot.verdict is not None  # what led to it is told before the end
        try:
            events = await self._look()
        except UnreachableError as error:
            return await self._wait(error)
        if self._away_since_s is not None:
            self._away_since_s = None
            events.insert(0, Event("", "redis.back", self.snapshot.now_us))
        return events

    def is_over(self, events: list[Event]) -> bool:
        """Tell whether there is nothing more to see: a verdict that nothing was added to, or no time left."""
        return (self.snapshot.verdict is not None and self._had_verdict and not events) or self._late

    async def _look(self) -> list[Event]:
        events = await self._happened()
        if self.snapshot.verdict and not events:
            return []  # nothing was added to what was seen
        if self.snapshot.request and not self.snapshot.verdict:
            await self._settle()
        began_s = time.monotonic()
        await self._see()
        self._seen = events[-1].id if events else self._seen
        self._rest(time.monotonic() - began_s)
        return events

    async def _see(self) -> None:
        """Read the job. What the server has lost of it meanwhile is written again: nobody is forgotten."""
        found = await self._door.run(self._record.snapshot())
        if found and found.refusal:
            raise forged(found.refusal)
        if memory.lost(self.snapshot, found):
            since_s = time.monotonic() - self._seen_s
            await self._door.run(memory.restored(self._record, self.snapshot, since_s))
            await self._door.remember(self._record.job_id)
            found = await self._door.run(self._record.snapshot())
        if found is None:
            raise no_such_job(self._record.job_id)
        self.snapshot, self._seen_s = found, time.monotonic()

    async def _happened(self) -> list[Event]:
        """Wait for an event, and take all there are; while the job is not to be read again, also what comes then."""
        if self._seen == "0" and self.snapshot.request:
            # nobody is told of what was before
            self._seen = f"{max(0, self.snapshot.request.requested_us // 1000 - MARGIN_MS)}-0"
        some = events = await self._door.events(self._record, self._seen, self._at_most(self._wait_s))
        for _ in range(READS_MAX):
            rest_s = self._rested_s - time.monotonic()
            ended = self.snapshot.verdict or any(event.kind == "job.verdict" for event in some)
            if len(some) < EVENTS_PER_READ and (ended or rest_s <= 0 or self._late):
                break
            last = events[-1].id if events else self._seen
            wait_s = 0.0 if ended else self._at_most(max(0.0, min(QUIET_S, rest_s)))
            some = await self._door.events(self._record, last, wait_s)
            if not some:
                break
            events = events + some
        return events

    @property
    def _wait_s(self) -> float:
        return 0.0 if self.snapshot.verdict else LOOK_S

    def _rest(self, took_s: float) -> None:
        """While thousands of agents are read, the server takes no reports: then they are read more seldom."""
        rest_s = min(REST_MAX_S, RESTS * took_s) if took_s > LONG_S else 0.0
        self._rested_s = time.monotonic() + rest_s

    async def _settle(self) -> None:
        now_s, before_s = time.monotonic(), self._settled_s
        again = self.snapshot.request if self.snapshot.silent and now_s - self._asked_s >= BEAT_S else None
        was_away = before_s is None or now_s - before_s > SILENCE_S
        await self._door.run(self._record.settle(self._bound_s, was_away=was_away, again=again))
        self._settled_s = now_s
        self._asked_s = now_s if again else self._asked_s

    async def _wait(self, error: UnreachableError) -> list[Event]:
        """Redis is away: try again soon, for as long as the shutdown may take."""
        now_s, since_s = time.monotonic(), self._away_since_s
        if self.snapshot.verdict:
            return []
        if self._late or (since_s is not None and now_s - since_s > self._bound_s):
            raise error
        if since_s is None:
            self._away_since_s = now_s
            return [Event("", "redis.lost", self.snapshot.now_us, {"error": error.message})]
        await self._door.pause(self._at_most(LOOK_S))
        return []

    @property
    def _bound_s(self) -> float:
        return _bound_s(self.snapshot.request)

    @property
    def _late(self) -> bool:
        return self._end_s is not None and time.monotonic() >= self._end_s

    def _at_most(self, wait_s: float) -> float:
        return wait_s if self._end_s is None else max(0.001, min(wait_s, self._end_s - time.monotonic()))


def _bound_s(request: ShutdownRequest | None) -> float:
    return (request.plan.total_s if request else 0.0) + LEASE_S + MARGIN_S


def _concerns(event: Event, snapshot: Snapshot) -> bool:
    """Leave out what the job did before anybody wanted it stopped."""
    return snapshot.request is not None and event.at_us >= snapshot.request.requested_us
