"""What of a job is on RQ, as a coordinator sees it: asks RQ for names that the record does not know, and sweeps.

It sweeps while it follows, on a thread of its own. `rq` is imported when there is something to do there, not before.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import closing, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING

from coord.address import topology
from coord.errors import CoordError, UsageError
from coord.record import LEASE_S

if TYPE_CHECKING:
    from coord.record import Record
    from coord.snapshot import Snapshot

MARGIN_S = 5.0


class OnRq:
    """`rq_url`: RQ's Redis, else RQ_REDIS_URL, else the record's. `blocking`: there is no event loop to hold up."""

    def __init__(self, record_url: str, rq_url: str | None, by: str, *, blocking: bool) -> None:
        self.given = rq_url or os.environ.get("RQ_REDIS_URL") or None
        if self.given and topology(self.given):
            raise UsageError(
                "RQ speaks to one server: --rq-url can't be a Sentinel's or a Cluster's", "Only the record can be there"
            )
        self.record_url = record_url
        self.who = f"{by} ({os.urandom(2).hex()})"  # one person may follow a job twice
        self.unknown = ""  # said of a name that was not found
        self._blocking = blocking

    async def has(self, name: str) -> bool:
        """Tell whether RQ has a group, an RQ job, or RQ jobs with a meta, of this name.

        Raises UnreachableError for a URL that was given; where none was, RQ need not be there.
        """
        return self._has(name) if self._blocking else await asyncio.to_thread(self._has, name)

    def beside(self, record: Record) -> Beside:
        """Give what sweeps a job while it is followed."""
        return Beside(self, record)

    def _has(self, name: str) -> bool:
        from coord.redis_errors import mapped, shown
        from coord.rq.members import in_meta, named
        from coord.rq.where import connect

        url = self.given or self.record_url
        try:
            with closing(connect(url)) as connection, mapped(url):
                self.unknown = f", and RQ at {shown(url)} has no group and no job of that name"
                return bool(named(connection, name) or in_meta(connection, name))
        except CoordError:
            if self.given:
                raise
            self.unknown = ""
            return False


class Beside:
    """Sweeps one job, if that is to be done and nobody else does."""

    def __init__(self, rq: OnRq, record: Record) -> None:
        self._rq = rq
        self._record = record
        self._over = Event()
        self._thread: Thread | None = None

    def see(self, snapshot: Snapshot) -> None:
        """Begin when the job is to be swept."""
        if self._thread is None and snapshot.request and snapshot.rq.due:
            until_s = time.monotonic() + snapshot.request.plan.total_s + LEASE_S + MARGIN_S
            self._thread = Thread(target=self._sweep, args=(until_s,), name="coord-rq", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Break it off; what was not swept, another may claim, once our claim has run out."""
        self._over.set()

    def _sweep(self, until_s: float) -> None:
        from coord.ledger import Ledger
        from coord.rq.sweep import Sweep
        from coord.rq.where import connect

        # what can't be done, the record says, and with it the follower: nobody did it in time
        with (
            suppress(CoordError),
            closing(connect(self._rq.given or self._rq.record_url)) as connection,
            closing(Ledger(self._rq.record_url)) as ledger,
        ):
            Sweep(connection, ledger, self._record, self._rq.who, until_s, over=self._over).run()
