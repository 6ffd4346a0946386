"""A sandbox without pidfds (seccomp): what is promised holds all the same, on pids that were looked at just before."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests import seccomp
from tests.harness import COORD, NASTY, kill, until
from workers import signals
from workers.handles import Handle
from workers.proc import read_stat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import Ended, Lab, Started

RULES = ("pidfd_open=ENOSYS", "pidfd_open=EPERM", "pidfd_send_signal=EPERM")
TRY = "import os, signal; signal.pidfd_send_signal(os.pidfd_open(os.getpid()), 0)"

pytestmark = pytest.mark.skipif(seccomp.WHY_NOT is not None, reason=str(seccomp.WHY_NOT))


@pytest.fixture(params=RULES)
def rule(request: pytest.FixtureRequest) -> str:
    """One of the ways in which sandboxes refuse."""
    return str(request.param)


def run(lab: Lab, job: str, *words: str, rule: str, program: str, count: str = "3") -> Started:
    """Start `coord run` of a nasty program under the filter, and wait until it is as told."""
    command = (COORD, "run", "--job-id", job, *words, "--", sys.executable, NASTY, program, count)
    started = lab.start(*seccomp.words(*((rule,) if rule else ())), *command, program=sys.executable)
    assert started.popen.stdout
    assert started.popen.stdout.readline() == b"ready\n"
    until(lambda: lab._has_child(job, "here"), "the record to have the child")
    return started


def said_missing(ended: Ended) -> int:
    """Count the log lines that say so."""
    return sum('"pidfd.missing"' in line for line in ended.err.splitlines())


def test_the_filter_refuses(rule: str) -> None:
    """The negative control of all below: under the filter one of the two calls fails, and without it none does."""
    tried = [sys.executable, "-c", TRY]
    assert subprocess.run(tried, check=False).returncode == 0
    refused = subprocess.run(
        [sys.executable, *seccomp.words(rule), *tried], check=False, stderr=subprocess.PIPE, text=True
    )
    assert refused.returncode == 1
    assert os.strerror(getattr(errno, rule.partition("=")[2])) in refused.stderr.splitlines()[-1]


@pytest.mark.usefixtures("containment")
def test_a_family_leaves_when_asked(lab: Lab, job: str, rule: str) -> None:
    """A whole tree is asked, awaited and proved to be gone; the log says once that pidfds are missing."""
    started = run(lab, job, "--grace", "30s", rule=rule, program="family")
    ended = lab.call("shutdown", "--job-id", job, "--json")
    assert (ended.code, ended.json["verdict"]) == (0, "clean"), ended.err
    assert Counter(each["outcome"] for each in ended.json["agents"][0]["processes"]) == {"terminated": 6}
    stopped = started.end()
    assert (stopped.code, said_missing(stopped)) == (143, 1), stopped.err
    assert lab.left() == {}


@pytest.mark.usefixtures("containment")
def test_hold_outs_are_killed(lab: Lab, job: str, rule: str) -> None:
    """Who takes no notice of SIGTERM is killed at the deadline, with all its children."""
    started = run(lab, job, "--grace", "300ms", rule=rule, program="deaf_family")
    ended = lab.call("shutdown", "--job-id", job, "--json")
    assert (ended.code, ended.json["verdict"]) == (0, "forced"), ended.err
    assert Counter(each["outcome"] for each in ended.json["agents"][0]["processes"]) == {"killed": 4}
    stopped = started.end()
    assert (stopped.code, said_missing(stopped)) == (137, 1), stopped.err
    assert lab.left() == {}


def test_a_signal_to_the_guardian_arrives(lab: Lab, job: str, rule: str) -> None:
    """The guardian forwards to its agent, whose pid is its own until it is waited for."""
    started = run(lab, job, rule=rule, program="family")
    started.signal(signal.SIGTERM)
    assert started.end().code == 143
    assert lab.left() == {}


def test_a_dead_agents_family_is_stopped(lab: Lab, job: str, rule: str) -> None:
    """The guardian takes over without pidfds, too."""
    started = run(lab, job, rule=rule, program="family")
    kill(started.agent_pid, lab.token)
    ended = started.end()
    assert ended.code == 1
    assert "nothing of it is left" in ended.said[-1], ended.err
    until(lambda: not lab.left(), "everything to be gone")


def test_with_pidfds_nothing_is_said(lab: Lab, job: str) -> None:
    """The negative control: under a filter that refuses nothing, the log does not say that they are missing."""
    started = run(lab, job, rule="", program="family")
    assert lab.call("shutdown", "--job-id", job).code == 0
    assert said_missing(started.end()) == 0


class Stranger(NamedTuple):
    """A process that must not be hit, and a handle without pidfd on the one that had its pid before."""

    popen: subprocess.Popen[bytes]
    handle: Handle


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    """Same pid, other start time."""
    with subprocess.Popen(["/bin/sleep", "60"]) as popen:
        stat = read_stat(popen.pid)
        assert stat
        yield Stranger(popen, Handle((stat.pid, stat.start_ticks - 1), None))
        popen.kill()


def test_a_stranger_with_the_same_pid_is_not_hit(stranger: Stranger) -> None:
    """Right target only: without a pidfd, a process is looked at again right before each signal."""
    assert stranger.handle.gone()
    assert stranger.handle.send("SIGKILL") is False
    assert stranger.popen.poll() is None


def test_without_that_look_the_stranger_would_be_hit(stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: with the look off, the same signal kills the stranger."""
    monkeypatch.setattr(Handle, "_same", lambda self: self)
    assert stranger.handle.send("SIGKILL")
    assert stranger.popen.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("pid", [1, 0, -1, -2])
def test_no_bare_number_means_init_or_a_group(pid: int) -> None:
    """PID 1, our own group, everybody: refused before the kernel is asked."""
    with pytest.raises(ValueError, match="refused"):
        signals.send(pid, None, 0)
