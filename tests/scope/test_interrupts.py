"""A stop from outside reaches the program wherever it is."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.harness import until
from tests.scope.conftest import UNCHANGED
from tests.script import outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness import Lab
    from tests.scope.conftest import Program

PLACES = [
    "join",
    "exit",
    "sleep",
    "queue",
    "mp_queue",
    "event",
    "program",
    "asyncio",
    "busy",
    "cleans_up",
    "deletes",
    "produces",
    "listens",
]
IN_A_THREAD = ["join", "exit"]


def shut_down(lab: Lab, job: str) -> None:
    assert lab.call("shutdown", "--job-id", job, "--reason", "new data").code == 0


def assert_stopped(run: Program, *, changed: frozenset[str] = frozenset()) -> None:
    """The block was left by JobStopped, with who and why; the ranks are gone, and the program is as it was."""
    ended = run.ended
    assert ended["error"] == "JobStopped"
    assert ended["request"]["cause"] == "operator"
    assert "new data" in ended["text"]
    assert len(run.told("left")) == 2
    assert run.until("traces")[0].keys() - UNCHANGED <= changed
    assert run.end().code == 0


@pytest.mark.parametrize("where", PLACES)
def test_a_stop_reaches_the_main_thread(program: Callable[..., Program], lab: Lab, job: str, where: str) -> None:
    """Whatever it waits for, or does."""
    run = program("blocked", where=where, scope={"job_id": job}, ranks=[["sleeper"]] * 2)
    run.until("blocked")
    shut_down(lab, job)
    assert_stopped(run, changed=frozenset({"threads"} if where == "produces" else ()))
    assert len(run.told("cleaned")) == (where == "cleans_up"), "nothing more is raised while it cleans up"


@pytest.mark.parametrize("where", IN_A_THREAD)
def test_a_stop_reaches_another_thread(program: Callable[..., Program], lab: Lab, job: str, where: str) -> None:
    """The block is not the main thread's: the scope's own calls raise it there."""
    run = program("blocked", where=where, thread=True, scope={"job_id": job}, ranks=[["sleeper"]] * 2)
    run.until("blocked")
    shut_down(lab, job)
    assert_stopped(run)


def test_a_handler_of_the_programs_own_is_left_alone(program: Callable[..., Program], lab: Lab, job: str) -> None:
    """SIGTERM does what the program says, and a stop reaches it all the same, by other ways."""
    run = program("blocked", where="sleep", handler=True, scope={"job_id": job}, ranks=[["sleeper"]] * 2)
    run.until("blocked")
    run.signal(signal.SIGTERM)
    run.until("handled")
    assert not run.told("ended")
    shut_down(lab, job)
    assert_stopped(run)
    assert len(run.told("handled")) == 1


def test_a_stop_that_was_swallowed_is_raised_again(program: Callable[..., Program], lab: Lab, job: str) -> None:
    """`except Exception: pass` in a loop does not keep a program in a block whose ranks are gone."""
    run = program("blocked", where="swallows", scope={"job_id": job}, ranks=[["sleeper"]] * 2)
    run.until("blocked")
    shut_down(lab, job)
    assert_stopped(run)
    assert [each["error"] for each in run.told("swallowed")] == ["JobStopped"] * 4


@pytest.mark.parametrize("where", ["queue", "deletes"])
def test_without_nudges_a_program_stays(program: Callable[..., Program], lab: Lab, job: str, where: str) -> None:
    """Negative control: nobody tells the main thread, and it waits on, though nothing of its job is left."""
    run = program("blocked", where=where, off="nudge", scope={"job_id": job}, ranks=[["sleeper"]] * 2)
    run.until("blocked")
    shut_down(lab, job)
    assert lab.status(job)["verdict"] == "clean"
    assert not run.told("ended")
    run.started.popen.kill()
    until(lambda: not lab.left(), "the guardian to have gone")


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
def test_a_stop_while_ranks_are_started(program: Callable[..., Program], lab: Lab, job: str, context: str) -> None:
    """In the midst of starting one nothing is cut off: it is stopped with the others, and the stop is raised then."""
    run = program("starting", context=context, scope={"job_id": job})
    run.until("started", 5)
    shut_down(lab, job)
    assert run.ended["error"] == "JobStopped"
    assert run.until("traces")[0].keys() == UNCHANGED
    assert run.end().code == 0


@pytest.mark.parametrize("guard", ["", "signal.SIG_IGN = signal.default_int_handler"])
def test_a_ctrl_c_that_came_before_it_was_a_rank_is_dropped(guard: str) -> None:
    """A forked rank is of the terminal's group for a moment. Kept, the signal would end it with a traceback."""
    script = f"""
import socket
from workers.rank import Rank
{guard}
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
signal.raise_signal(signal.SIGINT)
try:
    Rank({{}}, socket.socket(), frozenset(), None)._settle_in()
except KeyboardInterrupt:
    say("interrupted")
"""
    assert outcome(script) == (["interrupted"] if guard else [], 0)
