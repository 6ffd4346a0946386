"""Starts the real command, and sees to it that nothing of a test is left behind.

Everything that a test starts carries a token in its environment; /proc is searched for it without any code of coord.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from coord.embedded import ensure
from coord.record import Record
from coord.render.document import job_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coord.ledger import Ledger

MARK = "COORD_TEST_MARK"
COORD = str(Path(sys.executable).with_name("coord"))
NASTY = str(Path(__file__).with_name("nasty.py"))
WAIT_S = 30.0  # for facts that a loaded machine may be slow to bring about


SWEEPERS = ("-m workers.sweep", "-m workers.obituary")


def until(fact: Callable[[], Any], what: str, wait_s: float = WAIT_S) -> Any:
    """Wait for a fact and give it back; says what did not come true."""
    end_s = time.monotonic() + wait_s
    while time.monotonic() < end_s:
        if found := fact():
            return found
        time.sleep(0.005)  # between two looks, not in place of one
    raise AssertionError(f"not within {wait_s:g} s: {what}")


@dataclass
class Ended:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)

    @property
    def said(self) -> list[str]:
        """The lines that a person reads; log lines are JSON and left out."""
        return [line for line in self.err.splitlines() if not line.startswith("{")]


@dataclass
class Started:
    """A command that runs."""

    popen: subprocess.Popen[bytes]

    def signal(self, number: int) -> None:
        """Signal the command itself; Popen never signals a pid that it has waited for."""
        self.popen.send_signal(number)

    def end(self, wait_s: float = WAIT_S) -> Ended:
        """Wait for its end."""
        out, err = self.popen.communicate(timeout=wait_s)
        return Ended(self.popen.returncode, out.decode(errors="replace"), err.decode(errors="replace"))

    @property
    def agent_pid(self) -> int:
        """The agent: the one child of the guardian, which is the process that was started."""
        return int(Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text())

    @property
    def running(self) -> bool:
        """Tell whether it has not ended."""
        return self.popen.poll() is None


@dataclass
class Lab:
    """Runs commands against one private server, and cleans up after them."""

    environment: dict[str, str]
    ledger: Ledger
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    started: list[Started] = field(default_factory=list)

    def start(self, *args: str, host: str = "here", program: str = COORD, **environment: str) -> Started:
        """Start `coord ARGS`."""
        popen = subprocess.Popen(
            [program, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**surroundings(), **self.environment, MARK: self.token, "COORD_HOST": host, **environment},
            start_new_session=True,
        )
        self.started.append(Started(popen))
        return self.started[-1]

    def call(self, *args: str, host: str = "there", program: str = COORD, **environment: str) -> Ended:
        """Run `coord ARGS` to its end."""
        return self.start(*args, host=host, program=program, **environment).end()

    def run(self, job: str, *command: str, host: str = "here", options: tuple[str, ...] = ()) -> Started:
        """Start `coord run` and wait until the record has its child."""
        started = self.start("run", "--job-id", job, *options, "--", *command, host=host)
        until(lambda: not started.running or self._has_child(job, host), f"a child of {job} on {host}")
        return started

    def status(self, job: str) -> Any:
        """Give the job's document, read straight from the record; None when there is no such job."""
        snapshot = self.ledger.run(Record(job).snapshot())
        return job_document(snapshot) if snapshot else None

    def left(self) -> dict[int, str]:
        """Find what still runs of this lab's commands and their children."""
        return leftovers(self.token)

    def left_behind(self) -> dict[int, str]:
        """Find what a test left, once what sees to dead agents has ended, as it does by itself."""
        with contextlib.suppress(AssertionError):
            until(lambda: not any(each in command for command in self.left().values() for each in SWEEPERS), "its end")
        return self.left()

    def close(self) -> None:
        """End what a failed test left; by handle, never by number."""
        for started in self.started:
            if started.running:
                started.popen.kill()
                started.popen.wait()
            for stream in (started.popen.stdout, started.popen.stderr):
                if stream:
                    stream.close()
        until(lambda: not self._kill_left(), "what was killed to be gone")

    def _kill_left(self) -> dict[int, str]:
        """Kill what is left, and give what is left then: some bring forth others while they are killed."""
        for pid in self.left():
            kill(pid, self.token)
        return self.left()

    def _has_child(self, job: str, host: str) -> bool:
        agents = (self.status(job) or {"agents": ()})["agents"]
        return any(agent["host"] == host and agent["state"] == "running" and agent["processes"] for agent in agents)


@contextlib.contextmanager
def private_server() -> Iterator[str]:
    """Give the URL of an embedded server in a directory of its own; it goes by itself after its last client."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(prefix="coord-test-") as folder:
        patch.setenv("COORD_RUNTIME_DIR", folder)
        patch.setenv("COORD_EMBEDDED_IDLE_S", "1")
        url = ensure()
        path = Path(url.removeprefix("unix://"))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            yield url
        until(lambda: not path.exists() and not leftovers_in(folder), "the embedded server to go by itself")


def surroundings() -> dict[str, str]:
    """Give this process's environment without what would set coord's options."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COORD_")}


def leftovers(token: str) -> dict[int, str]:
    """Give pid -> command of every live process whose environment holds the token.

    Nobody is there when two looks find nobody: one that forks and leaves during a look can be missed by it.
    """
    for _ in range(2):
        if found := {pid: _command(pid) for pid in _pids() if _marked(pid, token) and not _dead(pid)}:
            return found
    return {}


def leftovers_in(folder: str) -> list[int]:
    """Give the pids of live processes that name this folder on their command line."""
    return [pid for pid in _pids() if folder in _command(pid) and not _dead(pid)]


def kill(pid: int, token: str) -> None:
    """Kill a leftover: held first, looked at again, then killed."""
    with contextlib.suppress(ProcessLookupError, OSError):
        handle = os.pidfd_open(pid)
        try:
            if _marked(pid, token):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def end_with_all(popen: subprocess.Popen[Any], token: str) -> None:
    """Kill a process, and whatever else has the token, until nobody is left."""
    if popen.poll() is None:
        popen.kill()
        popen.wait()

    def gone() -> bool:
        for pid in leftovers(token):
            kill(pid, token)
        return not leftovers(token)

    until(gone, "what was killed to be gone")


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _marked(pid: int, token: str) -> bool:
    try:
        return f"{MARK}={token}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return "?"
