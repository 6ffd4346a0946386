"""Runs a real program under `coord run`, stops it, and takes nobody's word for its end.

A daemon may clear its environment, so a mark there is not enough. The test process becomes a subreaper: whoever
outlives coord falls to it, whatever it did to its name, its session or its parents. And a pidfd, opened before the
stop, tells of each process whether it has ended, pidfd_open(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.harness import until

if TYPE_CHECKING:
    from tests.harness import Ended, Lab, Started

PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
GENERATIONS_MAX = 10
QUIET = ("--log-level", "error")


class Onlooker:
    """Sees the kernel's own account of who is left. Use: `with Onlooker() as onlooker`."""

    def __enter__(self) -> Self:
        """Have orphans fall to this process."""
        was = ctypes.c_int()
        _prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(was))
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._was_subreaper = was.value
        self._at_first = self._known = _children(os.getpid())
        return self

    def __exit__(self, *_error: object) -> None:
        """Kill what a failed test left, and reap it; then what falls from there."""
        for _generation in range(GENERATIONS_MAX):
            for pid in _children(os.getpid()) - self._at_first:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)  # a child that nobody has waited for: its pid means nobody else
                    os.waitpid(pid, 0)
        _prctl(PR_SET_CHILD_SUBREAPER, self._was_subreaper)

    def look_away(self) -> None:
        """Take whoever is there now for the test's own: clients, say."""
        self._known = _children(os.getpid())

    def fallen(self) -> dict[int, str]:
        """Give pid -> command of those that fell to this process since, dead or alive."""
        return {pid: _command(pid) for pid in _children(os.getpid()) - self._known}


@dataclass
class Held:
    """Processes that were there before a stop, by pidfd."""

    commands: dict[int, str]
    _pidfds: dict[int, int]

    @classmethod
    def of(cls, run: Started) -> Held:
        """Hold everything below the agent of this `coord run`."""
        pidfds = {}
        for pid in below(run):
            with contextlib.suppress(ProcessLookupError):
                pidfds[pid] = os.pidfd_open(pid)
        commands = below(run)
        for pid in set(pidfds) - set(commands):
            os.close(pidfds.pop(pid))  # gone meanwhile: the number may be a stranger's by now
        return cls({pid: commands[pid] for pid in pidfds}, pidfds)

    def left(self) -> dict[int, str]:
        """Give those that have not ended. Closes the handles."""
        poll = select.poll()
        for pidfd in self._pidfds.values():
            poll.register(pidfd, select.POLLIN)
        gone = {pidfd for pidfd, _ in poll.poll(0)}
        left = {pid: self.commands[pid] for pid, pidfd in self._pidfds.items() if pidfd not in gone}
        for pidfd in self._pidfds.values():
            os.close(pidfd)
        return left


@dataclass
class Stopped:
    """What coord and the program said of a stop that left nothing behind."""

    run: Ended
    agent: dict[str, Any]
    verdict: str
    new: dict[int, str]  # processes that were not there when it was asked for, pid -> command

    @property
    def outcomes(self) -> list[str]:
        """How the processes ended."""
        return [process["outcome"] for process in self.agent["processes"]]


@dataclass
class Stage:
    """One program under `coord run`, in one mode of containment."""

    lab: Lab
    job: str
    mode: tuple[str, ...]
    onlooker: Onlooker

    def run(self, *command: str, options: tuple[str, ...] = (), job: str | None = None) -> Started:
        """Start it, and wait until the record has it."""
        return self.lab.run(job or self.job, *command, options=(*QUIET, *self.mode, *options))

    def run_out(self, *command: str) -> Ended:
        """Start one that ends by itself; nothing of it may be left then."""
        self.onlooker.look_away()
        ended = self.lab.call("run", "--job-id", self.job, *QUIET, *self.mode, "--", *command, host="here")
        self._nobody_is_left()
        return ended

    def stop(self, run: Started, *options: str, job: str | None = None) -> Stopped:
        """Shut the job down; whatever the verdict is, nothing may be left."""
        held = Held.of(run)
        self.onlooker.look_away()
        told = self.lab.call("shutdown", "--job-id", job or self.job, "--json", *options)
        assert told.code == 0, told.err
        ended = run.end()
        assert held.left() == {}
        self._nobody_is_left()
        (agent,) = told.json["agents"]
        assert agent["proof"]
        new = {each["pid"]: each["command"] for each in agent["processes"] if each["pid"] not in held.commands}
        return Stopped(ended, agent, told.json["verdict"], new)

    def stop_clean(self, run: Started, job: str | None = None) -> Stopped:
        """Shut the job down: all of it leaves when asked, and none of it is started again."""
        stopped = self.stop(run, job=job)
        assert (stopped.verdict, stopped.run.code) == ("clean", 143), (stopped.agent, stopped.run.err)
        assert set(stopped.outcomes) <= {"terminated", "exited"}
        assert "left when asked" in stopped.run.said[-1]
        return stopped

    def _nobody_is_left(self) -> None:
        assert self.onlooker.fallen() == {}
        assert self.lab.left() == {}


def below(run: Started) -> dict[int, str]:
    """Give pid -> command of everything below the agent, as the kernel says it now."""
    found: dict[int, str] = {}
    todo = [run.agent_pid]
    while todo:
        children = _children(todo.pop()) - set(found)
        found |= {pid: _command(pid) for pid in children}
        todo += children
    return found


def main_pid(run: Started) -> int:
    """Give the pid of the command itself, while it is the only child of the agent."""
    (pid,) = _children(run.agent_pid)
    return pid


def named(run: Started, name: str, count: int) -> None:
    """Wait until at least so many processes below the agent have a command that begins like this."""
    until(lambda: sum(each.startswith(name) for each in below(run).values()) >= count, f"{count} x {name!r}")


def listens(port: int) -> bool:
    """Tell whether anybody accepts connections there."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _children(pid: int) -> set[int]:
    """Give the children of all threads of a process, dead ones too; none when it is gone."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return "?"


def _prctl(option: int, argument: Any) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, argument, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
