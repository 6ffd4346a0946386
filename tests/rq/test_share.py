"""A host's part in a job that it runs RQ jobs of: what it tells the record stays told."""

from __future__ import annotations

import asyncio
import contextlib
import io
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from coord.coordinator import new_request
from coord.ledger import AsyncLedger, Ledger
from coord.logs import logger
from coord.messages import AgentInfo, Cause
from coord.plan import Plan
from coord.record import Record
from coord.refusals import Refusals
from workers.rq_share import Shares
from workers.rq_slot import Board, Execution

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from coord.messages import Event, ShutdownRequest
    from coord.record import Answer, Call
    from coord.snapshot import Snapshot

WAIT_S = 20.0
INFO = AgentInfo("host-1", "a", "coord worker", 1, "coord worker")


class Slow(AsyncLedger):
    """The record, on a way that can be blocked for one script."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.blocked = ""
        self.came, self.go_on = asyncio.Event(), asyncio.Event()

    async def run(self, call: Call[Any]) -> Any:
        if call.script == self.blocked:
            self.came.set()
            await self.go_on.wait()
        return await super().run(call)


class Place:
    """A worker's."""

    execution: Execution | None = None


class Site:
    """Shares of one host; its stops are none, and are done when they may be."""

    def __init__(self, url: str, job: str, tasks: asyncio.TaskGroup) -> None:
        self.ledger = Slow(url)
        self.record = Record(job)
        self.board = Board()
        self.may_stop = asyncio.Event()
        self.events: list[Event] = []
        log = logger("error", io.StringIO())
        ground: Any = SimpleNamespace(
            info=INFO,
            order=SimpleNamespace(manner=SimpleNamespace(plan=Plan.of(0.5, 0.5))),
            log=log,
            board=self.board,
            agent=SimpleNamespace(later=tasks.create_task, keyring=None, refusals=Refusals(log)),
        )
        stops: Any = SimpleNamespace(stop=self.stop)
        self.shares = Shares(self.ledger, ground, stops, sweep=lambda _: None, by="me@a", retain_s=600)

    async def stop(self, execution: Execution, *_: object) -> None:
        await self.may_stop.wait()
        self.board.end(execution)

    def execution(self, rq_job: str) -> Execution:
        slot: Any = Place()
        made = Execution(rq_job, "default", "f()", self.record.job_id, (self.record.job_id, rq_job), True, slot)  # noqa: FBT003
        self.board.begin(made)
        return made

    async def request(self) -> ShutdownRequest:
        wish = new_request(self.record.job_id, Cause.OPERATOR, "me@a", "")
        answer: Answer = await self.ledger.run(self.record.request(wish, None))
        assert answer.request
        self.shares.hear(answer.request)
        return answer.request

    async def stopped(self) -> None:
        """Wait until the host has said that it has stopped what it had."""
        while not (agents := (await self.ledger.run(self.record.snapshot())).agents) or agents[0].state != "stopped":
            pass

    async def told(self) -> Snapshot:
        """Give the job when the record has all that the host had to say, and RQ's side is settled."""
        self.may_stop.set()
        assert await self.shares.over()
        await self.ledger.run(self.record.claim("test"))
        await self.ledger.run(self.record.swept("test"))
        self.events = await self.ledger.events(self.record, "0", 0.0)
        snapshot: Snapshot = await self.ledger.run(self.record.snapshot())
        return snapshot


@contextlib.asynccontextmanager
async def hosting(url: str, job: str) -> AsyncGenerator[Site]:
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        site = Site(url, job, tasks)
        sending = tasks.create_task(site.shares.send())
        yield site
        sending.cancel()
        await site.ledger.close()


async def test_what_comes_of_an_obeyed_job_changes_no_answer(server: str, job: str) -> None:
    """The host has stopped what it ran, and said so; RQ jobs that are taken off a queue later are refused, no more."""
    async with hosting(server, job) as site:
        assert await site.shares.may(site.execution("one")) is None
        request = await site.request()
        site.may_stop.set()
        await site.stopped()
        for number in range(3):
            late = site.execution(f"late{number}")
            asking = asyncio.ensure_future(site.shares.may(late))
            await asyncio.sleep(0)
            site.shares.hear(request)  # while it asks, as a heartbeat would find it
            assert await asking
        snapshot = await site.told()
    assert ([agent.state for agent in snapshot.agents], snapshot.verdict) == (["stopped"], "clean")
    assert [event.kind for event in site.events].count("agent.stopped") == 1


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_join_that_comes_too_late_undoes_no_answer(server: str, job: str, *, guarded: bool) -> None:
    """The request comes while the host joins, who is refused, and then enrols; unguarded, it takes itself out again."""
    async with hosting(server, job) as site:
        site.ledger.blocked = "join"
        asking = asyncio.ensure_future(site.shares.may(site.execution("one")))
        await site.ledger.came.wait()
        if not guarded:
            site.shares._shares[job].lock = asyncio.Lock()
        await site.request()
        while not guarded and not (await site.ledger.run(site.record.snapshot())).agents:
            pass
        site.ledger.go_on.set()
        assert await asking
        snapshot = await site.told()
    assert len(snapshot.agents) == int(guarded)


@pytest.mark.parametrize("for_good", [True, False])
async def test_a_job_of_which_all_has_ended_is_not_called_running(server: str, job: str, *, for_good: bool) -> None:
    """The record forgets RQ jobs that will not run again; one that waits for a retry keeps the job alive."""
    async with hosting(server, job) as site:
        execution = site.execution("one")
        assert await site.shares.may(execution) is None
        site.board.end(execution)
        site.shares.left(execution, for_good=for_good)
        assert await site.shares.over()
        snapshot = await site.ledger.run(site.record.snapshot())
    assert snapshot.state == ("stopped" if for_good else "running")


async def test_a_share_tells_a_server_again_what_it_lost(server: str, job: str) -> None:
    """The server forgets a job while a host stops what it runs of it: the request is written again, as old as it is."""
    async with hosting(server, job) as site:
        assert await site.shares.may(site.execution("one")) is None
        request = await site.request()
        keeping = asyncio.ensure_future(site.shares.keep())
        with Ledger(server)._redis as raw:
            raw.delete(*site.record._keys)
        while (found := await site.ledger.run(site.record.snapshot())) is None or found.request is None:
            pass
        assert (found.request.id, [agent.info for agent in found.awaited]) == (request.id, [INFO])
        assert found.request.elapsed_s > 0
        keeping.cancel()
        snapshot = await site.told()
    assert [agent.state for agent in snapshot.agents] == ["stopped"]
