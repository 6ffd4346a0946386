"""What a kill leaves behind is named, in the report and to people; and swept where that is wanted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.harness import Lab

SHM = Path("/dev/shm")  # noqa: S108
HOLDS = """
import fcntl, signal, sys, time
from multiprocessing import shared_memory
if sys.argv[1] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
memory = shared_memory.SharedMemory(create=True, size=1 << 20)
lock = open(sys.argv[2], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print(memory.name, flush=True)
time.sleep(600)
"""


def hold(lab: Lab, job: str, how: str, lock: Path, *options: str) -> tuple[str, Any, list[str]]:
    """Run one that holds shared memory and a lock, shut it down; give the memory's name, the agent, what was said."""
    options = ("--grace", "300ms", *options)
    run = lab.run(job, sys.executable, "-c", HOLDS, how, str(lock), options=options)
    assert run.popen.stdout
    name = run.popen.stdout.readline().decode().strip()
    ended = lab.call("shutdown", "--job-id", job, "--json")
    assert ended.code == 0
    return name, ended.json["agents"][0], run.end().said


def test_what_the_killed_left_behind_is_named(lab: Lab, job: str, tmp_path: Path) -> None:
    """A hold-out's shared memory and lock file are in the report, on its terminal, and in the shutdown's answer."""
    name, agent, said = hold(lab, job, "deaf", tmp_path / "x.lock")
    shm = SHM / name
    texts = [thing["text"] for thing in agent["left_behind"]]
    assert texts == [f"{SHM / name} 1 MiB", f"lock file {tmp_path}/x.lock"]
    assert any(f"the killed left behind: {SHM / name} 1 MiB" in line for line in said)
    assert f"left behind: {SHM / name} 1 MiB" in lab.call("shutdown", "--job-id", job).out.replace("\n", " ")
    shm.unlink()


@pytest.mark.parametrize("how", ["deaf", "polite"])
def test_shared_memory_is_swept_where_that_is_wanted(lab: Lab, job: str, how: str, tmp_path: Path) -> None:
    """--sweep-shm removes what only the stopped had, also of those who left when asked; a lock file stays, named."""
    name, agent, _ = hold(lab, job, how, tmp_path / "x.lock", "--sweep-shm")
    assert not (SHM / name).exists()
    assert [thing["kind"] for thing in agent["left_behind"]] == ["lock"]


def test_who_left_when_asked_leaves_nothing_to_report(lab: Lab, job: str, tmp_path: Path) -> None:
    """Only the killed had no chance to clean up: what others leave is their own affair."""
    name, agent, _ = hold(lab, job, "polite", tmp_path / "x.lock")
    assert agent["left_behind"] == []
    (SHM / name).unlink(missing_ok=True)
