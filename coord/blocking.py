"""Runs what `control` says without an event loop: behind this door nothing waits, it blocks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from coord.finished import finished

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence

    from coord.errors import CoordError
    from coord.ledger import Ledger
    from coord.messages import Event
    from coord.record import Call, Record

T = TypeVar("T")


class Blocking:
    """A ledger as a `door.Door`: its coroutines end without having waited once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def run(self, call: Call[T]) -> T:
        """Run one script and read its answer."""
        return self._ledger.run(call)

    async def pause(self, wait_s: float) -> None:
        """Block for a while."""
        time.sleep(wait_s)  # noqa: ASYNC251  # there is no event loop

    @property
    def min_replicas(self) -> int:
        """How many replicas a new request should reach."""
        return self._ledger.min_replicas

    async def copies(self, call: Call[Any]) -> int:
        """Tell on how many replicas all is that was written of the call's job."""
        return self._ledger.copies(call)

    async def run_all(self, calls: Sequence[Call[T]]) -> list[T | CoordError]:
        """Run scripts in one round trip; one that fails by itself gives its error in its place."""
        return self._ledger.run_all(calls)

    async def events(self, record: Record, after: str, wait_s: float) -> list[Event]:
        """Read the job's events after an id, blocking up to `wait_s` for the first one."""
        return self._ledger.events(record, after, wait_s)

    async def job_ids(self, first: int, count: int) -> list[str]:
        """Give one page of the index of jobs, the newest first."""
        return self._ledger.job_ids(first, count)

    async def remember(self, job_id: str) -> None:
        """Put the job into the index."""
        self._ledger.remember(job_id)

    async def forget(self, job_ids: Sequence[str]) -> None:
        """Take jobs of which there is no record out of the index."""
        self._ledger.forget(job_ids)


def each(work: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """Give what an asynchronous generator gives; it ends when the caller breaks off."""
    try:
        while True:
            try:
                item = finished(work.__anext__())
            except StopAsyncIteration:
                return
            yield item
    finally:
        finished(work.aclose())
