"""What only the asyncio kind can get wrong: cancellation, and calls side by side; and what drives the blocking kind."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from coord import AsyncCoordinator, UsageError
from coord import ledger as ledger_module
from coord.blocking import each
from coord.finished import finished
from coord.redis_errors import mapped

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.harness import Lab

TICKS = 40  # turns of the event loop: more than one round of `follow` takes
LOST_S = 5.0  # ten times the longest wait of one read: a cancellation that has done nothing by then never will


async def first_lost(coordinator: AsyncCoordinator, job: str) -> int | None:
    """Scenario: follow a job that nobody stops, and cancel after n turns of the loop; gives the first n in vain."""

    async def follow() -> None:
        async for _ in coordinator.follow(job):
            pass

    await coordinator.status(job)  # connected
    async with asyncio.TaskGroup() as tasks:
        for ticks in range(TICKS):
            following = tasks.create_task(follow())
            for _ in range(ticks):
                await asyncio.sleep(0)
            following.cancel()
            await asyncio.wait([following], timeout=LOST_S)
            if not following.done():
                while not following.done():
                    following.cancel()
                    await asyncio.wait([following], timeout=0.01)
                return ticks
    return None


async def test_a_follow_can_be_cancelled_at_any_instant(lab: Lab, job: str, server: str) -> None:
    """Whenever a follower is cancelled, it ends, and the coordinator can still be used."""
    run = lab.run(job, "sleep", "600")
    async with AsyncCoordinator(server) as coordinator:
        assert await first_lost(coordinator, job) is None
        await coordinator.request(job)
        assert [item async for item in coordinator.follow(job)][-1][0].verdict == "clean"
    assert run.end().code == 143


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="asyncio.wait_for loses no cancellation from Python 3.12 on")
async def test_control_without_the_guard_a_cancellation_gets_lost(
    lab: Lab, job: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: with the guard off, a cancellation at a bad instant is swallowed, and the follower goes on."""
    run = lab.run(job, "sleep", "600")
    monkeypatch.setattr(ledger_module, "awaited", mapped)
    async with AsyncCoordinator(server) as coordinator:
        assert await first_lost(coordinator, job) is not None
        await coordinator.request(job)
    assert run.end().code == 143


async def test_a_timeout_around_it_is_a_timeout(lab: Lab, job: str, server: str) -> None:
    """`asyncio.timeout` ends a follow as it ends anything else, and is not taken for a server that does not answer."""
    run = lab.run(job, "sleep", "600")

    async def follow_for_a_while(coordinator: AsyncCoordinator) -> None:
        async with asyncio.timeout(0.7), aclosing(coordinator.follow(job)) as rounds:
            async for snapshot, _ in rounds:
                assert snapshot.state == "running"

    async with AsyncCoordinator(server) as coordinator:
        with pytest.raises(TimeoutError):
            await follow_for_a_while(coordinator)
        await coordinator.request(job)
    assert run.end().code == 143


async def test_calls_side_by_side(lab: Lab, job: str, server: str) -> None:
    """One coordinator follows several jobs and makes requests meanwhile, and each follower gets its own job."""
    jobs = [f"{job}-{number}" for number in range(3)]
    runs = [lab.run(name, "sleep", "600") for name in jobs]

    async def last(coordinator: AsyncCoordinator, name: str) -> tuple[str, str | None]:
        return [(snapshot.job_id, snapshot.verdict) async for snapshot, _ in coordinator.follow(name)][-1]

    async with AsyncCoordinator(server) as coordinator, asyncio.TaskGroup() as tasks:
        following = [tasks.create_task(last(coordinator, name)) for name in jobs]
        for name in jobs:
            await coordinator.request(name)
        assert await asyncio.gather(*following) == [(name, "clean") for name in jobs]
    assert [run.end().code for run in runs] == [143] * len(jobs)


async def test_it_must_be_open(server: str) -> None:
    """Outside of `async with`, before it and after it, there is no connection, and the error says what to do."""
    coordinator = AsyncCoordinator(server)
    with pytest.raises(UsageError, match="async with"):
        await coordinator.jobs()
    async with coordinator:
        await coordinator.jobs(0, 1)
    with pytest.raises(UsageError, match="async with"):
        coordinator.follow("J")


def test_what_blocks_never_waits_for_a_loop() -> None:
    """The blocking kind runs the same coroutines: one that would wait is a defect that is said at once."""

    async def waits() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="event loop"):
        finished(waits())


def test_leaving_a_loop_closes_what_it_came_from() -> None:
    """Who breaks off a blocking loop ends the asynchronous generator behind it."""
    ended = []

    async def count() -> AsyncGenerator[int, None]:
        try:
            for number in range(1000):
                yield number
        finally:
            ended.append(True)

    numbers = each(count())
    assert next(numbers) == 0
    numbers.close()
    assert ended
