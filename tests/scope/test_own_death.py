"""A program with a scope dies without a word: what it started is stopped all the same; the record says what is true."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness import kill, until

if TYPE_CHECKING:
    from tests.harness import Lab, Started

RUNS = int(os.environ.get("COORD_TEST_DEATHS", "4"))
LENGTH_S = f"600.{os.getpid()}"  # nobody else's on this machine
PROGRAM = """
import os, signal, sys, time
from workers import JobScope

def rank(number):
    if number == 1:
        os.system(f"(setsid env -i sleep {sys.argv[3]} &)")  # gets away from parent, session and environment
    if number == 2:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(1, b"ready\\n")  # two say it at a time
    time.sleep(600)

if __name__ == "__main__":
    with JobScope(sys.argv[1], grace_s=0.5, containment=sys.argv[2]) as scope:
        for number in range(3):
            scope.spawn(rank, number)
        scope.join()
"""


def start(lab: Lab, job: str, containment: str, folder: Path) -> Started:
    """Start the program."""
    path = folder / "program.py"
    path.write_text(PROGRAM)
    folder.chmod(0o700)
    lab.environment["COORD_RUNTIME_DIR"] = str(folder)  # no other agent's estate is seen to meanwhile
    return lab.start(str(path), job, containment, LENGTH_S, program=sys.executable)


def ready(run: Started) -> None:
    """Wait until all ranks are at work."""
    assert run.popen.stdout
    for _ in range(3):
        assert run.popen.stdout.readline() == b"ready\n"


def sleeps() -> set[int]:
    """Find who got away: it has no environment that could tell whose it is."""
    paths = Path("/proc").glob("[0-9]*/cmdline")
    return {int(path.parent.name) for path in paths if _command(path) == f"sleep\0{LENGTH_S}\0".encode()}


def _command(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def guards(lab: Lab) -> list[int]:
    """Find the guardian beside the program."""
    return [pid for pid, command in lab.left().items() if "workers.scope_guard" in command]


def test_a_killed_programs_ranks_are_stopped_and_told(lab: Lab, job: str, containment: str, tmp_path: Path) -> None:
    """SIGKILL of the program: its guardian runs the plan on all it started; a cgroup proves it, a mark does not."""
    before = sleeps()
    run = start(lab, job, containment, tmp_path)
    ready(run)
    run.popen.kill()
    run.popen.wait()
    until(lambda: not lab.left() and sleeps() <= before, "everything to be gone")
    status = lab.status(job)
    assert status["agents"][0]["state"] == "stopped"
    assert status["verdict"] == ("forced" if containment == "cgroup" else "incomplete")
    assert "killed" in {each["outcome"] for each in status["agents"][0]["processes"]}
    assert status["request"]["cause"] == "failure"


def test_without_its_guardian_something_stays(lab: Lab, job: str, containment: str, tmp_path: Path) -> None:
    """The negative control, and the worst case: both killed at one instant. The next agent on the host sees to it."""
    before = sleeps()
    run = start(lab, job, containment, tmp_path)
    ready(run)
    (guard,) = guards(lab)
    kill(guard, lab.token)
    run.popen.kill()
    run.popen.wait()
    until(lambda: len(lab.left()) == 1, "those that hear SIGTERM to be gone, by the kernel's hand")
    assert sleeps() - before, "what got away is still there, too"
    lab.run(f"{job}-next", "true").end()
    until(lambda: not lab.left() and sleeps() <= before, "the next agent to have swept")


def test_a_killed_guardian_is_started_again(lab: Lab, job: str, containment: str, tmp_path: Path) -> None:
    """SIGKILL of the guardian: the job goes on, and is guarded as before."""
    before = sleeps()
    run = start(lab, job, containment, tmp_path)
    ready(run)
    (guard,) = guards(lab)
    kill(guard, lab.token)
    until(lambda: guards(lab) not in ([], [guard]), "another guardian")
    assert run.running
    run.popen.kill()
    run.popen.wait()
    until(lambda: not lab.left() and sleeps() <= before, "everything to be gone")


@pytest.mark.parametrize("seed", range(RUNS))
def test_a_death_at_any_instant_leaves_nothing(lab: Lab, job: str, containment: str, seed: int, tmp_path: Path) -> None:
    """Killed at a random instant of starting, running, stopping or leaving: nothing of the job stays."""
    chance = random.Random(seed)
    before = sleeps()
    run = start(lab, job, containment, tmp_path)
    if chance.random() < 0.5:
        until(lambda: not run.running or (lab.status(job) or {"agents": ()})["agents"], "the program to join")
        lab.start("shutdown", "--job-id", job, "--no-wait")
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.popen.wait(chance.uniform(0, 1.2))  # the instant is what this varies
    run.popen.kill()
    run.popen.wait()
    until(lambda: not lab.left() and sleeps() <= before, "everything to be gone, our own processes too")
