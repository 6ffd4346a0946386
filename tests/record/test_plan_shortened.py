"""`Plan.shortened`, for any two plans at any time: a request can only get more urgent."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.plan import ASKING, KILL_WAIT_MIN_S, STEPS_MAX, WAIT_MAX_S, Plan, Step

ULPS_S = 1e-6  # sums of waits of up to a week, in doubles

waits_s = st.floats(0, 3600) | st.sampled_from([0.0, 0.1, 0.2, 0.3, 1.0, 10.0, WAIT_MAX_S])
kill_waits_s = st.floats(KILL_WAIT_MIN_S, 3600) | st.sampled_from([KILL_WAIT_MIN_S, 5.0, WAIT_MAX_S])
plans = st.builds(
    lambda asking, kill_wait_s: Plan((*asking, Step("SIGKILL", kill_wait_s))),
    st.lists(st.builds(Step, st.sampled_from(ASKING), waits_s), max_size=STEPS_MAX - 1),
    kill_waits_s,
)
elapsed_s = st.floats(0, 2 * WAIT_MAX_S) | st.just(0.0)


@given(plans, plans, elapsed_s)
def test_never_longer_than_either(plan: Plan, by: Plan, elapsed_s: float) -> None:
    """The kill comes no later than each of the two plans says, and the wait after it is no longer than in either."""
    shorter = plan.shortened(by, elapsed_s)
    assert shorter.kill_at_s <= plan.kill_at_s + ULPS_S
    assert shorter.kill_at_s <= elapsed_s + by.kill_at_s + ULPS_S
    assert shorter.kill_wait_s == min(plan.kill_wait_s, by.kill_wait_s)
    assert shorter.total_s <= plan.total_s + ULPS_S


@given(plans, plans, elapsed_s)
def test_no_shorter_than_somebody_asked_for(plan: Plan, by: Plan, elapsed_s: float) -> None:
    """Nobody loses time that both allow: the kill comes when the more urgent of the two says."""
    shorter = plan.shortened(by, elapsed_s)
    assert shorter.kill_at_s >= min(plan.kill_at_s, elapsed_s + by.kill_at_s) - ULPS_S


@given(plans, plans, elapsed_s)
def test_asks_as_the_plan_did(plan: Plan, by: Plan, elapsed_s: float) -> None:
    """A shortened plan sends no other signals, sends them no later, and waits no longer after any of them."""
    shorter = plan.shortened(by, elapsed_s)
    for step, was in zip(shorter.steps[:-1], plan.steps[:-1], strict=False):
        assert step.signal == was.signal
        assert step.wait_s <= was.wait_s
    assert len(shorter.steps) <= len(plan.steps)


@given(plans, plans, elapsed_s)
def test_shortening_again_changes_nothing(plan: Plan, by: Plan, elapsed_s: float) -> None:
    """The same wish at the same time, made twice, is one wish: no revision is made for nothing."""
    once = plan.shortened(by, elapsed_s)
    assert once.shortened(by, elapsed_s) == once


@given(plans, plans, elapsed_s, st.floats(0, WAIT_MAX_S))
def test_a_later_wish_undoes_nothing(plan: Plan, by: Plan, elapsed_s: float, later_s: float) -> None:
    """The same wish, made later, is less urgent than it was: it changes nothing."""
    once = plan.shortened(by, elapsed_s)
    again = once.shortened(by, elapsed_s + later_s)
    assert again.total_s == pytest.approx(once.total_s, abs=ULPS_S)


@given(plans, elapsed_s)
def test_shortened_by_itself_is_itself(plan: Plan, elapsed_s: float) -> None:
    """Asking again with the plan that holds changes nothing."""
    assert plan.shortened(plan, elapsed_s) == plan


@given(plans, st.lists(st.tuples(plans, st.floats(0, 100)), min_size=2, max_size=5))
def test_any_order_converges(plan: Plan, wishes: list[tuple[Plan, float]]) -> None:
    """Wishes that are made at their times but get through in another order lead to the same end."""
    ends = []
    for order in (wishes, wishes[::-1]):
        shorter = plan
        for by, at_s in order:
            shorter = shorter.shortened(by, at_s)
        ends.append(shorter)
    one, other = ends
    assert one.kill_at_s == pytest.approx(other.kill_at_s, abs=ULPS_S)
    assert one.kill_wait_s == other.kill_wait_s


@given(plans, plans, plans)
def test_each_wish_only_shortens(plan: Plan, first: Plan, second: Plan) -> None:
    """Along any row of wishes the end comes nearer or stays, never goes away."""
    row = [plan, plan.shortened(first, 1.0), plan.shortened(first, 1.0).shortened(second, 2.0)]
    assert all(after.total_s <= before.total_s + ULPS_S for before, after in pairwise(row))
