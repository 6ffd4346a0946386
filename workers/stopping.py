"""Decides how one agent's processes are stopped: `step(state, event, now) -> (state, actions)`. Pure: no clock, no I/O.

The rules:
- `_TABLE` owns all transitions; every pair of phase and event is in it.
- Actions are to be done in the order given. Times are monotonic seconds.
- A phase ends at one deadline for all processes; with nothing left alive it ends at once.
- Nobody is called gone because a list ran empty: only a complete look at the tree ends the work.
- A plan can only get shorter.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from coord.messages import Outcome
from coord.plan import KILL, Plan
from workers.events import Action, Due, Event, Exit, Found, Key, Kill, Left, Look, Requested, Sealed, Seen, Send, Wake
from workers.state import Phase, Process, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# While killing, look again this often: something may be born as fast as it is killed.
SWEEP_S = 0.05


Result: TypeAlias = tuple[State, tuple[Action, ...]]


def step(state: State, event: Event, now_s: float) -> Result:
    """Give the next state, and what is to be done now, in this order."""
    return _TABLE[state.phase, type(event)](state, event, now_s)


# -- transitions -------------------------------------------------------------------------------------------------------


def _watch(state: State, event: Seen, _now_s: float) -> Result:
    """RUNNING, Seen: remember them."""
    return _known(state, event.found), ()


def _leave(state: State, event: Left, now_s: float) -> Result:
    """RUNNING, Left: note how they ended. After the last child, what is left of its tree is stopped too.

    Others than children come and go while a job works; they are forgotten, or a long job would remember millions.
    """
    state = _gone(state, event.exits, now_s)
    kept = {key: each for key, each in state.processes.items() if each.found.child or each.outcome is Outcome.RUNNING}
    return _end_after_the_last(replace(state, processes=kept), now_s)


def _seal(state: State, _event: Sealed, now_s: float) -> Result:
    """RUNNING, Sealed: the last child may have gone already."""
    return _end_after_the_last(replace(state, sealed=True), now_s)


def _end_after_the_last(state: State, now_s: float) -> Result:
    return (state, ()) if state.children or not state.sealed else _begin(state, state.plan, now_s)


def _request(state: State, event: Requested, now_s: float) -> Result:
    """RUNNING, Requested: the plan begins now; a late agent still gives its processes their grace.

    Unless somebody made it more urgent meanwhile: that counts from the request.
    """
    if event.hurried:
        return _begin(state, event.plan.shortened(event.plan.since(event.elapsed_s), 0.0), now_s)
    return _begin(state, event.plan, now_s)


def _begin(state: State, plan: Plan, now_s: float) -> Result:
    return _enter(replace(state, plan=plan, began_s=now_s), 0, now_s)


def _ask(state: State, event: Seen, now_s: float) -> Result:
    """STOPPING, Seen: ask all who were there before the stop, and later who has nobody of the tree above it.

    Others that come now are the work of those who were asked: commands that clean up, and are waited for.
    """
    if event.complete and not event.found and not state.alive:
        return _over(state, now_s, proved=True)
    state = _known(state, event.found)
    alone = {found.key for found in event.found if found.orphan or found.child}
    first = state.ask_all and not state.asked
    due = tuple(key for key in state.unasked if first or key in alone or state.processes[key].found.child)
    return _send(replace(state, asked=True), due)


def _kill_newcomers(state: State, event: Seen, now_s: float) -> Result:
    """KILLING, Seen: who was not known before is killed, too; nobody there ends the work."""
    if event.complete and not event.found and not state.alive:
        return _over(state, now_s, proved=True)
    return _send(_known(state, event.found), tuple(each.key for each in event.found if each.key not in state.processes))


def _count_down(state: State, event: Left, now_s: float) -> Result:
    """STOPPING or KILLING, Left: look whether nobody is left, or nobody above one who was not asked yet."""
    state = _gone(_known(state, event.strangers), event.exits, now_s)
    return state, () if state.alive and not state.unasked else (Look(),)


def _shorten(state: State, event: Requested, now_s: float) -> Result:
    """STOPPING, Requested again: only a more urgent plan changes anything."""
    elapsed_s = now_s - state.began_s
    plan = state.plan.shortened(event.plan.since(event.elapsed_s), elapsed_s)
    state = replace(state, plan=plan)
    if state.step >= len(plan.steps) - 1:
        return _enter(state, len(plan.steps) - 1, now_s)
    end_s = state.began_s + sum(each.wait_s for each in plan.steps[: state.step + 1])
    state = replace(state, deadline_s=min(state.deadline_s, end_s))
    return state, (Wake(state.deadline_s),)


def _next_step(state: State, event: Due, now_s: float) -> Result:
    """STOPPING, Due: the wait is over, the hold-outs get the next signal; unless one asked for more time."""
    if now_s < state.deadline_s:
        return state, (Wake(state.deadline_s),)
    kill_at_s = min(event.wanted_s, state.kill_max_s)
    if state.step == len(state.plan.steps) - 2 and kill_at_s > now_s:
        plan = state.plan.extended(kill_at_s - state.began_s)
        return replace(state, plan=plan, deadline_s=kill_at_s), (Wake(kill_at_s),)
    return _enter(state, state.step + 1, now_s)


def _sweep(state: State, _event: Due, now_s: float) -> Result:
    """KILLING, Due: look again; at the deadline, who is still there is a survivor."""
    if now_s < state.deadline_s:
        return state, (Wake(min(state.deadline_s, now_s + SWEEP_S)), Look())
    return _over(state, now_s, proved=False)


def _ignore(state: State, _event: Event, _now_s: float) -> Result:
    """Nothing to decide."""
    return state, ()


def _late_exit(state: State, event: Left, now_s: float) -> Result:
    """OVER, Left: a survivor went after all; say so if anybody still asks."""
    return _gone(state, event.exits, now_s), ()


_TABLE: Mapping[tuple[Phase, type[Event]], Callable[..., Result]] = MappingProxyType(
    {
        (Phase.RUNNING, Seen): _watch,
        (Phase.RUNNING, Left): _leave,
        (Phase.RUNNING, Requested): _request,
        (Phase.RUNNING, Sealed): _seal,
        (Phase.RUNNING, Due): _ignore,
        (Phase.STOPPING, Seen): _ask,
        (Phase.STOPPING, Left): _count_down,
        (Phase.STOPPING, Requested): _shorten,
        (Phase.STOPPING, Sealed): _ignore,
        (Phase.STOPPING, Due): _next_step,
        (Phase.KILLING, Seen): _kill_newcomers,
        (Phase.KILLING, Left): _count_down,
        (Phase.KILLING, Requested): _ignore,
        (Phase.KILLING, Sealed): _ignore,
        (Phase.KILLING, Due): _sweep,
        (Phase.OVER, Seen): _ignore,
        (Phase.OVER, Left): _late_exit,
        (Phase.OVER, Requested): _ignore,
        (Phase.OVER, Sealed): _ignore,
        (Phase.OVER, Due): _ignore,
    }
)

# -- parts -------------------------------------------------------------------------------------------------------------


def _enter(state: State, index: int, now_s: float) -> Result:
    """Begin a step of the plan: its signal, then the wait. Who is to be asked first is known after a look."""
    last = index == len(state.plan.steps) - 1
    deadline_s = now_s + state.plan.steps[index].wait_s
    state = replace(state, phase=Phase.KILLING if last else Phase.STOPPING, step=index, deadline_s=deadline_s)
    state, sends = _send(state, tuple(key for key in state.alive if last or key not in state.unasked))
    return state, (*sends, Wake(min(deadline_s, now_s + SWEEP_S) if last else deadline_s), Look())


def _send(state: State, keys: tuple[Key, ...]) -> Result:
    """Give the present signal to these; then SIGCONT, since a stopped process can't act on what asks it."""
    if not keys:
        return state, ()
    signal = state.current.signal
    processes = dict(state.processes)
    for key in keys:
        processes[key] = replace(processes[key], signal=signal)
    state = replace(state, processes=processes)
    return state, (Kill(keys),) if signal == KILL else (Send(signal, keys), Send("SIGCONT", keys))


def _known(state: State, found: Iterable[Found]) -> State:
    new = {}
    for each in found:
        known = state.processes.get(each.key)
        if known is None:
            new[each.key] = Process(each)
        elif each.child and not known.found.child:  # a look was faster than who started it
            new[each.key] = replace(known, found=each)
        elif each.label and not known.found.label:
            new[each.key] = replace(known, found=replace(known.found, label=each.label))
    return replace(state, processes={**state.processes, **new}) if new else state


def _gone(state: State, exits: Iterable[Exit], now_s: float) -> State:
    processes = dict(state.processes)
    for each in exits:
        process = processes.get(each.key)
        if process is None or process.outcome not in {Outcome.RUNNING, Outcome.SURVIVED}:
            continue
        told = each.exit_code is not None or each.signal is not None
        processes[each.key] = replace(
            process,
            outcome=_outcome(state, each, told=told),
            exit_code=each.exit_code,
            signal=each.signal if told else process.signal,
            took_s=None if state.phase is Phase.RUNNING else now_s - state.began_s,
        )
    return replace(state, processes=processes)


def _outcome(state: State, each: Exit, *, told: bool) -> Outcome:
    if state.phase is Phase.KILLING and (each.signal == KILL or not told):
        return Outcome.KILLED
    if state.phase is Phase.RUNNING or state.processes[each.key].signal is None:
        return Outcome.EXITED
    return Outcome.TERMINATED


def _over(state: State, now_s: float, *, proved: bool) -> Result:
    """End: who is still taken for alive survived everything."""
    processes = {
        key: replace(process, outcome=Outcome.SURVIVED, took_s=now_s - state.began_s)
        if process.outcome is Outcome.RUNNING
        else process
        for key, process in state.processes.items()
    }
    return replace(state, phase=Phase.OVER, proved=proved, processes=processes), ()
