"""What the calls of a scope do, seen from the program; and that nothing of it is left afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import until
from tests.scope.conftest import UNCHANGED
from workers.proc import read_stat

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness import Lab
    from tests.scope.conftest import Program

CONTEXTS = ["fork", "spawn", "forkserver"]


def assert_left(run: Program, error: str | None) -> dict[str, Any]:
    """The block was left in this way, and the program is as it was."""
    ended = run.ended
    assert ended["error"] == error, ended
    assert run.until("traces")[0].keys() == UNCHANGED, run.told("traces")
    assert run.end().code == 0
    return ended


@pytest.mark.parametrize("body", ["popen_options", "misuse"])
def test_calls(program: Callable[..., Program], job: str, body: str) -> None:
    """Options go through, misuse is refused in words."""
    assert_left(program(body, scope={"job_id": job, "local": True}), None)


@pytest.mark.usefixtures("containment")
@pytest.mark.parametrize("context", CONTEXTS)
def test_phases(program: Callable[..., Program], job: str, context: str) -> None:
    """A scope may be filled and emptied any number of times, and holds nothing of what is over."""
    assert_left(program("phases", context=context, scope={"job_id": job, "local": True}), None)


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_program_that_waits_itself_changes_nothing(program: Callable[..., Program], job: str, context: str) -> None:
    """Who waits first is no matter: an exit of 0 is never taken for a failure, one of 3 always."""
    run = program("waits", context=context, scope={"job_id": job, "local": True})
    ended = assert_left(run, "JobStopped")
    assert run.told("no failure")
    assert "exited with code 3" in ended["text"]


@pytest.mark.usefixtures("containment")
@pytest.mark.parametrize("context", CONTEXTS)
def test_adopted_processes_are_the_jobs(program: Callable[..., Program], lab: Lab, job: str, context: str) -> None:
    """multiprocessing.Process and subprocess.Popen, with children that they have already."""
    run = program("adopting", context=context, scope={"job_id": job, "grace_s": 1})
    assert run.ended["error"] == "SystemExit"
    assert run.told("adopted")
    assert run.end().code == 0
    until(lambda: not lab.left(), "everything to be gone")
    assert lab.status(job)["request"]["cause"] == "drain"


@pytest.mark.parametrize("context", CONTEXTS)
def test_failures_can_be_ignored(program: Callable[..., Program], job: str, context: str) -> None:
    """Then join waits for the others, and exit codes are there to be read."""
    run = program("ignoring", context=context, scope={"job_id": job, "on_failure": "ignore"})
    assert_left(run, None)


@pytest.mark.parametrize("where", ["join", "event"])
def test_scopes_can_be_nested(program: Callable[..., Program], lab: Lab, job: str, where: str) -> None:
    """A stop of the outer one leaves the inner one, too, wherever the program is."""
    run = program("nested", where=where, scope={"job_id": job})
    run.until("blocked")
    assert lab.call("shutdown", "--job-id", job).code == 0
    ended = assert_left(run, "JobStopped")
    assert ended["request"]["cause"] == "operator"
    assert len(run.told("left")) == 1
    until(lambda: not lab.left(), "everything to be gone")


def test_scopes_in_threads(program: Callable[..., Program], lab: Lab, job: str) -> None:
    """Each ends alone; orphans find the program as long as one of them is open."""
    assert_left(program("threads", scope={"job_id": job}), "SystemExit")
    assert not lab.left()


@pytest.mark.usefixtures("containment")
def test_many_programs(program: Callable[..., Program], lab: Lab, job: str) -> None:
    """Hundreds are stopped as one."""
    assert_left(program("many", scope={"job_id": job}), "SystemExit")
    assert len(lab.status(job)["agents"][0]["processes"]) >= 200
    assert lab.status(job)["verdict"] == "clean"


@pytest.mark.usefixtures("containment")
@pytest.mark.parametrize("rank", ["parent", "daemon"])
@pytest.mark.parametrize("how", ["error", "failing"])
def test_what_ranks_start_goes_with_them(
    program: Callable[..., Program], lab: Lab, job: str, rank: str, how: str
) -> None:
    """Programs, pools, and daemons that have left everything behind, their environment too."""
    scope = {"job_id": job, "grace_s": 1}
    ranks = [[rank], ["failing", 1]] if how == "failing" else [[rank]]
    run = program("raising", how=how, scope=scope, ranks=ranks)
    ended = run.ended
    assert ended["error"] == ("JobStopped" if how == "failing" else "KeyError")
    assert run.until("traces")[0].keys() == UNCHANGED
    assert run.end().code == 0
    pids = {each["pid"] for each in lab.status(job)["agents"][0]["processes"]}
    assert len(pids) >= 2
    assert not [pid for pid in pids if read_stat(pid)]


@pytest.mark.parametrize("rank", ["failing", "brief"])
def test_a_look_before_the_child_is_known_changes_nothing(program: Callable[..., Program], job: str, rank: str) -> None:
    """The agent can find a process before it is told that it is a child: its end is that of a child all the same."""
    run = program("ranks", off="first look", scope={"job_id": job, "local": True}, ranks=[[rank], ["brief", 0.2]])
    assert_left(run, "JobStopped" if rank == "failing" else None)
    assert rank == "failing" or len(run.told("done")) == 2
