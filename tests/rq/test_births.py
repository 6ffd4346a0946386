"""Whatever step of an execution a worker or its horse is at: nobody misses a stop that comes just then."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rq.command import send_stop_execution_command

from tests.harness import until
from tests.rq.slow_workers import AFTER, ASKED, BEFORE

if TYPE_CHECKING:
    from rq.job import Job

    from tests.rq.fleet import Fleet, Host

HERE = str(Path(__file__).parent)
LONG_S = 28  # of a wait that nobody is to wait for
SHORT_S = 3  # of one that somebody will, with the guard off
STEPS = [*BEFORE, *AFTER]
AFTER_THE_FUNCTION = STEPS[STEPS.index("function over") : STEPS.index("asked")]
NO_WORD = "import workers.rq_stops as stops\nstops.Stops.settle = lambda self, execution: None\n"
NOT_FREE = """
import workers.rq_hearing as hearing
def _on_bye(self, slot, message):
    slot.bye = message["why"]
hearing.Hearing._on_bye = _on_bye
"""
DEAF = """
import workers.rq_hearing as hearing
asked = hearing.Hearing._on_asked
hearing.Hearing._on_asked = lambda self, slot, message: slot.execution.forked.is_set() and asked(self, slot, message)
"""


def paused(
    fleet: Fleet, step: str, job: str, *options: str, until_: str = "signals", guard_off: str = ""
) -> tuple[Host, Job]:
    """Have a host whose worker is at the step; `guard_off`: what its agent is to do without."""
    hook, reached = fleet.folder / "hook", fleet.folder / "reached"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(guard_off)
    made = fleet.enqueue(job)
    host = fleet.start(
        "coord",
        options=("--path", HERE, "--worker-class", "slow_workers.Slow", *options),
        PYTHONPATH=str(hook),
        TEST_STEP=step,
        TEST_REACHED=str(reached),
        TEST_UNTIL=until_,
    )
    until(lambda: reached.exists() or not host.running, f"the step; {host.said}")
    return host, made


def stopped_in_s(fleet: Fleet, host: Host) -> float:
    """Stop the host, and see that nothing is lost; gives the time that it took."""
    began_s = time.monotonic()
    assert host.stop() == [0], host.said
    took_s = time.monotonic() - began_s
    assert fleet.faults() == {}
    assert set(fleet.state().status.values()) <= {"queued", "finished"}
    assert fleet.state().workers == ()
    return took_s


@pytest.mark.parametrize(
    ("step", "job"),
    [(step, "tiny") for step in STEPS] + [(step, "polite") for step in STEPS if step not in AFTER_THE_FUNCTION],
)
def test_nobody_waits_for_the_end_of_the_grace(fleet: Fleet, step: str, job: str) -> None:
    """The host's signals are sent while a worker or horse is at that step: all leave at once, and no job is lost."""
    host, _ = paused(fleet, step, job, "--grace", f"{LONG_S}s")
    assert stopped_in_s(fleet, host) < LONG_S / 2, host.said


def test_the_control_waits_for_a_word_that_was_said(fleet: Fleet) -> None:
    """A worker that hears of the stop between its horse's end and its own next step is told that it may go on."""
    host, _ = paused(fleet, "end told", "tiny", "--grace", f"{SHORT_S}s", guard_off=NO_WORD)
    assert stopped_in_s(fleet, host) >= SHORT_S


@pytest.mark.parametrize(("guard_off", "warm_s"), [("", LONG_S), (NOT_FREE, SHORT_S)], ids=["guarded", "control"])
def test_nothing_is_waited_for_that_never_began(fleet: Fleet, guard_off: str, warm_s: int) -> None:
    """The worker had asked for its next job, and gives it back: the host need not be warm for that."""
    host, made = paused(fleet, "asked", "polite", "--warm", f"{warm_s}s", until_="drain", guard_off=guard_off)
    took_s = stopped_in_s(fleet, host)
    assert took_s >= warm_s if guard_off else took_s < warm_s / 2
    assert fleet.state().status == {made.id: "queued"}


@pytest.mark.parametrize("guard_off", ["", DEAF], ids=["guarded", "control"])
def test_a_command_before_the_fork_counts(fleet: Fleet, guard_off: str) -> None:
    """RQ's stop of an execution that has no process yet: it has one soon, and that is stopped."""
    gate = fleet.folder / "gate"
    host, made = paused(fleet, "prepared", "polite", until_=str(gate), guard_off=guard_off)
    (execution,) = made.get_executions()
    send_stop_execution_command(fleet.rq, made.id, execution.id)
    until((fleet.folder / f"reached{ASKED}").exists, "the command to be passed on")
    gate.touch()
    if guard_off:
        until(lambda: fleet.diary.entries("began"), "the job to begin")
        fleet.settled("it to run on", lambda state: state.counts() == {"started": 1})
    else:
        fleet.settled("it to be stopped", lambda state: state.counts() == {"stopped": 1})
    assert host.stop() == [0]
