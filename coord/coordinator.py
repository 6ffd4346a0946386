"""Makes a request, follows it to its verdict, and knows nothing of how processes are stopped.

The request lives in Redis: a coordinator may die, be started again or run elsewhere, and goes on where it was.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from coord.errors import CoordError, NoSuchJobError
from coord.messages import Cause, Event, ShutdownRequest, one_line
from coord.plan import Plan
from coord.record import LEASE_S, Answer, Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coord.ledger import Ledger
    from coord.snapshot import Snapshot

MARGIN_S = 5.0  # for reports on their way, after the plan and a lease have passed
SHORTEN_TRIES = 20  # each one lost means that somebody else made the request more urgent
FOLLOW_S = 0.5  # look again at least this often


class Coordinator:
    """One job, seen from the control side. Raises UnreachableError when Redis can't be used."""

    def __init__(self, ledger: Ledger, job_id: str, by: str, *, retain_s: int) -> None:
        self.job_id = job_id
        self._ledger = ledger
        self._record = Record(job_id, retain_s)
        self._by = by

    def request(self, reason: str, plan: Plan | None, *, fence_unknown: bool = False) -> Answer:
        """Have the job stopped: `created`, or `exists`/`shortened` when somebody was faster.

        No plan: the one that the job's commands declared, or whatever an existing request has. A plan makes an
        existing request more urgent, never less. Raises NoSuchJobError when nobody ever joined the job.
        """
        wish = new_request(self.job_id, Cause.OPERATOR, self._by, reason)
        answer = self._ledger.run(self._record.request(wish, plan, fence_unknown=fence_unknown))
        if answer.request is None:
            raise no_such_job(self.job_id)
        if fence_unknown:
            self._ledger.remember(self.job_id)
        return answer if plan is None or answer.word == "created" else self._shorten(answer, plan, reason)

    def status(self) -> Snapshot:
        """Read the job. Raises NoSuchJobError."""
        snapshot = self._ledger.run(self._record.snapshot())
        if snapshot is None:
            raise no_such_job(self.job_id)
        return snapshot

    def follow(self, timeout_s: float | None = None) -> Iterator[tuple[Snapshot, list[Event]]]:
        """Give the job each time something happened to it, until its verdict or until `timeout_s` has passed.

        Bounded in any case: whoever has not answered when the plan, a lease and MARGIN_S are over is declared lost.
        """
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        snapshot, seen = self.status(), "0"
        while True:
            events = self._ledger.events(self._record, seen, 0.0 if snapshot.verdict else self._wait_s(end_s))
            seen = events[-1].id if events else seen
            if snapshot.request and not snapshot.verdict:
                self._ledger.run(self._record.settle(snapshot.request.plan.total_s + LEASE_S + MARGIN_S))
            snapshot = self.status()
            yield snapshot, [event for event in events if _concerns(event, snapshot)]
            if (snapshot.verdict and not events) or (end_s is not None and time.monotonic() >= end_s):
                return

    def _wait_s(self, end_s: float | None) -> float:
        return FOLLOW_S if end_s is None else max(0.001, min(FOLLOW_S, end_s - time.monotonic()))

    def _shorten(self, answer: Answer, plan: Plan, reason: str) -> Answer:
        for _ in range(SHORTEN_TRIES):
            existing = answer.request
            if existing is None:
                raise no_such_job(self.job_id)
            shorter = existing.plan.shortened(plan, existing.elapsed_s)
            if shorter == existing.plan or self.status().verdict:
                return Answer("exists", existing)
            answer = self._ledger.run(self._record.shorten(existing, shorter, self._by, reason))
            if answer.word == "shortened":
                return answer
        raise CoordError(f"job {self.job_id}'s request changes all the time", "Try again")


def _concerns(event: Event, snapshot: Snapshot) -> bool:
    """Leave out what the job did before anybody wanted it stopped."""
    return snapshot.request is not None and event.at_us >= snapshot.request.requested_us


def new_request(job_id: str, cause: Cause, by: str, reason: str) -> ShutdownRequest:
    """Make a wish; the record gives it its time, and its plan if the wish has none of its own."""
    return ShutdownRequest(os.urandom(8).hex(), job_id, cause, one_line(by), one_line(reason), Plan.of())


def no_such_job(job_id: str) -> NoSuchJobError:
    """Say that nobody ever joined the job: a typing error must not look like success."""
    return NoSuchJobError(
        f"no job {job_id!r}: nobody ever joined it; nothing was changed",
        "See `coord jobs`, or forbid it in advance with `coord shutdown --fence`",
    )
