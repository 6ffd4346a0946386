"""One job, ranks of two programs on two hosts: what fails on one stops the other, which gets to know why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import until
from tests.scope.conftest import UNCHANGED

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness import Lab
    from tests.scope.conftest import Program


def verdict(lab: Lab, job: str) -> dict[str, Any]:
    found: dict[str, Any] = until(lambda: (found := lab.status(job))["verdict"] and found, "the verdict")
    return found


@pytest.mark.parametrize(("beside", "expected"), [("sleeper", "clean"), ("deaf", "forced")])
@pytest.mark.parametrize("where", ["join", "sleep", "exit"])
@pytest.mark.usefixtures("containment")
def test_a_failure_on_one_host_stops_the_other(
    program: Callable[..., Program], lab: Lab, job: str, beside: str, expected: str, where: str
) -> None:
    """JobStopped names the other host, the rank, and what it said last; the record agrees."""
    scope = {"job_id": job, "grace_s": 1}
    ranks = [["sleeper"], [beside]]
    b = program("blocked", host="b", where=where, scope=scope, ranks=ranks)
    b.until("blocked")
    a = program("ranks", host="a", scope=scope, ranks=[["sleeper"], ["failing", 3]])
    for run in (a, b):
        ended = run.ended
        assert ended["error"] == "JobStopped"
        assert "rank1 on host a " in ended["text"]
        assert "BadBatchError: batch 7 is empty" in ended["text"]
        assert (ended["failure"]["host"], ended["failure"]["label"]) == ("a", "rank1")
        assert ended["failure"]["stderr_tail"][-1].endswith("BadBatchError: batch 7 is empty")
        assert 'raise BadBatchError("batch 7 is empty")' in ended["trace"]
        assert ended["request"]["cause"] == "failure"
        assert run.until("traces")[0].keys() == UNCHANGED
        assert run.end().code == 0
    status = verdict(lab, job)
    assert status["verdict"] == expected
    assert (status["first_failure"]["host"], status["first_failure"]["exit_code"]) == ("a", 1)
    assert {agent["state"] for agent in status["agents"]} == {"stopped"}
    assert not lab.left()


def test_a_killed_rank_is_named_on_the_other_host(program: Callable[..., Program], lab: Lab, job: str) -> None:
    """It said nothing itself; the signal says it."""
    b = program("blocked", host="b", where="sleep", scope={"job_id": job}, ranks=[["sleeper"]])
    b.until("blocked")
    a = program("ranks", host="a", context="forkserver", scope={"job_id": job}, ranks=[["killed"]])
    ended = b.ended
    assert a.ended["text"] == ended["text"]
    assert ended["text"].startswith(f"job {job} was stopped: rank0 on host a (pid ")
    assert ") was killed by SIGKILL" in ended["text"]
    assert ended["trace"] is None
    assert verdict(lab, job)["first_failure"]["signal"] == "SIGKILL"


def test_a_program_that_leaves_takes_the_other_with_it(program: Callable[..., Program], lab: Lab, job: str) -> None:
    """Ranks that leave early are as missing as ranks that failed."""
    b = program("blocked", host="b", where="join", scope={"job_id": job}, ranks=[["sleeper"]])
    b.until("blocked")
    a = program("raising", host="a", how="error", scope={"job_id": job, "label": "train"}, ranks=[["sleeper"]])
    assert a.ended["error"] == "KeyError"
    ended = b.ended
    assert (ended["error"], ended["failure"]) == ("JobStopped", None)
    assert "train on host a left its scope: KeyError: 'no such layer'" in ended["text"]
    assert verdict(lab, job)["verdict"] == "clean"


def test_a_failure_that_is_ignored_stops_nobody(program: Callable[..., Program], lab: Lab, job: str) -> None:
    """Negative control: the same failure under the other policy."""
    b = program("blocked", host="b", where="join", scope={"job_id": job}, ranks=[["sleeper"]])
    b.until("blocked")
    scope = {"job_id": job, "on_failure": "ignore"}
    a = program("ranks", host="a", scope=scope, ranks=[["failing", 1], ["killed", 1], ["brief"]])
    assert a.ended["error"] is None
    assert a.end().code == 0
    assert (lab.status(job)["request"], lab.status(job)["first_failure"]) == (None, None)
    assert not b.told("ended")
    assert lab.call("shutdown", "--job-id", job).code == 0
    assert b.ended["error"] == "JobStopped"
