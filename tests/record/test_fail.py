"""`fail`: the first failure and its request, in one script. Promises: fail-fast, truthful about the root cause."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from coord.decode import decode_control
from coord.errors import CoordError
from coord.ledger import AsyncLedger
from coord.messages import Cause
from coord.plan import Plan
from tests.record.desk import Desk, asked, failure

if TYPE_CHECKING:
    from tests.record.conftest import Unguard

GUARD = "  return request(known and 'exists' or 'missing')\n"
HEAR_S = 20.0


def two_failures(desk: Desk) -> None:
    """Scenario: b fails, all are asked to stop, and a fails because of it."""
    desk.join("a")
    desk.join("b")
    desk.fail("b", 7)
    desk.fail("a", 143)


def test_first_failure_is_never_a_consequence(desk: Desk) -> None:
    """The failure on record is the one that started the shutdown, not one that the shutdown caused."""
    two_failures(desk)
    found = desk.look().first_failure
    assert found is not None
    assert replace(found, at_us=0) == failure("b", 7)
    assert desk.kinds().count("child.failed") == 1


def test_control_without_the_guard_a_consequence_is_blamed(desk: Desk, unguard: Unguard) -> None:
    """Negative control: with fail's guard off, the blame moves on to the second failure."""
    unguard(GUARD, script="fail")
    two_failures(desk)
    found = desk.look().first_failure
    assert found is not None
    assert replace(found, at_us=0) == failure("a", 143)


def test_failure_after_an_operators_request_is_a_consequence(desk: Desk) -> None:
    """What fails while somebody stops the job is not called the cause."""
    desk.join("a")
    desk.request(reason="enough")
    answer = desk.fail("a")
    assert answer.word == "exists"
    assert asked(answer).cause is Cause.OPERATOR
    assert desk.look().first_failure is None
    assert "child.failed" not in desk.kinds()


def test_failure_makes_the_request(desk: Desk) -> None:
    """The failure's own script stops the job: by the plan that the job's commands declared, at the failure's time."""
    desk.join("a", Plan.of(7, 3))
    desk.join("b", Plan.of(4, 4))
    answer = desk.fail("b")
    assert answer.word == "created"
    snapshot = desk.look()
    assert snapshot.first_failure is not None
    assert asked(snapshot).cause is Cause.FAILURE
    assert asked(snapshot).plan == asked(answer).plan == Plan.of(7, 4)
    assert asked(snapshot).requested_us == snapshot.first_failure.at_us
    assert desk.kinds()[-2:] == ["child.failed", "shutdown.requested"]
    assert desk.join("c").word == "fenced"
    assert [agent.info.host for agent in snapshot.awaited] == ["a", "b"]


async def test_failure_is_broadcast_in_one_round_trip(desk: Desk, server: str) -> None:
    """Every agent hears of the failure in the one script that records it: no poll and no second call in between."""
    ear = AsyncLedger(server)
    messages = ear.listen()
    try:
        async with asyncio.timeout(HEAR_S):
            assert await anext(messages) is None
            desk.join("a")
            desk.fail("warm the script cache")  # on its own job: this one is fenced from here on
            assert await anext(messages)
            fresh = Desk(desk.ledger, f"{desk.job_id}-2", desk.raw)
            fresh.join("a")
            before = scripts_run(desk)
            answer = fresh.fail("a", 3)
            assert scripts_run(desk) == before + 1
            data = await anext(messages)
    finally:
        await messages.aclose()
        await ear.close()
    assert data is not None
    heard = decode_control(data)
    assert (heard.job_id, heard.id, heard.cause) == (fresh.job_id, asked(answer).id, Cause.FAILURE)
    assert (heard.plan, heard.elapsed_s, heard.rev) == (asked(answer).plan, 0.0, 1)


def scripts_run(desk: Desk) -> int:
    """Count the scripts that the server ran so far."""
    stats = desk.raw.info("commandstats")
    return sum(stats[name]["calls"] for name in ("cmdstat_eval", "cmdstat_evalsha") if name in stats)


def test_failure_stops_a_job_whose_record_is_gone(desk: Desk) -> None:
    """When the server lost its data, a failure on one host still stops the others, by the default plan.

    Who else there was is not known yet: there is no verdict until those who live have said so.
    """
    answer = desk.fail("a")
    assert (answer.word, asked(answer).cause) == ("missing", Cause.FAILURE)
    assert asked(desk.look()).plan == Plan.of()
    assert desk.verdict is None


def test_failure_of_a_job_whose_record_is_gone_leaves_no_half_record(desk: Desk) -> None:
    """Whatever comes of it, what such a failure leaves can be read again, and no key of it stays for ever."""
    with suppress(CoordError):
        desk.fail("a")
    assert -1 not in desk.ttls().values()
    desk.ledger.run(desk.record.snapshot())
