"""Our own death is safe: kill any one process of ours, at any instant, and nothing of the job is left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness import COORD, MARK, NASTY, kill, surroundings, until
from tests.process.conftest import NO_CGROUP
from workers.cgroups import home

if TYPE_CHECKING:
    from tests.harness import Lab, Started

RUNS = int(os.environ.get("COORD_TEST_DEATHS", "16"))


def test_a_dead_agents_processes_are_stopped_and_told(lab: Lab, job: str, containment: str) -> None:
    """SIGKILL of the agent: its guardian runs the plan on the whole tree, reports it, and the job fails."""
    other = lab.run(job, "sleep", "600", host="b")
    run = lab.run(job, sys.executable, NASTY, "family", "3", host="a")
    assert run.popen.stdout
    run.popen.stdout.readline()
    agent_pid = run.agent_pid
    kill(agent_pid, lab.token)
    ended = run.end()
    assert ended.code == 1
    assert "was killed by SIGKILL" in ended.said[-1]
    assert "nothing of it is left" in ended.said[-1]
    assert other.end().code == 143
    status = until(lambda: (found := lab.status(job))["verdict"] and found, "the verdict")
    assert status["verdict"] == "clean"
    assert (status["first_failure"]["pid"], status["first_failure"]["signal"]) == (agent_pid, "SIGKILL")
    outcomes = {process["outcome"] for agent in status["agents"] for process in agent["processes"]}
    assert outcomes == {"terminated"}
    assert {agent["proof"] for agent in status["agents"]} == {containment}


@pytest.mark.usefixtures("containment")
def test_hold_outs_of_a_dead_agent_are_killed(lab: Lab, job: str) -> None:
    """The guardian's plan is the agent's: asked first, then killed at the deadline."""
    run = lab.run(job, sys.executable, NASTY, "deaf", options=("--grace", "1s"))
    assert run.popen.stdout
    run.popen.stdout.readline()
    kill(run.agent_pid, lab.token)
    assert run.end().code == 1
    status = until(lambda: (found := lab.status(job))["verdict"] and found, "the verdict")
    assert status["verdict"] == "forced"


@pytest.mark.usefixtures("containment")
def test_a_dead_guardian_makes_the_agent_run_the_plan(lab: Lab, job: str) -> None:
    """SIGKILL of the guardian: the kernel tells the agent, which stops its processes in order."""
    run = lab.run(job, "sleep", "600")
    run.popen.kill()
    run.popen.wait()
    status = until(lambda: (found := lab.status(job))["verdict"] and found, "the verdict")
    assert (status["verdict"], status["request"]["cause"]) == ("clean", "drain")
    until(lambda: not lab.left(), "everything to be gone")


def test_without_a_guardian_an_orphan_stays(lab: Lab, job: str) -> None:
    """The negative control: the same death with no guardian leaves a command that does not go when asked."""
    command = [sys.executable, NASTY, "deaf"]
    bare = [sys.executable, "-c", "from coord.cli import main; main()", "run", "--job-id", job, "--", *command]
    marked = {**surroundings(), **lab.environment, MARK: lab.token}
    with subprocess.Popen(bare, env=marked, stdout=subprocess.PIPE) as run:
        assert run.stdout
        assert run.stdout.readline() == b"ready\n"
        run.kill()
    assert [NASTY in command for command in lab.left().values()] == [True]
    lab.close()


def kill_both(lab: Lab, run: Started) -> None:
    """Kill guardian and agent as at one instant: the first can't act on the death of the second any more."""
    agent_pid = run.agent_pid
    run.signal(signal.SIGSTOP)
    kill(agent_pid, lab.token)
    run.popen.kill()
    run.popen.wait()


@pytest.mark.usefixtures("containment")
def test_when_both_die_the_kernel_asks_the_command_to_leave(lab: Lab, job: str) -> None:
    """Guardian and agent killed at one instant: nobody is there to signal, but the command goes all the same."""
    run = lab.run(job, "sleep", "600")
    kill_both(lab, run)
    until(lambda: not lab.left(), "the command to be gone")


def test_what_both_leave_is_swept_by_the_next_agent(lab: Lab, job: str, containment: str, tmp_path: Path) -> None:
    """What held out when both died is stopped by the next agent on the host; until then the job is `incomplete`."""
    lab.environment["COORD_RUNTIME_DIR"] = str(tmp_path)  # no other agent's estate is seen to meanwhile
    tmp_path.chmod(0o700)
    run = lab.run(job, sys.executable, NASTY, "deaf_family", "3", options=("--grace", "300ms"))
    assert run.popen.stdout
    run.popen.stdout.readline()
    kill_both(lab, run)
    until(lambda: len(lab.left()) == 4, "only the command and its children to be there")
    assert lab.call("shutdown", "--job-id", job, "--timeout", "60s").code == 5
    agent_id = lab.status(job)["agents"][0]["agent_id"]
    lab.run(f"{job}-next", "true").end()
    until(lambda: not lab.left(), "the next agent to have swept")
    told = lab.status(job)
    assert told["agents"][0]["state"] == "stopped"
    assert Counter(each["outcome"] for each in told["agents"][0]["processes"]) == {"killed": 4}
    assert told["verdict"] == ("forced" if containment == "cgroup" else "incomplete")
    assert not list((tmp_path / "agents").iterdir())
    assert NO_CGROUP or not Path(home(), f"coord-{agent_id}").exists()


def victim(run: Started, *, agent: bool) -> int:
    """Give the process to kill; the guardian where there is no agent, since it has not come yet, or is gone."""
    with contextlib.suppress(OSError, ValueError):
        return run.agent_pid if agent else run.popen.pid
    return run.popen.pid


@pytest.mark.usefixtures("containment")
@pytest.mark.parametrize("seed", range(RUNS))
def test_a_death_at_any_instant_leaves_nothing(lab: Lab, job: str, seed: int, tmp_path: Path) -> None:
    """Agent or guardian, killed at a random instant of starting, running, stopping or killing: nothing stays."""
    chance = random.Random(seed)
    program = chance.choice(["deaf", "family", "cleans_up", "reborn"])
    argument = str(tmp_path / "note") if program == "cleans_up" else "2"
    run = lab.start("run", "--job-id", job, "--grace", "300ms", "--", sys.executable, NASTY, program, argument)
    if chance.random() < 0.5:
        until(lambda: not run.running or (lab.status(job) or {"agents": ()})["agents"], "the agent to join")
        lab.start("shutdown", "--job-id", job, "--no-wait")
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.popen.wait(chance.uniform(0, 0.9))  # the instant is what this varies
    kill(victim(run, agent=chance.random() < 0.5), lab.token)
    until(lambda: not lab.left(), "everything to be gone, our own processes too")


def test_children_are_awaited_where_the_starter_ignores_them(lab: Lab, job: str) -> None:
    """Started by a program that ignores SIGCHLD, as some daemons do: the command's end and its exit code are seen."""
    deaf = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    command = (COORD, "run", "--job-id", job, "--", "sh", "-c", "sleep 0; exit 7")
    ended = lab.call("-c", deaf, *command, program=sys.executable)
    assert ended.code == 7, ended.err


def test_a_guardian_is_small(lab: Lab, job: str) -> None:
    """What waits for as long as the job runs costs little: the guardian has loaded nothing but the standard library."""
    run = lab.run(job, "sleep", "600")
    loaded = Path(f"/proc/{run.popen.pid}/maps").read_text()
    assert not any(name in loaded for name in ("hiredis", "_ssl", "_asyncio"))
    run.signal(signal.SIGTERM)
    assert run.end().code == 143
