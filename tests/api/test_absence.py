"""A follower whose server is away for a while: it says so once, and goes on when it is back."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from coord import AsyncCoordinator, Coordinator
from coord.messages import Outcome
from tests.harness import until
from tests.record.desk import PLAN, Desk
from tests.record.servers import raw, serving

if TYPE_CHECKING:
    from collections.abc import Callable

END_S = 60.0


def followed(url: str, job: str, seen: list[str]) -> str | None:
    """Follow a job to its end, noting what is told on the way; gives the verdict."""
    with Coordinator(url) as coordinator:
        for snapshot, events in coordinator.follow(job):
            seen += [event.kind for event in events]
            verdict = snapshot.verdict
    return verdict


def followed_async(url: str, job: str, seen: list[str]) -> str | None:
    """Do as `followed`."""

    async def follow() -> str | None:
        async with AsyncCoordinator(url) as coordinator:
            async for snapshot, events in coordinator.follow(job):
                seen.extend(event.kind for event in events)
                verdict = snapshot.verdict
        return verdict

    return asyncio.run(follow())


@pytest.mark.parametrize("follow", [followed, followed_async])
def test_server_that_comes_back(job: str, follow: Callable[[str, str, list[str]], str | None]) -> None:
    """A follower outlives a server's absence: told once, and the verdict comes when the server is back."""
    seen: list[str] = []
    with TemporaryDirectory(prefix="coord-") as name, ThreadPoolExecutor(1) as thread:
        folder = Path(name)
        with serving("valkey", folder, appendonly="yes") as url, raw(url) as client, Coordinator(url) as first:
            Desk(first._ledger, job, client).join("a", PLAN)
            first.request(job)
            following = thread.submit(follow, url, job, seen)
            until(lambda: "shutdown.requested" in seen, "the follower to follow")
        until(lambda: "redis.lost" in seen, "the follower to notice")
        with serving("valkey", folder, appendonly="yes") as url, raw(url) as client, Coordinator(url) as second:
            until(lambda: "redis.back" in seen, "the follower to be back")
            Desk(second._ledger, job, client).report("a", Outcome.TERMINATED)
            assert following.result(END_S) == "clean"
    assert (seen.count("redis.lost"), seen.count("redis.back"), seen[-1]) == (1, 1, "job.verdict")
