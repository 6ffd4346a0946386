"""`request`: set if absent, and nothing for a job that nobody knows. Promises: nothing missed, idempotent, fenced."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from coord.decode import decode_control
from coord.errors import NO_SUCH_JOB, NoSuchJobError
from coord.keys import JOBS_INDEX
from coord.ledger import AsyncLedger
from coord.messages import Outcome, ShutdownRequest
from coord.plan import Plan
from tests.record.desk import BY, Desk, asked

if TYPE_CHECKING:
    from tests.record.conftest import Unguard

UNKNOWN = "if redis.call('EXISTS', JOB) == 0 and fence_unknown ~= '1' then\n  return {'unknown'}\nend\n"
HEAR_S = 20.0


async def test_request_is_published_as_it_is_recorded(desk: Desk, server: str) -> None:
    """Whoever is subscribed gets, in the same instant, a message that says the same as the record."""
    heard = await what_is_heard(desk, server)
    assert heard == replace(asked(desk.look()), elapsed_s=0.0)


async def test_control_without_the_broadcast_nothing_is_heard(desk: Desk, server: str, unguard: Unguard) -> None:
    """Negative control: with the broadcast taken out, the first thing heard is what was sent after it."""
    unguard("  broadcast()\n", script="*")
    assert await what_is_heard(desk, server) is None


async def what_is_heard(desk: Desk, server: str) -> ShutdownRequest | None:
    """Scenario: an agent listens, a request is made, and then somebody says `after` on the same channel."""
    ear = AsyncLedger(server)
    messages = ear.listen()
    try:
        async with asyncio.timeout(HEAR_S):
            assert await anext(messages) is None
            desk.join("a")
            desk.request(Plan.of(3, 2), "enough")
            desk.raw.publish("coord:control", "after")
            data = await anext(messages)
            assert data is not None
            return None if data == b"after" else decode_control(data)
    finally:
        await messages.aclose()
        await ear.close()


def test_first_request_stays_the_request(desk: Desk) -> None:
    """A second request changes nothing: it gets the first one's word, with its author, reason, plan and time."""
    desk.join("a")
    first = desk.request(Plan.of(3, 2), "first")
    second = desk.request(Plan.of(1, 1), "second")
    assert (first.word, second.word) == ("created", "exists")
    assert asked(second).reason == "first"
    assert (asked(second).id, asked(second).plan, asked(second).by) == (asked(first).id, Plan.of(3, 2), BY)
    assert asked(second).requested_us == asked(first).requested_us
    assert asked(second).elapsed_s > asked(first).elapsed_s == 0.0
    assert desk.kinds().count("shutdown.requested") == 1


def test_unknown_job_writes_nothing(desk: Desk) -> None:
    """A shutdown of a job that nobody ever joined leaves not one key behind: a typing error fences nothing."""
    assert desk.request().word == "unknown"
    assert desk.all_keys() == set()
    assert desk.join("a").word == "joined"


def test_control_without_the_check_an_unknown_job_is_written(desk: Desk, unguard: Unguard) -> None:
    """Negative control: with the check taken out, the typing error makes keys, and the test above would see them."""
    unguard(UNKNOWN, script="request")
    assert desk.request().word == "created"
    assert desk.all_keys() != set()


def test_coordinator_refuses_an_unknown_job(desk: Desk) -> None:
    """The error for an unknown job has its own exit code, and the index of jobs does not learn the name."""
    with desk.coordinator() as coordinator:
        for call in (coordinator.request, coordinator.status):
            with pytest.raises(NoSuchJobError, match="nobody ever joined") as caught:
                call(desk.job_id)
            assert caught.value.exit_code == NO_SUCH_JOB
    assert desk.all_keys() == set()
    assert desk.raw.zscore(JOBS_INDEX, desk.job_id) is None


def test_fence_of_an_unknown_job_is_clean_at_once(desk: Desk) -> None:
    """A job that is forbidden before anybody joined it has its verdict at once, and lets nobody in."""
    answer = desk.request(fence_unknown=True)
    assert answer.word == "created"
    assert asked(answer).plan == Plan.of()
    assert desk.verdict == "clean"
    assert desk.join("a").word == "fenced"
    assert desk.look().agents == ()


def test_fenced_job_is_listed(desk: Desk) -> None:
    """A job that was forbidden before anybody joined it can be found again in the list of jobs."""
    with desk.coordinator() as coordinator:
        coordinator.request(desk.job_id, fence_unknown=True)
    assert desk.job_id in desk.jobs()


def test_fence_of_a_known_job_is_a_request(desk: Desk) -> None:
    """`--fence` on a job that runs stops it as any request does: its agents are waited for."""
    desk.join("a", Plan.of(7, 3))
    assert asked(desk.request(fence_unknown=True)).plan == Plan.of(7, 3)
    assert desk.verdict is None


def test_job_that_all_have_left_is_clean_at_once(desk: Desk) -> None:
    """When everybody left before the request, there is nobody to wait for."""
    desk.join("a")
    desk.report("a", Outcome.EXITED)
    assert desk.request().word == "created"
    assert desk.verdict == "clean"


@pytest.mark.parametrize("text", ["", "ünï — ✓", '"; return 1 --', "a\\b\"c'd", "{}[]", "\t\x00\x7f", "🦀" * 500])
def test_texts_survive_the_way_through_redis(desk: Desk, text: str) -> None:
    """Whatever a person writes as the reason comes back as it was written: nothing in it is taken for syntax."""
    desk.join("a")
    assert asked(desk.request(reason=text)).reason == text
    assert asked(desk.look()).reason == text
    assert desk.events()[-1].detail["reason"] == text


@pytest.mark.parametrize("job_id", ["a b", "ünï✓", "a:b", "[x]*?", "%s%0.f", '"q"', "-", "x" * 128])
def test_any_job_id_that_is_allowed_works(desk: Desk, job_id: str) -> None:
    """A job's name may have any printable character but a brace, and is never a pattern or a format."""
    odd = Desk(desk.ledger, job_id, desk.raw)
    odd.join("a")
    odd.request()
    odd.report("a", Outcome.EXITED)
    assert odd.look().job_id == asked(odd.look()).job_id == job_id
    assert odd.verdict == "clean"
