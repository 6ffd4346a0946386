"""PID 1 of a container: it reaps whoever falls to it, and hears SIGTERM from its first moment. Real pid namespaces.

What compose/pid1/check.py tries in a Docker Engine, without one. `unshare` is the engine, `nsenter` is `docker exec`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import COORD, MARK, surroundings, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness import Lab, Started

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace needs root")

COMPOSE = Path(__file__).parents[2] / "compose"
ORPHANS = (sys.executable, str(COMPOSE / "pid1" / "orphans.py"))
COUNT, STAYING, ENTERED = 1000, 50, 100
# runs in PID 1 while Python starts, and waits there until the test has opened the gate and closed it again
GATE = "import os\nif os.getpid() == 1: open(os.environ['TEST_GATE']).close()\n"


def as_pid_one(lab: Lab, *command: str, **environment: str) -> Started:
    """Start a command as PID 1, with a /proc of its own; if `unshare` is killed, all of it is."""
    return lab.start("--pid", "--fork", "--kill-child", "--mount-proc", *command, program="unshare", **environment)


def pid_one(run: Started) -> int:
    """Give its pid as it is out here."""
    (pid,) = until(lambda: children(run.popen.pid), "the namespace to have a PID 1")
    return int(pid)


def children(pid: int) -> list[int]:
    """Give a process's children, dead ones too."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def terminate(run: Started) -> None:
    """Send SIGTERM to PID 1 from outside, as `docker stop` does."""
    handle = os.pidfd_open(pid_one(run))
    signal.pidfd_send_signal(handle, signal.SIGTERM)
    os.close(handle)


def says(run: Started, fact: Callable[[Any], bool]) -> Any:
    """Read what the program says until it shows a fact."""
    assert run.popen.stdout
    for line in run.popen.stdout:
        if fact(said := json.loads(line)):
            return said
    raise AssertionError("it ended before that")


def enter_and_leave_orphans(lab: Lab, run: Started) -> None:
    """As `docker exec` would: a process whose parent is out here leaves orphans in there."""
    command = ["nsenter", "--target", str(pid_one(run)), "--pid", "--mount", *ORPHANS, str(ENTERED), "0", "0"]
    subprocess.run(command, check=True, env={**surroundings(), MARK: lab.token})


def test_as_pid_one_it_reaps_orphans(lab: Lab, job: str, containment: str) -> None:
    """Of a thousand orphans none stays a zombie, nor of those that others left; and SIGTERM stops all in order."""
    run = as_pid_one(lab, COORD, "run", "--job-id", job, "--", *ORPHANS, str(COUNT), str(STAYING))
    said = says(run, lambda said: (said["alive"], said["zombies"]) == (STAYING + 1, 0))
    assert said["made"] == COUNT
    enter_and_leave_orphans(lab, run)
    until(lambda: len(children(pid_one(run))) == 1, "the guardian to have no child but the agent")
    terminate(run)
    assert run.end().code == 143
    status = lab.status(job)
    (agent,) = status["agents"]
    assert (status["verdict"], agent["proof"]) == ("clean", containment)
    assert Counter(process["outcome"] for process in agent["processes"]) == {"terminated": STAYING + 1}


def test_a_program_that_is_pid_one_itself_keeps_zombies_and_hears_nothing(lab: Lab) -> None:
    """The negative control: the same program without coord keeps every zombie, and SIGTERM does nothing to it."""
    run = as_pid_one(lab, *ORPHANS, str(COUNT), str(STAYING))
    says(run, lambda said: (said["alive"], said["zombies"]) == (STAYING + 1, COUNT - STAYING))
    enter_and_leave_orphans(lab, run)
    says(run, lambda said: (said["alive"], said["zombies"]) == (STAYING + 1, COUNT - STAYING + ENTERED))
    assert len(children(pid_one(run))) == COUNT + ENTERED
    terminate(run)
    for _ in range(2):
        says(run, lambda said: bool(said["alive"] == STAYING + 1))  # goes on working
    run.popen.kill()
    until(lambda: not lab.left(), "the namespace to be gone")


def entry_point() -> list[str]:
    """Give what the image starts, up to coord itself."""
    found = re.search(r"^ENTRYPOINT (\[.*\])$", (COMPOSE / "Dockerfile").read_text(), re.MULTILINE)
    assert found
    *before, coord = json.loads(found[1])
    assert coord == "coord"
    return [str(word) for word in before]


def start_and_terminate_at_once(lab: Lab, job: str, folder: Path, *before: str) -> Started:
    """Send SIGTERM to PID 1 while Python still starts, with none of coord loaded."""
    (folder / "sitecustomize.py").write_text(GATE)
    gate = folder / "gate"
    os.mkfifo(gate)
    environment = {"PYTHONPATH": str(folder), "TEST_GATE": str(gate)}
    run = as_pid_one(lab, *before, COORD, "run", "--job-id", job, "--", "sleep", "600", **environment)
    with gate.open("w"):  # opens when Python has come that far
        terminate(run)
    return run


def test_a_signal_while_python_starts_is_heard(lab: Lab, job: str, tmp_path: Path) -> None:
    """Started as the image starts it, coord hears the SIGTERM that came before it could, and leaves."""
    run = start_and_terminate_at_once(lab, job, tmp_path, *entry_point())
    assert run.end().code == 143


def test_without_the_entry_point_that_signal_is_lost(lab: Lab, job: str, tmp_path: Path) -> None:
    """The negative control: the kernel drops it, the command starts, and only the next SIGTERM stops it."""
    run = start_and_terminate_at_once(lab, job, tmp_path)
    until(lambda: lab.status(job) and lab.status(job)["agents"][0]["processes"], "the command to start all the same")
    assert lab.status(job)["request"] is None
    terminate(run)
    assert run.end().code == 143


def test_commands_without_a_guardian_can_be_stopped_too(lab: Lab, job: str) -> None:
    """Started as the image starts it, `coord shutdown` that waits for a job leaves on SIGTERM."""
    run = lab.run(job, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 600; done")
    assert run.popen.stdout
    run.popen.stdout.readline()
    before, *after = entry_point()
    follower = lab.start(*after, COORD, "shutdown", "--job-id", job, "--grace", "1h", program=before)
    until(lambda: lab.status(job)["request"], "the request to be in the record")
    follower.signal(signal.SIGTERM)
    assert follower.end().code == -signal.SIGTERM
    assert lab.call("shutdown", "--job-id", job, "--now").code == 0
    assert run.end().code == 137
