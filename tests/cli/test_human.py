"""What a person reads: the key facts are there, in few lines, and nothing in them is taken for markup."""

from __future__ import annotations

import os
import pty
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.harness import COORD, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness import Lab, Started

COLUMNS = 80


def row(out: str, name: str) -> list[str]:
    """The line of the table that begins with this word, as words."""
    (found,) = (line for line in out.splitlines() if line.split()[:1] == [name])
    return found.split()


def test_status_of_a_job_that_runs(lab: Lab, job: str) -> None:
    """The first line says what the job is doing and where; the table has each host with what runs on it."""
    started = lab.run(job, "sleep", "60")
    ended = lab.call("status", "--job-id", job)
    first, *_ = ended.out.splitlines()
    assert (ended.code, ended.err) == (0, "")
    assert first == f"job {job}: running on 1 host"
    assert row(ended.out, "here")[2:5] == ["running", "1", "running"]
    started.popen.terminate()
    started.end()


def test_status_of_a_failed_job(lab: Lab, job: str) -> None:
    """A person reads the root cause first: who failed, where, how, and with which last words."""
    lab.run(
        job, "sh", "-c", "echo 'ValueError: [bold]no[/bold] such rank' >&2; exit 7", host="b", options=("--label", "r3")
    ).end()
    ended = lab.call("status", "--job-id", job)
    assert "first failure: r3 on host b (pid " in ended.out
    assert "exited with code 7" in ended.out
    assert "  | ValueError: [bold]no[/bold] such rank" in ended.out
    assert row(ended.out, "b")[2] == "stopped"


def test_shutdown_of_a_job_that_holds_out(lab: Lab, job: str, hold_out: Started) -> None:
    """The verdict's sentence says how it went, who asked by which plan, and which process held out."""
    ended = lab.call("shutdown", "--job-id", job, "--grace", "200ms", "--reason", "wrong data")
    hold_out.end()
    first, second, *_ = ended.out.splitlines()
    assert first.startswith(f"job {job}: forced: ")
    assert "none is left" in first
    assert "wrong data" in second
    assert "SIGTERM, 200ms, SIGKILL, 5s" in second
    assert "held out" in ended.out
    assert row(ended.out, "here")[2] == "stopped"
    assert any(line.startswith("coord: here: ") for line in ended.err.splitlines())
    assert f"shutdown of job {job} requested" in ended.err


def test_told_to_the_command_that_was_stopped(lab: Lab, job: str) -> None:
    """`coord run` ends with one line that says who stopped it and why."""
    started = lab.run(job, "sleep", "60")
    lab.call("shutdown", "--job-id", job, "--reason", "wrong data")
    (line,) = started.end().said
    assert job in line
    assert "wrong data" in line
    assert "@there" in line


def test_jobs(lab: Lab, job: str) -> None:
    """`coord jobs` has a line per job with its state, verdict and hosts, the newest first."""
    lab.call("run", "--job-id", f"{job}-1", "--", "true")
    lab.call("shutdown", "--job-id", f"{job}-2", "--fence")
    ended = lab.call("jobs")
    assert ended.out.splitlines()[0].split() == ["job", "state", "verdict", "agents", "hosts", "since"]
    assert row(ended.out, f"{job}-1")[1:5] == ["stopped", "-", "1", "there"]
    assert row(ended.out, f"{job}-2")[1:4] == ["stopped", "clean", "0"]
    assert ended.out.index(f"{job}-2") < ended.out.index(f"{job}-1")
    assert row(lab.call("status").out, f"{job}-2") == row(ended.out, f"{job}-2")
    assert len(lab.call("jobs", "--count", "1").out.splitlines()) == 2


def test_agents(lab: Lab, job: str) -> None:
    """`coord agents` has a line per agent that runs, and says so when none does."""
    started = lab.run(job, "sleep", "60", options=("--label", "rank3"))
    ended = lab.call("agents", "--job-id", job)
    assert ended.out.splitlines()[0].split() == ["host", "agent", "job", "state", "label", "command"]
    assert row(ended.out, "here")[2:] == [job, "running", "rank3", "sleep", "60"]
    started.popen.terminate()
    started.end()
    ended = lab.call("agents", "--job-id", job)
    assert (ended.code, ended.out, ended.err) == (0, "", "coord: no agent is running\n")


def test_doctor(lab: Lab, tmp_path: Path) -> None:
    """A person reads first whether this host is fit, then what is wrong and what to do, then what is well."""
    tmp_path.chmod(0o755)
    ended = lab.call("doctor", "--host", "[b]", COORD_RUNTIME_DIR=str(tmp_path))
    first, second, third, *_ = ended.out.splitlines()
    assert (ended.code, ended.err) == (1, "")
    assert first.startswith("host [b] is not fit for coord: 1 failure")
    assert second.split()[:2] == ["fail", "runtime-dir"]
    assert third.split()[:2] == ["->", "Run"]
    assert row(ended.out, "fail") == second.split()
    tmp_path.chmod(0o700)
    ended = lab.call("doctor", COORD_RUNTIME_DIR=str(tmp_path))
    assert ended.code == 0
    assert ended.out.startswith("host there is fit for coord: ")
    assert len(ended.out.splitlines()) <= 30


@pytest.mark.parametrize("text", ["[red]x[/red]", "[/]", "[link=http://x]y[/link]", ":boom:", "50%", "\\[bold]"])
def test_nothing_is_taken_for_markup(lab: Lab, job: str, text: str) -> None:
    """Names are shown as they are: a label or a reason with brackets neither colours nor breaks the table."""
    name = f"{job}{text}"
    started = lab.run(name, "sleep", "60", options=("--label", text))
    ended = lab.call("agents", "--job-id", name)
    assert text in ended.out
    assert name in lab.call("jobs").out
    assert text in lab.call("shutdown", "--job-id", name, "--reason", text).out
    started.end()


def test_control_signs_of_a_program_stay_in_its_output(lab: Lab, job: str) -> None:
    """What a failed program wrote to stderr is shown without its control signs: it moves nobody's cursor."""
    lab.call("run", "--job-id", job, "--", "sh", "-c", r"printf '\033[2Jcleared\007\n' >&2; exit 1")
    shown = lab.call("status", "--job-id", job).out
    assert "cleared" in shown
    assert "\x1b" not in shown
    assert "\a" not in shown


def test_terminal(lab: Lab, job: str, server: str) -> None:
    """On a terminal of 80 columns no line is wider, and no name is cut off."""
    started = lab.run(job, "sleep", "60")
    mine, theirs = pty.openpty()
    with subprocess.Popen(
        [COORD, "status", "--job-id", job],
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COORD_REDIS_URL": server, "COLUMNS": str(COLUMNS), "TERM": "dumb", "NO_COLOR": "1"},
    ) as shown:
        assert shown.wait(30) == 0
    os.close(theirs)
    text = os.read(mine, 65536).decode()
    os.close(mine)
    assert max(len(line) for line in text.splitlines()[1:]) <= COLUMNS
    assert lab.status(job)["agents"][0]["agent_id"].split("-")[0] in text
    started.popen.terminate()
    started.end()
    until(lambda: not started.running, "the command to end")
