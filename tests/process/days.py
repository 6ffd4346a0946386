"""A bad day: a real program under the real `coord run`, stopped by the real `coord shutdown --json`, and what is left.

What is left is found without any code of coord: by the lab's mark in the environment; by pid and start time, for those
whose environment can't be read; and by the end of the output, which comes when the last one that holds it is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.harness import COORD, NASTY, until

if TYPE_CHECKING:
    from tests.harness import Ended, Lab, Started

MARGIN_S = 20.0  # bounded means bounded, also on a loaded machine
SHORT = ("--grace", "500ms", "--kill-wait", "5s")  # for those that won't go when asked
DEAD = "ZX"
HOST = "here"


def nasty(name: str, argument: str = "") -> tuple[str, ...]:
    """Give the command of one of the nasty programs."""
    return (sys.executable, NASTY, name, argument)


def unguarded(guard: str) -> tuple[str, ...]:
    """Give what stands for `coord`, but for one of its guards."""
    return (sys.executable, str(Path(__file__).with_name("unguarded.py")), guard)


@dataclass(frozen=True)
class Witness:
    """One process, known by pid and start time: whether it lives does not depend on what it shows of itself."""

    pid: int
    start_ticks: str

    @classmethod
    def of(cls, pid: int) -> Witness:
        """Remember a process that is alive now."""
        return cls(pid, _stat(pid)[19])

    @property
    def alive(self) -> bool:
        """A zombie is dead, unless other threads of it run."""
        try:
            fields = _stat(self.pid)
        except OSError:
            return False
        return fields[19] == self.start_ticks and (fields[0] not in DEAD or int(fields[17]) > 1)

    def kill(self) -> None:
        """Kill it: held first, looked at again, then killed."""
        with suppress(OSError):
            handle = os.pidfd_open(self.pid)
            try:
                if self.alive:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)


@dataclass(frozen=True)
class Stopped:
    """What came of a shutdown."""

    shutdown: Ended
    code: int  # of `coord run`

    @property
    def agent(self) -> Any:
        """The agent of the day's program."""
        return next(agent for agent in self.shutdown.json["agents"] if agent["host"] == HOST)

    @property
    def processes(self) -> list[dict[str, Any]]:
        """What is said of each process; the command's own first."""
        processes: list[dict[str, Any]] = self.agent["processes"]
        return processes

    @property
    def outcomes(self) -> dict[str, int]:
        """How many came to which end."""
        return dict(Counter(process["outcome"] for process in self.processes))

    @property
    def verdict(self) -> str:
        """Clean, forced, incomplete."""
        verdict: str = self.shutdown.json["verdict"]
        return verdict


@dataclass
class Day:
    """One program, from its start to its end."""

    lab: Lab
    job: str
    proof: str  # that is to be given
    witnesses: list[Witness] = field(default_factory=list)
    run: Started = field(init=False, repr=False)
    output: Ended = field(init=False, repr=False)  # of a day that was stopped

    def begin(self, *command: str, ready: bool = True, through: tuple[str, ...] = (COORD,)) -> None:
        """Start the program, and wait until it is as told and the record has it. `through`: what stands for `coord`."""
        options = ("--job-id", self.job, "--log-level", "error", "--grace", "1m")
        program, *words = through
        self.follow(self.lab.start(*words, "run", *options, "--", *command, host=HOST, program=program), ready=ready)
        until(lambda: self._children() or not self.run.running, "the record to have the program")

    def follow(self, started: Started, *, ready: bool = True) -> None:
        """Take a program that somebody else started; it names those of its processes that are hard to find."""
        self.run = started
        assert started.popen.stdout
        while ready and (line := started.popen.stdout.readline()) != b"ready\n":
            assert line, "it ended before it was ready"
            self.witnesses.append(Witness.of(int(line)))

    @property
    def child_pid(self) -> int:
        """The command."""
        pid: int = self._children()[0]["pid"]
        return pid

    @property
    def left(self) -> list[Any]:
        """Whatever of it is alive: found by its mark, or known by name."""
        return [*self.lab.left().items(), *(witness for witness in self.witnesses if witness.alive)]

    def shut_down(self, *options: str) -> Stopped:
        """Shut the job down, and wait until `coord run` has ended. Bounded, whatever is in it."""
        began_s = time.monotonic()
        shutdown = self.lab.call("shutdown", "--job-id", self.job, "--json", *options)
        plan_s = sum(step["wait_s"] for step in shutdown.json["request"]["plan"])
        code = self.run.popen.wait(MARGIN_S)
        assert time.monotonic() - began_s < plan_s + MARGIN_S
        return Stopped(shutdown, code)

    def stop(self, *options: str) -> Stopped:
        """Shut the job down, and hold it to its word: all is gone, with proof, and outcomes agree with the verdict."""
        stopped = self.shut_down(*options)
        assert stopped.shutdown.code == 0, stopped.shutdown.out
        self.output = self.run.end(MARGIN_S)  # to the end of it: nobody holds it open any more
        assert len(self.output.said) == 1, f"one line says why it ended: {self.output.err[-2000:]}"
        assert self.left == []
        assert (stopped.agent["state"], stopped.agent["proof"]) == ("stopped", self.proof)
        assert stopped.verdict == ("forced" if stopped.outcomes.get("killed") else "clean")
        assert {p["signal"] for p in stopped.processes if p["outcome"] == "killed"} <= {"SIGKILL"}
        assert {p["signal"] for p in stopped.processes if p["outcome"] == "terminated"} <= {"SIGTERM", None}
        return stopped

    def close(self) -> None:
        """End what the mark does not find; the lab ends the rest."""
        for witness in self.witnesses:
            witness.kill()
        until(lambda: not any(witness.alive for witness in self.witnesses), "what was killed to be gone")

    def _children(self) -> list[Any]:
        agents = (self.lab.status(self.job) or {"agents": ()})["agents"]
        return [process for agent in agents if agent["host"] == HOST for process in agent["processes"]]


def process_state(pid: int) -> str:
    """Give its letter in proc(5)."""
    return _stat(pid)[0]


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
