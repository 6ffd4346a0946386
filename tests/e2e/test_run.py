"""`coord run` as a wrapper: what reaches it and what it passes through, its exit code, and the signals it gets."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.harness import COORD, MARK, NASTY, surroundings, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness import Lab, Started

QUIET = ("--log-level", "error")


def deaf(lab: Lab, job: str, *options: str) -> Started:
    """A command that ignores SIGTERM, from the moment that this returns."""
    run = lab.run(job, sys.executable, NASTY, "deaf", options=(*QUIET, *options))
    assert run.popen.stdout
    assert run.popen.stdout.readline() == b"ready\n"
    return run


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 5", 5), ("kill -9 $$", 137), ("kill -15 $$", 143)])
def test_the_exit_code_is_the_commands_own(lab: Lab, job: str, script: str, code: int) -> None:
    """A command that ends by itself decides the exit code; death by a signal is 128 and its number, as in a shell."""
    assert lab.start("run", "--job-id", job, "--", "sh", "-c", script).end().code == code


def test_streams_pass_through_untouched(lab: Lab, job: str) -> None:
    """Each byte of stdin, stdout and stderr arrives, whatever it is, and however much."""
    data = bytes(range(256)) * 2000
    ended = subprocess.run(
        [COORD, "run", "--job-id", job, *QUIET, "--", "sh", "-c", "tee /dev/stderr"],
        input=data,
        capture_output=True,
        env={**surroundings(), **lab.environment, MARK: lab.token},
        check=True,
        timeout=60,
    )
    assert ended.stdout == data
    assert ended.stderr == data


def test_the_environment_tells_a_command_what_it_is_part_of(lab: Lab, job: str) -> None:
    """A child knows its job, its agent and its label."""
    ended = lab.start("run", "--job-id", job, "--label", "rank3", "--", "sh", "-c", "env | grep ^COORD_").end()
    told = dict(line.split("=", 1) for line in ended.out.splitlines())
    assert (told["COORD_JOB_ID"], told["COORD_LABEL"]) == (job, "rank3")
    assert told["COORD_AGENT_ID"].startswith("here-")


def test_a_child_has_a_session_of_its_own(lab: Lab, job: str) -> None:
    """Ctrl-C at the terminal reaches `coord run`, which asks its child, and never the child behind its back."""
    ended = lab.start("run", "--job-id", job, "--", "sh", "-c", "ps -o sid= -p $$; echo $$").end()
    session, pid = ended.out.split()
    assert session == pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_runs_the_plan_and_stops_the_job(lab: Lab, job: str, number: signal.Signals) -> None:
    """A rank that is told to go takes its job with it: the others would wait for it for ever."""
    other = lab.run(job, "sleep", "600", host="b")
    run = lab.run(job, "sleep", "600", host="a", options=QUIET)
    run.signal(number)
    ended = run.end()
    assert ended.code == 143
    assert ended.err.startswith(f"coord: {number.name} received; job {job} is stopped on all hosts")
    assert other.end().code == 143
    status = until(lambda: (found := lab.status(job))["verdict"] and found, "the verdict")
    assert (status["verdict"], status["request"]["cause"], status["first_failure"]) == ("clean", "drain", None)


def test_a_signal_stays_local_when_failures_are_ignored(lab: Lab, job: str) -> None:
    """With --on-failure ignore, a host may come and go: the job goes on, and is not fenced."""
    other = lab.run(job, "sleep", "600", host="b")
    run = lab.run(job, "sleep", "600", host="a", options=("--on-failure", "ignore", *QUIET))
    run.signal(signal.SIGTERM)
    assert run.end().code == 143
    assert lab.status(job)["request"] is None
    assert other.running
    again = lab.run(job, "sleep", "600", host="a")
    assert lab.call("shutdown", "--job-id", job).code == 0
    assert (again.end().code, other.end().code) == (143, 143)


def test_a_second_sigterm_does_not_hurry_and_a_second_sigint_kills(lab: Lab, job: str) -> None:
    """Platforms repeat SIGTERM, people repeat Ctrl-C: only the person means `now`."""
    run = deaf(lab, job, "--grace", "10m")
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        run.signal(number)
    until(lambda: lab.status(job)["agents"][0]["state"] == "stopping", "the agent to ask its child")
    assert run.running
    run.signal(signal.SIGINT)
    assert run.end().code == 137
    assert lab.status(job)["verdict"] == "forced"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_nothing(lab: Lab, job: str, closed: str) -> None:
    """A standard stream that was closed is not replaced by a socket: the command runs, and its code comes back."""
    script = f"exec {COORD} run --job-id {shlex.quote(job)} -- sh -c 'echo out; echo err >&2; exit 3' {closed}"
    assert lab.start("-c", script, program="sh").end().code == 3
    assert lab.status(job)["first_failure"]["exit_code"] == 3


def test_under_nohup_a_hang_up_changes_nothing(lab: Lab, job: str) -> None:
    """Who ignores SIGHUP from the start, as nohup makes it, goes on ignoring it; SIGTERM still works."""
    run = lab.start(COORD, "run", "--job-id", job, "--", "sleep", "600", program="nohup")
    until(lambda: (lab.status(job) or {"agents": ()})["agents"], "the agent")
    run.signal(signal.SIGHUP)
    run.signal(signal.SIGTERM)
    ended = run.end()
    assert ended.code == 143
    assert any("SIGTERM received" in line for line in ended.said)


def test_a_signal_before_the_start_starts_nothing(lab: Lab, job: str, tmp_path: Path) -> None:
    """Stop works at every instant: a signal while it joins ends it, and leaves nobody waiting for this host."""
    for delay_s in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4):
        mark = tmp_path / f"started-{delay_s}"
        name = f"{job}-{delay_s}"
        run = lab.start("run", "--job-id", name, *QUIET, "--", "sh", "-c", f"touch {mark}; exec sleep 600")
        # the moment is what this varies: some of them come before Python has even installed its handlers
        with pytest.raises(subprocess.TimeoutExpired):
            run.popen.wait(delay_s)
        run.signal(signal.SIGTERM)
        assert run.end().code in {143, -signal.SIGTERM}
        assert lab.call("shutdown", "--job-id", name).code in {0, 3}, "nobody is waited for"


def test_at_a_terminal_it_says_one_line(lab: Lab, job: str) -> None:
    """A person who watches a terminal sees the command's own output, and one line that says why it ended."""
    main, side = pty.openpty()
    run = subprocess.Popen(
        [COORD, "run", "--job-id", job, "--", "sh", "-c", "echo hello; exec sleep 600"],
        stdin=side,
        stdout=side,
        stderr=side,
        env={**surroundings(), **lab.environment, MARK: lab.token, "COORD_HOST": "a"},
        start_new_session=True,
    )
    os.close(side)
    until(lambda: (lab.status(job) or {"agents": ()})["agents"], "the agent")
    assert lab.call("shutdown", "--job-id", job, "--reason", "lunch").code == 0
    assert run.wait(30) == 143
    shown = os.read(main, 65536).decode().splitlines()
    os.close(main)
    assert shown[0] == "hello"
    assert len(shown) == 2
    assert shown[1].startswith(f"coord: job {job} was shut down by ")
    assert "lunch" in shown[1]


def test_a_grandchild_that_holds_stderr_does_not_hide_a_death(lab: Lab, job: str) -> None:
    """Death is seen by the process, not by the end of its output: a grandchild may hold the pipe for ever."""
    run = lab.start("run", "--job-id", job, "--", "sh", "-c", "setsid sleep 600 & echo dying >&2; exit 3")
    assert run.end().code == 3
    assert lab.status(job)["first_failure"]["stderr_tail"] == ["dying"]


def test_only_the_last_lines_of_stderr_are_kept(lab: Lab, job: str) -> None:
    """The report of the first failure has the last 20 lines, and long ones are cut."""
    script = "import sys; [print(f'line {i}', file=sys.stderr) for i in range(100)]; sys.exit('x' * 5000)"
    assert lab.start("run", "--job-id", job, "--", sys.executable, "-c", script).end().code == 1
    tail = lab.status(job)["first_failure"]["stderr_tail"]
    assert tail[:2] == ["line 81", "line 82"]
    assert (len(tail), len(tail[-1])) == (20, 500)


def test_a_reader_that_does_not_read_holds_up_nothing(lab: Lab, job: str) -> None:
    """Bounded: a full pipe behind our stderr delays neither the stop nor the end for long."""
    run = lab.start("run", "--job-id", job, "--grace", "1s", "--", "sh", "-c", "yes >&2")
    until(lambda: (lab.status(job) or {"agents": ()})["agents"], "the agent")
    ended = lab.call("shutdown", "--job-id", job, "--json")
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    assert run.popen.stderr
    assert run.popen.wait(30) == 143


def test_after_ctrl_c_it_says_what_it_waits_for(lab: Lab, job: str) -> None:
    """A person who pressed Ctrl-C and is still waiting learns how long it may take, and what a second Ctrl-C does."""
    run = deaf(lab, job, "--grace", "10m", "--label", "rank0")
    run.signal(signal.SIGINT)
    assert run.popen.stderr
    assert (
        run.popen.stderr.readline() == b"coord: asked rank0 to leave; it has 10m left. Ctrl-C again kills it at once\n"
    )
    run.signal(signal.SIGINT)
    assert run.end().code == 137
