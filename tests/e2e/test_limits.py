"""The narrow places: few descriptors, many of them, slow readers, commands that can't be started after all."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from coord.record import BEAT_S
from tests.harness import COORD, MARK, NASTY, surroundings, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness import Lab


def test_with_few_descriptors_everybody_goes_all_the_same(lab: Lab, job: str) -> None:
    """More processes than an agent can hold at once: they are stopped in turns, and all are seen gone."""
    inner = f"ulimit -n 1024; exec {sys.executable} {NASTY} deaf_family 80"
    script = f"ulimit -n 64; exec {COORD} run --job-id {shlex.quote(job)} --grace 1s -- sh -c {shlex.quote(inner)}"
    run = lab.start("-c", f"ulimit -Sn 64; {script.removeprefix('ulimit -n 64; ')}", program="bash")
    assert run.popen.stdout
    assert run.popen.stdout.readline() == b"ready\n"
    ended = lab.call("shutdown", "--job-id", job, "--json")
    assert (ended.code, ended.json["verdict"]) == (0, "forced")
    assert run.end().code == 137


def test_descriptors_above_a_thousand_are_no_trouble(lab: Lab, job: str) -> None:
    """An agent that inherits more than 1,023 open files ends as any other: nothing here asks select(2)."""
    script = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "[os.set_inheritable(os.dup(0), True) for _ in range(1100)]\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    run = lab.start("-c", script, COORD, "run", "--job-id", job, "--", "sh", "-c", "exit 5", program=sys.executable)
    assert run.end().code == 5


def test_a_slow_reader_gets_everything(lab: Lab, job: str) -> None:
    """What a command said on stderr arrives whole, however late it is read, when the command ended by itself."""
    run = subprocess.Popen(
        [COORD, "run", "--job-id", job, "--log-level", "error", "--", "sh", "-c", "seq 1 20000 >&2"],
        stderr=subprocess.PIPE,
        env={**surroundings(), **lab.environment, MARK: lab.token},
    )
    with run:
        until(lambda: (lab.status(job) or {"state": ""})["state"] == "stopped", "the agent's last report")
        assert run.poll() is None, "it waits for its reader"
        assert run.stderr
        assert len(run.stderr.read().splitlines()) == 20000
    assert run.returncode == 0


@pytest.mark.parametrize(("content", "code"), [("#!/no/such/interpreter\n", 127), ("no interpreter named\n", 126)])
def test_a_command_that_cant_be_started_after_all(lab: Lab, job: str, tmp_path: Path, content: str, code: int) -> None:
    """One line, the shell's code; the ranks that wait for it are stopped, and nobody is waited for."""
    other = lab.run(job, "sleep", "600", host="b")
    script = tmp_path / "script"
    script.write_text(content)
    script.chmod(0o755)
    ended = lab.call("run", "--job-id", job, "--log-level", "error", "--", str(script), host="a")
    assert ended.code == code
    assert len(ended.err.splitlines()) == 1
    assert other.end().code == 143
    status = until(lambda: (found := lab.status(job))["verdict"] and found, "the verdict")
    assert (status["verdict"], status["request"]["cause"]) == ("clean", "failure")
    assert "could not be started" in status["request"]["reason"]


def test_the_reason_is_the_one_that_came_first(lab: Lab, job: str) -> None:
    """A signal during a shutdown that somebody requested does not take over its reason."""
    run = lab.run(job, sys.executable, NASTY, "deaf", options=("--grace", "2s", "--log-level", "error"))
    assert run.popen.stdout
    run.popen.stdout.readline()
    lab.call("shutdown", "--job-id", job, "--reason", "new release", "--no-wait")
    until(lambda: lab.status(job)["agents"][0]["state"] == "stopping", "the agent to have heard")
    run.signal(15)
    ended = run.end()
    assert ended.code == 137
    assert "new release" in ended.err
    assert "SIGTERM received" not in ended.err


def test_what_runs_inside_a_job_means_the_same_record(lab: Lab, job: str) -> None:
    """A command inside of a job finds the record and the job of its agent without being told."""
    script = f"{COORD} status --json; {COORD} run -- sh -c 'exit 0'"
    ended = lab.start(
        "run", "--job-id", job, "--redis-url", lab.environment["COORD_REDIS_URL"], "--", "sh", "-c", script
    )
    assert f'"job_id": "{job}"' in ended.end().out
    assert len(lab.status(job)["agents"]) == 2


def test_a_stop_at_the_instant_of_a_heartbeat_ends(lab: Lab, job: str) -> None:
    """However a stop meets the agent's own doings, it ends: cancellations that get lost on the way are repeated."""
    local = ("--on-failure", "ignore")
    runs = [lab.run(job, "sleep", "600", host=f"h{number}", options=local) for number in range(8)]
    for number, run in enumerate(runs):
        with pytest.raises(subprocess.TimeoutExpired):
            run.popen.wait(BEAT_S / len(runs) + number * 0.001)  # the instant is what this varies
        run.signal(15)
    assert {run.end().code for run in runs} == {143}
