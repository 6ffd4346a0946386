"""The deciding core: every transition, without a process, a clock or a sleep."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from coord.messages import Outcome
from coord.plan import Plan, Step
from workers import stopping
from workers.events import Due, Event, Exit, Found, Kill, Left, Look, Requested, Seen, Send, Wake
from workers.state import Phase, State
from workers.stopping import step

A, B, C = (11, 100), (12, 101), (13, 102)
PLAN = Plan.of(10, 5)


def child(key: tuple[int, int]) -> Found:
    return Found(key, "rank", "work", child=True)


def orphan(key: tuple[int, int]) -> Found:
    return Found(key, "rank", "helper", orphan=True)


def helper(key: tuple[int, int]) -> Found:
    """Some process of the tree whose parent, of the same tree, lives."""
    return Found(key, "rank", "helper")


def running(*keys: tuple[int, int]) -> State:
    state, actions = step(State(PLAN), Seen(tuple(map(child, keys)), complete=False), 0.0)
    assert actions == ()
    return state


def stopping_at(now_s: float, *keys: tuple[int, int], plan: Plan = PLAN) -> State:
    """Requested, and looked at: these were there, and have been asked."""
    state, _ = step(running(*keys), Requested(plan), now_s)
    return step(state, Seen(tuple(map(child, keys)), complete=True), now_s)[0]


def test_every_pair_of_phase_and_event_is_listed() -> None:
    """No event can come at a moment for which nobody decided what it means."""
    pairs = {(phase, event) for phase in Phase for event in get_args(Event)}
    assert set(stopping._TABLE) == pairs


def test_a_request_looks_then_asks_all_that_are_there_then_wakes_them() -> None:
    """One shared deadline; SIGTERM to whole trees at once, children and what they had started; then SIGCONT."""
    state, actions = step(running(A, B), Requested(PLAN), 100.0)
    assert (state.phase, actions) == (Phase.STOPPING, (Wake(110.0), Look()))
    state, actions = step(state, Seen((child(A), child(B), helper(C)), complete=True), 100.0)
    assert actions == (Send("SIGTERM", (A, B, C)), Send("SIGCONT", (A, B, C)))
    # a look that could not be finished keeps nobody from being asked
    state, _ = step(running(A, B), Requested(PLAN), 100.0)
    assert step(state, Seen((), complete=False), 100.0)[1][0] == Send("SIGTERM", (A, B))


def test_what_the_asked_start_to_clean_up_is_not_asked() -> None:
    """A command that a SIGTERM handler has just started is its work, and is waited for; until nobody is above it."""
    state, actions = step(stopping_at(0.0, A), Seen((child(A), helper(B)), complete=True), 0.1)
    assert (actions, state.unasked) == ((), (B,))
    state, actions = step(state, Left((Exit(A, 0),)), 1.0)
    assert actions == (Look(),), "B may have lost who started it"
    by_itself, _ = step(state, Left((Exit(B),)), 1.5)
    assert by_itself.processes[B].outcome is Outcome.EXITED, "it left without being asked"
    state, actions = step(state, Seen((orphan(B),), complete=True), 1.0)
    assert actions[0] == Send("SIGTERM", (B,))
    assert step(stopping_at(0.0, A), Due(), 10.0)[1][0] == Kill((A,))


def test_the_command_alone_can_be_asked_first() -> None:
    """Where that is wanted, a command sees to its own processes; what is left after it is asked then."""
    state = replace(running(A), ask_all=False)
    state, _ = step(state, Requested(PLAN), 0.0)
    state, actions = step(state, Seen((child(A), helper(B), helper(C)), complete=True), 0.0)
    assert actions[0] == Send("SIGTERM", (A,))
    state, _ = step(state, Left((Exit(A, 0),)), 1.0)
    state, actions = step(state, Seen((orphan(B), helper(C)), complete=True), 1.0)
    assert actions[0] == Send("SIGTERM", (B,))
    # nobody outlives the plan for that: the deadline is one for all
    state, actions = step(state, Due(), 10.0)
    assert actions[0] == Kill((B, C))


def test_a_child_that_was_found_before_it_was_adopted_is_one() -> None:
    """A look can be faster than who started it; its failure, and its end, count as those of any other."""
    state, _ = step(replace(State(PLAN), sealed=False), Seen((helper(A),), complete=True), 0.0)
    assert state.children == ()
    state, _ = step(state, Seen((child(A),), complete=False), 0.0)
    assert state.children == (A,)
    state, _ = step(state, Seen((helper(A),), complete=True), 0.0)
    assert state.children == (A,)


def test_a_label_that_was_not_known_at_first_is_taken_later() -> None:
    """A look can be faster than who starts the child: what it has started by then gets its label with the next."""
    unnamed = replace(helper(B), label="")
    state, _ = step(State(PLAN), Seen((unnamed,), complete=True), 0.0)
    state, _ = step(state, Seen((replace(helper(B), label="rank3"),), complete=True), 1.0)
    assert state.processes[B].found.label == "rank3"
    state, _ = step(state, Seen((unnamed,), complete=True), 2.0)
    assert state.processes[B].found.label == "rank3"


def test_a_hundred_hold_outs_share_one_deadline() -> None:
    """A hundred hold-outs take one grace, not a hundred."""
    keys = tuple((pid, 1) for pid in range(100, 200))
    state, actions = step(stopping_at(0.0, *keys), Due(), 10.0)
    assert Kill(keys) in actions
    assert state.deadline_s == 15.0


def test_with_nothing_left_it_ends_at_once() -> None:
    """The grace is a bound, not a duration."""
    state, actions = step(stopping_at(0.0, A), Left((Exit(A, 0),)), 0.2)
    assert actions == (Look(),)
    state, actions = step(state, Seen((), complete=True), 0.2)
    assert (state.phase, state.proved, actions) == (Phase.OVER, True, ())
    assert state.processes[A].outcome is Outcome.TERMINATED
    assert state.processes[A].took_s == pytest.approx(0.2)


def test_an_incomplete_look_proves_nothing() -> None:
    """Gone is what was seen gone: a look that could not be finished never ends the work."""
    state, _ = step(stopping_at(0.0, A), Left((Exit(A, 0),)), 0.2)
    state, _ = step(state, Seen((), complete=False), 0.2)
    assert state.phase is Phase.STOPPING
    # the negative control: the same look, complete, does end it
    assert step(state, Seen((), complete=True), 0.2)[0].phase is Phase.OVER


def test_an_empty_look_does_not_bury_the_living() -> None:
    """A process whose handle has not said that it is gone is alive, whatever /proc showed."""
    assert step(stopping_at(0.0, A), Seen((), complete=True), 0.1)[0].phase is Phase.STOPPING


def test_a_newcomer_gets_the_present_signal() -> None:
    """A process born during the shutdown is asked, and later killed, like all the others."""
    state, actions = step(stopping_at(0.0, A), Seen((orphan(A), orphan(B)), complete=True), 1.0)
    assert actions == (Send("SIGTERM", (B,)), Send("SIGCONT", (B,)))
    state, _ = step(state, Due(), 10.0)
    _, actions = step(state, Seen((orphan(A), orphan(C)), complete=True), 10.1)
    assert actions == (Kill((C,)),)


def test_killing_looks_again_until_its_deadline_and_names_survivors() -> None:
    """The wait after SIGKILL is bounded; who outlives it is called a survivor, and nothing is proved."""
    state, _ = step(stopping_at(0.0, A), Due(), 10.0)
    state, actions = step(state, Due(), 10.05)
    assert Look() in actions
    state, actions = step(state, Due(), 15.0)
    assert (state.phase, state.proved, actions) == (Phase.OVER, False, ())
    assert [process.found.key for process in state.survivors] == [A]


def test_dead_at_the_end_without_a_last_look_is_not_proved() -> None:
    """When the plan ends before a look could show the tree empty, nothing claims that it is."""
    state, _ = step(stopping_at(0.0, A), Due(), 10.0)
    state, _ = step(state, Left((Exit(A, None, "SIGKILL"),)), 14.99)
    state, _ = step(state, Due(), 15.0)
    assert (state.phase, state.proved, state.survivors) == (Phase.OVER, False, ())


def test_a_second_request_only_shortens() -> None:
    """A request can only get more urgent: a longer one changes nothing, a shorter one moves the deadline."""
    state = stopping_at(0.0, A)
    longer, _ = step(state, Requested(Plan.of(60, 60)), 1.0)
    assert longer.deadline_s == 10.0
    shorter, actions = step(state, Requested(Plan.of(2, 1)), 1.0)
    assert (shorter.deadline_s, shorter.plan.kill_wait_s) == (3.0, 1.0)
    assert actions == (Wake(3.0),)


def test_kill_now_during_the_grace_kills_at_the_next_tick() -> None:
    """A second Ctrl-C, or --now after a politer call, ends the grace."""
    state, actions = step(stopping_at(0.0, A), Requested(Plan.now(5)), 4.0)
    assert actions == (Wake(4.0),)
    state, actions = step(state, Due(), 4.0)
    assert (state.phase, actions[0]) == (Phase.KILLING, Kill((A,)))


def test_the_plan_of_a_request_that_is_under_way_ends_when_its_requester_said() -> None:
    """A shortened plan counts from the request, so who began on time ends on time."""
    state = stopping_at(0.0, A, plan=Plan.of(60, 5))
    state, _ = step(state, Requested(Plan.of(25, 5), elapsed_s=20.0), 20.0)
    assert state.deadline_s == 25.0


def test_a_late_agent_gives_its_processes_their_grace() -> None:
    """Who hears of a request late asks first all the same: the plan begins when it is heard."""
    state, _ = step(running(A), Requested(PLAN, elapsed_s=60.0), 500.0)
    assert step(state, Seen((child(A),), complete=True), 500.0)[1][0] == Send("SIGTERM", (A,))
    assert state.deadline_s == 510.0


def test_a_late_agent_hurries_when_the_request_was_hurried() -> None:
    """Who hears of a request only after somebody has hurried it does not start its long grace anew."""
    plan = Plan.of(600, 5).shortened(Plan.now(), 300.0)
    state, _ = step(running(A), Requested(plan, elapsed_s=301.0, hurried=True), 1000.0)
    assert state.deadline_s == 1000.0


def test_now_kills_without_asking() -> None:
    """The plan that does not ask sends SIGKILL first."""
    state, actions = step(running(A), Requested(Plan.now(5)), 0.0)
    assert (state.phase, actions[0]) == (Phase.KILLING, Kill((A,)))


def test_a_plan_of_several_steps_is_done_in_order() -> None:
    """The escalation is data: signal, then wait, then the next."""
    plan = Plan((Step("SIGINT", 1), Step("SIGTERM", 2), Step("SIGKILL", 3)))
    state, _ = step(running(A), Requested(plan), 0.0)
    state, actions = step(state, Seen((child(A),), complete=True), 0.0)
    assert actions[0] == Send("SIGINT", (A,))
    state, actions = step(state, Due(), 1.0)
    assert actions[0] == Send("SIGTERM", (A,))
    state, actions = step(state, Due(), 3.0)
    assert actions[0] == Kill((A,))
    assert state.deadline_s == 6.0


def test_an_early_timer_does_not_end_a_wait() -> None:
    """A timer that comes too early is set again."""
    state, actions = step(stopping_at(0.0, A), Due(), 9.0)
    assert (state.phase, actions) == (Phase.STOPPING, (Wake(10.0),))


def test_outcomes_tell_how_each_one_ended() -> None:
    """Left by itself, on SIGTERM, by SIGKILL: three different words, and what the kernel said wins."""
    state, _ = step(running(A, B, C), Left((Exit(A, 7),)), 1.0)
    assert (state.processes[A].outcome, state.processes[A].exit_code) == (Outcome.EXITED, 7)
    state, _ = step(state, Requested(PLAN), 2.0)
    state, _ = step(state, Seen((child(B), child(C)), complete=True), 2.0)
    state, _ = step(state, Due(), 12.0)
    # B had just left by itself when SIGKILL came, C was killed
    state, _ = step(state, Left((Exit(B, 0), Exit(C, None, "SIGKILL"))), 12.1)
    assert state.processes[B].outcome is Outcome.TERMINATED
    assert state.processes[C].outcome is Outcome.KILLED


def test_what_a_command_leaves_behind_is_stopped_after_it() -> None:
    """After the last child, the rest of its tree is looked for and stopped by the agent's own plan."""
    state, actions = step(running(A), Left((Exit(A, 0),)), 5.0)
    assert actions == (Wake(15.0), Look())
    state, actions = step(state, Seen((orphan(B),), complete=True), 5.0)
    assert actions[0] == Send("SIGTERM", (B,))
    assert state.processes[A].outcome is Outcome.EXITED


def test_stop_before_start_is_over_at_once_and_a_late_child_is_stopped() -> None:
    """Stop before start is legal, and a child that slips in after the request is stopped, not kept."""
    state, actions = step(State(PLAN), Requested(PLAN), 0.0)
    assert Look() in actions
    slipped, actions = step(state, Seen((child(A),), complete=False), 0.1)
    assert actions[0] == Send("SIGTERM", (A,))
    assert slipped.alive == (A,)
    assert step(state, Seen((), complete=True), 0.1)[0].phase is Phase.OVER


@pytest.mark.parametrize("event", [Seen((), complete=True), Requested(PLAN), Due(), Left(())])
def test_after_the_end_nothing_happens_any_more(event: Event) -> None:
    """Stopping twice is fine: the end is the end."""
    state, _ = step(stopping_at(0.0, A), Left((Exit(A, 0),)), 0.1)
    state, _ = step(state, Seen((), complete=True), 0.1)
    assert step(state, event, 99.0) == (state, ())


def test_a_stranger_that_was_killed_counts_as_killed() -> None:
    """A cgroup is killed as a whole: who died of that makes the verdict `forced`, though nobody had seen it alive."""
    state, _ = step(stopping_at(0.0, A), Due(), 10.0)
    state, _ = step(state, Left((Exit(A, 0), Exit(B, None, "SIGKILL")), (orphan(B),)), 10.1)
    assert (state.processes[A].outcome, state.processes[B].outcome) == (Outcome.TERMINATED, Outcome.KILLED)


def test_a_child_that_a_look_found_first_is_a_child_all_the_same() -> None:
    """Who starts a child may be slower than a look; its failure is a child's failure then, too."""
    state, _ = step(State(PLAN), Seen((helper(A),), complete=True), 0.0)
    state, _ = step(state, Seen((child(A),), complete=False), 0.1)
    assert state.children == (A,)
    state, actions = step(state, Left((Exit(A, 7),)), 1.0)
    assert (state.processes[A].exit_code, actions) == (7, (Wake(11.0), Look()))
