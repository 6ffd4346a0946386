"""The main job through the real command: agents on several hosts, a request, the end of everything, one verdict."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.harness import NASTY, kill, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness import Lab

QUIET = ("--log-level", "error")


def test_three_hosts_are_stopped_and_proved_gone(lab: Lab, job: str) -> None:
    """One shutdown reaches every host; it ends clean, with proof from each, and each says why in one line."""
    runs = [lab.run(job, "sleep", "600", host=host, options=QUIET) for host in "abc"]
    began_s = time.monotonic()
    ended = lab.call("shutdown", "--job-id", job, "--reason", "deploy", "--json")
    took_s = time.monotonic() - began_s
    assert (ended.code, ended.json["verdict"], ended.json["state"]) == (0, "clean", "stopped")
    assert [agent["host"] for agent in ended.json["agents"]] == ["a", "b", "c"]
    assert {agent["proof"] for agent in ended.json["agents"]} <= {"cgroup", "subreaper"}
    assert took_s < ended.json["request"]["plan"][0]["wait_s"], "it waited, with nothing left to wait for"
    for run in runs:
        end = run.end()
        assert end.code == 143
        assert len(end.err.splitlines()) == 1
        assert "deploy" in end.err


def test_a_failure_stops_the_other_host_and_is_named(lab: Lab, job: str) -> None:
    """Fail-fast: a failing command stops the job everywhere; it is the first failure, and what it caused is none."""
    other = lab.run(job, "sleep", "600", host="b")
    failing = lab.start(
        "run", "--job-id", job, "--label", "rank0", "--", "sh", "-c", "echo bad luck >&2; exit 7", host="a"
    )
    assert failing.end().code == 7
    assert other.end().code == 143
    status = until(lambda: (found := lab.status(job))["verdict"] and found, "the verdict")
    failure = status["first_failure"]
    assert (failure["host"], failure["label"], failure["exit_code"], failure["signal"]) == ("a", "rank0", 7, None)
    assert failure["stderr_tail"] == ["bad luck"]
    assert (status["verdict"], status["request"]["cause"]) == ("clean", "failure")
    a, b = status["agents"]
    assert failure["pid"] == a["processes"][0]["pid"]
    assert [process["outcome"] for process in b["processes"]] == ["terminated"]


def test_an_ignored_failure_stops_nobody_else(lab: Lab, job: str) -> None:
    """The negative control of fail-fast: with the policy off, the other host goes on."""
    other = lab.run(job, "sleep", "600", host="b")
    failing = lab.start("run", "--job-id", job, "--on-failure", "ignore", "--", "sh", "-c", "exit 7", host="a")
    assert failing.end().code == 7
    status = lab.status(job)
    assert other.running
    assert (status["state"], status["request"], status["first_failure"]) == ("running", None, None)
    assert lab.call("shutdown", "--job-id", job).code == 0
    assert other.end().code == 143


def test_a_hundred_hold_outs_take_one_grace(lab: Lab, job: str) -> None:
    """100 processes that ignore SIGTERM under four agents: one grace in all, and each one listed as killed."""
    grace_s, count = 2.0, 25
    runs = [
        lab.run(job, sys.executable, NASTY, "deaf_family", str(count - 1), host=host, options=QUIET) for host in "abcd"
    ]
    until(lambda: sum("sleep" in command for command in lab.left().values()) == 4 * (count - 1), "all hold-outs")
    ended = lab.call("shutdown", "--job-id", job, "--grace", f"{grace_s}s", "--json")
    assert (ended.code, ended.json["verdict"]) == (0, "forced")
    outcomes = [process["outcome"] for agent in ended.json["agents"] for process in agent["processes"]]
    assert outcomes == ["killed"] * 4 * count
    assert all(agent["all_gone_ms"] < 2 * grace_s * 1000 for agent in ended.json["agents"])
    assert [run.end().code for run in runs] == [137] * 4


def test_processes_may_clean_up(lab: Lab, job: str, tmp_path: Path) -> None:
    """A process that handles SIGTERM has its grace, and is not killed when it uses little of it."""
    note = tmp_path / "note"
    run = lab.run(job, sys.executable, NASTY, "cleans_up", str(note))
    until(lambda: lab.status(job)["agents"][0]["processes"], "the child")
    # ready is said on stdout, which is the command's own: passed through untouched
    assert run.popen.stdout
    assert run.popen.stdout.readline() == b"ready\n"
    ended = lab.call("shutdown", "--job-id", job, "--json")
    assert ended.json["verdict"] == "clean"
    assert note.read_text() == "cleaned up\n"
    assert run.end().code == 143


@pytest.mark.parametrize(("program", "verdict"), [("family", "clean"), ("stopped", "clean"), ("reborn", "forced")])
def test_the_whole_tree_goes(lab: Lab, job: str, program: str, verdict: str) -> None:
    """setsid, double fork, SIGSTOP, and a process that brings forth another on SIGTERM: all seen gone."""
    run = lab.run(job, sys.executable, NASTY, program, "5", options=("--grace", "1s"))
    if program != "stopped":
        assert run.popen.stdout
        assert run.popen.stdout.readline() == b"ready\n"
    ended = lab.call("shutdown", "--job-id", job, "--json")
    assert (ended.code, ended.json["verdict"]) == (0, verdict)
    run.end()
    assert lab.left() == {}


def test_what_a_command_leaves_behind_is_stopped(lab: Lab, job: str) -> None:
    """A command that exits 0 and leaves a daemon: the daemon is stopped, the exit code stays the command's own."""
    ended = lab.run(job, sys.executable, NASTY, "daemon", options=QUIET).end()
    assert ended.code == 0
    assert "left 1 more of its processes" in ended.err
    assert lab.left() == {}
    assert lab.status(job)["request"] is None


def test_now_does_not_ask(lab: Lab, job: str, tmp_path: Path) -> None:
    """--now kills at once, also what would have cleaned up."""
    note = tmp_path / "note"
    run = lab.run(job, sys.executable, NASTY, "cleans_up", str(note))
    ended = lab.call("shutdown", "--job-id", job, "--now", "--json")
    assert (ended.code, ended.json["verdict"]) == (0, "forced")
    assert run.end().code == 137
    assert not note.exists()


def test_from_many_terminals_at_once_it_is_one_shutdown(lab: Lab, job: str) -> None:
    """Any number of requests at once converge: one request, one verdict, success for everybody."""
    run = lab.run(job, "sleep", "600")
    calls = [lab.start("shutdown", "--job-id", job, "--json") for _ in range(5)]
    documents = [call.end() for call in calls]
    assert {ended.code for ended in documents} == {0}
    assert len({ended.json["request"]["id"] for ended in documents}) == 1
    assert run.end().code == 143
    again = lab.call("shutdown", "--job-id", job, "--json")
    assert (again.code, again.json["verdict"]) == (0, "clean")


def test_a_second_request_can_only_hurry(lab: Lab, job: str) -> None:
    """A shorter grace ends the wait sooner; a longer one afterwards changes nothing."""
    run = lab.run(job, sys.executable, NASTY, "deaf", "")
    assert run.popen.stdout
    run.popen.stdout.readline()
    first = lab.call("shutdown", "--job-id", job, "--grace", "10m", "--no-wait", "--json")
    assert (first.code, first.json["verdict"]) == (0, None)
    assert lab.call("shutdown", "--job-id", job, "--timeout", "100ms").code == 6
    longer = lab.call("shutdown", "--job-id", job, "--grace", "20m", "--no-wait", "--json")
    assert longer.json["request"]["plan"][0]["wait_s"] == 600
    hurried = lab.call("shutdown", "--job-id", job, "--grace", "1s", "--json")
    assert (hurried.code, hurried.json["verdict"]) == (0, "forced")
    assert hurried.json["request"]["plan"][0]["wait_s"] < 60
    assert run.end().code == 137


def test_nothing_starts_after_the_request(lab: Lab, job: str, tmp_path: Path) -> None:
    """Fenced: once a job was shut down, or forbidden in advance, a run of it is refused and says by whom and when."""
    assert lab.call("shutdown", "--job-id", job, "--fence", "--reason", "moved to new cluster").code == 0
    mark = tmp_path / "started"
    ended = lab.call("run", "--job-id", job, "--", "touch", str(mark))
    assert ended.code == 7
    assert "moved to new cluster" in ended.said[0]
    assert "@there at 20" in ended.said[0]
    assert not mark.exists()


def test_a_dry_run_changes_nothing(lab: Lab, job: str) -> None:
    """--dry-run shows who would be stopped, and stops nobody."""
    run = lab.run(job, "sleep", "600", host="a")
    ended = lab.call("shutdown", "--job-id", job, "--dry-run", "--json")
    assert (ended.code, ended.json["state"], ended.json["request"]) == (0, "running", None)
    assert run.running
    run.signal(signal.SIGTERM)
    assert run.end().code == 143


def test_a_host_that_died_is_never_called_stopped(lab: Lab, job: str) -> None:
    """Truthful: where agent and guardian both died, nothing is proved: the verdict is incomplete and names the host."""
    gone = lab.run(job, sys.executable, NASTY, "deaf", host="a")  # what is not deaf goes by the kernel's own signal
    assert gone.popen.stdout
    gone.popen.stdout.readline()
    good = lab.run(job, "sleep", "600", host="b")
    gone.signal(signal.SIGSTOP)  # so that the guardian sees nothing of its agent's death: both die at once
    kill(gone.agent_pid, lab.token)
    gone.popen.kill()
    gone.popen.wait()
    ended = lab.call("shutdown", "--job-id", job, "--json")
    assert (ended.code, ended.json["verdict"], ended.json["state"]) == (5, "incomplete", "stopping")
    assert [agent["state"] for agent in ended.json["agents"]] == ["lost", "stopped"]
    assert "host a" in lab.call("shutdown", "--job-id", job).out
    assert good.end().code == 143
    orphan = lab.left()
    assert len(orphan) == 1, "the child of the agent that died is the reason why nothing better may be said"
    lab.close()
