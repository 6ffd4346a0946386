"""A beat whose connection is dead: another one is made meanwhile. Promise: nothing missed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import structlog

from coord.coordinator import new_request
from coord.messages import Cause
from coord.plan import Plan
from coord.record import Answer, Record
from coord.refusals import Refusals
from tests.record.desk import info
from workers import membership
from workers.membership import Membership

if TYPE_CHECKING:
    from collections.abc import Coroutine

    import pytest

    from coord.ledger import AsyncLedger
    from coord.messages import ShutdownRequest

HEAR_S = 20.0
LONG_S = 1.0  # longer by far than all that is waited for here


class HalfOpen:
    """The first call's connection is dead, and nobody knows; the next ones get another."""

    def __init__(self, answer: Answer) -> None:
        self.calls = 0
        self._answer = answer

    async def run(self, _call: object) -> Answer:
        self.calls += 1
        if self.calls == 1:
            await asyncio.Event().wait()
        return self._answer


class Owner:
    """Hears."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()
        self.request: ShutdownRequest | None = None

    def hear(self, request: ShutdownRequest) -> None:
        self.request = request
        self.heard.set()


async def heard_behind_a_dead_connection(monkeypatch: pytest.MonkeyPatch, *works: str, wait_s: float) -> bool:
    """Scenario: the job has a request, and the agent's next beat never gets an answer; tells whether it is heard."""
    monkeypatch.setattr(membership, "BEAT_S", 0.01)
    monkeypatch.setattr(membership, "DOUBT_S", 0.01)
    wish = new_request("j", Cause.OPERATOR, "op@desk", "")
    ledger, owner = HalfOpen(Answer("exists", wish)), Owner()
    log = structlog.get_logger()
    member = Membership(
        cast("AsyncLedger", ledger),
        Record("j"),
        info("a"),
        cast("Any", owner),
        plan=Plan.of(),
        log=log,
        proof=None,
        refusals=Refusals(log),
    )
    works_on: list[Coroutine[Any, Any, None]] = [getattr(member, name)() for name in works]
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s), asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works_on]
            await owner.heard.wait()
            for task in tasks:
                task.cancel()
    return owner.request is not None


async def test_request_is_heard_though_a_beat_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A beat that has no answer holds nothing up: another one, on another connection, brings the request."""
    assert await heard_behind_a_dead_connection(monkeypatch, "keep", "doubt", wait_s=HEAR_S)


async def test_control_without_doubt_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: an agent that only waits for its beat's answer hears nothing until that is given up."""
    assert not await heard_behind_a_dead_connection(monkeypatch, "keep", wait_s=LONG_S)
