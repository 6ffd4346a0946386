"""The way to the record, as who coordinates sees it: with an event loop behind it or without; and a first look through.

`ledger.AsyncLedger` and `blocking.Blocking` are such doors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from coord.errors import NoSuchJobError, RefusedError
from coord.record import Call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coord.errors import CoordError
    from coord.messages import Event
    from coord.record import Record
    from coord.seal import Refusal
    from coord.snapshot import Snapshot

EVENTS_PER_READ = 1000

T = TypeVar("T")


class Door(Protocol):
    """The way to the record. Each call raises UnreachableError when Redis can't be used."""

    async def run(self, call: Call[T]) -> T:
        """Run one script and read its answer."""

    @property
    def min_replicas(self) -> int:
        """How many replicas a new request should reach; 0: that is nobody's business."""

    async def copies(self, call: Call[Any]) -> int:
        """Tell on how many replicas all is that was written of the call's job, after waiting a moment for them."""

    async def pause(self, wait_s: float) -> None:
        """Let time pass: Redis is away, and is asked again later."""

    async def events(self, record: Record, after: str, wait_s: float) -> list[Event]:
        """Read the job's events after an id, waiting up to `wait_s` for the first one."""

    async def job_ids(self, first: int, count: int) -> list[str]:
        """Give one page of the index of jobs, the newest first."""

    async def run_all(self, calls: Sequence[Call[T]]) -> list[T | CoordError]:
        """Run scripts in one round trip; one that fails by itself gives its error in its place."""

    async def remember(self, job_id: str) -> None:
        """Put the job into the index."""

    async def forget(self, job_ids: Sequence[str]) -> None:
        """Take jobs of which there is no record out of the index."""


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


async def status(door: Door, record: Record) -> Snapshot:
    """Read the job. Raises NoSuchJobError."""
    snapshot = await door.run(record.snapshot())
    if snapshot is None:
        raise no_such_job(record.job_id)
    return snapshot


def glance(record: Record, at_most: int) -> Call[tuple[Snapshot | None, int]]:
    """Read the job and how many agents it has; without the agents, when there are more of them than that."""
    whole = record.snapshot()
    args = (*whole.args, at_most)
    return Call(whole.script, whole.keys, args, lambda reply: (whole.decode(reply[:-1]), int(reply[-1])))


def no_such_job(job_id: str, also: str = "") -> NoSuchJobError:
    """Say that nobody ever joined the job: a typing error must not look like success."""
    return NoSuchJobError(
        f"no job {job_id!r}: nobody ever joined it{also}; nothing was changed",
        "See `coord jobs`, or forbid it in advance with `coord shutdown --fence`",
    )


def forged(refusal: Refusal) -> RefusedError:
    """Say that the record was tampered with."""
    return RefusedError(
        refusal.words,
        f"See who may write to this Redis; take it out (HDEL coord:{{{refusal.job_id}}}:job request), and call again",
    )
