"""A scope in a program that has processes of its own: pools of every kind, plain children, and many forks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness import until
from tests.scope.conftest import UNCHANGED
from workers.proc import read_stat

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness import Lab
    from tests.scope.conftest import Program


@pytest.mark.usefixtures("containment")
def test_executors(program: Callable[..., Program], lab: Lab, job: str) -> None:
    """Those of the program work on when its job is stopped; one in a rank goes with it."""
    run = program("executors", scope={"job_id": job, "grace_s": 2})
    assert "BadBatchError" in run.ended["text"]
    assert run.told("well")
    assert not [pid for pid in run.told("ready")[0]["workers"] if read_stat(pid)]
    assert run.end().code == 0
    until(lambda: not lab.left(), "everything to be gone")


def test_processes_of_the_programs_own(program: Callable[..., Program], job: str) -> None:
    """They don't count, and end by signals as anywhere: what a fork has of the scope's handlers is undone."""
    run = program("terminated", scope={"job_id": job})
    assert run.ended["error"] is None, run.ended
    assert run.until("traces")[0].keys() == UNCHANGED


@pytest.mark.usefixtures("containment")
def test_forks_while_the_agent_is_busy(program: Callable[..., Program], job: str) -> None:
    """Hundreds of forks find no lock held, and none waits for as long as a stuck thread would be waited for."""
    run = program("forking", scope={"job_id": job})
    assert run.ended["error"] == "SystemExit", run.ended
    assert run.told("forked")[0]["max_ms"] < 5000
    assert run.until("traces")[0].keys() == UNCHANGED
    assert run.end().code == 0
