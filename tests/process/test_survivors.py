"""Processes that SIGKILL does not end: told as survivors, on time, and by name; everybody else is gone."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness import kill, until
from tests.process.conftest import NO_CGROUP
from tests.process.days import SHORT, Day, nasty, unguarded
from workers.cgroups import home

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import Lab
    from tests.process.days import Stopped

NOBODY = 65534
BRIEF = ("--grace", "300ms", "--kill-wait", "500ms")


@dataclass(frozen=True)
class Freezer:
    """A group of cgroup v1's freezer: what is frozen there is not ended by SIGKILL before it is thawed."""

    group: Path

    def freeze(self, pid: int) -> None:
        """Freeze a process: now it is as one that waits for a disk which does not answer."""
        (self.group / "cgroup.procs").write_text(str(pid))
        (self.group / "freezer.state").write_text("FROZEN")
        until(lambda: (self.group / "freezer.state").read_text() == "FROZEN\n", "it to be frozen")

    def thaw(self) -> None:
        """Let it go on, and wait until nobody is left in the group."""
        (self.group / "freezer.state").write_text("THAWED")
        until(lambda: not (self.group / "cgroup.procs").read_text(), "who was thawed to be gone")


@pytest.fixture
def freezer() -> Iterator[Freezer]:
    """A group of its own; thawed and removed afterwards."""
    mounted = freezer_mount()
    if os.geteuid() or mounted is None:
        pytest.skip("a process that can't be killed is made with the freezer of cgroup v1, and by root")
    freezer = Freezer(Path(tempfile.mkdtemp(prefix="coord-test-", dir=mounted)))
    yield freezer
    freezer.thaw()
    freezer.group.rmdir()


def freezer_mount() -> str | None:
    """Find where the freezer of cgroup v1 is mounted; see proc_pid_mountinfo(5)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        kind, _, options = source.split()
        if kind == "cgroup" and "freezer" in options.split(","):
            return mount.split()[4]
    return None


def check_told(stopped: Stopped, pid: int) -> None:
    """The survivor is named, nothing is proved, and the exit codes say so."""
    assert (stopped.shutdown.code, stopped.verdict) == (5, "incomplete")
    assert (stopped.agent["state"], stopped.agent["proof"], stopped.agent["all_gone_ms"]) == ("stopped", None, None)
    (process,) = stopped.processes
    assert (process["pid"], process["outcome"], process["exit_code"]) == (pid, "survived", None)
    assert stopped.code == 137


def test_an_uninterruptible_process_is_told_as_a_survivor(day: Day, freezer: Freezer) -> None:
    """SIGKILL does not act on it: the agent waits as its plan says, no longer, and claims nothing; others are gone."""
    other = day.lab.run(day.job, "sleep", "600", host="there")
    day.begin(*nasty("deaf"))
    pid = day.child_pid
    freezer.freeze(pid)
    stopped = day.shut_down(*BRIEF)
    check_told(stopped, pid)
    assert other.end().code == 143
    assert list(day.lab.left()) == [pid], "it is there, and all others are gone"
    freezer.thaw()
    assert day.lab.left() == {}, "the signal was waiting for it"
    assert f"process {pid} " in day.run.end().err


def test_without_a_deadline_an_uninterruptible_process_holds_up_its_agent(plain_day: Day, freezer: Freezer) -> None:
    """The negative control: SIGKILL and wait, as everybody writes it, ends when the process does, and no earlier."""
    plain_day.begin(*nasty("deaf"), through=unguarded("endless"))
    freezer.freeze(plain_day.child_pid)
    assert plain_day.lab.call("shutdown", "--job-id", plain_day.job, *BRIEF, "--timeout", "3s").code == 6
    assert plain_day.run.running, "its plan ended long ago"
    freezer.thaw()
    assert plain_day.run.end().code == 137


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that another user may look into, taken away afterwards; programs there may be setuid."""
    if os.geteuid() or "NoNewPrivs:\t1" in Path("/proc/self/status").read_text():
        pytest.skip("becoming another user, and a setuid program, need root and its right to more rights")
    with tempfile.TemporaryDirectory(prefix="coord-test-") as name:
        folder = Path(name)
        if os.statvfs(folder).f_flag & os.ST_NOSUID:
            pytest.skip(f"{folder} is mounted nosuid")
        folder.chmod(0o755)
        yield folder


def install(program: Path, folder: Path) -> str:
    """Give a program of root's, which becomes root for whoever runs it."""
    path = Path(shutil.copy(program, folder))
    path.chmod(0o4755)
    return str(path)


def as_nobody(folder: Path) -> tuple[str, ...]:
    """Give what stands for `coord`, run by a user who may open this Python and this server, and signal nobody else."""
    own = folder / "runtime"
    own.mkdir(mode=0o700)
    os.chown(own, NOBODY, NOBODY)
    user = ("--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
    files = ("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override")
    return ("env", f"COORD_RUNTIME_DIR={own}", "setpriv", *user, *files, sys.executable, "-m", "coord")


def test_who_may_not_be_signalled_is_told_as_a_survivor(plain_day: Day, folder: Path, built: Path) -> None:
    """A command that became root, under an agent that is not: refused, told as it is, and nobody waits for long."""
    plain_day.begin(install(built / "stays", folder), through=as_nobody(folder))
    pid = plain_day.child_pid
    stopped = plain_day.shut_down(*BRIEF)
    check_told(stopped, pid)
    assert list(plain_day.lab.left()) == [pid]
    kill(pid, plain_day.lab.token)
    assert "signal.refused" in plain_day.run.end().err
    assert plain_day.left == []


def test_the_same_program_goes_where_its_agent_has_the_right(day: Day, folder: Path, built: Path) -> None:
    """The negative control: what made it a survivor was the missing right alone."""
    day.begin(install(built / "stays", folder))
    assert day.stop().outcomes == {"terminated": 1}


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A cgroup that was given to another user, as systemd gives one to each who is logged in."""
    if NO_CGROUP:
        pytest.skip(NO_CGROUP)
    group = Path(tempfile.mkdtemp(prefix="coord-test-", dir=home()))
    for each in (group, group / "cgroup.procs"):
        os.chown(each, NOBODY, NOBODY)
    yield group
    until(lambda: not (group / "cgroup.procs").read_text(), "everybody to have left it")
    group.rmdir()


def test_in_a_cgroup_of_ones_own_even_that_is_ended(
    lab: Lab, job: str, folder: Path, delegated: Path, built: Path
) -> None:
    """Whose cgroup it is may kill all in it, whoever they have become: asked in vain, killed all the same."""
    lab.environment["COORD_CONTAINMENT"] = "cgroup"
    day = Day(lab, job, "cgroup")
    enter = ("sh", "-c", f'echo $$ > {delegated}/cgroup.procs && exec "$@"', "sh")
    day.begin(install(built / "stays", folder), through=(*enter, *as_nobody(folder)))
    assert day.stop(*SHORT).outcomes == {"killed": 1}
