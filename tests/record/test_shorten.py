"""A request can only get more urgent, whoever wins. Promise: idempotent (any number, from anywhere, in any order)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

from coord.messages import Outcome
from coord.plan import Plan
from tests.record.desk import BY, Desk, asked

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from coord.control import Requested
    from coord.coordinator import Coordinator
    from coord.record import Answer
    from tests.record.conftest import Unguard

CAS = "if redis.call('HGET', JOB, 'rev') ~= rev then\n  return request('exists')\nend\n"
CLIENTS = 8


def ask(desk: Desk, *plans: Plan | None) -> list[Requested]:
    """Scenario: one request after the other."""
    with desk.coordinator() as coordinator:
        return [hurry(coordinator, desk.job_id, plan) for plan in plans]


def hurry(coordinator: Coordinator, job_id: str, plan: Plan | None) -> Requested:
    if plan is None:
        return coordinator.request(job_id, reason="hurry")
    now = len(plan.steps) == 1
    return coordinator.request(job_id, reason="hurry", grace_s=plan.kill_at_s, kill_wait_s=plan.kill_wait_s, now=now)


def test_later_request_with_more_time_changes_nothing(desk: Desk) -> None:
    """A second request that would give more time is told what holds, and holds nothing up."""
    desk.join("a")
    first, second = ask(desk, Plan.of(10, 5), Plan.of(60, 50))
    assert (first.word, second.word) == ("created", "exists")
    assert desk.plan == Plan.of(10, 5)
    assert asked(desk.look()).rev == 1


def test_control_without_the_minimum_a_request_gets_longer(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: when `shortened` does not take the minimum, the second request gives more time."""
    assert Plan.of(10, 5).shortened(Plan.of(60, 50), 0.0) == Plan.of(10, 5)
    monkeypatch.setattr(Plan, "shortened", lambda _self, by, _elapsed_s: by)
    assert Plan.of(10, 5).shortened(Plan.of(60, 50), 0.0) == Plan.of(60, 50)
    desk.join("a")
    ask(desk, Plan.of(10, 5), Plan.of(60, 50))
    assert desk.plan == Plan.of(60, 50)


def test_later_request_with_less_time_shortens(desk: Desk) -> None:
    """A second request that is in more of a hurry shortens the first; who asked first, when and why stays."""
    desk.join("a")
    first, second = ask(desk, Plan.of(100, 5), Plan.of(20, 3))
    assert second.word == "shortened"
    assert 20 <= desk.plan.kill_at_s < 100
    assert desk.plan.kill_wait_s == 3
    assert (asked(second).id, asked(second).rev) == (asked(first).id, 2)
    assert asked(second).requested_us == asked(first).requested_us
    detail = desk.events()[-1].detail
    assert (desk.kinds()[-1], detail["by"], detail["reason"]) == ("shutdown.shortened", BY, "hurry")


def test_now_after_a_polite_request_kills_at_once(desk: Desk) -> None:
    """`--now` after a first, politer call leaves no time to wait for: SIGKILL is due by the time it is recorded."""
    desk.join("a")
    _, second = ask(desk, Plan.of(600, 5), Plan.now(5))
    assert second.word == "shortened"
    assert asked(second).plan.kill_at_s <= asked(second).elapsed_s


def test_request_without_a_plan_changes_nothing(desk: Desk) -> None:
    """Asking again without a plan is only asking: it neither shortens nor lengthens what somebody chose."""
    desk.join("a", Plan.of(1, 1))
    _, second = ask(desk, Plan.of(60, 50), None)
    assert second.word == "exists"
    assert desk.plan == Plan.of(60, 50)


def test_nothing_is_shortened_after_the_verdict(desk: Desk) -> None:
    """Once the job has its verdict, a hurried request changes the record no more."""
    desk.join("a")
    ask(desk, Plan.of(10, 5))
    desk.report("a", Outcome.TERMINATED)
    assert ask(desk, Plan.now(1))[0].word == "exists"
    assert desk.plan == Plan.of(10, 5)
    assert desk.kinds()[-1] == "job.verdict"


def stale_writer(desk: Desk) -> Answer:
    """Scenario: two read the same request; one makes it kill after 1 s, then the other one writes its 5 s."""
    desk.join("a")
    read = asked(desk.request(Plan.of(10, 5)))
    desk.shorten(read, Plan.of(1, 1))
    return desk.shorten(read, Plan.of(5, 5))


def test_who_was_slower_starts_again_from_the_newer_plan(desk: Desk) -> None:
    """A plan that was computed from an outdated one is not written; its author gets the newer one to start from."""
    answer = stale_writer(desk)
    assert (answer.word, asked(answer).plan, asked(answer).rev) == ("exists", Plan.of(1, 1), 2)
    assert desk.plan == Plan.of(1, 1)
    assert desk.kinds().count("shutdown.shortened") == 1


def test_control_without_compare_and_set_a_plan_gets_longer(desk: Desk, unguard: Unguard) -> None:
    """Negative control: without the comparison of revisions the slower one undoes the hurry of the faster one."""
    unguard(CAS, script="shorten")
    stale_writer(desk)
    assert desk.plan == Plan.of(5, 5)


def at_once(desk: Desk, plans: Sequence[Plan]) -> list[Requested]:
    """Scenario: as many clients as plans, each on its own connection, all at the same time."""
    ready = Barrier(len(plans))

    def client(plan: Plan) -> Requested:
        with desk.coordinator() as coordinator:
            coordinator.status(desk.job_id)  # connected, and the script's answer is known to work
            ready.wait()
            return hurry(coordinator, desk.job_id, plan)

    with ThreadPoolExecutor(len(plans)) as threads:
        return list(threads.map(client, plans))


def test_loser_of_a_race_tries_again(desk: Desk) -> None:
    """Two clients shorten at once, one the grace and one the kill-wait: both get what they asked for."""
    desk.join("a")
    ask(desk, Plan.of(600, 60))
    answers = at_once(desk, [Plan.of(50, 60), Plan.of(600, 6)])
    assert {answer.word for answer in answers} == {"shortened"}
    assert 50 <= desk.plan.kill_at_s < 110
    assert desk.plan.kill_wait_s == 6
    assert asked(desk.look()).rev == 3


def test_any_number_of_clients_converge(desk: Desk) -> None:
    """However many ask at once, and whoever comes first: one request, and the plan of the one most in a hurry."""
    desk.join("a")
    plans = [Plan.of(100 * (1 + number), CLIENTS - number) for number in range(CLIENTS)]
    answers = at_once(desk, plans)
    assert [answer.word for answer in answers].count("created") == 1
    assert len({asked(answer).id for answer in answers}) == 1
    assert 100 <= desk.plan.kill_at_s < 160
    assert desk.plan.kill_wait_s == 1
    assert desk.kinds().count("shutdown.requested") == 1
    assert desk.kinds().count("shutdown.shortened") == asked(desk.look()).rev - 1
