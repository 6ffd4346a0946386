"""The Python API of the control side: stop jobs, follow them, look at them. `from coord import Coordinator`.

The request lives in Redis: a coordinator may die, be started again or run elsewhere, and goes on where it was. What it
does stands in `control`; here are its two kinds, which block or wait.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Self

from coord import control
from coord.blocking import Blocking, each
from coord.connect import RETRIES
from coord.embedded import ensure
from coord.errors import UsageError
from coord.finished import finished
from coord.keyrings import keyring
from coord.keys import check_job_id
from coord.ledger import AsyncLedger, Ledger
from coord.messages import Cause, ShutdownRequest, one_line
from coord.on_rq import OnRq
from coord.plan import Plan, wished
from coord.record import RETAIN_S, Record
from coord.settings import (
    acting_on,
    check_host,
    check_replicas,
    check_retain,
    host_name,
    parse_replicas,
    parse_retain,
    variable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from coord.control import Requested
    from coord.messages import Event
    from coord.snapshot import Snapshot

PAGE = 500  # jobs


class _Control:
    """What both kinds were told."""

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        by: str | None = None,
        retain_s: float | None = None,
        rq_url: str | None = None,
        min_replicas: int | None = None,
        secret_file: str | None = None,
    ) -> None:
        self._asked: ShutdownRequest | None = None  # the last one made here, until it is followed
        self._keyring = keyring(secret_file)
        self._url = redis_url or variable("COORD_REDIS_URL", str)
        self._rq_url = rq_url
        given = variable("COORD_MIN_REPLICAS", parse_replicas) if min_replicas is None else check_replicas(min_replicas)
        self._min_replicas = given or 0
        self._by = by or acting_on(variable("COORD_HOST", check_host) or host_name())
        self._retain_s = (
            variable("COORD_RETAIN", parse_retain) or RETAIN_S if retain_s is None else check_retain(retain_s)
        )

    def _record(self, job_id: str) -> Record:
        return Record(check_job_id(job_id), self._retain_s, self._keyring)

    def _made(self, answer: Requested) -> Requested:
        self._asked = answer.request
        return answer

    def _asked_for(self, job_id: str) -> ShutdownRequest | None:
        asked, self._asked = self._asked, None
        return asked if asked and asked.job_id == job_id else None

    def _wish(self, job_id: str, reason: str) -> ShutdownRequest:
        return new_request(job_id, Cause.OPERATOR, self._by, reason)


class Coordinator(_Control):
    """The control side, from any host. Close it, or use it in `with`; threads may share one.

    ```python
    from coord import Coordinator

    with Coordinator() as coordinator:
        coordinator.request("nightly", reason="moved to the new cluster", fence_unknown=True)
        print(coordinator.status("nightly").verdict)  # -> clean
    ```

    `redis_url`: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://; else COORD_REDIS_URL; else this
    user's embedded server, which is started if it is not there. `by`: who acts, as everybody who is affected reads it;
    else user@host (COORD_HOST).
    `retain_s`: how long a job's record outlives the last thing that happened to it, 60 s to 7 days; else COORD_RETAIN,
    else 7 days. `rq_url`: where RQ's jobs are; else RQ_REDIS_URL, else the same Redis. `min_replicas`: a request waits
    up to 1 s for so many replicas to have it, and tells how many have (`copies`); else COORD_MIN_REPLICAS, else 0.
    `secret_file`: the fleet's secrets, else COORD_SECRET_FILE, else COORD_SECRET: then requests are signed, and only
    what is signed is believed.

    Errors are `CoordError`s. Raises UsageError for an argument or an environment variable that can't be; each call
    raises UnreachableError when Redis can't be used: what was recorded before stays recorded.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        by: str | None = None,
        retain_s: float | None = None,
        rq_url: str | None = None,
        min_replicas: int | None = None,
        secret_file: str | None = None,
    ) -> None:
        super().__init__(
            redis_url, by=by, retain_s=retain_s, rq_url=rq_url, min_replicas=min_replicas, secret_file=secret_file
        )
        url = self._url or ensure()
        self._ledger = Ledger(url, min_replicas=self._min_replicas)
        self._door = Blocking(self._ledger)
        self._rq = OnRq(url, self._rq_url, self._by, blocking=True)

    def request(
        self,
        job_id: str,
        *,
        reason: str = "",
        grace_s: float | None = None,
        grace_max_s: float | None = None,
        kill_wait_s: float | None = None,
        now: bool = False,
        fence_unknown: bool = False,
    ) -> Requested:
        """Have the job stopped on all its hosts. Returns once that is recorded; `follow` tells what comes of it.

        SIGTERM, `grace_s` seconds (10; up to `grace_max_s` for who asks for more), SIGKILL, `kill_wait_s` seconds (5);
        `now`: SIGKILL at once. When none of these is given, the longest waits that the job's commands declared hold.
        Gives the request that holds, and `word`: `created`; `exists` or `shortened` when there was one already: it can
        only get more urgent.
        A job that nobody ever joined may be an RQ group, or an RQ job, by its id. Raises NoSuchJobError when it is
        not either: `fence_unknown` forbids it in advance instead.
        """
        plan = wished(grace_s, kill_wait_s, grace_max_s, now=now)
        wish = self._wish(job_id, reason)
        record = self._record(job_id)
        asking = control.request(self._door, record, wish, plan, fence_unknown=fence_unknown, rq=self._rq)
        return self._made(finished(asking))

    def follow(
        self, job_id: str, *, timeout_s: float | None = None
    ) -> Generator[tuple[Snapshot, list[Event]], None, None]:
        """Give the job each time something happened to it, and at least every 0.5 s, until it has its verdict.

        Each item is the job now, and what happened since the item before, from the request on. The last one has the
        verdict, or None when `timeout_s` seconds have passed; the shutdown goes on without being followed. Once there
        is a request, a verdict comes: who has not answered when its plan and 15 s have passed is declared lost.
        Redis may be away as long as that, or until `timeout_s`: `redis.lost` and `redis.back` are told as events.
        Without a request it waits for one, for ever if there is no timeout. What of the job is on RQ is canceled
        meanwhile, by a thread, if nobody else does it. Raises NoSuchJobError.
        """
        asked = self._asked_for(job_id)
        return each(control.follow(self._door, self._record(job_id), timeout_s, self._rq, asked=asked))

    def status(self, job_id: str) -> Snapshot:
        """Read the job as it is now. `coord.job_document` makes JSON of it. Raises NoSuchJobError."""
        return finished(control.status(self._door, self._record(job_id)))

    def jobs(self, first: int = 0, count: int = PAGE) -> list[Snapshot]:
        """Read `count` jobs, the newest first, after leaving out the `first` newest."""
        return finished(control.jobs(self._door, first, count, self._keyring))

    def close(self) -> None:
        """Close the connection."""
        self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class AsyncCoordinator(_Control):
    """`Coordinator` for asyncio: the same arguments, calls and errors. Use it in `async with`, in one event loop.

    ```python
    import asyncio
    from coord import AsyncCoordinator

    async def main() -> None:
        async with AsyncCoordinator() as coordinator:
            for snapshot in await coordinator.jobs():
                print(snapshot.job_id, snapshot.state)

    asyncio.run(main())
    ```

    Its calls may run side by side, and may be cancelled at any time: a request that was cancelled has been recorded or
    has not, and may be made again.
    """

    _opened: AsyncLedger | None = None

    async def request(
        self,
        job_id: str,
        *,
        reason: str = "",
        grace_s: float | None = None,
        grace_max_s: float | None = None,
        kill_wait_s: float | None = None,
        now: bool = False,
        fence_unknown: bool = False,
    ) -> Requested:
        """Do as `Coordinator.request`."""
        plan = wished(grace_s, kill_wait_s, grace_max_s, now=now)
        wish = self._wish(job_id, reason)
        record = self._record(job_id)
        asking = control.request(self._door, record, wish, plan, fence_unknown=fence_unknown, rq=self._rq)
        return self._made(await asking)

    def follow(
        self, job_id: str, *, timeout_s: float | None = None
    ) -> AsyncGenerator[tuple[Snapshot, list[Event]], None]:
        """Do as `Coordinator.follow`, with `async for`."""
        asked = self._asked_for(job_id)
        return control.follow(self._door, self._record(job_id), timeout_s, self._rq, asked=asked)

    async def status(self, job_id: str) -> Snapshot:
        """Do as `Coordinator.status`."""
        return await control.status(self._door, self._record(job_id))

    async def jobs(self, first: int = 0, count: int = PAGE) -> list[Snapshot]:
        """Do as `Coordinator.jobs`."""
        return await control.jobs(self._door, first, count, self._keyring)

    @property
    def _door(self) -> AsyncLedger:
        if self._opened is None:
            raise UsageError("this AsyncCoordinator is not open", "Use it in `async with`")
        return self._opened

    async def __aenter__(self) -> Self:
        url = self._url or await _ensured()
        self._opened = AsyncLedger(url, retries=RETRIES, min_replicas=self._min_replicas)
        self._rq = OnRq(url, self._rq_url, self._by, blocking=False)
        return self

    async def __aexit__(self, *error: object) -> None:
        opened, self._opened = self._door, None
        await opened.close()


async def _ensured() -> str:
    """Give the embedded server's URL. It may have to be started, which takes a moment and blocks."""
    return await asyncio.to_thread(ensure)


def new_request(job_id: str, cause: Cause, by: str, reason: str) -> ShutdownRequest:
    """Make a wish; the record gives it its time, and its plan if the wish has none of its own."""
    return ShutdownRequest(os.urandom(8).hex(), job_id, cause, one_line(by), one_line(reason), Plan.of())
