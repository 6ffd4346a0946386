"""The four-step pattern, whole: a rank fails, the others are asked, waited for once, killed, and nothing is left."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import until
from workers.proc import read_stat

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.harness import Lab
    from tests.scope.conftest import Program

GRACE_S = 1.5
DEAF = 2


def eight(shm: Path, tmp_path: Path) -> list[list[Any]]:
    """Give eight ranks: three that ignore SIGTERM, one of them with belongings, four that leave, and one that fails."""
    return [*[["deaf"]] * DEAF, ["holder", shm.name, str(tmp_path / "lock")], *[["sleeper"]] * 4, ["failing", 7]]


@pytest.mark.parametrize("local", [True, False], ids=["local", "redis"])
@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
@pytest.mark.usefixtures("containment")
def test_one_failure_ends_all_in_one_grace(
    program: Callable[..., Program], lab: Lab, job: str, shm: Path, tmp_path: Path, context: str, *, local: bool
) -> None:
    """Nothing of eight ranks is left after one grace, and the program is as it was."""
    scope = {"job_id": job, "local": local, "grace_s": GRACE_S, "sweep_shm": True, "label": "train"}
    run = program("ranks", context=context, scope=scope, ranks=eight(shm, tmp_path))
    ended = run.ended
    assert ended["error"] == "JobStopped"
    assert "rank7" in ended["text"]
    assert "BadBatchError: batch 7 is empty" in ended["text"]
    assert 'raise BadBatchError("batch 7 is empty")' in ended["trace"]
    failure = ended["failure"]
    assert (failure["host"], failure["label"], failure["exit_code"]) == ("here", "rank7", 1)
    took_s = ended["at_s"] - run.until("fails")[0]["at_s"]
    assert GRACE_S <= took_s < (DEAF + 1) * GRACE_S, "one deadline for all, not one for each"
    assert run.until("traces")[0].keys() == {"what", "host", "pid", "at_s"}, (
        "what the program has now and had not before"
    )
    assert not shm.exists()
    out = run.end()
    assert (out.code, out.err.count("BadBatchError: batch 7"), out.err.count("Traceback")) == (0, 1, 1)
    until(lambda: not lab.left(), "everything to be gone")
    if not local:
        assert_recorded(lab.status(job))


def assert_recorded(status: dict[str, Any]) -> None:
    """The record tells the same."""
    assert (status["verdict"], status["request"]["cause"]) == ("forced", "failure")
    assert status["first_failure"]["label"] == "rank7"
    assert status["first_failure"]["stderr_tail"][-1].endswith("BadBatchError: batch 7 is empty")
    (agent,) = status["agents"]
    outcomes = sorted(each["outcome"] for each in agent["processes"] if each["label"].startswith("rank"))
    assert [each for each in outcomes if each != "survived"] == outcomes
    assert outcomes.count("killed") >= DEAF + 1


def test_without_a_sweep_the_memory_stays(program: Callable[..., Program], job: str, shm: Path, tmp_path: Path) -> None:
    """Negative control: what a killed rank had in /dev/shm is there until somebody removes it."""
    scope = {"job_id": job, "local": True, "grace_s": 0.5}
    run = program("ranks", scope=scope, ranks=[["holder", shm.name, str(tmp_path / "lock")], ["failing", 1]])
    assert run.ended["error"] == "JobStopped"
    assert shm.exists()


def test_the_loop_that_everybody_writes_takes_a_grace_for_each(program: Callable[..., Program], job: str) -> None:
    """Negative control: the same ranks, stopped by hand, one timeout after the other; and a daemon stays."""
    run = program("by_hand", grace_s=0.5, scope={"job_id": job, "local": True}, ranks=[["deaf"]] * 3 + [["daemon"]])
    assert run.until("by hand")[0]["took_s"] >= 1.5
    assert run.ended["error"] is None
    pid = run.told("daemon")[0]["pid"]
    assert read_stat(pid)
    handle = os.pidfd_open(pid)
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    os.close(handle)
