"""Histories made at random: whatever the processes do, a shutdown ends in time and says the truth."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coord.messages import Outcome
from coord.plan import KILL, Plan
from workers import stopping
from workers.events import Action, Due, Exit, Found, Kill, Left, Look, Requested, Seen, Send, Wake
from workers.state import Phase, State
from workers.stopping import step

TICK_S = 0.01
STEPS_MAX = 20_000


@dataclass
class Being:
    """A process as nature makes it: how long it takes on SIGTERM (None: for ever), and what it brings forth then."""

    pid: int
    leaves_s: float | None
    brings: int = 0
    unkillable: bool = False
    dies_at_s: float | None = None


@dataclass
class World:
    """A host with such beings, on a clock that only this test moves."""

    beings: list[Being]
    now_s: float = 0.0
    wake_s: float | None = None
    next_pid: int = 1000
    sent: list[tuple[float, str, int]] = field(default_factory=list)

    def alive(self) -> list[Being]:
        return [being for being in self.beings if being.dies_at_s is None or being.dies_at_s > self.now_s]

    def send(self, signal: str, pid: int) -> None:
        self.sent.append((self.now_s, signal, pid))
        being = next(being for being in self.beings if being.pid == pid)
        if signal == KILL and not being.unkillable:
            being.dies_at_s = self.now_s
        elif signal == "SIGTERM" and being.leaves_s is not None and being.dies_at_s is None:
            being.dies_at_s = self.now_s + being.leaves_s
            for _ in range(being.brings):
                self.next_pid += 1
                self.beings.append(Being(self.next_pid, leaves_s=0.0))


def found(being: Being) -> Found:
    return Found((being.pid, 1), "rank", "work", child=being.pid < 1000, orphan=being.pid >= 1000)


def play(world: World, plan: Plan) -> State:
    """Run a whole shutdown; the clock stops only when the core says that it is over."""
    events: list[Seen | Left | Requested | Due] = [
        Seen(tuple(map(found, world.alive())), complete=False),
        Requested(plan),
    ]
    state = State(plan)
    for _ in range(STEPS_MAX):
        while events:
            state, actions = step(state, events.pop(0), world.now_s)
            for action in actions:
                events += done(action, world, state)
        if state.phase is Phase.OVER:
            return state
        world.now_s += TICK_S
        gone = left(world, state)
        events += [gone] if gone.exits else []
        if world.wake_s is not None and world.now_s >= world.wake_s:
            events.append(Due())
    raise AssertionError("the shutdown never ended")


def done(action: Action, world: World, state: State) -> tuple[Left | Seen, ...]:
    match action:
        case Send(signal, keys):
            for pid, _ in keys:
                world.send(signal, pid)
        case Kill(keys):
            for pid, _ in keys:
                world.send(KILL, pid)
        case Wake(at_s):
            world.wake_s = at_s
        case Look():
            seen = Seen(tuple(map(found, world.alive())), complete=True)
            gone = left(world, state)
            return (gone, seen) if gone.exits else (seen,)
    return ()


def left(world: World, state: State) -> Left:
    alive = {being.pid for being in world.alive()}
    return Left(tuple(Exit(key) for key in state.alive if key[0] not in alive))


beings = st.lists(
    st.builds(
        Being,
        pid=st.just(0),
        leaves_s=st.none() | st.floats(0, 4),
        brings=st.integers(0, 2),
        unkillable=st.sampled_from([False] * 9 + [True]),
    ),
    min_size=1,
    max_size=8,
)
plans = st.builds(Plan.of, st.floats(0, 3), st.floats(0.2, 2))


def numbered(many: list[Being]) -> World:
    for number, being in enumerate(many):
        being.pid = number + 2
    return World(many)


@settings(max_examples=150, deadline=None)
@given(beings, plans)
def test_every_history_ends_in_time_and_is_told_as_it_was(many: list[Being], plan: Plan) -> None:
    """Bounded and truthful: over within the plan's total, proved exactly when nothing is alive."""
    world = numbered(many)
    state = play(world, plan)
    assert world.now_s <= plan.total_s + 3 * TICK_S
    assert state.proved == (not world.alive())
    assert {process.found.key[0] for process in state.survivors} == {being.pid for being in world.alive()}
    assert all(process.outcome is not Outcome.RUNNING for process in state.processes.values())


@settings(max_examples=100, deadline=None)
@given(beings, plans)
def test_nobody_is_killed_before_the_deadline(many: list[Being], plan: Plan) -> None:
    """Each process has its whole grace: no SIGKILL before the shared deadline."""
    world = numbered(many)
    play(world, plan)
    assert all(at_s >= plan.kill_at_s for at_s, signal, _ in world.sent if signal == KILL)


def test_without_its_deadline_a_hold_out_is_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of `bounded`: with the timer's transition off, the same history never ends."""
    table = {**stopping._TABLE, (Phase.STOPPING, Due): stopping._ignore}
    monkeypatch.setattr(stopping, "_TABLE", table)
    with pytest.raises(AssertionError, match="never ended"):
        play(numbered([Being(0, leaves_s=None)]), Plan.of(0.5, 0.5))
