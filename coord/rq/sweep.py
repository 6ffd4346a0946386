"""Cancels what of a job waits on RQ, again and again, until nothing of it is queued or started there.

One sweeps at a time, by the record's claim; but several at once would do no harm. What runs on hosted workers, their
agents stop; and what such a worker has taken and not begun, it leaves by itself, since it asks the fence.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from rq.job import JobStatus

from coord.errors import CoordError, UnreachableError
from coord.messages import Unproved
from coord.redis_errors import mapped
from coord.rq.cancel import cancel
from coord.rq.foreign import UNKNOWN, foreign, running, tell
from coord.rq.members import WAITING, canceled_since, in_hands, in_meta, look, named, positions, with_dependents
from coord.rq.where import hosted_workers, plain_workers, queue_names, shown_url

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from coord.ledger import Ledger
    from coord.record import Record
    from coord.rq.foreign import Running
    from coord.rq.members import Member

T = TypeVar("T")

RENEW_S = 2.0
ROUND_MIN_S = 0.05
ROUND_MAX_S = 0.5
CONFIRM_S = 0.2  # what a plain worker has just taken off a queue shows as started by then
_NOT_OVER = WAITING | {JobStatus.STARTED}
CLOCKS_S = 2.0  # RQ's times are those of its hosts, in whole seconds
IN_FLIGHT_S = 1.0  # taken off a queue and after so long still not begun: who took it is dead


@dataclass
class Swept:
    """What came of it. `word`: `swept`; `taken` or `none`: not ours to do; `elsewhere`: not on this Redis."""

    word: str
    canceled: int = 0
    stopped: int = 0
    unproved: tuple[Unproved, ...] = ()


@dataclass
class Sweep:
    """One sweep of one job. `until_s`: monotonic; what is then left is named as unproved. `over`: breaks it off."""

    connection: redis.Redis
    ledger: Ledger
    record: Record
    who: str
    until_s: float
    again: bool = False
    over: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self._index: dict[str, str] = {}
        self._known: dict[str, Member] = {}
        self._waited: set[str] = set()  # seen waiting, ever
        self._before: tuple[Unproved, ...] = ()  # by an earlier sweep
        self._since_s = 0.0
        self._foreign: dict[str, Running] = {}
        self._left: dict[str, Running | None] = {}  # RQ jobs that are not over, by the last look
        self._in_flight: dict[str, float] = {}
        self._renew_s = 0.0
        self._confirm_s = CONFIRM_S

    def run(self) -> Swept:
        """Claim it, do it, say what came of it. Raises UnreachableError when Redis is away for all of its time."""
        if not self._insist(self._is_here):
            return Swept("elsewhere")
        word = self._insist(self._claim)
        if word != "claimed":
            return Swept(word)
        self._insist(self._read)
        self._until_quiet()
        if self.over.is_set():
            with suppress(CoordError):
                self.ledger.run(self.record.claim(self.who, 0.0))  # another may go on at once
            return Swept("none")
        return self._insist(self._tell)

    def _insist(self, do: Callable[[], T]) -> T:
        """Do it, and try again while Redis is away."""
        while True:
            try:
                with mapped(shown_url(self.connection)):
                    return do()
            except UnreachableError:
                if time.monotonic() >= self.until_s or self.over.wait(ROUND_MAX_S):
                    raise

    def _is_here(self) -> bool:
        """A Redis that never had a queue of it has nothing of it: that must not look like success."""
        self._index = dict(self.ledger.rq_jobs(self.record))
        if self._index:
            return not queue_names(self.connection).isdisjoint(self._index.values())
        return bool(named(self.connection, self.record.job_id) or in_meta(self.connection, self.record.job_id))

    def _claim(self) -> str:
        """Wait while another has it: it may die of it."""
        while True:
            word = self.ledger.run(self.record.claim(self.who, again=self.again))
            if word != "taken" or time.monotonic() >= self.until_s or self.over.wait(RENEW_S):
                return word

    def _read(self) -> None:
        snapshot = self.ledger.run(self.record.snapshot())
        if snapshot and snapshot.request:
            self._before = tuple(each for each in snapshot.rq.unproved if each.plain)
            self._since_s = snapshot.request.requested_us / 1e6 - CLOCKS_S

    def _until_quiet(self) -> None:
        """Nothing must be found twice: what was on its way the first time shows the second time."""
        quiet, rest_s = 0, 0.0
        while quiet < 2 and not self.over.wait(rest_s):
            self._insist(self._renew)
            self._insist(partial(self._round, deep=not self._known or quiet > 0))
            quiet = 0 if self._left else quiet + 1
            rest_s = self._confirm_s if quiet else min(ROUND_MAX_S, max(ROUND_MIN_S, 2 * rest_s))
            if time.monotonic() >= self.until_s:
                return

    def _round(self, *, deep: bool) -> None:
        """Look at all of it, or at what was not over; cancel what waits; tell plain workers to stop what runs."""
        members = self._members(deep=deep)
        executions = running(self.connection, members)
        hosted = hosted_workers(self.connection)
        self._confirm_s = CONFIRM_S if plain_workers(self.connection, hosted) else 0.0
        held = in_hands(self.connection, hosted) | {each.rq_job for each in executions}
        waiting = {each.id: each for each in members.values() if each.status in WAITING}
        self._left = {each.id: None for each in members.values() if each.status is JobStatus.STARTED}
        self._left |= dict.fromkeys(waiting) | {each.rq_job: each for each in executions}
        self._waited |= waiting.keys()
        for each in cancel(self.connection, self._in_order(waiting, held), self._renew):
            del self._left[each]
        for execution in foreign(executions, hosted):  # after that: a plain worker that is free takes the next
            self._foreign[execution.id] = execution
            tell(self.connection, execution, members[execution.rq_job])
            if not execution.alive:
                self._left.pop(execution.rq_job, None)  # its worker is dead: there is nothing to wait for
        self._known |= members

    def _members(self, *, deep: bool) -> dict[str, Member]:
        if not deep:
            return with_dependents(self.connection, look(self.connection, self._left))
        name = self.record.job_id
        ids = self._index.keys() | self._known.keys() | named(self.connection, name)
        ids |= in_meta(self.connection, name, ids)
        return with_dependents(self.connection, look(self.connection, ids))

    def _in_order(self, waiting: dict[str, Member], held: set[str]) -> list[Member]:
        """Those to be canceled now: first those that wait for a slot, then each queue from its front.

        What stands in no queue's list was just taken by a plain worker: that is left to begin, unless it never does.
        """
        now_s = time.monotonic()
        free = [each for each in waiting.values() if each.id not in held]
        places: dict[str, int] = {}
        for queue in {each.origin for each in free if each.status is JobStatus.QUEUED}:
            found = positions(self.connection, queue)
            names = [each.id for each in free if each.origin == queue]
            places |= dict.fromkeys(names, 0) if found is None else found
        flying = {each.id for each in free if each.status is JobStatus.QUEUED and each.id not in places}
        self._in_flight = {each: self._in_flight.get(each, now_s) for each in flying}
        late = {each for each, since_s in self._in_flight.items() if now_s - since_s >= IN_FLIGHT_S}
        chosen = [each for each in free if each.id not in flying - late]
        return sorted(chosen, key=lambda each: (each.status is not JobStatus.RATE_LIMITED, places.get(each.id, 0)))

    def _renew(self) -> None:
        if time.monotonic() >= self._renew_s:
            self._renew_s = time.monotonic() + RENEW_S
            self.ledger.run(self.record.claim(self.who))

    def _tell(self) -> Swept:
        found = look(self.connection, {*self._known, *self._left})
        foreign_jobs = {each.rq_job: each for each in self._foreign.values()}
        unproved = {each.rq_job: each for each in self._before}
        for each, where in {**self._left, **foreign_jobs}.items():
            if each in foreign_jobs or (each in found and found[each].status in _NOT_OVER):
                unproved[each] = _unproved(each, where, found.get(each), plain=each in foreign_jobs)
        stopped = sum(1 for each in foreign_jobs if each in found and found[each].status is JobStatus.STOPPED)
        canceled = canceled_since(self.connection, found.values(), self._since_s, self._waited)
        named = tuple(unproved.values())
        self.ledger.run(self.record.swept(self.who, named, canceled=canceled, stopped=stopped))
        return Swept("swept", canceled, stopped, named)


def _unproved(rq_job: str, where: Running | None, member: Member | None, *, plain: bool) -> Unproved:
    host, worker = (UNKNOWN, UNKNOWN) if where is None else (where.host, where.worker)
    return Unproved(host, worker, rq_job, member.status.value if member else "forgotten", plain)
