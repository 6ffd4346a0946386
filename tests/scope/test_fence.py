"""Once a stop has begun, nothing of the job starts any more: refused, and nothing of it was run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scope.conftest import UNCHANGED

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness import Lab
    from tests.scope.conftest import Program


def test_a_job_that_was_shut_down_is_refused(program: Callable[..., Program], lab: Lab, job: str) -> None:
    """At the block's start: its body does not run, and nothing is left running."""
    assert lab.call("shutdown", "--job-id", job, "--fence", "--reason", "bad data").code == 0
    run = program("ranks", scope={"job_id": job}, ranks=[["brief"]])
    ended = run.ended
    assert ended["error"] == "RefusedError"
    assert f"job {job} was shut down by" in ended["text"]
    assert "(bad data)" in ended["text"]
    assert run.until("traces")[0].keys() == UNCHANGED
    assert (run.told("started"), run.told("ready")) == ([], [])
    assert run.end().code == 0


@pytest.mark.parametrize("way", ["spawn", "popen", "adopt", "join"])
def test_nothing_is_started_in_a_stop(program: Callable[..., Program], lab: Lab, job: str, way: str) -> None:
    """A program that goes on in the block after JobStopped can't bring the job back."""
    run = program("stubborn", way=way, scope={"job_id": job, "grace_s": 1}, ranks=[["deaf"]])
    run.until("ready")
    assert lab.call("shutdown", "--job-id", job, "--no-wait").code == 0
    assert run.until("refused")[0]["error"] == "JobStopped"
    assert run.ended["error"] == "JobStopped"
    assert len(run.told("ready")) == 1, "the first rank, and no other"
    assert run.until("traces")[0].keys() == UNCHANGED
    assert run.end().code == 0


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver", "program"])
def test_a_stop_while_one_is_started(program: Callable[..., Program], job: str, context: str) -> None:
    """The stop begins after the scope has looked, and before the rank is there: it is, but runs nothing."""
    run = program("overtaken", context=context.replace("program", "fork"), way=context, scope={"job_id": job})
    assert run.until("refused")[0]["error"] == "JobStopped"
    assert run.told("ready") == []
    assert run.ended["error"] == "JobStopped"
    assert run.until("traces")[0].keys() == UNCHANGED
    assert run.end().code == 0


@pytest.mark.parametrize("context", ["fork", "program"])
def test_without_the_fence_it_runs(program: Callable[..., Program], job: str, context: str) -> None:
    """Negative control: nobody looks whether a stop has begun."""
    run = program("overtaken", context="fork", way=context, off="fence", scope={"job_id": job, "local": True})
    run.until("ready")
    assert run.end().code == 0
