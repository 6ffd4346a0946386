"""Leaving the block: in whatever way, its ranks are gone, and what left it goes on as it was."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.harness import until
from tests.scope.conftest import UNCHANGED

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness import Lab
    from tests.scope.conftest import Program

LONG_S = 100.0
SLEEPERS = [["sleeper"]] * 2


def test_the_normal_end_waits_for_all(program: Callable[..., Program], lab: Lab, job: str) -> None:
    """Ranks that are at work are waited for, none is asked; what one leaves behind is stopped."""
    run = program("ranks", scope={"job_id": job}, ranks=[["brief", 1.0], ["brief", 0.2], ["daemon"]])
    ended = run.ended
    assert ended["error"] is None
    assert len(run.told("done")) == 2
    assert run.until("traces")[0].keys() == UNCHANGED
    assert run.end().code == 0
    until(lambda: not lab.left(), "everything to be gone")
    status = lab.status(job)
    assert (status["verdict"], status["request"], status["state"]) == (None, None, "stopped")
    outcomes = {
        each["label"]: each["outcome"] for each in status["agents"][0]["processes"] if each["command"][-1] == ")"
    }
    assert outcomes == {"rank0": "exited", "rank1": "exited", "rank2": "exited"}


@pytest.mark.parametrize("local", [True, False], ids=["local", "redis"])
def test_an_exception_stops_the_ranks_and_goes_on_as_it_is(
    program: Callable[..., Program], lab: Lab, job: str, *, local: bool
) -> None:
    """The program's own error is raised, and not one of ours; the record says whose failure it was."""
    scope = {"job_id": job, "local": local, "label": "train"}
    run = program("raising", how="error", scope=scope, ranks=SLEEPERS)
    ended = run.ended
    assert (ended["error"], ended["text"]) == ("KeyError", "'no such layer'")
    assert (ended["notes"], ended["trace"], ended["context"]) == ([], None, None)
    assert len(run.told("left")) == 2
    assert run.until("traces")[0].keys() == UNCHANGED
    assert run.end().code == 0
    if not local:
        status = lab.status(job)
        assert (status["verdict"], status["request"]["cause"]) == ("clean", "failure")
        assert status["request"]["reason"] == "train on host here left its scope: KeyError: 'no such layer'"


def test_sys_exit_drains(program: Callable[..., Program], lab: Lab, job: str) -> None:
    """The program ends with the code that it wanted; that is no failure."""
    run = program("raising", how="exit", through=True, scope={"job_id": job}, ranks=SLEEPERS)
    assert run.end().code == 3
    assert len(run.told("left")) == 2
    status = lab.status(job)
    assert (status["verdict"], status["request"]["cause"]) == ("clean", "drain")


@pytest.mark.parametrize("where", ["join", "exit", "sleep", "queue", "busy"])
def test_sigterm_ends_the_program_in_order(program: Callable[..., Program], job: str, where: str) -> None:
    """Wherever it is, and the ranks have their grace."""
    run = program("blocked", where=where, through=True, scope={"job_id": job}, ranks=SLEEPERS)
    run.until("blocked")
    run.signal(signal.SIGTERM)
    out = run.end()
    assert (out.code, out.err) == (143, "")
    assert (run.ended["error"], run.ended["code"]) == ("SystemExit", 143)
    assert len(run.told("left")) == 2


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("where", ["join", "exit", "sleep"])
def test_ctrl_c_asks_the_ranks(program: Callable[..., Program], job: str, context: str, where: str) -> None:
    """It comes to the program alone: no rank dies of it, and the program ends as of any Ctrl-C, with one traceback."""
    run = program("blocked", where=where, through=True, context=context, scope={"job_id": job}, ranks=SLEEPERS)
    run.until("blocked")
    run.ctrl_c()
    out = run.end()
    assert (out.code, out.err.count("Traceback"), out.err.count("KeyboardInterrupt")) == (-signal.SIGINT, 1, 1)
    assert run.ended["error"] == "KeyboardInterrupt"
    assert len(run.told("left")) == 2


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_ctrl_c_while_ranks_begin(program: Callable[..., Program], job: str, context: str) -> None:
    """A rank that is no rank yet does not die of it either, with a traceback of its own."""
    run = program("ranks", context=context, through=True, scope={"job_id": job}, ranks=[["sleeper"]] * 4)
    run.until("started")
    run.ctrl_c()
    out = run.end()
    assert (out.code, out.err.count("Traceback"), out.err.count("KeyboardInterrupt")) == (-signal.SIGINT, 1, 1)


@pytest.mark.parametrize("where", ["exit", "sleep"])
def test_a_second_ctrl_c_kills_at_once(program: Callable[..., Program], lab: Lab, job: str, where: str) -> None:
    """Who holds out is not waited for any longer."""
    scope = {"job_id": job, "grace_s": LONG_S}
    run = program("blocked", where=where, through=True, scope=scope, ranks=[["deaf"], ["sleeper"]])
    run.until("blocked")
    run.ctrl_c()
    run.until("left")
    assert run.started.running
    run.ctrl_c()
    ended = run.ended
    assert ended["error"] == "KeyboardInterrupt"
    assert ended["at_s"] - run.told("left")[0]["at_s"] < LONG_S / 2
    assert run.end().code == -signal.SIGINT
    assert lab.status(job)["verdict"] == "forced"


def test_sigterm_during_a_stop_is_not_lost(program: Callable[..., Program], lab: Lab, job: str) -> None:
    """Who is told to end while a stop is under way ends after it, and not with what the stop had raised."""
    run = program(
        "blocked", where="sleep", through=True, scope={"job_id": job, "grace_s": 2}, ranks=[["deaf"], ["sleeper"]]
    )
    run.until("blocked")
    assert lab.call("shutdown", "--job-id", job, "--no-wait").code == 0
    run.until("left")
    run.signal(signal.SIGTERM)
    assert run.end().code == 143
    ended = run.ended
    assert (ended["error"], ended["context"]) == ("SystemExit", "JobStopped")
