"""Somebody speaks whom the server has forgotten: others may be missing as well, and a verdict waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coord.messages import Outcome
from tests.record.test_restore import wait

if TYPE_CHECKING:
    from tests.record.conftest import Unguard
    from tests.record.desk import Desk

FAILED = "if not known then\n  forgot()"


def a_forgotten_agent_fails(desk: Desk) -> str | None:
    """Scenario: the server forgot two hosts, and the first word it gets is the failure of one of them."""
    for host in "ab":
        desk.join(host)
    desk.forget()
    desk.fail("a")
    return desk.verdict


def test_a_failure_of_a_forgotten_agent_waits_for_all_who_live(desk: Desk) -> None:
    """Who fails had joined: if the record does not know it, others are missing, too, and have time to say so."""
    assert a_forgotten_agent_fails(desk) is None
    assert {desk.beat(host).word for host in "ab"} == {"missing"}
    for host in "ab":
        desk.enrol(host)
        desk.report(host, Outcome.TERMINATED)
    assert desk.verdict is None
    wait(desk)
    desk.settle()
    assert desk.verdict == "clean"


def test_control_without_it_a_failure_is_all_there_is(desk: Desk, unguard: Unguard) -> None:
    """Without that look nobody is awaited, and the verdict is made while both hosts run."""
    unguard(FAILED, "if false then\n  forgot()", script="fail")
    assert a_forgotten_agent_fails(desk) == "clean"


def the_first_of_the_forgotten_ends(desk: Desk) -> str | None:
    """Scenario: two hosts are forgotten, the job is fenced anew, and one of them comes back and ends at once."""
    for host in "ab":
        desk.join(host)
    desk.forget()
    desk.request(fence_unknown=True)
    assert desk.beat("a").word == "missing"
    desk.enrol("a")
    desk.report("a", Outcome.TERMINATED)
    return desk.verdict


def test_a_forgotten_agent_that_comes_back_is_not_the_only_one(desk: Desk) -> None:
    """Its beat shows that the server has forgotten somebody: the verdict waits for others."""
    assert the_first_of_the_forgotten_ends(desk) is None


def test_control_without_it_the_first_to_end_makes_the_verdict(desk: Desk, unguard: Unguard) -> None:
    """Without that note the verdict is made while the other host runs."""
    unguard("  forgot()\n  return", "  return", script="beat")
    assert the_first_of_the_forgotten_ends(desk) == "clean"


def a_fence_comes_before_those_who_live(desk: Desk) -> None:
    """Scenario: the server forgot two hosts; the job is fenced as one that nobody knows: the verdict is clean."""
    for host in "ab":
        desk.join(host)
    desk.forget()
    desk.request(fence_unknown=True)
    assert desk.verdict == "clean"


def test_a_failure_after_such_a_fence_takes_the_verdict_back(desk: Desk) -> None:
    """Somebody speaks who joined before: there is no verdict until all who live have had time to."""
    a_fence_comes_before_those_who_live(desk)
    assert desk.fail("a").word == "missing"
    assert desk.verdict is None


def test_a_report_after_such_a_fence_takes_the_verdict_back(desk: Desk) -> None:
    """As with a failure; but who never started anything was never missed."""
    a_fence_comes_before_those_who_live(desk)
    desk.report("a")
    assert desk.verdict == "clean"
    desk.report("a", Outcome.TERMINATED)
    assert desk.verdict is None
